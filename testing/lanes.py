"""Layers of random networks for a batch whose rows are streams: tensors of rows and frames alone, and nodes in which
rows meet.
"""

from __future__ import annotations

import numpy as np

from testing.builder import Builder
from testing.networks import Layer, conv, cut, join, pad, pointwise, resize


def flat(b: Builder) -> None:
    """Resampled as [rows, frames], or with the frames first."""
    x = b.any((3,))
    factor, mode, turned = b.pick(2, 3), b.pick("linear", "linear", "cubic"), b.chance(0.3)
    rows = b.node("Squeeze", x.name, b.ints(1)) if x.channels == 1 else b.node("Einsum", x.name, equation="bct->bt")
    rows = b.node("Transpose", rows, perm=[1, 0]) if turned else rows
    scales = np.asarray([factor, 1] if turned else [1, factor], np.float32)
    made = b.node("Resize", rows, "", b.constant(scales), mode=mode)
    made = b.node("Transpose", made, perm=[1, 0]) if turned else made
    b.wire(
        b.node("Unsqueeze", made, b.ints(1)), x, channels=1, lengths=b.grown(x.lengths * factor), rate=x.rate * factor
    )


def turned(b: Builder) -> None:
    """Features resampled with the rows last, where time keeps its rate."""
    x = b.any((3,))
    factor = b.pick(2, 3)
    rows = b.node("Transpose", b.node("Unsqueeze", x.name, b.ints(0)), perm=[0, 3, 2, 1])
    made = b.node("Resize", rows, "", b.constant(np.asarray([1, 1, factor, 1], np.float32)), mode="linear")
    made = b.node("Squeeze", b.node("Transpose", made, perm=[0, 3, 1, 2]), b.ints(0))
    b.wire(b.node("Transpose", made, perm=[0, 2, 1]), x, channels=x.channels * factor)


def meeting(b: Builder) -> None:
    """All rows in one: sums, softmax and running sums over the batch."""
    x = b.any((3,))
    kind = b.pick("ReduceSum", "ReduceMax", "ReduceMean", "Softmax", "CumSum", "Einsum", "LpNormalization")
    if kind in ("Softmax", "LpNormalization"):
        name = b.node(kind, x.name, axis=0)
    elif kind == "CumSum":
        name = b.node(kind, x.name, b.constant(np.int64(0)))
    elif kind == "Einsum":
        name = b.node("Sub", x.name, b.node(kind, x.name, equation="bct->ct"))
    elif kind == "ReduceSum" or b.opset >= 18:
        name = b.node("Sub", x.name, b.node(kind, x.name, b.ints(0), keepdims=1))
    else:
        name = b.node("Sub", x.name, b.node(kind, x.name, axes=[0], keepdims=1))
    b.wire(name, x)


def started(b: Builder) -> None:
    """Frames of a number before the first."""
    x = b.any((3,))
    count = int(b.rng.integers(1, 5))
    b.wire(
        b.node("Pad", x.name, b.ints(0, 0, count, 0, 0, 0), b.constant(np.float32(b.pick(0.7, -1.0)))),
        x,
        lengths=x.lengths + count,
    )


APART: tuple[tuple[Layer, float], ...] = (
    (conv, 4),
    (pad, 2),
    (cut, 1),
    (pointwise, 2),
    (join, 2),
    (resize, 1),
    (flat, 3),
    (turned, 1),
)
TOGETHER: tuple[tuple[Layer, float], ...] = (
    (conv, 2),
    (pad, 1),
    (started, 3),
    (pointwise, 2),
    (join, 2),
    (flat, 1),
    (meeting, 4),
)
