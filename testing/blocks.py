"""Layers that exporters write by numbers of frames: blocks of them, and positions between them."""

from __future__ import annotations

import numpy as np

from testing.builder import Builder, Invalid


def padded_blocks(b: Builder) -> None:
    """Frames filled up to whole blocks, counted by a division that rounds up, and something within each."""
    x = b.any((3,))
    if b.lanes or b.opset < 13:
        raise Invalid
    size = b.pick(2, 3, 4)
    frames = b.node("Gather", b.node("Shape", x.name), b.ints(2), axis=0)
    more = b.node("Mod", b.node("Neg", frames), b.ints(size))
    full = b.node("Pad", x.name, b.node("Concat", b.ints(0, 0, 0, 0, 0), more, axis=0))
    if b.chance(0.5):
        count = b.node("Div", b.node("Add", frames, b.ints(size - 1)), b.ints(size))
    else:
        share = b.node("Div", b.node("Cast", frames, to=1), b.constant(np.asarray([size], np.float32)))
        count = b.node("Cast", b.node("Ceil", share), to=7)
    rows = b.node("Transpose", full, perm=[0, 2, 1])
    held = b.node("Reshape", rows, b.node("Concat", count, b.ints(size, -1), axis=0))
    within = b.node("Softmax", held, axis=1) if b.chance(0.5) else b.node("Sub", held, b.mean(held, 1, 1))
    back = b.node("Reshape", within, b.ints(1, -1, x.channels))
    b.wire(b.node("Transpose", back, perm=[0, 2, 1]), x, lengths=b.grown(-(-x.lengths // size) * size))


def interpolated_by_index(b: Builder) -> None:
    """Linear interpolation by positions, clipped to the frames that there are."""
    x = b.any((3,))
    if b.opset < 13:
        raise Invalid
    factor, half = b.pick(2, 2, 3, 4), b.constant(np.float32(0.5))
    zero, one, fzero = b.constant(np.int64(0)), b.constant(np.int64(1)), b.constant(np.float32(0))
    frames = b.node("Squeeze", b.node("Gather", b.node("Shape", x.name), b.ints(2), axis=0))
    lengths = b.grown(x.lengths * factor)
    line = b.node("Range", zero, b.node("Mul", frames, b.constant(np.int64(factor))), one)
    scaled = b.node("Mul", b.node("Add", b.node("Cast", line, to=1), half), b.constant(np.float32(1 / factor)))
    place = b.node("Clip", b.node("Sub", scaled, half), fzero)
    first = b.node("Cast", place, to=7)
    last = b.node("Sub", frames, one)
    after = b.node("Add", first, one)
    second = b.node("Min", after, last) if b.chance(0.5) else b.node("Clip", after, "", last)
    share = b.node("Sub", place, b.node("Cast", first, to=1))
    a, c = (b.node("Gather", x.name, index, axis=2) for index in (first, second))
    more = b.node("Mul", b.node("Sub", c, a), share)
    b.wire(b.node("Add", a, more), x, lengths=lengths, rate=x.rate * factor)
