"""Attention within random networks."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from testing.builder import Builder, Invalid


def attention(b: Builder) -> None:
    """Self-attention behind a band or chunks, which end with the stream now and then, with biases by distance or relative positions now and then."""
    x = b.any((3,))
    if x.rate > 1:
        raise Invalid  # the batch model's matrices grow with the square of the length

    def number(v: int) -> str:
        return b.constant(np.asarray(v, np.int64))

    count = b.node("Gather", b.node("Shape", x.name), number(2), axis=0)
    index = b.node("Range", number(0), count, number(1))
    query, key = b.node("Unsqueeze", index, b.ints(1)), b.node("Unsqueeze", index, b.ints(0))
    distance = b.node("Sub", query, key)
    keys = key
    left, right, chunk = b.pick(0, 1, 2, 5), b.pick(0, 0, 1, 2), b.pick(1, 1, 2, 3)
    if chunk > 1:
        query, key = b.node("Div", query, number(chunk)), b.node("Div", key, number(chunk))
    apart = b.node("Sub", query, key)
    if b.opset >= 12 and b.chance(0.3):
        end = b.node("Mul", b.node("Add", query, number(right + 1)), number(chunk))
        ahead = b.node("Less", keys, b.node("Min", end, count))
    else:
        ahead = b.node("Greater", apart, number(-right - 1))
    open_ = b.node("And", b.node("Less", apart, number(left + 1)), ahead)
    t = b.node("Transpose", x.name, perm=[0, 2, 1])
    q, k, v = (b.node("MatMul", t, b.weight(x.channels, x.channels)) for _ in range(3))
    scores = b.node("MatMul", q, b.node("Transpose", k, perm=[0, 2, 1]))
    kind = b.pick("plain", "plain", "alibi", *([] if b.lanes else ["relative"]))
    if kind == "alibi":
        scores = b.node(
            "Sub", scores, b.node("Mul", b.node("Cast", distance, to=TensorProto.FLOAT), b.constant(np.float32(0.2)))
        )
    elif kind == "relative":
        scores = b.node("Add", scores, _skewed(b, q, count, x.channels))
    low = b.constant(np.float32(b.pick(-np.inf, -1e9)))
    if b.chance(0.5):
        masked = b.node("Where", open_, scores, low)
    else:
        masked = b.node("Add", scores, b.node("Where", open_, b.constant(np.float32(0)), low))
    mixed = b.node("MatMul", b.node("Softmax", masked, axis=-1), v)
    b.wire(b.node("Transpose", mixed, perm=[0, 2, 1]), x)


def _skewed(b: Builder, q: str, count: str, channels: int) -> str:
    """Queries times sinusoids of relative positions, skewed to queries × keys."""
    one, frames = b.constant(np.asarray(1, np.int64)), b.node("Unsqueeze", count, b.ints(0))
    down = b.constant(np.asarray(-1, np.int64))
    offsets = b.node(
        "Cast", b.node("Range", b.node("Sub", count, one), b.node("Neg", count), down), to=TensorProto.FLOAT
    )
    table = b.node("Sin", b.node("Mul", b.node("Unsqueeze", offsets, b.ints(0)), b.weight(channels, 1)))
    product = b.node("MatMul", q, table)
    padded = b.node("Pad", product, b.ints(0, 0, 1, 0, 0, 0))
    folded = b.node("Reshape", padded, b.node("Concat", b.ints(1, -1), frames, axis=0))
    rows = b.node("Reshape", b.node("Slice", folded, b.ints(1), b.ints(2**62), b.ints(1)), b.node("Shape", product))
    return str(b.node("Slice", rows, b.ints(0), frames, b.ints(2)))
