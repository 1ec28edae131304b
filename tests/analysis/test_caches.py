"""Caches of keys and values that grow with the stream: told by name, with what can be done."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from pulsify_onnx import pulsify
from pulsify_onnx.api import analyze
from pulsify_onnx.cli import main
from pulsify_onnx.errors import CannotStream
from testing.oracle import check, parse, rand

HEAD = (
    "agraph (float[B,T,8] x, float[B,P,8] past_k, float[B,P,8] past_v{more}) => (float[B,T,8] y, float[B,Q,8] "
    "present_k, float[B,Q,8] present_v)"
)
PROJECTED = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
GROWN = "present_k = Concat<axis=1>(past_k, k) present_v = Concat<axis=1>(past_v, v)"
SCORES = "kt = Transpose<perm=[0,2,1]>(present_k) s = MatMul(q, kt)"
CAUSAL = """sp = Shape<start=1,end=2>(past_k) st = Shape<start=1,end=2>(x) sq = Add(sp, st) pp = Squeeze(sp) tt = Squeeze(sq)
    rq = Range(pp, tt, one) rk = Range(zero, tt, one) uq = Unsqueeze(rq, last) late = Less(uq, rk) bias = Where(late, low, none) sb = Add(s, bias)"""
WEIGHTS = {
    "wq": rand(8, 8),
    "wk": rand(8, 8, seed=1),
    "wv": rand(8, 8, seed=2),
    "one": np.int64(1),
    "zero": np.int64(0),
    "last": np.asarray([1]),
    "low": np.float32(-np.inf),
    "none": np.float32(0),
}
WHOLE = "streams as it is, at pulses of any size"


def written_out(mask: str = CAUSAL, more: str = "", grown: str = GROWN) -> onnx.ModelProto:
    scores = "sb" if mask else "s"
    return parse(
        f"{HEAD.format(more=more)} {{ {PROJECTED} {grown} {SCORES} {mask} p = Softmax<axis=-1>({scores}) y = "
        "MatMul(p, present_v) }",
        **WEIGHTS,
    )


def operator(
    name: str, inputs: str, domain: str = "", attributes: str = "", heads: str = "2,T,8", more: str = ""
) -> onnx.ModelProto:
    opsets = '"": 23' if not domain else '"": 17, "com.microsoft": 1'
    return parse(f"""<ir_version: 10, opset_import: [{opsets}]>
        agraph (float[B,{heads}] q, float[B,{heads}] k, float[B,{heads}] v, float[B,2,P,8] past_k, float[B,2,P,8] past_v{more})
            => (float[B,{heads}] y, float[B,2,Q,8] present_k, float[B,2,Q,8] present_v) {{
        y, present_k, present_v = {domain}{name}{attributes}({inputs}) }}""")


MODELS = {
    "written out": (written_out, WHOLE),
    "all in a pulse see each other": (lambda: written_out(""), "depends on where pulses begin"),
    "more that nobody can guess": (lambda: written_out(more=", float[M,8] other"), "run it as it is"),
    "through other operators": (
        lambda: written_out(
            grown="c = Identity(past_k) l = Concat<axis=1>(c, k) present_k = Identity(l) present_v = "
            "Concat<axis=1>(past_v, v)"
        ),
        WHOLE,
    ),
    "Attention": (lambda: operator("Attention", "q, k, v, , past_k, past_v", attributes="<is_causal=1>"), WHOLE),
    "MultiHeadAttention": (
        lambda: operator(
            "MultiHeadAttention",
            "q, k, v, , , , past_k, past_v",
            "com.microsoft.",
            "<num_heads=2, unidirectional=1>",
            "T,16",
        ),
        WHOLE,
    ),
    "GroupQueryAttention": (
        lambda: operator(
            "GroupQueryAttention",
            "q, k, v, past_k, past_v, lengths, total",
            "com.microsoft.",
            "<num_heads=2, kv_num_heads=2>",
            "T,16",
            ", int32[B] lengths, int32 total",
        ),
        "run it as it is",
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("told", (False, True))
def test_a_growing_cache_is_refused_by_name(name: str, told: bool) -> None:
    make, hint = MODELS[name]
    with pytest.raises(CannotStream) as caught:
        pulsify(make(), pulse=4, states={"past_k": "present_k", "past_v": "present_v"} if told else None)
    blockers = caught.value.blockers
    assert [b.wire for b in blockers] == ["past_k", "past_v"]
    assert all(
        "grows with the stream" in b.reason and hint in b.hint and "--left-context" in b.hint for b in blockers
    ), [b.hint for b in blockers]


def test_inspect_lists_them(tmp_path, capsys) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(written_out(), path)
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(path), "--json"])
    assert stopped.value.code == 3
    assert [b["node"] for b in json.loads(capsys.readouterr().out)["blockers"]] == ["present_k", "present_v"]


def test_frames_before_the_stream_that_do_not_come_back_are_no_cache() -> None:
    model = parse(
        "agraph (float[B,T,8] x, float[B,P,8] prompt) => (float[B,Q,8] y) { c = Concat<axis=1>(prompt, x) y = "
        "MatMul(c, w) }",
        w=rand(8, 8),
    )
    assert all("grows" not in b.reason for b in analyze(model).blockers)


@pytest.mark.parametrize("axis", (1, -2))
def test_a_stream_beside_another_one_is_no_cache(axis: int) -> None:
    """Channels of two streams, of which one is turned first: time is another axis."""
    model = parse(
        f"""agraph (float[1,T,3] x, float[1,1,N] z) => (float[1,5,U] y) {{
        c = Conv<strides=[2]>(z, w)
        t = Transpose<perm=[0,2,1]>(x)
        y = Concat<axis={axis}>(t, c) }}""",
        w=rand(2, 1, 2),
    )
    model.graph.input[1].type.tensor_type.shape.dim[2].dim_param = "2*T"
    check(model, axes={"x": 1, "z": 2}, pulses=(1, 7))
