"""Frames taken out of a stream by indices that follow from the position: framing with a hop, shifts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pulsify_onnx.algebra.facts import Shape, Stream
from pulsify_onnx.algebra.ordering import holds
from pulsify_onnx.algebra.padding import crop
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Outcome
from pulsify_onnx.algebra.windows import align, windowed
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import Refusal, refuse
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE, as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.positions import PLACES, TRIED, Positions, Unknown
from pulsify_onnx.rules.kit.views import offers

PICKS = "it picks frames of the stream by index"
PICKS_HINT = "slice from a fixed start, or frame by a strided convolution"


@dataclass(frozen=True)
class _Frame:
    """Frame t is made of ``x[hop * t + offsets]``."""

    hop: int
    offsets: Array

    @property
    def shift(self) -> int | None:
        """How many frames later each frame is taken, where it is one frame each."""
        one = self.hop == 1 and self.offsets.size and (self.offsets == self.offsets.flat[0]).all()
        return int(self.offsets.flat[0]) if one else None


def framed(node: Node, x: Stream, indices: Stream) -> Outcome:
    """``Gather(x, indices)`` along the stream, by indices ``hop * t`` plus constants: a window every `hop` frames.

    Refuses indices that come from data, that follow another pattern, or that look back farther and farther.
    """
    frame = _pattern(node, indices)
    if x.positional and frame.shift is not None and frame.shift >= 0:
        return _laid_out(node, later(x, indices, frame.shift), [*range(x.axis)], indices, x.axis)
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
            hint=PICKS_HINT,
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


def picked(node: Node, x: Stream, indices: Stream) -> Outcome:
    """``GatherND(x, indices)`` of frames at their own position or some frames later, and of one entry of every other
    axis that is indexed.

    Refuses all other indices.
    """
    depth = indices.shape[-1].constant or 0
    own = _plain(node, indices, x.axis).shift
    if own is None or own < 0 or any(d.constant != 1 for k, d in enumerate(indices.shape[:-1]) if k != indices.axis):
        refuse(PICKS, PICKS_HINT)
    entries: dict[int, int] = {}
    for axis in range(depth):
        if axis != x.axis:
            entry = _plain(node, indices, axis)
            if entry.hop or (entry.offsets != entry.offsets.flat[0]).any():
                refuse(PICKS, PICKS_HINT)
            entries[axis] = int(entry.offsets.flat[0])
    x = later(x, indices, own)
    return _laid_out(node, x, [], replace(indices, shape=indices.shape[:-1]), depth - 1, entries)


def shifted(node: Node, x: Stream, indices: Stream) -> Outcome:
    """``GatherElements(x, indices)`` along the stream, of frames at their own position or some frames later.

    Refuses all other indices.
    """
    own = _plain(node, indices).shift
    if own is None or own < 0 or indices.axis != x.axis or _across(indices) != _across(x):
        refuse(PICKS, PICKS_HINT)
    return Outcome((later(x, indices, own),))


def _across(x: Stream) -> Shape:
    return (*x.shape[: x.axis], *x.shape[x.axis + 1 :])


def later(x: Stream, indices: Stream, shift: int) -> Stream:
    """The frames of `x` from frame `shift` on, as many as there are indices."""
    beyond = (x.extent - shift - indices.extent).constant
    if beyond is None:
        refuse(PICKS, PICKS_HINT)
    if beyond < 0:
        refuse(
            f"it picks frames after the last one ({indices.extent} indices from {shift} on of {x.extent} frames)",
            hint="pick only what is there",
        )
    return crop(x, start=shift, end=beyond)


def _laid_out(
    node: Node, x: Stream, before: list[int], indices: Stream, last: int, entries: Mapping[int, int] | None = None
) -> Outcome:
    """`x` with the axes up to `last` (but those `before`) replaced by those of `indices`, which has one frame at each;
    of other axes one of the `entries`.
    """
    (window,), y = align([x], node.options)
    expr: Expr = window
    for axis, entry in (entries or {}).items():
        if x.shape[axis].constant != 1:
            expr = onnx_op("Gather", expr, const([entry]), axis=axis)
    shape = (*(x.shape[k] for k in before), *indices.shape, *x.shape[last + 1 :])
    at = len(before) + indices.axis
    if shape != x.shape:
        sizes = [-1 if k == at else d.constant for k, d in enumerate(shape)]
        if None in sizes:
            refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
        expr = onnx_op("Reshape", expr, const(sizes))
    return as_outcome(node, [expr], [y.placed(node.outputs[0], x.dtype, shape, at)])


def _plain(node: Node, indices: Stream, coordinate: int | None = None) -> _Frame:
    """Hop and offsets of indices that pick frames one by one; refuses all others alike."""
    try:
        return _pattern(node, indices, coordinate)
    except Refusal:
        refuse(PICKS, PICKS_HINT)


def _pattern(node: Node, indices: Stream, coordinate: int | None = None) -> _Frame:
    """Hop and offsets of indices (one `coordinate` of them); refuses those that are no such pattern."""
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
            refuse("which frames it picks is not known before the stream runs", hint=PICKS_HINT)
        values = np.moveaxis(values, indices.axis, 0)
        values = values if coordinate is None else values[..., coordinate]
        if values.shape[0] != TRIED:
            refuse("which frames it picks is not known before the stream runs", hint=PICKS_HINT)
        hop = int((values[1] - values[0]).flat[0])
        steps = (np.arange(TRIED) + place).reshape(-1, *[1] * (values.ndim - 1)) * hop
        offsets = values - steps
        here = _Frame(hop, np.expand_dims(offsets[0], indices.axis))
        if (offsets != offsets[0]).any() or (
            found is not None and (here.hop != found.hop or (here.offsets != found.offsets).any())
        ):
            refuse("the frames it picks do not follow each other at a fixed hop", hint=PICKS_HINT)
        found = here
    assert found is not None
    return found
