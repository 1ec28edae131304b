"""Layers of random networks whose sizes runtimes and the standard see in two ways, and names that a pulsed model
would choose itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from testing.builder import Builder, Invalid, Network
from testing.networks import Layer, conv, pad, pool, rank, spatial


def ceil_across(b: Builder) -> None:
    """A pool whose last window across the bins may hang over, or begin in the padding."""
    x = b.any((4,))
    k, s = b.pick(1, 2, 3), b.pick(2, 3)
    before, after = int(b.rng.integers(0, k)), int(b.rng.integers(0, k))
    room = (x.bins or 0) + before + after - k
    bins = -(-room // s) + 1
    bins -= (bins - 1) * s >= (x.bins or 0) + before
    if room < 0 or bins < 1:
        raise Invalid
    kind = b.pick("MaxPool", "AveragePool")
    name = b.node(kind, x.name, kernel_shape=[2, k], strides=[1, s], pads=[1, before, 0, after], ceil_mode=1)
    b.wire(name, x, bins=bins)


def same_window(b: Builder) -> None:
    """auto_pad SAME with a stride, where the kernel is at most two frames shorter."""
    x = b.any()
    k, s = b.pick((1, 2), (1, 3), (2, 3), (3, 1), (4, 1), (5, 1))
    kind = "Conv" if k < s else b.pick("Conv", "MaxPool", "AveragePool")
    attributes: dict[str, Any] = {
        "kernel_shape": spatial(b, x, k, 1),
        "strides": spatial(b, x, s, 1),
        "auto_pad": "SAME_UPPER",
    }
    lengths = b.grown(-(-x.lengths // s))
    if kind == "Conv":
        out = b.pick(1, 2, 3)
        b.wire(
            b.node("Conv", x.name, b.weight(out, x.channels, *spatial(b, x, k, 1)), **attributes),
            x,
            channels=out,
            lengths=lengths,
            rate=x.rate / s,
        )
    else:
        b.wire(b.node(kind, x.name, **attributes), x, lengths=lengths, rate=x.rate / s)


def cut_then_resized_across(b: Builder) -> None:
    """Frames cut off at the end, then a resampling of the bins."""
    x = b.any((4,))
    off, scale = b.pick(1, 2, 5), b.pick(2.0, 1.5, 0.5)
    lengths = b.grown(x.lengths - off)
    bins = int((x.bins or 0) * scale)
    if bins < 1 or bins > 16:
        raise Invalid
    kept = b.node("Slice", x.name, b.ints(0), b.ints(-off), b.ints(2))
    scales = b.constant(np.asarray([1, 1, 1, scale], np.float32))
    b.wire(b.node("Resize", kept, "", scales, mode=b.pick("linear", "cubic", "nearest")), x, lengths=lengths, bins=bins)


TWO_WAYS: tuple[tuple[Layer, float], ...] = (
    (ceil_across, 2),
    (same_window, 2),
    (cut_then_resized_across, 2),
    (conv, 1),
    (rank, 3),
    (pad, 0.5),
    (pool, 0.5),
)


def with_taken_names(net: Network, rng: np.random.Generator) -> Network:
    """The same network with names that a pulsed model would choose itself."""
    taken = [
        "valid_frames",
        "past_000_x",
        "present_000_x",
        "pulsify/0",
        "pulsify/const_0",
        "clock",
        "seen",
        "valid_frames_1",
        "pulsify/output_y0",
    ]
    model = onnx.ModelProto()
    model.CopyFrom(net.model)
    names = dict.fromkeys(
        [v.name for v in (*model.graph.input, *model.graph.output)] + [o for n in model.graph.node for o in n.output]
    )
    chosen = [str(n) for n in rng.permutation(list(names))[: len(taken)]]
    renamed = dict(zip(chosen, rng.permutation(taken).tolist()))
    for value in (*model.graph.input, *model.graph.output):
        value.name = renamed.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        node.output[:] = [renamed.get(n, n) for n in node.output]
    return Network(model, net.lengths, net.unit, net.stationary)
