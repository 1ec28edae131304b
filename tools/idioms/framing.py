"""More idioms: framing by positions, polyphase filters, weights that are computed, and what newer exporters write."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .convs import activation
from .graph import LAST, Graph, Unwritable, Value, windowed
from .sequence import linear, positions


def unfold(g: Graph, v: Value) -> Value:
    """x.unfold: frames gathered by a Range of starts plus a Range of offsets, then a dense layer over each window."""
    g.need(11)
    v = g.to(v, "BTC")
    win, hop = g.rng.randint(2, 4), g.rng.randint(1, 3)
    frames = g.dim(v.name, 1)
    last = g.op("Sub", frames, g.const(win - 1, np.int64))
    starts = g.op("Range", g.const(0, np.int64), last, g.const(hop, np.int64))
    offsets = (
        g.const(np.arange(win), np.int64)
        if g.chance(0.5)
        else g.op("Range", g.const(0, np.int64), g.const(win, np.int64), g.const(1, np.int64))
    )
    places = g.op("Add", g.unsqueeze(starts, 1), g.unsqueeze(offsets, 0))
    wide = g.op("Gather", v.name, places, axis=1)
    flat = Value(g.reshape(wide, 0, -1, win * v.c), "BTC", win * v.c, windowed(v.frames, win, hop))
    return activation(g, linear(g, flat, g.rng.randint(1, 4)))


def polyphase(g: Graph, v: Value) -> Value:
    """Even and odd frames apart, mixed, and interleaved again or left at half the rate."""
    g.need(10)
    v = g.to(v, "BTC")
    even = g.slice(v.name, 1, 0, LAST, 2)
    odd = g.slice(v.name, 1, 1, LAST, 2)
    frames = tuple(n // 2 for n in v.frames)
    if any(n % 2 for n in v.frames):
        even = g.slice(even, 1, 0, g.dim(odd, 1, flat=True))
    a, b = g.op("Add", even, odd), g.op("Sub", even, odd)
    if g.chance(0.5):
        return replace(v, name=g.op("Concat", a, b, axis=2), c=2 * v.c, frames=frames)
    both = g.op("Concat", g.unsqueeze(a, 2), g.unsqueeze(b, 2), axis=2)
    return replace(v, name=g.reshape(both, 0, -1, v.c), frames=tuple(2 * n for n in frames))


def window_sum(g: Graph, v: Value) -> Value:
    """A moving sum as the difference of a running one."""
    g.need(11)
    if g.dtype == "float16":
        raise Unwritable("CumSum of halves")
    v = g.to(v, "BTC")
    k = g.rng.randint(1, 4)
    run = g.op("CumSum", v.name, g.const(1, np.int64))
    if g.chance(0.5):
        before = g.slice(g.pad(run, 3, 1, k, 0), 1, 0, -k)
        return replace(v, name=g.op("Mul", g.op("Sub", run, before), g.const(1 / k)))
    moved = g.op("Sub", g.slice(run, 1, k), g.slice(run, 1, 0, -k))
    return replace(v, name=moved, frames=tuple(n - k for n in v.frames))


def weight_norm(g: Graph, v: Value) -> Value:
    """A convolution whose weights the graph computes from a direction and a length."""
    if g.dtype == "float64":
        raise Unwritable("Conv of doubles")
    v = g.to(v, "BCT")
    k, out = g.rng.randint(1, 4), g.rng.randint(1, 4)
    direction = g.weight(out, v.c, k)
    norm = g.op("Sqrt", g.reduce("ReduceSum", g.op("Mul", direction, direction), 1, 2))
    weight = g.op("Mul", g.op("Div", direction, norm), g.const(np.linspace(0.5, 1, out).reshape(out, 1, 1)))
    pads = g.rng.choice(((k - 1, 0), (k // 2, k // 2)))
    y = g.op("Conv", v.name, weight, g.bias(out), kernel_shape=[k], pads=list(pads))
    return Value(y, "BCT", out, windowed(v.frames, k, left=pads[0], right=pads[1]))


def einsum(g: Graph, v: Value) -> Value:
    g.need(12)
    v = g.to(v, g.rng.choice(("BTC", "BCT")))
    out = g.rng.randint(1, 4)
    target = g.rng.choice(("BTC", "BCT", "TBC"))
    left = v.axes.lower()
    name = g.op("Einsum", v.name, g.weight(v.c, out), equation=f"{left},cd->{target.lower().replace('c', 'd')}")
    return replace(v, name=name, axes=target, c=out)


def relative_attention(g: Graph, v: Value) -> Value:
    """One head in a band, made by two triangles, with a bias by clipped distances."""
    g.need(14)
    v = g.to(v, "BTC")
    left, right = g.rng.randint(1, 4), g.rng.randint(0, 2)
    q, k, w = (linear(g, v, 2).name for _ in range(3))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1]))
    at = positions(g, v)
    if g.chance(0.6):
        gap = g.op("Sub", g.unsqueeze(at, 0), g.unsqueeze(at, 1))
        span = 3
        near = g.op("Clip", gap, g.const(-span, np.int64), g.const(span, np.int64))
        bias = g.op(
            "Gather", g.const(np.linspace(-1, 1, 2 * span + 1)), g.op("Add", near, g.const(span, np.int64)), axis=0
        )
        scores = g.op("Add", scores, bias)
    frames = g.dim(v.name, 1, flat=True)
    ones = g.op("Expand", g.const(np.ones((1, 1))), g.op("Concat", frames, frames, axis=0))
    low = g.op("Trilu", ones, g.const(right, np.int64), upper=0)
    band = g.op("Trilu", low, g.const(-left, np.int64), upper=1)
    seen = g.op("Greater", band, g.const(0.5)) if g.chance(0.5) else g.op("Cast", band, to=9)
    scores = g.op("Where", seen, scores, g.const(-1e4))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), w)
    return linear(g, replace(v, name=mixed, c=2), v.c)


def attention_op(g: Graph, v: Value) -> Value:
    """scaled_dot_product_attention as one operator of opset 23, with a mask of positions."""
    g.need(23)
    v = g.to(v, "BTC")
    heads, width = g.rng.choice((1, 2)), 2
    parts = [linear(g, v, heads * width).name for _ in range(3)]
    at = positions(g, v)
    gap = g.op("Sub", g.unsqueeze(at, 1), g.unsqueeze(at, 0))
    left, right = g.rng.randint(0, 4), g.rng.randint(0, 2)
    seen = g.op(
        "And", g.op("LessOrEqual", gap, g.const(left, np.int64)), g.op("GreaterOrEqual", gap, g.const(-right, np.int64))
    )
    mask = seen if g.chance(0.5) else g.op("Where", seen, g.const(0.0), g.const(-1e4))
    y = g.op("Attention", *parts, mask, q_num_heads=heads, kv_num_heads=heads)
    return linear(g, replace(v, name=y, c=heads * width), v.c)


def rms_norm_op(g: Graph, v: Value) -> Value:
    g.need(23)
    v = g.to(v, "BTC")
    return replace(v, name=g.op("RMSNormalization", v.name, g.const(np.linspace(0.5, 1.5, v.c)), axis=-1, epsilon=1e-2))


def rotary(g: Graph, v: Value) -> Value:
    """Rotary positions taken apart: cos and sin of positions, the halves turned and joined."""
    v = g.to(v, "BTC")
    v = linear(g, v, 4)
    angle = g.op("Mul", g.unsqueeze(g.float(positions(g, v)), 1), g.const([[0.5, 0.05]]))
    full = g.op("Concat", angle, angle, axis=1)
    a, b = g.slice(v.name, 2, 0, 2), g.slice(v.name, 2, 2)
    turned = g.op("Concat", g.op("Neg", b), a, axis=2)
    return replace(v, name=g.op("Add", g.op("Mul", v.name, g.op("Cos", full)), g.op("Mul", turned, g.op("Sin", full))))


def stft_op(g: Graph, v: Value) -> Value:
    """The STFT operator, its power, and a dense layer."""
    g.need(17)
    if g.dtype != "float32":
        raise Unwritable("STFT of other floats")
    v = g.to(v, "BT")
    hop, win = g.rng.choice((2, 3, 4)), g.rng.choice((4, 8))
    window = g.const(np.hanning(win + 1)[:-1])
    x = g.unsqueeze(v.name, 2) if g.chance(0.5) else v.name
    y = g.op("STFT", x, g.const(hop, np.int64), window, onesided=1)
    bins = win // 2 + 1
    power = g.reduce("ReduceSum", g.op("Mul", y, y), 3, keep=False)
    return linear(g, Value(g.op("Log", g.op("Add", power, g.const(0.1))), "BTC", bins, windowed(v.frames, win, hop)), 3)


def instance_norm(g: Graph, v: Value) -> Value:
    """Norms of groups over all time are refused; over the features of each frame, as rows, they stream."""
    if "F" not in v.axes or g.dtype != "float32":
        raise Unwritable("no features")
    v = g.to(v, "BTCF")
    rows = g.reshape(v.name, -1, v.c, v.f)
    y = g.op("InstanceNormalization", rows, g.const(np.linspace(0.5, 1, v.c)), g.bias(v.c), epsilon=1e-2)
    back: list[int | str] = [g.dim(v.name, 0, flat=True), g.dim(v.name, 1, flat=True), v.c, v.f]
    return replace(v, name=g.reshape(y, *back))


def two_sums(g: Graph, v: Value) -> Value:
    """Max, Min, Mean and Sum of several shifted streams at once."""
    if g.dtype == "float16":
        raise Unwritable("halves")
    v = g.to(v, "BCT")
    k = g.rng.randint(1, 3)
    moved = [g.slice(g.pad(v.name, 3, 2, k, 0), 2, 0, -k), g.slice(g.pad(v.name, 3, 2, 0, k), 2, k)]
    return replace(v, name=g.op(g.rng.choice(("Max", "Min", "Mean", "Sum")), v.name, *moved[: g.rng.randint(1, 2)]))


def lstm_state_output(g: Graph, v: Value) -> Value:
    """An LSTM whose three outputs are there, with peepholes and a clip, of which one is used."""
    if g.dtype != "float32":
        raise Unwritable("LSTM of other floats")
    v = g.to(v, "TBC")
    h = g.rng.randint(1, 3)
    peep = g.weight(1, 3 * h) if g.chance(0.5) else ""
    ins = [v.name, g.weight(1, 4 * h, v.c), g.weight(1, 4 * h, h), "", "", "", "", peep]
    out = g.ops(
        "LSTM",
        *ins[: 8 if peep else 3],
        outs=3,
        hidden_size=h,
        clip=g.rng.choice((None, 1.0)),
        input_forget=g.rng.choice((None, 1)),
    )
    return replace(v, name=g.squeeze(out[0], 1), c=h)
