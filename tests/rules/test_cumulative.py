from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import check, every_length, parse, rand, refused


def chained(
    attrs: str = "",
    op: str = "CumSum",
    before: str = "c = Conv<pads=[1,1]>(x, w, b)",
    axis: object = 2,
    opset: int = 17,
    dtype: str = "float",
    after: str = "y = Identity(s)",
) -> onnx.ModelProto:
    return parse(
        f"""<ir_version: 10, opset_import: ["": {opset}]> agraph ({dtype}[1,4,T] x) => ({dtype}[1,4,U] y) {{
        {before}
        s = {op}{attrs}(c, axis)
        {after} }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        axis=np.asarray(axis),
    )


@pytest.mark.parametrize("attrs, frames", [("", 1), ("<exclusive=1>", 2)])
def test_sum(attrs, frames):
    check(chained(attrs, before="c = Identity(x)"), delays={"y": 0}, state_bytes=16 * frames)


@pytest.mark.parametrize("attrs, delay", [("", 2), ("<exclusive=1>", 1)])
def test_sum_behind_a_delay(attrs, delay):
    check(chained(attrs, axis=-1, after="y = Conv<pads=[1,1]>(s, w, b)"), delays={"y": delay}, rtol=1e-3)


@pytest.mark.parametrize("op, opset", [("CumSum", 17), ("CumProd", 26)])
@pytest.mark.parametrize(
    "before, delay",
    [
        ("c = Sigmoid(x)", 0),
        ("p = Pad(x, more, half)\n c = Sigmoid(p)", 0),
        ("t = Conv<pads=[0,2]>(x, w, b)\n c = Sigmoid(t)", 2),
    ],
)
def test_an_exclusive_one_needs_the_frame_before_alone(op, opset, before, delay):
    model = chained("<exclusive=1>", op, before, opset=opset, after="y = Conv<pads=[1,1]>(s, w, b)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([0, 0, 2, 0, 0, 1]), "more"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    check(model, delays={"y": delay}, rtol=1e-3)
    every_length(model, rtol=1e-3)


def test_sum_of_whole_numbers_behind_a_delay():
    check(
        chained(
            before="f = Cast<to=1>(x)\n d = MaxPool<kernel_shape=[3], pads=[1,1]>(f)\n c = Cast<to=7>(d)",
            dtype="int64",
            axis=np.array([2], np.int32),
        ),
        delays={"y": 1},
    )


def test_sum_of_float16():
    check(
        chained(
            before="k = Conv<pads=[1,1]>(z, w, b)\n c = Cast<to=10>(k)".replace("(z,", "(x,"), after="y = Cast<to=1>(s)"
        ),
        delays={"y": 1},
        rtol=2e-2,
    )


def test_sum_behind_padding_that_is_not_zero():
    model = chained(before="p = Pad(x, pads, fill)\n c = Relu(p)", after="y = Conv(s, w, b)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([0, 0, 2, 0, 0, 1]), "pads"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.7), "fill"))
    check(model, rtol=1e-3)


def test_sum_over_the_channels_backwards():
    check(chained("<reverse=1>", axis=1), delays={"y": 1}, state_bytes=4 * 2 * 4)


def test_sum_with_a_symbolic_batch_inside():
    check(
        parse("agraph (float[T,B,4] x) => (float[U,B,4] y) { y = CumSum(x, axis) }", axis=np.int64(0)),
        axes={"x": 0},
        delays={"y": 0},
    )


@pytest.mark.parametrize("attrs", ["", "<exclusive=1>"])
@pytest.mark.parametrize("before", ["c = Sigmoid(x)", "t = Conv<pads=[1,1]>(x, w, b)\n c = Sigmoid(t)"])
def test_product(attrs, before):
    check(chained(attrs, "CumProd", before, opset=26), delays={"y": 0 if "Conv" not in before or attrs else 1})


@pytest.mark.parametrize("op, opset", [("CumSum", 17), ("CumProd", 26)])
def test_refuses_backwards(op, opset):
    refused(chained("<reverse=1>", op, opset=opset), "from the last frame backwards", axes={"x": 2}, op_type=op)


def test_refuses_an_axis_from_outside():
    refused(
        parse("agraph (float[1,4,T] x, int64 axis) => (float[1,4,U] y) { y = CumSum(x, axis) }"),
        "the axis is computed at run time",
        axes={"x": 2},
    )


def counting(ones: str, attrs: str = "", axis: int = 0, after: str = "u = Cast<to=1>(s)", **more) -> onnx.ModelProto:
    """A stream added to sums of ones, one for every frame."""
    return parse(
        f"""agraph (float[B,4,T] x) => (float[B,4,U] y) {{
        f = Conv<pads=[1,1]>(x, w, b)
        n = Shape<start=2, end=3>(x)
        {ones}
        s = CumSum{attrs}(c, axis)
        {after}
        y = Add(f, u) }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        axis=np.asarray(axis),
        **more,
    )


@pytest.mark.parametrize("attrs", ["", "<exclusive=1>"])
@pytest.mark.parametrize(
    "ones, axis",
    [
        ("c = ConstantOfShape<value = int64[1] {1}>(n)", 0),
        ("c = ConstantOfShape<value = int32[1] {3}>(n)", -1),
        ("c = Expand(two, n)", 0),
        ("k = Shape<end=1>(x) m = Concat<axis=0>(k, four, n) c = ConstantOfShape<value = int64[1] {1}>(m)", 2),
    ],
)
def test_sums_of_ones_are_positions(ones, attrs, axis):
    """No sum is kept: frame i is i times the value."""
    pulsed = check(counting(ones, attrs, axis, two=np.array([2]), four=np.array([4])), axes={"x": 2}, delays={"y": 1})
    assert "cumulative" not in {s["role"] for s in pulsed.spec["states"]}


@pytest.mark.parametrize(
    "ones, after",
    [
        ("o = ConstantOfShape<value = int64[1] {1}>(n) c = Pad(o, one)", "k = Slice(s, zero, n) u = Cast<to=1>(k)"),
        ("o = ConstantOfShape<value = int64[1] {1}>(n) q = CumSum(o, nought) c = Identity(q)", "u = Cast<to=1>(s)"),
        ("c = ConstantOfShape<value = float16[1] {1}>(n)", "u = Cast<to=1>(s)"),
    ],
)
def test_other_sums_of_what_is_known_are_kept(ones, after):
    pulsed = check(
        counting(ones, after=after, zero=np.array([0]), one=np.array([1, 0]), nought=np.int64(0)),
        axes={"x": 2},
        rtol=1e-3,
    )
    assert "cumulative" in {s["role"] for s in pulsed.spec["states"]}


@pytest.mark.parametrize(
    "scores", ["r = Identity(e)", "m = Clip(d, minus, six) k = Add(m, unit) g = Gather<axis=0>(table, k) r = Add(e, g)"]
)
def test_sums_of_ones_are_positions_of_pairs(scores):
    """The band of a mask, and a table of clipped distances."""
    model = parse(
        f"""agraph (float[1,4,T] x) => (float[1,U,4] y) {{
        q = Transpose<perm=[0,2,1]>(x)
        e = MatMul(q, x)
        n = Shape<start=2, end=3>(x)
        c = ConstantOfShape<value = int64[1] {{1}}>(n)
        p = CumSum<exclusive=1>(c, nought)
        i = Unsqueeze(p, one)
        j = Unsqueeze(p, first)
        d = Sub(i, j)
        a = Less(d, six)
        h = Greater(d, minus)
        o = And(a, h)
        {scores}
        l = Where(o, r, low)
        s = Softmax<axis=-1>(l)
        y = MatMul(s, q) }}""",
        nought=np.int64(0),
        one=np.array([1]),
        first=np.array([0]),
        six=np.int64(6),
        minus=np.int64(-1),
        unit=np.int64(1),
        low=np.float32(-1e4),
        table=rand(8),
    )
    check(model, delays={"y": 0})
