from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import check, parse, rand, refused


def chained(attrs: str = "", op: str = "CumSum", before: str = "c = Conv<pads=[1,1]>(x, w, b)", axis: object = 2, opset: int = 17,
            dtype: str = "float", after: str = "y = Identity(s)") -> onnx.ModelProto:
    return parse(f"""<ir_version: 10, opset_import: ["": {opset}]> agraph ({dtype}[1,4,T] x) => ({dtype}[1,4,U] y) {{
        {before}
        s = {op}{attrs}(c, axis)
        {after} }}""", w=rand(4, 4, 3), b=rand(4), axis=np.asarray(axis))


@pytest.mark.parametrize("attrs", ["", "<exclusive=1>"])
def test_sum(attrs):
    check(chained(attrs, before="c = Identity(x)"), delays={"y": 0}, state_bytes=16)


@pytest.mark.parametrize("attrs", ["", "<exclusive=1>"])
def test_sum_behind_a_delay(attrs):
    check(chained(attrs, axis=-1, after="y = Conv<pads=[1,1]>(s, w, b)"), delays={"y": 2}, rtol=1e-3)


def test_sum_of_whole_numbers_behind_a_delay():
    check(chained(before="f = Cast<to=1>(x)\n d = MaxPool<kernel_shape=[3], pads=[1,1]>(f)\n c = Cast<to=7>(d)", dtype="int64",
                  axis=np.array([2], np.int32)), delays={"y": 1})


def test_sum_of_float16():
    check(chained(before="k = Conv<pads=[1,1]>(z, w, b)\n c = Cast<to=10>(k)".replace("(z,", "(x,"), after="y = Cast<to=1>(s)"), delays={"y": 1}, rtol=2e-2)


def test_sum_behind_padding_that_is_not_zero():
    model = chained(before="p = Pad(x, pads, fill)\n c = Relu(p)", after="y = Conv(s, w, b)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([0, 0, 2, 0, 0, 1]), "pads"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.7), "fill"))
    check(model, rtol=1e-3)


def test_sum_over_the_channels_backwards():
    check(chained("<reverse=1>", axis=1), delays={"y": 1}, state_bytes=4 * 2 * 4)


def test_sum_with_a_symbolic_batch_inside():
    check(parse("agraph (float[T,B,4] x) => (float[U,B,4] y) { y = CumSum(x, axis) }", axis=np.int64(0)), axes={"x": 0}, delays={"y": 0})


@pytest.mark.parametrize("attrs", ["", "<exclusive=1>"])
@pytest.mark.parametrize("before", ["c = Sigmoid(x)", "t = Conv<pads=[1,1]>(x, w, b)\n c = Sigmoid(t)"])
def test_product(attrs, before):
    check(chained(attrs, "CumProd", before, opset=26), delays={"y": 0 if "Conv" not in before else 1})


@pytest.mark.parametrize("op, opset", [("CumSum", 17), ("CumProd", 26)])
def test_refuses_backwards(op, opset):
    refused(chained("<reverse=1>", op, opset=opset), "from the last frame backwards", axes={"x": 2}, op_type=op)


def test_refuses_an_axis_from_outside():
    refused(parse("agraph (float[1,4,T] x, int64 axis) => (float[1,4,U] y) { y = CumSum(x, axis) }"), "the axis is computed at run time", axes={"x": 2})
