"""Rows of a batch are streams of their own: seven rows start, end and start again at random, each compared with its
own batch run.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.helper
import pytest

from pulsify_onnx.api import inspect, pulsify, verify
from pulsify_onnx.report.tables import table
from testing import ROOT
from testing.oracle import parse, rand
from testing.rowing import batched, check_rows

FIXTURES = ROOT / "fixtures"
SAME = "a = Conv<pads=[1,1]>(x, w, b)\n"
ONE = np.asarray([1], np.int64)


def delayed(body: str, **weights: np.ndarray) -> onnx.ModelProto:
    """`body` on `a`, a delayed stream of 4 channels."""
    return batched(
        parse(f"agraph (float[1,4,T] x) => (float[1,4,U] y) {{ {SAME}{body} }}", w=rand(4, 4, 3), b=rand(4), **weights)
    )


def sequence(body: str, opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    """`body` on `t` [T, B, 4], a delayed stream."""
    text = (
        f'<ir_version: 8, opset_import: ["": {opset}]>\nagraph (float[1,4,T] x) => (float[1,4,U] y) {{ {SAME}t '
        f"= Transpose<perm=[2,0,1]>(a)\n{body} }}"
    )
    return batched(parse(text, w=rand(4, 4, 3), b=rand(4), **weights))


RECURRENT = {
    "GRU": {"wi": rand(1, 15, 4), "wr": rand(1, 15, 5, seed=1), "wb": rand(1, 30, seed=2)},
    "LSTM": {"wi": rand(1, 20, 4), "wr": rand(1, 20, 5, seed=1), "wb": rand(1, 40, seed=2)},
    "RNN": {"wi": rand(1, 5, 4), "wr": rand(1, 5, 5, seed=1), "wb": rand(1, 10, seed=2)},
}

BODIES = {
    "same": ("y = Conv<pads=[1,1]>(a, w, b)", {}),
    "strided": ("c = Conv<pads=[2,2], strides=[2]>(a, w, b)\n y = Conv<pads=[1,1]>(c, w, b)", {}),
    "maximum": ("y = MaxPool<kernel_shape=[3], pads=[1,1]>(a)", {}),
    "average": ("y = AveragePool<kernel_shape=[3], pads=[1,1], ceil_mode=1>(a)", {}),
    "transposed": ("c = ConvTranspose<strides=[2]>(a, w, b)\n y = Conv<pads=[1,1]>(c, w, b)", {}),
    "padded": (
        "p = Pad(a, pads, five)\n y = Conv(p, w, b)",
        {"pads": np.asarray([0, 0, 1, 0, 0, 1]), "five": np.float32(5)},
    ),
    "padding convolved": (
        "p = Pad(a, pads, five)\n c = Conv(p, w, b)\n r = Sigmoid(c)\n y = Conv(r, w, b)",
        {"pads": np.asarray([0, 0, 4, 0, 0, 2]), "five": np.float32(5)},
    ),
    "reflected": ('p = Pad<mode="reflect">(a, pads)\n y = Conv(p, w, b)', {"pads": np.asarray([0, 0, 2, 0, 0, 2])}),
    "joined": (
        "p = MaxPool<kernel_shape=[3], pads=[1,1]>(a)\n c = Concat<axis=1>(p, x)\n s = Slice(c, two, six, one)\n y "
        "= Add(s, a)",
        {"two": ONE * 2, "six": ONE * 6, "one": ONE},
    ),
    "sums": ("c = CumSum(a, two)\n y = Conv<pads=[1,1]>(c, w, b)", {"two": np.int64(2)}),
    "mean": ("y = ReduceMean<axes=[2], keepdims=1>(a)", {}),
    "largest": ("y = GlobalMaxPool(a)", {}),
    "best frame": ("y = ArgMax<axis=2>(a)", {}),
    "last frames": ("y = Slice(a, back, end, two)", {"back": ONE * -3, "end": ONE * (2**31 - 1), "two": ONE * 2}),
    "positions": (
        "s = Shape(x)\n n = Gather(s, two)\n r = Range(zero, n, one)\n f = Cast<to=1>(r)\n g = Sin(f)\n y = Add(a, g)",
        {"two": np.int64(2), "zero": np.int64(0), "one": np.int64(1)},
    ),
    "divided positions": (
        "s = Shape(x)\n n = Gather(s, two)\n r = Range(one, n, one)\n d = Div(hundred, r)\n f = Cast<to=1>(d)\n"
        "k = Slice(a, first, end, axis)\n y = Mul(k, f)",
        {
            "two": np.int64(2),
            "one": np.int64(1),
            "hundred": np.int64(100),
            "first": ONE,
            "end": ONE * (2**31 - 1),
            "axis": ONE * 2,
        },
    ),
    "table": (
        "s = Shape(x)\n n = Slice(s, two, three)\n e = Slice(table, zero, n, one)\n y = Add(a, e)",
        {"two": ONE * 2, "three": ONE * 3, "zero": ONE * 0, "one": ONE * 2, "table": rand(1, 4, 400)},
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_convolutions_pools_sums_and_positions(body: str):
    text, weights = BODIES[body]
    model = delayed(text, **weights)
    if body == "best frame":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    check_rows(model, shortest=8)


@pytest.mark.parametrize("op_type", RECURRENT)
@pytest.mark.parametrize("initial", [False, True])
def test_recurrences(op_type: str, initial: bool):
    start = ", none, h0" if initial else ""
    model = sequence(
        f"y, last = {op_type}<hidden_size=5>(t, wi, wr, wb{start})".replace("none", ""),
        **RECURRENT[op_type],
        h0=rand(1, 1, 5, seed=7),
    )
    if initial:  # the state of one row is that of all
        text = f"""s = Shape(t)\n n = Slice(s, one, two)\n shape = Concat<axis=0>(one, n, five)\n h = Expand(h0, shape)
            y, last = {op_type}<hidden_size=5>(t, wi, wr, wb, , h)"""
        model = sequence(text, **RECURRENT[op_type], h0=rand(1, 1, 5, seed=7), one=ONE, two=ONE * 2, five=ONE * 5)
    model.graph.output.append(onnx.helper.make_tensor_value_info("last", onnx.TensorProto.FLOAT, None))
    check_rows(model)


def test_attention_behind_a_mask():
    model = batched(
        parse(
            """agraph (float[1,T,4] x) => (float[1,T,4] y) {
        xt = Transpose<perm=[0,2,1]>(x)
        at = Conv<pads=[1,1]>(xt, w, b)
        a = Transpose<perm=[0,2,1]>(at)
        k = Transpose<perm=[0,2,1]>(a)
        scores = MatMul(a, k)
        s = Shape(x)
        n = Gather(s, one)
        r = Range(zero, n, one)
        qi = Unsqueeze(r, last)
        ki = Unsqueeze(r, first)
        d = Sub(ki, qi)
        above = Less(d, two)
        below = Greater(d, back)
        open = And(above, below)
        masked = Where(open, scores, low)
        weights = Softmax<axis=-1>(masked)
        y = MatMul(weights, a) }""",
            w=rand(4, 4, 3),
            b=rand(4),
            one=np.int64(1),
            zero=np.int64(0),
            two=np.int64(2),
            back=np.int64(-4),
            last=np.asarray([1]),
            first=np.asarray([0]),
            low=np.float32(-np.inf),
        )
    )
    check_rows(model)


@pytest.mark.parametrize("name", ["causal_net", "delays_at_a_join", "same_gru", "same_stack", "wavenet"])
def test_fixtures(name: str):
    model = batched(onnx.load(FIXTURES / f"{name}.onnx"))
    pulsed = check_rows(model, pulses=(1, 8))
    assert verify(model, pulsed).ok


def test_a_static_input_belongs_to_its_row():
    model = batched(
        parse(
            """agraph (float[1,4,T] x, float[1,4,1] g) => (float[1,4,T] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        m = Mul(a, g)
        y = Conv<pads=[1,1]>(m, w, b) }""",
            w=rand(4, 4, 3),
            b=rand(4),
        )
    )
    check_rows(model, axes={"x": 2})


def test_what_mixes_rows_is_named():
    mean = pulsify(delayed("m = ReduceMean<axes=[0], keepdims=1>(a)\n y = Sub(a, m)"), pulse=4).spec
    assert mean["independent_rows"] is False and mean["shared_by"] == ["m"]
    swapped = batched(
        parse(
            """agraph (float[1,T,4] x) => (float[U,1,1,5] y) {
        y = GRU<hidden_size=5, layout=0>(x, wi, wr, wb) }""",
            **RECURRENT["GRU"],
        )
    )
    assert pulsify(swapped, pulse=4, axes={"x": 1}).spec["shared_by"] == ["y"]


def test_rows_that_share_nothing_are_not_mentioned():
    spec = pulsify(delayed("y = Relu(a)"), pulse=4).spec
    assert "independent_rows" not in spec and "shared_by" not in spec
    assert spec["states"][0]["shape"][0] == "B"
    assert pulsify(delayed("y = Relu(a)"), pulse=4, end_of_stream=True).spec["valid_frames_shape"] == ["B"]


def test_verification_finds_rows_that_share():
    """A sidecar that promises too much."""
    model = delayed("m = ReduceMean<axes=[0], keepdims=1>(a)\n y = Sub(a, m)")
    pulsed = pulsify(model, pulse=4)
    assert verify(model, pulsed).ok
    document = {k: v for k, v in pulsed.spec.items() if k not in ("independent_rows", "shared_by")}
    pulsed.model.metadata_props["pulsify.spec"] = json.dumps(document)
    found = verify(model, pulsed)
    assert not found.ok and "a row that starts while others are under way" in found.message


def test_inspect_says_so():
    report = inspect(delayed("m = ReduceMean<axes=[0], keepdims=1>(a)\n y = Sub(a, m)"))
    document = report.document
    assert document["independent_rows"] is False and document["shared_by"] == ["m"]
    assert table(report.found).splitlines()[-1] == "rows of a batch start and end together, because of m"
