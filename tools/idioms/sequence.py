"""Blocks over sequences: recurrences, attention in a band, norms, positions and running sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from .convs import activation, conv1d
from .graph import Graph, Unwritable, Value, element


def linear(g: Graph, v: Value, out: int) -> Value:
    """nn.Linear on [.., C]: MatMul and Add."""
    v = g.to(v, "TBC" if v.axes == "TBC" else "BTC")
    name = g.op("MatMul", v.name, g.weight(v.c, out))
    if g.chance(0.8):
        bias = g.bias(out)
        name = g.op("Add", bias, name) if g.chance(0.5) else g.op("Add", name, bias)
    return replace(v, name=name, c=out)


def dense(g: Graph, v: Value) -> Value:
    v = linear(g, g.to(v, "BTC"), g.rng.randint(1, 5))
    return activation(g, v) if g.chance(0.7) else v


def rows_of_frames(g: Graph, v: Value) -> Value:
    """TimeDistributed: all frames as rows of a Gemm, and back by the shape of the input."""
    v = g.to(v, "BTC")
    out = g.rng.randint(1, 4)
    flat = g.op("Gemm", g.reshape(v.name, -1, v.c), g.weight(v.c, out), g.bias(out))
    return activation(
        g, replace(v, name=g.reshape(flat, g.dim(v.name, 0, flat=True), g.dim(v.name, 1, flat=True), out), c=out)
    )


def _start(g: Graph, like: Value, hidden: int) -> str:
    """An initial state: left out, zeros expanded to the rows, a constant, or an input of the model."""
    how = g.rng.randrange(5)
    if how == 0:
        return ""
    if how == 1:
        g.need(9)
        shape = g.op("Concat", g.ints(1), g.dim(like.name, like.at("B"), flat=True), g.ints(hidden), axis=0)
        if g.chance(0.5):
            return g.op("ConstantOfShape", shape)
        return g.op("Expand", g.const(np.zeros((1, 1, hidden))), shape)
    if how == 2:
        g.need(9)
        shape = g.op("Concat", g.ints(1), g.dim(like.name, like.at("B"), flat=True), g.ints(hidden), axis=0)
        return g.op("Expand", g.const(np.linspace(-0.5, 0.5, hidden).reshape(1, 1, hidden)), shape)
    if how == 3 and isinstance(g.batch, int):
        return g.const(np.linspace(-0.5, 0.5, hidden * g.batch).reshape(1, g.batch, hidden))
    return ""


def recurrence(g: Graph, v: Value) -> Value:
    """GRU, LSTM or RNN in the wrapping of torch, keras and tf2onnx."""
    back = v.axes if v.axes in ("TBC", "BTC", "BCT") else "BTC"
    v = g.to(v, "TBC")
    kind, hidden = g.rng.choice(("GRU", "LSTM", "RNN")), g.rng.randint(1, 4)
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind]
    ins = [v.name, g.weight(1, gates * hidden, v.c, gain=0.7), g.weight(1, gates * hidden, hidden, gain=0.7)]
    ins.append(g.const(np.random.default_rng(g.rng.randrange(2**31)).uniform(-0.3, 0.3, (1, 2 * gates * hidden))))
    start = _start(g, v, hidden)
    ins += ["", start] if start or g.chance(0.3) else []
    if kind == "LSTM" and start:
        ins.append(start)
    attrs: dict[str, Any] = {
        "hidden_size": hidden,
        "linear_before_reset": g.rng.randrange(2) if kind == "GRU" else None,
        "direction": "forward" if g.chance(0.5) else None,
    }
    out = g.ops(kind, *ins, outs=1, **attrs)[0]
    if g.chance(0.3):
        y = g.op("Transpose", out, perm=[2, 0, 1, 3]) if g.chance(0.5) else g.op("Transpose", out, perm=[0, 2, 1, 3])
        first = g.nodes[-1].attribute[0].ints[0] == 2
        shape = [0, 0, -1] if first else [0, -1, hidden]
        return g.to(Value(g.reshape(y, *shape), "BTC" if first else "TBC", hidden, v.frames), back)
    return g.to(Value(g.squeeze(out, 1), "TBC", hidden, v.frames), back)


def features_rnn(g: Graph, v: Value) -> Value:
    """A dual-path net's intra-frame recurrence: frames are the rows, features the sequence, in both directions."""
    if "F" not in v.axes or g.batch != 1:
        raise Unwritable("no features to run over")
    v = g.to(v, "BTFC")
    hidden = g.rng.randint(1, 2)
    rows = g.op("Transpose", g.reshape(v.name, -1, v.f, v.c), perm=[1, 0, 2])
    y = g.op(
        "GRU",
        rows,
        g.weight(2, 3 * hidden, v.c),
        g.weight(2, 3 * hidden, hidden),
        hidden_size=hidden,
        direction="bidirectional",
    )
    y = g.op("Transpose", y, perm=[2, 0, 1, 3])
    return replace(v, name=g.reshape(y, 1, -1, v.f, 2 * hidden), c=2 * hidden)


