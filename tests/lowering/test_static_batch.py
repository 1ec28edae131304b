"""A model that was exported for so many rows: each is a stream of its own where the graph keeps them apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from test_rows import BODIES, RECURRENT, SAME

from pulsify_onnx.api import inspect, pulsify, trace, verify
from testing import ROOT
from testing.oracle import parse, rand
from testing.rowing import batched, check_rows

FIXTURES = ROOT / "fixtures"


def one(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    return parse(
        f"agraph (float[1,4,T] x) => (float[1,4,U] y) {{ {SAME}{text} }}", w=rand(4, 4, 3), b=rand(4), **weights
    )


@pytest.mark.parametrize("body", BODIES)
def test_as_many_rows_as_channels(body: str):
    text, weights = BODIES[body]
    model = one(text, **weights)
    if body == "best frame":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    check_rows(batched(model, rows=4), rows=4, alone=model, shortest=8, pulses=(1, 4))


@pytest.mark.parametrize(
    "name",
    ["causal_net", "delays_at_a_join", "grouped_conv", "same_stack", "separable_conv", "valid_conv_pair", "wavenet"],
)
def test_fixtures(name: str):
    model = onnx.load(FIXTURES / f"{name}.onnx")
    rows = batched(model, rows=7)
    assert verify(rows, check_rows(rows, alone=model, pulses=(1, 8), shortest=24)).ok


@pytest.mark.parametrize("op_type", RECURRENT)
def test_recurrences_with_a_state_for_every_row(op_type: str):
    """What the rows begin with differs, which is theirs."""
    weights = RECURRENT[op_type]

    def made(rows: int, start: np.ndarray) -> onnx.ModelProto:
        text = (
            f"agraph (float[{rows},T,4] x) => (float[U,1,{rows},5] y) {{ t = Transpose<perm=[1,0,2]>(x)\n y = "
            f"{op_type}<hidden_size=5>(t, wi, wr, wb, , h0) }}"
        )
        return parse(text, **weights, h0=start)

    model = made(3, rand(1, 3, 5, seed=7))
    pulsed = pulsify(model, pulse=4, end_of_stream=True)
    assert pulsed.spec["valid_frames_shape"] == [3] and [3, 1, 5] in [s["shape"] for s in pulsed.spec["states"]]
    assert verify(model, pulsed).ok
    check_rows(
        made(3, np.repeat(rand(1, 1, 5, seed=7), 3, 1)), rows=3, alone=made(1, rand(1, 1, 5, seed=7)), pulses=(4,)
    )


def test_time_first():
    weights = RECURRENT["GRU"]
    text = "agraph (float[T,{0},4] x) => (float[U,1,{0},5] y) {{ y = GRU<hidden_size=5>(x, wi, wr, wb) }}"
    check_rows(parse(text.format(4), **weights), rows=4, alone=parse(text.format(1), **weights), pulses=(1, 3))


def shaped(rows: int) -> onnx.ModelProto:
    """Shapes with the batch written into them."""
    return parse(
        f"""agraph (float[{rows},4,T] x) => (float[{rows},4,T] y) {{
        {SAME}
        r = Reshape(a, apart)
        e = Expand(m, wide)
        s = Mul(r, e)
        z = Reshape(s, back)
        q = Concat<axis=2>(zeros, z)
        c = Conv(q, w, b)
        n = Shape(x)
        frames = Slice(n, two, three)
        whole = Concat<axis=0>(rows, four, frames)
        p = Reshape(c, whole)
        y = Add(p, bias) }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        apart=np.asarray([rows, 2, 2, -1]),
        back=np.asarray([rows, 4, -1]),
        m=rand(1, 2, 1, 1),
        wide=np.asarray([rows, 2, 2, 1]),
        zeros=np.zeros((rows, 4, 2), np.float32),
        two=np.asarray([2]),
        three=np.asarray([3]),
        rows=np.asarray([rows]),
        four=np.asarray([4]),
        bias=np.repeat(rand(1, 4, 1, seed=9), rows, 0),
    )


