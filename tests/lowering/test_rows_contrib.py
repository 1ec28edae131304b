"""Rows stay apart in onnxruntime's own operators, as they do in the standard ones that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from testing.oracle import parse, rand
from testing.rowing import batched, check_rows

HEAD = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>\n'
SCALES = {"s": np.float32(0.02), "z": np.uint8(37), "ys": np.float32(0.05), "yz": np.uint8(90)}
MERGED = "n = Shape(t)\n m = Reshape(t, rows)\n h = {}\n y = Reshape(h, n)"

FLOATS = {
    "FusedGemm": MERGED.format('com.microsoft.FusedGemm<activation="Relu", transB=1>(m, g, c)'),
    "FusedMatMul": "y = com.microsoft.FusedMatMul<alpha=0.5>(t, g)",
    "SkipLayerNormalization": "u = Transpose<perm=[0,2,1]>(x)\n y = com.microsoft.SkipLayerNormalization(t, u, c)",
    "Inverse": "u = Unsqueeze(t, last)\n e = Mul(u, eye)\n i = Add(e, eye)\n v = com.microsoft.Inverse(i)\n y = "
    "ReduceSum<keepdims=0>(v, last)",
}
BYTES = {
    "QLinearSoftmax": "m = com.microsoft.QLinearSoftmax<axis=1, opset=13>(q, s, z, ys, yz)\n y = "
    "DequantizeLinear(m, ys, yz)",
    "QLinearConcat": "p = QuantizeLinear(x, s, z)\n c = com.microsoft.QLinearConcat<axis=1>(ys, yz, q, s, z, p, s, "
    "z)\n y = DequantizeLinear(c, ys, yz)",
    "NhwcMaxPool": "i = Transpose<perm=[0,2,1]>(q)\n j = Unsqueeze(i, two)\n p = "
    "com.microsoft.NhwcMaxPool<kernel_shape=[3,1], pads=[1,0,1,0]>(j)\n y = DequantizeLinear(p, s, z)",
    "QuantizeLinear": "e = com.microsoft.QuantizeLinear(a, ys, yz)\n y = com.microsoft.DequantizeLinear(e, ys, yz)",
}


@pytest.mark.parametrize("op_type", FLOATS)
def test_floats(op_type: str) -> None:
    model = parse(
        HEAD + "agraph (float[1,4,T] x) => (float[1,U,4] y) { a = Conv<pads=[1,1]>(x, w, b)\n t = "
        f"Transpose<perm=[0,2,1]>(a)\n {FLOATS[op_type]} }}",
        w=rand(4, 4, 3),
        b=rand(4),
        g=rand(4, 4, seed=3),
        c=rand(4, seed=4),
        rows=np.asarray([-1, 4]),
        last=np.asarray([3]),
        eye=np.eye(4, dtype=np.float32) * 9,
    )
    check_rows(batched(model), axes={"x": 2}, pulses=(1, 3))


@pytest.mark.parametrize("op_type", BYTES)
def test_bytes(op_type: str) -> None:
    model = parse(
        HEAD + "agraph (float[1,4,T] x) => (float[1,4,U] y) { a = Conv<pads=[1,1]>(x, w, b)\n q = QuantizeLinear(a, "
        f"s, z)\n {BYTES[op_type]} }}",
        w=rand(4, 4, 3),
        b=rand(4),
        two=np.asarray([2]),
        **SCALES,
    )
    check_rows(batched(model), axes={"x": 2}, pulses=(1, 3))


def test_a_softmax_over_the_rows_is_told() -> None:
    model = batched(
        parse(
            HEAD
            + """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        q = QuantizeLinear(x, s, z)
        m = com.microsoft.QLinearSoftmax<axis=0, opset=13>(q, s, z, ys, yz)
        y = DequantizeLinear(m, ys, yz) }""",
            **SCALES,
        )
    )
    assert check_rows(model, axes={"x": 2}, pulses=(3,), independent=False).spec["shared_by"] == ["m"]


@pytest.mark.parametrize("axis", [2, -2, None])
def test_transforms_whose_axis_is_an_input(axis: int | None) -> None:
    told = "" if axis is None else ", , axis"
    model = parse(
        '<ir_version: 9, opset_import: ["": 20]>\nagraph (float[B,T,4,2] x) => (float[B,T,4,2] y) { t = '
        f"Transpose<perm=[1,0,2,3]>(x)\n y = DFT(t{told}) }}",
        axis=np.int64(0 if axis is None else axis),
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    check_rows(model, axes={"x": 1}, pulses=(1, 3))
