"""Frames written into a stream at places that follow from the position: from a fixed one on, all or every so many."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pulsify_onnx.algebra.border import shape_with, zero
from pulsify_onnx.algebra.facts import Fact, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import holds
from pulsify_onnx.algebra.padding import materialise_padding, pad
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Frames, Options, Outcome, Ref, Step
from pulsify_onnx.algebra.windows import align, at_higher_rate, indices
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.framing import PICKS_HINT
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.gating import along, select
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.merged_time import dim
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.positions import PLACES, TRIED, Positions, Unknown
from pulsify_onnx.rules.kit.real import Valid

WRITES = "it writes to frames of the stream by index"
JOINED = {"none": "", "add": "Add", "mul": "Mul"}
"""What is written where something is: what is new, or that and what was there."""


@dataclass(frozen=True)
class _Box:
    """Along the stream it begins at frame `start` and takes every `step`th, ``size`` of them; ``others`` are places
    and sizes on the other axes, None for the whole of one.
    """

    start: int
    step: int
    size: Length
    others: dict[int, tuple[int, int]]


def written(node: Node, axis: int | None) -> Outcome:
    """Its first input with its third written over a box of it, which its second tells: by an index for the frames along
    `axis`, or (None) by one for every axis.
    """
    data, at, new = node.facts
    reduction = str(node.attr("reduction", "none"))
    if not isinstance(data, Stream) or data.merged or at is None or new is None or reduction not in JOINED:
        refuse(WRITES, PICKS_HINT)
    assert isinstance(data, Stream)
    box = _box(node, data, at, shape_of(new), axis)
    end = Length.of(box.start) + (box.size - 1) * box.step + 1
    if box.start < 0 or not holds(end, data.extent, -1, 0):
        refuse(WRITES, PICKS_HINT)
    before: list[Step] = []
    fixed = box.size.constant is not None
    if fixed and (box.start or box.size.constant != 1):  # an export of one length has so many indices as it has frames
        refuse(WRITES, PICKS_HINT)
    read = [data]
    if isinstance(new, Stream):
        if new.axis != data.axis or new.merged or new.rate * box.step != data.rate or new.rank != data.rank:
            refuse(WRITES, PICKS_HINT)
        read.append(_shifted(node, data, new, box, fixed, before))
    elif not isinstance(new, Static) or not fixed or new.own:
        refuse(WRITES, PICKS_HINT)
    (kept, *moved), y = align(read, node.options, leads=False)
    y = y.placed(node.outputs[0], data.dtype, data.shape, data.axis)
    value: Expr = replace(moved[0], mask=None, border=None) if moved else Ref(new.wire)
    flag = along(_frames(y, box), data)
    for k, (start, size) in box.others.items():
        entries = np.arange(data.shape[k].constant or 0) - start
        value = onnx_op("Gather", value, const(np.clip(entries, 0, size - 1)), axis=k)
        column = [-1 if j == k else 1 for j in range(data.rank)]
        flag = onnx_op("And", flag, const(((entries >= 0) & (entries < size)).reshape(column), np.bool_))
    if JOINED[reduction]:
        value = onnx_op(JOINED[reduction], kept, value)
    return as_outcome(node, [select(flag, value, kept, data.dtype)], [y], before=before)


def _frames(y: Stream, box: _Box) -> Expr:
    """Bool [frames]: which are written.

    The last one may be written before the end of the stream is known: where nothing but gaps comes after it, nothing is
    asked about the end.
    """
    end = Length.of(box.start) + box.size * box.step
    inside = Valid(indices(y), end, box.start)
    flag = inside.flags() if holds(end, y.extent, 0, 1) else inside.anywhere()
    assert flag is not None
    if box.step == 1:
        return flag
    rest = onnx_op("Mod", onnx_op("Sub", indices(y), const(box.start)), const(box.step))
    return onnx_op("And", flag, onnx_op("Equal", rest, const(0)))


def _shifted(node: Node, data: Stream, new: Stream, box: _Box, fixed: bool, before: list[Step]) -> Stream:
    """What is written, at the frames where it is; what is between is never looked at."""
    new = materialise_padding(new, node.options, before)
    if box.step > 1:
        new = _spread(node, new, box.step, node.options, before)
    if fixed:
        first = pad(new, box.start, 0, zero(new), node.options, before)
        moved = replace(first, shape=shape_with(first, data.extent))
    else:
        after = data.extent - box.start - new.extent
        moved = pad(new, box.start, after, zero(new), node.options, before)
    return moved


def _spread(node: Node, x: Stream, factor: int, options: Options, before: list[Step]) -> Stream:
    """`x` with every frame `factor` times."""
    (window,), y = align([x], options, leads=False)
    wire = f"{node.outputs[0]}#spread"
    up = at_higher_rate(y, factor)
    up = replace(up, wire=wire, shape=shape_with(y, y.extent * factor))
    frames, more = Frames(y.rate), Frames(up.rate)
    sizes: list[Dim] = [dim(d) for d in y.shape]
    parts: tuple[Dim, ...] = (*sizes[: y.axis], frames, 1, *sizes[y.axis + 1 :])
    wide: tuple[Dim, ...] = (*sizes[: y.axis], frames, factor, *sizes[y.axis + 1 :])
    whole: tuple[Dim, ...] = (*sizes[: y.axis], more, *sizes[y.axis + 1 :])
    expr = onnx_op("Reshape", onnx_op("Expand", onnx_op("Reshape", window, Dims(parts)), Dims(wide)), Dims(whole))
    before.append(Step(node.name, node.op_type, (wire,), (expr,), (up,)))
    return up


def _box(node: Node, data: Stream, at: Fact, new: tuple[Length, ...], axis: int | None) -> _Box:
    """Where it writes; refuses places that are no box, or not known."""
    if isinstance(at, Static) and new[data.axis : data.axis + 1] != (Length.of(1),):
        refuse(WRITES, PICKS_HINT)
    shape = shape_of(at) if axis is not None else shape_of(at)[:-1]
    depth = len(shape)
    if axis is None and (shape_of(at)[-1].constant != depth or data.axis >= depth):
        refuse(WRITES, PICKS_HINT)
    if any(d.constant is None for k, d in enumerate(shape) if k != data.axis) or len(new) != data.rank:
        refuse(WRITES, PICKS_HINT)
    start, step = 0, 0
    begins = [0] * data.rank
    for place, values in _values(node, at):
        rows = [values] if axis is not None else list(np.moveaxis(values, -1, 0))
        for k, found in zip([axis] if axis is not None else range(depth), rows):
            assert k is not None
            ramp = np.moveaxis(found, k, 0)
            first = int(ramp.flat[0])
            if k == data.axis:
                step = int(ramp[1].flat[0]) - first if len(ramp) > 1 else 1
                first -= step * place
            wanted = first + (step if k == data.axis else 1) * (np.arange(len(ramp)) + (place if k == data.axis else 0))
            if (ramp != wanted.reshape(-1, *[1] * (ramp.ndim - 1))).any() or (place and first != begins[k]):
                refuse(WRITES, PICKS_HINT)
            begins[k] = first
    start = begins[data.axis]
    if step < 1 or min(begins) < 0:
        refuse(WRITES, PICKS_HINT)
    others = {}
    for k, (size, whole) in enumerate(zip(new, data.shape)):
        if k == data.axis or (not begins[k] and size == whole):
            continue
        if size.constant is None or whole.constant is None or begins[k] + size.constant > whole.constant:
            refuse(WRITES, PICKS_HINT)
        others[k] = (begins[k], size.constant)
    return _Box(start, step, new[data.axis], others)


def _values(node: Node, at: Fact) -> list[tuple[int, Array]]:
    """Indices at several places of the stream, or the only ones."""
    if isinstance(at, Static) and at.value is not None and at.value.array.size:
        return [(0, at.value.array.astype(np.int64))]
    if not isinstance(at, Stream) or at.pad_before or at.pad_after.terms or at.merged:
        refuse(WRITES, PICKS_HINT)
    positions = Positions(node.world, node.world.opset, TRIED, at.rate)
    found = []
    for place in PLACES:
        try:
            values = positions.batch(at, place).astype(np.int64)
        except Unknown:
            refuse(WRITES, PICKS_HINT)
        if values.ndim != at.rank or values.shape[at.axis] != TRIED:
            refuse(WRITES, PICKS_HINT)
        found.append((place, values))
    return found
