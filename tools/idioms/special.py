"""Blocks with a form of their own: quantised, functions, branches; and the heads that end a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import GraphProto, TensorProto, helper

from .graph import LAST, Graph, Unwritable, Value, element, windowed
from .sequence import linear


def fake_quant(g: Graph, x: str, kind: type = np.uint8, scale: float = 0.0371, zero: int = 128) -> str:
    """QuantizeLinear and DequantizeLinear."""
    s, z = g.const(scale, np.float32), g.const(zero, kind)
    return g.op("DequantizeLinear", g.op("QuantizeLinear", x, s, z), s, z)


def _weights(g: Graph, array: np.ndarray, per_channel: bool, axis: int = 0) -> str:
    """Weights as int8 behind a DequantizeLinear."""
    rest = tuple(i for i in range(array.ndim) if i != axis)
    peak = np.abs(array).max(axis=rest) if per_channel else np.abs(array).max()
    scale = np.maximum(peak, 1e-3) / 127
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    grid = np.round(array / (scale.reshape(shape) if per_channel else scale)).astype(np.int8)
    zero = np.zeros(np.shape(scale), np.int8)
    return g.op(
        "DequantizeLinear",
        g.const(grid, np.int8),
        g.const(scale, np.float32),
        g.const(zero, np.int8),
        axis=axis if per_channel else None,
    )


def quantised(g: Graph, v: Value) -> Value:
    """A QDQ convolution or dense layer, as quantisers leave it between two pairs."""
    g.need(11)  # onnxruntime quantises biases with the Round of opset 11
    if g.dtype != "float32":
        raise Unwritable("QDQ of other floats")
    g.coarse = True
    per_channel = g.opset >= 13 and g.chance(0.5)
    kind, zero = g.rng.choice(((np.uint8, 128), (np.int8, 0), (np.uint8, 113), (np.int8, -7)))
    draw = np.random.default_rng(g.rng.randrange(2**31))
    out = g.rng.randint(1, 4)
    if g.chance(0.3):
        v = g.to(v, "BTC")
        w = _weights(g, draw.normal(size=(v.c, out)) / np.sqrt(v.c), per_channel, axis=1)
        y = g.op("Add", g.op("MatMul", fake_quant(g, v.name, kind, zero=zero), w), g.bias(out))
        return replace(v, name=fake_quant(g, y, kind, 0.0293, zero), c=out)
    v = g.to(v, "BCT")
    k, s = g.rng.randint(1, 4), g.rng.choice((1, 1, 2))
    pads = g.rng.choice(((k - 1, 0), (k // 2, k // 2), (0, 0)))
    x = fake_quant(g, v.name, kind, zero=zero)
    if pads[0] and g.chance(0.3):
        x = fake_quant(g, g.pad(x, 3, 2, *pads), kind, zero=zero)
        frames, pads = tuple(n + sum(pads) for n in v.frames), (0, 0)
    else:
        frames = v.frames
    w = _weights(g, draw.normal(size=(out, v.c, k)) / np.sqrt(v.c * k), per_channel)
    y = g.op("Conv", x, w, g.bias(out), kernel_shape=[k], strides=[s], pads=list(pads))
    y = g.op("Relu", y) if g.chance(0.5) else y
    y = fake_quant(g, y, kind, 0.0293, zero)
    if g.chance(0.3):
        y = fake_quant(g, g.op("Sigmoid", y), kind, 1 / 256, -128 if kind is np.int8 else 0)
    return Value(y, "BCT", out, windowed(frames, k, s, 1, *pads))


def called(g: Graph, v: Value) -> Value:
    """A local function, as torch.onnx's export_modules_as_functions and onnxscript write modules."""
    g.need(14)
    if any(f.name == "CausalBlock" for f in g.functions):
        raise Unwritable("one function")
    v = g.to(v, "BCT")
    k = g.rng.randint(2, 3)
    domain = "pkg.module"
    body = [
        helper.make_node(
            "Constant", [], ["pads"], value=helper.make_tensor("p", TensorProto.INT64, [6], [0, 0, k - 1, 0, 0, 0])
        ),
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "w"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Mul", ["h", "s"], ["y"]),
    ]
    made = helper.make_function(domain, "CausalBlock", ["x", "w"], ["y"], body, [helper.make_opsetid("", g.opset)])
    g.functions.append(made)
    out = v.c
    name = g.op("CausalBlock", v.name, g.weight(out, v.c, k), domain=domain)
    if g.chance(0.5):
        name = g.op("CausalBlock", name, g.weight(out, out, k), domain=domain)
    return replace(v, name=name, c=out)


