"""Random whole networks, valid by construction: branches, joins, strides up and down, recurrences, shape subgraphs.

Every wire carries its batch length at many stream lengths, so that joins are made only where the batch model runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from testing.attention_networks import attention
from testing.builder import Builder, Invalid, Network, Wire, begin, ends_of, model_of


def spatial(b: Builder, x: Wire, along: int, across: int) -> list[int]:
    """`along` for the frames, and `across` where there are bins."""
    return [along] if x.bins is None else [along, across]


def _pads(x: Wire, before: int, after: int, across: int) -> list[int]:
    return [before, after] if x.bins is None else [before, across, after, across]


def conv(b: Builder) -> None:
    """A convolution with any padding, stride, dilation and groups."""
    x = b.any()
    k, d, s = b.pick(1, 2, 3, 3, 5), b.pick(1, 1, 2, 3), b.pick(1, 1, 1, 1, 2, 3)
    if b.unit == 1 and s > 1 and b.chance(0.5):
        s = 1
    span = (k - 1) * d + 1
    group = b.pick(1, 1, x.channels) if x.channels > 1 else 1
    out = group * b.pick(1, 2) if group > 1 else b.pick(1, 2, 3, 4)
    if out > 8:
        out = group
    style = b.pick("same", "causal", "valid", "free", "auto")
    attributes: dict[str, Any] = {"group": group, "strides": spatial(b, x, s, 1), "dilations": spatial(b, x, d, 1)}
    before = after = 0
    if style == "auto" and s == 1 and d == 1:
        attributes["auto_pad"] = b.pick("SAME_UPPER", "SAME_LOWER")
        lengths = x.lengths
    else:
        if style == "same":
            before, after = (span - 1) // 2, span - 1 - (span - 1) // 2
        elif style == "causal":
            before = span - 1
        elif style == "free":
            before, after = int(b.rng.integers(0, span + 2)), int(b.rng.integers(0, span + 2))
        attributes["pads"] = _pads(x, before, after, 1)
        lengths = b.grown((x.lengths + before + after - span) // s + 1)
    kernel = [k] if x.bins is None else [k, 3]
    inputs = [x.name, b.kernel(out, x.channels // group, *kernel)] + ([b.weight(out)] if b.chance(0.8) else [])
    b.wire(b.node("Conv", *inputs, **attributes), x, channels=out, lengths=lengths, rate=x.rate / s)


def pool(b: Builder) -> None:
    """A pool with any padding and rounding."""
    x = b.any()
    k, s = b.pick(2, 3, 4), b.pick(1, 1, 2, 3)
    before, after = int(b.rng.integers(0, k)), int(b.rng.integers(0, k))
    ceil = b.chance(0.3)
    kind = b.pick("MaxPool", "AveragePool", "LpPool")
    room = x.lengths + before + after - k
    lengths = room // s + 1
    if ceil and kind != "LpPool":
        lengths = -(-room // s) + 1
        lengths = np.where((lengths - 1) * s >= x.lengths + before, lengths - 1, lengths)
    attributes: dict[str, Any] = {
        "kernel_shape": spatial(b, x, k, 1),
        "strides": spatial(b, x, s, 1),
        "pads": _pads(x, before, after, 0),
    }
    if kind != "LpPool":
        attributes["ceil_mode"] = int(ceil)
    if kind == "AveragePool":
        attributes["count_include_pad"] = int(b.chance(0.5))
    b.wire(b.node(kind, x.name, **attributes), x, lengths=b.grown(lengths), rate=x.rate / s)


def conv_transpose(b: Builder) -> None:
    """A transposed convolution, trimmed by its pads."""
    x = b.any((3,))
    k, s = b.pick(1, 2, 3, 4, 5), b.pick(1, 2, 2, 3)
    extra = int(b.rng.integers(0, s)) if b.chance(0.3) else 0
    before, after = int(b.rng.integers(0, k)), int(b.rng.integers(0, k))
    out = b.pick(1, 2, 3)
    lengths = b.grown((x.lengths - 1) * s + k + extra - before - after)
    b.grown((x.lengths - 1) * s + k)
    name = b.node(
        "ConvTranspose",
        x.name,
        b.weight(x.channels, out, k),
        b.weight(out),
        strides=[s],
        pads=[before, after],
        output_padding=[extra],
    )
    b.wire(name, x, channels=out, lengths=lengths, rate=x.rate * s)


def resize(b: Builder) -> None:
    """Nearest neighbours by a whole factor."""
    x = b.any((3,))
    factor = b.pick(2, 3)
    scales = b.constant(np.asarray([1, 1, factor], np.float32))
    name = b.node(
        "Resize", x.name, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    b.wire(name, x, lengths=b.grown(x.lengths * factor), rate=x.rate * factor)


def pad(b: Builder) -> None:
    """Frames of a constant before and after, or cropped away."""
    x = b.any()
    before, after = int(b.rng.integers(-3, 5)), int(b.rng.integers(-3, 5))
    lengths = b.grown(x.lengths + before + after)
    b.grown(x.lengths + min(before, 0) + min(after, 0))
    value = b.pick(0.0, 0.0, 0.7, -1.0)
    pads = [0, 0, before, 0, 0, after] if x.bins is None else [0, 0, before, 0, 0, 0, after, 0]
    b.wire(b.node("Pad", x.name, b.ints(*pads), b.constant(np.float32(value))), x, lengths=lengths)


def cut(b: Builder) -> None:
    """A slice along time."""
    x = b.any()
    start, step = b.pick(0, 0, 1, 2, 5), b.pick(1, 1, 1, 2, 3)
    end = b.pick(2**31 - 1, -1, -2, -4)
    stop = x.lengths if end > 0 else x.lengths + end
    lengths = b.grown(-(-(stop - start) // step))
    name = b.node("Slice", x.name, b.ints(start), b.ints(end), b.ints(2), b.ints(step))
    b.wire(name, x, lengths=lengths, rate=x.rate / step)


def pointwise(b: Builder) -> None:
    """An activation, or arithmetic with a constant per channel."""
    x = b.any()
    kind = b.pick(
        "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Add", "Mul", "Sub", "Clip", "Softplus", "BatchNormalization", "Exp"
    )
    shape = (1, x.channels, 1) if x.bins is None else (1, x.channels, 1, 1)
    if kind in ("Add", "Mul", "Sub"):
        pair = [x.name, b.weight(*shape)]
        name = b.node(kind, *(pair if b.chance(0.5) else pair[::-1]))
    elif kind == "Clip":
        name = b.node("Clip", x.name, b.constant(np.float32(-0.8)), b.constant(np.float32(1.2)))
    elif kind == "BatchNormalization":
        spread = b.constant((b.rng.random(x.channels) + 0.5).astype(np.float32))
        name = b.node(kind, x.name, b.weight(x.channels), b.weight(x.channels), b.weight(x.channels), spread)
    elif kind == "Exp":
        name = b.node("Exp", b.node("Tanh", x.name))
    else:
        name = b.node(kind, x.name)
    b.wire(name, x)


def mixing(b: Builder) -> None:
    """Features mixed with time in the middle: MatMul, LayerNorm, Softmax."""
    x = b.any((3,))
    t = b.node("Transpose", x.name, perm=[0, 2, 1])
    kind = b.pick("MatMul", "LayerNormalization", "Softmax", "ReduceMean", *([] if b.lanes else ["Reshape"]))
    channels = x.channels
    if kind == "MatMul":
        channels = b.pick(1, 2, 3)
        t = b.node("MatMul", t, b.weight(x.channels, channels))
    elif kind == "LayerNormalization":
        if b.opset < 17:
            raise Invalid
        t = b.node(kind, t, b.weight(x.channels), b.weight(x.channels), axis=-1)
    elif kind == "Softmax":
        t = b.node(kind, t, axis=-1)
    elif kind == "ReduceMean":
        channels = 1
        t = b.mean(t, 2, 1)
    else:
        size = b.node("Gather", b.node("Shape", t), b.ints(1), axis=0)
        t = b.node("Reshape", t, b.node("Concat", size, b.ints(x.channels), axis=0))
        t = b.node("Unsqueeze", t, b.ints(0))
    b.wire(b.node("Transpose", t, perm=[0, 2, 1]), x, channels=channels)


def recurrence(b: Builder) -> None:
    """A forward recurrence, from zeros or from a constant."""
    x = b.any((3,))
    kind, hidden = b.pick("GRU", "LSTM", "RNN"), 3
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind]
    t = b.node("Transpose", x.name, perm=[2, 0, 1])
    inputs = [
        t,
        b.weight(1, gates * hidden, x.channels),
        b.weight(1, gates * hidden, hidden),
        b.weight(1, 2 * gates * hidden),
    ]
    if not b.lanes and b.chance(0.5):
        inputs += ["", b.weight(1, 1, hidden)]
        if kind == "LSTM":
            inputs.append(b.weight(1, 1, hidden))
    last = b.chance(0.3)
    outs = b.node(kind, *inputs, outputs=2, hidden_size=hidden)
    if last and not b.lanes:
        b.heads.append((outs[1], (1, 1, hidden)))
    y = b.node("Squeeze", outs[0], b.ints(1))
    b.wire(b.node("Transpose", y, perm=[1, 2, 0]), x, channels=hidden)


def running_sum(b: Builder) -> None:
    """A cumulative sum, scaled down."""
    x = b.any()
    name = b.node("CumSum", x.name, b.constant(np.asarray(2, np.int64)), exclusive=int(b.chance(0.4)))
    b.wire(b.node("Mul", name, b.constant(np.float32(0.1))), x)


def channels(b: Builder) -> None:
    """Channels split, gathered, sliced."""
    x = b.any()
    kind = b.pick("Split", "Gather", "Slice")
    if kind == "Split" and x.channels > 1:
        parts = b.node("Split", x.name, b.ints(1, x.channels - 1), axis=1, outputs=2)
        b.wire(parts[0], x, channels=1)
        b.wire(parts[1], x, channels=x.channels - 1)
    elif kind == "Gather":
        picks = [int(v) for v in b.rng.integers(0, x.channels, b.pick(1, 2, 3))]
        b.wire(b.node("Gather", x.name, b.ints(*picks), axis=1), x, channels=len(picks))
    else:
        b.wire(
            b.node("Slice", x.name, b.ints(0), b.ints(max(1, x.channels - 1)), b.ints(1)),
            x,
            channels=max(1, x.channels - 1),
        )


def glue(b: Builder) -> None:
    """Constant frames put before or after the stream."""
    if b.lanes:
        raise Invalid
    x = b.any((3,))
    count = b.pick(1, 2, 3)
    block = np.zeros((1, x.channels, count), np.float32)
    if b.chance(0.3):
        block += 0.5
    pair = [b.constant(block), x.name]
    if b.chance(0.4):
        pair = pair[::-1]
    b.wire(b.node("Concat", *pair, axis=2), x, lengths=b.grown(x.lengths + count))


def rank(b: Builder) -> None:
    """From [1, C, T] to [1, C, T, F] and back."""
    x = b.any()
    if x.bins is None:
        shape = b.weight(1, x.channels, 1, 3)
        b.wire(b.node("Mul", b.node("Unsqueeze", x.name, b.ints(3)), shape), x, bins=3)
    elif b.chance(0.5):
        b.wire(b.mean(x.name, 3, 0), x, bins=None)
    else:
        t = b.node("Transpose", x.name, perm=[0, 2, 1, 3])
        t = b.node("Reshape", t, b.ints(0, -1, x.channels * x.bins) if b.chance(0.5) else b.ints(0, 0, -1))
        b.wire(b.node("Transpose", t, perm=[0, 2, 1]), x, bins=None, channels=x.channels * x.bins)


def interleave(b: Builder) -> None:
    """Features to frames, or whole frames to features."""
    if b.lanes:
        raise Invalid
    x = b.any((3,))
    t = b.node("Transpose", x.name, perm=[0, 2, 1])
    if x.channels % 2 == 0 and b.chance(0.6):
        t = b.node("Reshape", t, b.ints(1, -1, x.channels // 2))
        b.wire(
            b.node("Transpose", t, perm=[0, 2, 1]),
            x,
            channels=x.channels // 2,
            lengths=b.grown(x.lengths * 2),
            rate=x.rate * 2,
        )
    elif (x.lengths % 2 == 0).all():
        t = b.node("Reshape", t, b.ints(1, -1, x.channels * 2))
        b.wire(
            b.node("Transpose", t, perm=[0, 2, 1]), x, channels=x.channels * 2, lengths=x.lengths // 2, rate=x.rate / 2
        )
    else:
        raise Invalid


def positions(b: Builder) -> None:
    """Something computed from the frame index alone, added to the frames."""
    x = b.any((3,))
    count = b.node("Gather", b.node("Shape", x.name), b.constant(np.asarray(2, np.int64)), axis=0)
    index = b.node("Range", b.constant(np.asarray(0, np.int64)), count, b.constant(np.asarray(1, np.int64)))
    how = b.pick("", "", "Gather", "GatherND")
    if how:
        column = index if how == "Gather" else b.node("Unsqueeze", index, b.ints(1))
        index = b.node(how, index, column)
    wave = b.node("Sin", b.node("Cast", index, to=TensorProto.FLOAT))
    b.wire(b.node("Add", x.name, wave), x)


def mirror(b: Builder) -> None:
    """Frames of the stream itself before and after it."""
    x = b.any((3,))
    before, after = int(b.rng.integers(0, 4)), int(b.rng.integers(0, 4))
    if int(x.lengths.min()) <= max(before, after):
        raise Invalid
    b.wire(
        b.node("Pad", x.name, b.ints(0, 0, before, 0, 0, after), mode=b.pick("edge", "reflect")),
        x,
        lengths=b.grown(x.lengths + before + after),
    )


def classes(b: Builder) -> None:
    """Whole numbers per frame that look up a table."""
    x = b.any((3,))
    apart = b.constant(
        (np.arange(x.channels, dtype=np.float32) * 0.1937).reshape(1, -1, 1)
    )  # equal channels would leave the choice to rounding
    index = b.node("ArgMax", b.node("Add", x.name, apart), axis=1, keepdims=0)
    rows = b.node("Gather", b.weight(x.channels, 3), index, axis=0)
    b.wire(b.node("Transpose", rows, perm=[0, 2, 1]), x, channels=3)


def head(b: Builder) -> None:
    """A value over the whole stream."""
    x = b.any((3,))
    kind = b.pick("Mean", "Max", "Sum", "Global", "Last")
    if kind == "Mean":
        name = b.mean(x.name, 2, 0)
    elif kind == "Max":
        name = b.node(
            "ReduceMax",
            x.name,
            *([b.ints(2)] if b.opset >= 18 else []),
            **({} if b.opset >= 18 else {"axes": [2]}),
            keepdims=0,
        )
    elif kind == "Sum":
        name = b.node("ReduceSum", x.name, b.ints(2), keepdims=0)
    elif kind == "Global":
        name = b.node("Squeeze", b.node(b.pick("GlobalAveragePool", "GlobalMaxPool"), x.name), b.ints(2))
    else:
        name = b.node("Squeeze", b.node("Slice", x.name, b.ints(-1), b.ints(2**31 - 1), b.ints(2)), b.ints(2))
    if b.chance(0.5):
        name = b.node("MatMul", name, b.weight(x.channels, 2))
    b.heads.append((name, (1, None)))


def einsum(b: Builder) -> None:
    """Channels mixed in groups."""
    x = b.any((3,))
    out = b.pick(1, 2, 3)
    b.wire(b.node("Einsum", x.name, b.weight(x.channels, out), equation="bct,co->bot"), x, channels=out)


def constant_frames(b: Builder) -> None:
    """A constant expanded to the length of the stream."""
    x = b.any((3,))
    shape = b.node("Shape", x.name)
    value = b.node("Expand", b.weight(1, x.channels, 1), shape)
    if b.chance(0.5):
        value = b.node(
            "Add", value, b.node("ConstantOfShape", shape, value=numpy_helper.from_array(np.asarray([0.3], np.float32)))
        )
    b.wire(b.node(b.pick("Add", "Mul"), x.name, value), x)


def join(b: Builder) -> None:
    """Two wires that meet: padded or cropped to one length where they differ by a constant."""
    x = b.any()
    others = [w for w in b.wires if w is not x and w.rate == x.rate and w.bins == x.bins]
    fitting = [
        w
        for w in others
        if len(set((w.lengths - x.lengths).tolist())) == 1 and abs(int((w.lengths - x.lengths)[0])) < 9
    ]
    if not fitting:
        raise Invalid
    y = fitting[int(b.rng.integers(len(fitting)))]
    off = int((y.lengths - x.lengths)[0])
    if off:
        if off < 0:
            x, y, off = y, x, -off
        if b.chance(0.5):  # crop the longer
            first = int(b.rng.integers(0, off + 1))
            ends = b.ints(2**31 - 1 if first == off else first - off)
            y = b.wire(b.node("Slice", y.name, b.ints(first), ends, b.ints(2)), y, lengths=x.lengths)
        else:
            first = int(b.rng.integers(0, off + 1))
            pads = [0, 0, first, 0, 0, off - first] if x.bins is None else [0, 0, first, 0, 0, 0, off - first, 0]
            x = b.wire(
                b.node("Pad", x.name, b.ints(*pads), b.constant(np.float32(b.pick(0.0, 0.4)))), x, lengths=y.lengths
            )
    kind = b.pick("Add", "Mul", "Concat", "Max", "Where")
    if kind == "Concat" and x.channels + y.channels <= 8:
        b.wire(b.node("Concat", x.name, y.name, axis=1), x, channels=x.channels + y.channels)
        return
    if y.channels != x.channels and 1 not in (x.channels, y.channels):
        y = b.wire(
            b.node("Gather", y.name, b.ints(*[k % y.channels for k in range(x.channels)]), axis=1),
            y,
            channels=x.channels,
        )
    out = max(x.channels, y.channels)
    if kind == "Where":
        name = b.node("Where", b.node("Greater", x.name, b.constant(np.float32(0.3))), x.name, y.name)
    else:
        name = b.node("Add" if kind == "Concat" else kind, x.name, y.name)
    b.wire(name, x, channels=out)


Layer = Callable[[Builder], None]
LAYERS: tuple[tuple[Layer, float], ...] = (
    (conv, 5),
    (pool, 1.5),
    (conv_transpose, 1.5),
    (resize, 0.7),
    (pad, 2),
    (cut, 1.5),
    (pointwise, 3),
    (mixing, 1.5),
    (recurrence, 0.7),
    (running_sum, 0.5),
    (channels, 0.7),
    (glue, 0.7),
    (rank, 1),
    (interleave, 0.7),
    (positions, 0.6),
    (join, 4),
    (mirror, 0.7),
    (classes, 0.5),
    (head, 0.4),
    (einsum, 0.4),
    (constant_frames, 0.4),
    (attention, 0.7),
)
UNSTATIONARY = {recurrence, running_sum, positions, glue, attention}


OPSETS = (13, 17, 17, 18, 21)


def network(
    seed: int,
    size: int | None = None,
    layers: tuple[tuple[Layer, float], ...] = LAYERS,
    *,
    opsets: Sequence[int] = OPSETS,
    lanes: bool = False,
    layout: str = "NCT",
) -> Network:
    """A random network of about `size` layers; `lanes`: of any number of rows N; `layout`: of its first input, NCT,
    NT or TNC.
    """
    rng = np.random.default_rng(seed)
    unit = int(rng.choice([1, 1, 1, 6, 12]))
    shortest = int(rng.choice([1, 2, 5, 12, 20]))
    size = int(rng.integers(2, 40)) if size is None else size
    b = Builder(rng, opset=int(rng.choice(opsets)), unit=unit, lanes=lanes)
    lengths = np.arange(math.ceil(shortest / unit), math.ceil(shortest / unit) + 25, dtype=np.int64) * unit
    begin(b, lengths, layout)
    chances = np.asarray([weight for _, weight in layers])
    chances = chances / chances.sum()
    made, tries, kinds = 0, 0, set()
    while made < size and tries < 20 * size:
        tries += 1
        layer = layers[int(rng.choice(len(layers), p=chances))][0]
        before = (len(b.nodes), len(b.weights), len(b.wires), len(b.heads))
        try:
            layer(b)
        except Invalid:
            del b.nodes[before[0] :], b.weights[before[1] :], b.wires[before[2] :], b.heads[before[3] :]
            continue
        made += 1
        last = b.wires[-1]
        if last.rate > 8 or last.rate < Fraction(1, 16) or last.channels > 12:
            del b.wires[before[2] :]
            continue
        kinds.add(getattr(layer, "__name__", ""))
        if layer in UNSTATIONARY:
            b.stationary = False
    return Network(model_of(b, ends_of(b)), tuple(int(n) for n in lengths), unit, b.stationary, lanes, frozenset(kinds))
