"""Frames taken out of a stream by indices that follow from the position: framing with a hop, shifts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.ordering import holds
from pulsify_onnx.algebra.padding import crop
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Outcome
from pulsify_onnx.algebra.windows import windowed
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.positions import PLACES, TRIED, Positions, Unknown
from pulsify_onnx.rules.kit.views import offers

HINT = "slice from a fixed start, or frame by a strided convolution"


@dataclass(frozen=True)
class _Frame:
    """Frame t is made of ``x[hop * t + offsets]``."""

    hop: int
    offsets: Array


def framed(node: Node, x: Stream, indices: Stream) -> Outcome:
    """``Gather(x, indices)`` along the stream, by indices ``hop * t`` plus constants: a window every `hop` frames.

    Refuses indices that come from data, that follow another pattern, or that look back farther and farther.
    """
    frame = _pattern(node, indices)
    first = int(frame.offsets.min())
    if first < 0:
        refuse(
            "it picks frames before the first one, which count from the end of the stream",
            hint="pad the stream before framing it",
        )
    if frame.hop < 1 or indices.rate * frame.hop != x.rate:
        refuse(
            f"its indices grow by {frame.hop} where the stream has {x.rate / indices.rate} frames, so it looks "
            "back farther and farther",
            hint=HINT,
        )
    if not offers(node, "Range"):
        refuse("opsets before 11 have no Range to frame by", hint="export with opset 11 or later")
    span = int(frame.offsets.max()) - first + 1
    window, y = windowed(crop(x, start=first), span, frame.hop, node.options)
    if holds(indices.extent, y.extent, 1):
        refuse(
            f"it picks frames after the last one ({indices.extent} windows of {x.extent} frames)",
            hint="frame only what is there",
        )
    count = onnx_op("Reshape", Dims((Frames(y.rate),)), const(np.asarray([], np.int64)))
    ramp = onnx_op("Mul", onnx_op("Range", const(0), count, const(1)), const(frame.hop))
    column = [-1 if k == indices.axis else 1 for k in range(indices.rank)]
    inside: Expr = onnx_op("Add", onnx_op("Reshape", ramp, const(column)), const(frame.offsets - first))
    shape = (*x.shape[: x.axis], *indices.shape, *x.shape[x.axis + 1 :])
    at = x.axis + indices.axis
    y = replace(y, wire=node.outputs[0], shape=shape, axis=at)
    return as_outcome(node, [onnx_op("Gather", window, inside, axis=x.axis)], [y])


def _pattern(node: Node, indices: Stream) -> _Frame:
    """Hop and offsets of indices; refuses those that are no such pattern."""
    carrier = node.world.fact_of(indices.wire)
    if not isinstance(carrier, Stream) or not carrier.positional or indices.pad_before or indices.pad_after.terms:
        refuse(
            "it looks up one stream in another",
            hint="attention and copying over the whole stream can't stream; look up in a constant table",
        )
    positions = Positions(node.world, node.world.opset, TRIED)
    found: _Frame | None = None
    for place in PLACES:
        try:
            values = positions.batch(indices, place).astype(np.int64)
        except Unknown:
            refuse("which frames it picks is not known before the stream runs", hint=HINT)
        values = np.moveaxis(values, indices.axis, 0)
        if values.shape[0] != TRIED:
            refuse("which frames it picks is not known before the stream runs", hint=HINT)
        hop = int((values[1] - values[0]).flat[0])
        steps = (np.arange(TRIED) + place).reshape(-1, *[1] * (values.ndim - 1)) * hop
        offsets = values - steps
        here = _Frame(hop, np.expand_dims(offsets[0], indices.axis))
        if (offsets != offsets[0]).any() or (
            found is not None and (here.hop != found.hop or (here.offsets != found.offsets).any())
        ):
            refuse("the frames it picks do not follow each other at a fixed hop", hint=HINT)
        found = here
    assert found is not None
    return found