def test_numbers_that_stand_for_the_batch():
    check_rows(shaped(4), rows=4, alone=shaped(1))
    check_rows(shaped(1), batch="dynamic", pulses=(3,))


def test_a_static_input_belongs_to_its_row_or_to_all():
    text = """agraph (float[{0},4,T] x, float[{1},4,1] g) => (float[{0},4,T] y) {{
        a = Conv<pads=[1,1]>(x, w, b)
        m = Mul(a, g)
        y = Conv<pads=[1,1]>(m, w, b) }}"""
    weights = {"w": rand(4, 4, 3), "b": rand(4)}
    own = check_rows(
        parse(text.format(3, 3), **weights), rows=3, alone=parse(text.format(1, 1), **weights), pulses=(3,)
    )
    assert own.spec["inputs"][1]["row_axis"] == 0
    shared = check_rows(
        parse(text.format(3, 1), **weights), rows=3, alone=parse(text.format(1, 1), **weights), pulses=(3,)
    )
    assert "row_axis" not in shared.spec["inputs"][1]
    matrix = parse("agraph (float[4,T,4] x, float[4,4] g) => (float[4,T,4] y) { y = MatMul(x, g) }")
    alone = parse("agraph (float[1,T,4] x, float[4,4] g) => (float[1,T,4] y) { y = MatMul(x, g) }")
    assert "row_axis" not in check_rows(matrix, rows=4, alone=alone, pulses=(3,)).spec["inputs"][1]


@pytest.mark.parametrize(
    "text, shared",
    [
        ("m = ReduceMean<axes=[0], keepdims=1>(a)\n y = Sub(a, m)", "m"),
        ("t = Transpose<perm=[1,0,2]>(a)\n y = Conv<pads=[1,1]>(t, w, b)", "y"),
        ("r = Reshape(a, mixed)\n y = Relu(r)", "r"),
    ],
)
def test_what_mixes_rows_keeps_one_clock_and_is_named(text: str, shared: str):
    model = batched(one(text, mixed=np.asarray([2, 8, -1])), rows=4)
    pulsed = pulsify(model, pulse=4, end_of_stream=True)
    assert (
        pulsed.spec["independent_rows"] is False
        and pulsed.spec["shared_by"] == [shared]
        and pulsed.spec["valid_frames_shape"] == [1]
    )
    assert verify(model, pulsed).ok and inspect(model).document["shared_by"] == [shared]


def test_features_after_time_are_no_batch():
    spec = pulsify(
        parse("agraph (float[T,5] x) => (float[T,3] y) { y = MatMul(x, w) }", w=rand(5, 3)), pulse=4, end_of_stream=True
    ).spec
    assert spec["valid_frames_shape"] == [1] and "independent_rows" not in spec


@pytest.mark.parametrize(
    "batch, model",
    [(None, batched(one("y = Conv<pads=[1,1]>(a, w, b)"), rows=4)), (3, one("y = Conv<pads=[1,1]>(a, w, b)"))],
)
def test_trace_names_the_node(tmp_path: Path, batch: int | None, model: onnx.ModelProto):
    path = tmp_path / "wrong.onnx"
    pulsify(model, pulse=4, batch=batch).save(path)
    proto = onnx.load(path)
    conv = next(n for n in proto.graph.node if n.name == "y")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(rand(4, 4, 3, seed=8), "other"))
    conv.input[1] = "other"
    onnx.save(proto, path)
    found = verify(model, path)
    first = trace(model, path, found)
    assert not found.ok and first is not None and first.node == "y"


def test_inspect_takes_a_batch():
    found = inspect(one("y = Conv<pads=[1,1]>(a, w, b)"), batch=3).document
    assert found["valid_frames_shape"] == [3] and all(s["shape"][0] == 3 for s in found["states"])
    mixed = inspect(one("m = ReduceMean<axes=[0], keepdims=1>(a)\n y = Sub(a, m)"), batch="dynamic")
    assert [b.node for b in mixed.blockers] == ["m"]