def branch(g: Graph, v: Value) -> Value:
    """An If on a constant, or on whether there are more frames than some number."""
    v = g.to(v, "BCT")
    n = g.count
    value = g.rng.choice((2, 3, 5))
    how = g.rng.randrange(3)
    dtype = element(g.np)

    def body(kind: str) -> GraphProto:
        out = f"branch_{kind}_{n}"
        return helper.make_graph(
            [helper.make_node(kind, [v.name], [out])],
            f"{kind}_{n}",
            [],
            [helper.make_tensor_value_info(out, dtype, None)],
        )

    if how == 0:
        condition = g.const(bool(g.rng.randrange(2)), np.bool_)
    else:
        g.need(9)
        frames = g.dim(v.name, 2)
        bound = g.const(value, np.int64)
        condition = g.op("Greater", frames, bound) if how == 1 else g.op("Less", frames, bound)
    a, b = g.rng.sample(("Tanh", "Neg", "Relu", "Sigmoid"), 2)
    return replace(v, name=g.op("If", condition, then_branch=body(a), else_branch=body(b)))


def pooled(g: Graph, v: Value) -> tuple[str, list[int | str]]:
    """A head without time: the last frame, a mean, a maximum, attention pooling, the last state. Gives its name and
    shape.
    """
    v = g.to(v, "BTC")
    rows, c = g.batch, v.c
    how = g.rng.randrange(8)
    if how == 0:
        return g.op("Gather", v.name, g.const(-1, np.int64), axis=1), [rows, c]
    if how == 1:
        return g.squeeze(g.slice(v.name, 1, -1, LAST), 1), [rows, c]
    if how == 2:
        return g.reduce("ReduceMean", v.name, 1, keep=False), [rows, c]
    if how == 3:
        return g.reduce(g.rng.choice(("ReduceMax", "ReduceMin", "ReduceL2", "ReduceSum")), v.name, 1, keep=False), [
            rows,
            c,
        ]
    if how == 4:
        weights = g.op("Softmax", linear(g, v, 1).name, axis=1)
        if g.opset < 13:
            raise Unwritable("a Softmax that flattens")
        return g.reduce("ReduceSum", g.op("Mul", weights, v.name), 1, keep=False), [rows, c]
    if how == 5:
        x = g.to(v, "BCT").name
        x = g.op(g.rng.choice(("GlobalAveragePool", "GlobalMaxPool")), x)
        return g.op("Gemm", g.op("Flatten", x, axis=1), g.weight(c, 2), g.bias(2)), [rows, 2]
    if how == 6:
        n = g.rng.randint(1, 4)
        return g.slice(v.name, 1, -n, LAST), [rows, n, c]
    x = g.to(v, "TBC").name
    out = g.ops("GRU", x, g.weight(1, 6, c), g.weight(1, 6, 2), outs=2, names=["", g.name("GRU")], hidden_size=2)[1]
    return g.squeeze(out, 0), [rows, 2]


def classes(g: Graph, v: Value) -> tuple[str, list[int | str], int, int]:
    """A head of frames: softmax, arg max or a plain projection. Gives its name, its shape (T for frames), type and
    the axis of time.
    """
    v = linear(g, g.to(v, "BTC"), g.rng.randint(2, 3))
    how = g.rng.randrange(3)
    if how == 0:
        v = replace(v, name=g.op(g.rng.choice(("Softmax", "LogSoftmax")), v.name, axis=2))
    if how == 1:
        return g.op("ArgMax", v.name, axis=2, keepdims=0), [g.batch, "T"], TensorProto.INT64, 1
    return v.name, [g.batch, "T", v.c], element(g.np), 1
