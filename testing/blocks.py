"""Layers that cut the stream into blocks of frames."""

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