def layer_norm(g: Graph, v: Value) -> Value:
    """Over channels: whole, decomposed by torch, or RMS."""
    v = g.to(v, "TBC" if v.axes == "TBC" else "BTC")
    scale, shift = g.const(np.linspace(0.5, 1.5, v.c)), g.bias(v.c)
    eps = g.const(1e-2 if g.dtype == "float16" else 1e-5)
    if g.opset >= 17 and g.chance(0.4):
        return replace(v, name=g.op("LayerNormalization", v.name, scale, shift, axis=-1, epsilon=1e-2))
    if g.chance(0.3):
        power = g.reduce("ReduceMean", g.op("Mul", v.name, v.name), -1)
        return replace(v, name=g.op("Mul", g.op("Div", v.name, g.op("Sqrt", g.op("Add", power, eps))), scale))
    centred = g.op("Sub", v.name, g.reduce("ReduceMean", v.name, -1))
    variance = g.reduce("ReduceMean", g.op("Pow", centred, g.const(2.0)), -1)
    normed = g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, eps)))
    return replace(v, name=g.op("Add", g.op("Mul", normed, scale), shift))


def positions(g: Graph, v: Value) -> str:
    """0 .. T-1 as integers, in one of the ways exporters count."""
    frames = g.dim(v.name, v.t)
    if g.opset >= 11 and g.chance(0.6):
        return g.op("Range", g.const(0, np.int64), frames, g.const(1, np.int64))
    g.need(11)
    ones = g.op(
        "ConstantOfShape", g.dim(v.name, v.t, flat=True), value=helper.make_tensor("v", TensorProto.INT64, [1], [1])
    )
    return g.op("CumSum", ones, g.const(0, np.int64), exclusive=1)


def band_attention(g: Graph, v: Value) -> Value:
    """Self-attention of heads behind a mask of positions: a causal band, a band to both sides, or chunks."""
    v = g.to(v, "BTC")
    heads, width = g.rng.choice((1, 2)), g.rng.randint(1, 3)
    inner = heads * width
    parts = [linear(g, v, inner).name for _ in range(3)]
    q, k, w = (
        g.op("Transpose", g.reshape(p, 0, -1, heads, width), perm=[0, 2, 3, 1] if i == 1 else [0, 2, 1, 3])
        for i, p in enumerate(parts)
    )
    scores = g.op("MatMul", q, k)
    scores = (
        g.op("Div", scores, g.const(np.sqrt(width))) if g.chance(0.5) else g.op("Mul", scores, g.const(width**-0.5))
    )
    at = positions(g, v)
    rows, cols = g.unsqueeze(at, 1), g.unsqueeze(at, 0)
    left, right = g.rng.randint(0, 5), g.rng.randint(0, 2)
    if g.chance(0.25):
        size = g.const(g.rng.choice((2, 3, 4)), np.int64)
        same = g.op("Equal", g.op("Div", rows, size), g.op("Div", cols, size))
    else:
        gap = g.op("Sub", rows, cols)
        same = g.op(
            "And", g.op("Less", gap, g.const(left + 1, np.int64)), g.op("Greater", gap, g.const(-right - 1, np.int64))
        )
    if g.chance(0.5):
        low = -np.inf if g.chance(0.3) else -1e4 if g.dtype == "float16" else -1e9
        scores = g.op("Where", same, scores, g.const(low))
    else:
        scores = g.op("Add", scores, g.op("Where", same, g.const(0.0), g.const(-1e4)))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=3 if g.opset < 13 else -1), w)
    joined = g.reshape(g.op("Transpose", mixed, perm=[0, 2, 1, 3]), 0, -1, inner)
    y = linear(g, replace(v, name=joined, c=inner), v.c)
    return replace(y, name=g.op("Add", y.name, v.name)) if g.chance(0.7) else y


def where_positions(g: Graph, v: Value) -> Value:
    """Something that depends on where a frame is: the first ones masked, every n-th, a sinusoid."""
    v = g.to(v, "BTC")
    at = positions(g, v)
    how = g.rng.randrange(4)
    if how == 0:
        keep = g.unsqueeze(g.op("Less", at, g.const(g.rng.randint(1, 9), np.int64)), 1)
        return replace(v, name=g.op("Where", keep, g.const(g.rng.choice((0.0, 1.0))), v.name))
    if how == 1:
        beat = g.op("Equal", g.op("Mod", at, g.const(g.rng.choice((2, 3)), np.int64)), g.const(0, np.int64))
        return replace(v, name=g.op("Where", g.unsqueeze(beat, 1), v.name, g.op("Neg", v.name)))
    wave = g.op("Mul", g.unsqueeze(g.float(at), 1), g.const(np.linspace(0.1, 0.7, v.c).reshape(1, v.c)))
    if how == 2:
        return replace(v, name=g.op("Add", v.name, g.op("Sin", wave)))
    parity = g.float(g.op("Mod", at, g.const(4, np.int64)))
    return replace(v, name=g.op("Mul", v.name, g.op("Add", g.unsqueeze(parity, 1), g.const(0.5))))


def cumulative(g: Graph, v: Value) -> Value:
    """Cumulative layer norm, a running mean, or a plain running sum."""
    g.need(11)
    if g.dtype == "float16":
        raise Unwritable("CumSum of halves")
    v = g.to(v, "BCT")
    how = g.rng.randrange(3)
    axis = g.const(g.rng.choice((2, -1)), np.int64)
    if how == 0:
        scaled = g.op("Mul", v.name, g.const(0.1))
        return replace(v, name=g.op("CumSum", scaled, axis, exclusive=g.rng.choice((None, 1))))
    counts = g.op("Add", g.float(positions(g, v)), g.const(1.0))
    if how == 1:
        return replace(v, name=g.op("Div", g.op("CumSum", v.name, axis), counts))
    every = g.op("Mul", counts, g.const(float(v.c)))
    mean = g.op("Div", g.op("CumSum", g.reduce("ReduceSum", v.name, 1), axis), every)
    power = g.op("Div", g.op("CumSum", g.reduce("ReduceSum", g.op("Mul", v.name, v.name), 1), axis), every)
    spread = g.op("Sqrt", g.op("Add", g.op("Abs", g.op("Sub", power, g.op("Mul", mean, mean))), g.const(1e-2)))
    return replace(v, name=g.op("Div", g.op("Sub", v.name, mean), spread))


def ema_scan(g: Graph, v: Value) -> Value:
    """A Scan: an exponential average, or a max that decays."""
    g.need(9)
    if not isinstance(g.batch, int) or g.dtype == "float16":  # onnxruntime dies of a Scan over halves
        raise Unwritable("rows of the start, or halves")
    v = g.to(v, "TBC")
    dtype = element(g.np)
    kind = g.rng.choice(("Add", "Max"))
    if kind == "Max" and g.opset < 12:
        kind = "Add"
    shape = [g.batch, v.c]
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["s", "decay"], ["kept"]),
            helper.make_node(kind, ["kept", "x_t"], ["s_new"]),
            helper.make_node("Identity", ["s_new"], ["y_t"]),
        ],
        "body",
        [helper.make_tensor_value_info("s", dtype, shape), helper.make_tensor_value_info("x_t", dtype, shape)],
        [helper.make_tensor_value_info("s_new", dtype, shape), helper.make_tensor_value_info("y_t", dtype, shape)],
        [helper.make_tensor("decay", dtype, [], np.asarray([0.75], g.np).tobytes(), raw=True)],
    )
    start = g.const(np.zeros(shape) if g.chance(0.5) else np.full(shape, 0.3))
    return replace(v, name=g.ops("Scan", start, v.name, outs=2, body=body, num_scan_inputs=1)[1])


def squeeze_excite(g: Graph, v: Value) -> Value:
    """A gate by the mean over all time, which no stream can have; or by the mean over features, which it can."""
    if "F" in v.axes and g.chance(0.7):
        v = g.to(v, "BCTF")
        mean = g.reduce("ReduceMean", v.name, 3)
        return replace(v, name=g.op("Mul", v.name, g.op("Sigmoid", mean)))
    if g.chance(0.85):
        raise Unwritable("refused anyway")
    v = g.to(v, "BCT")
    mean = g.op("GlobalAveragePool", v.name) if g.chance(0.5) else g.reduce("ReduceMean", v.name, 2)
    gate = conv1d(g, replace(v, name=mean), v.c, 1)
    return replace(v, name=g.op("Mul", v.name, g.op("Sigmoid", gate.name)))
