"""Parts of a tensor: Slice, Split, Gather and Pad, along the stream and across it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from pulsify_onnx.algebra.border import mask_padding
from pulsify_onnx.algebra.facts import Fact, QueryKey, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import LONG_STREAM, Length
from pulsify_onnx.algebra.ordering import compare, holds, larger, smaller
from pulsify_onnx.algebra.padding import crop, materialise_padding, pad
from pulsify_onnx.algebra.plan import Expr, Outcome, Position, Ref, Step, Window
from pulsify_onnx.algebra.windows import align, undelayed, wait_until_known, windowed
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.border import border_of
from pulsify_onnx.rules.edges import first_entries
from pulsify_onnx.rules.framing import PICKS, PICKS_HINT, framed
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op, paired, passthrough, the_stream
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares, unmoved
from pulsify_onnx.rules.kit.views import BEYOND_ANY_SIZE, Cut, by_attribute, cuts, pads_of
from pulsify_onnx.rules.last import last_entries, last_slice
from pulsify_onnx.rules.resumed import newest


def bounds(extent: Length, cut: Cut) -> tuple[Length, Length]:
    """(start, end) of a forward slice as non-negative lengths, clipped to `extent`."""
    start, end = cut.start, cut.end if cut.end is not None else extent
    sides = []
    for value in (start, end):
        negative = holds(value, 0, -1)
        if negative is None:
            refuse(
                "where it cuts depends on the length of the stream in a way that is not known",
                hint="use constant bounds",
            )
        if negative:
            value = larger(0, value + extent)
        sides.append(smaller(value, extent))
    return sides[0], sides[1]


@declares(Trait.FORM)
@declares(Trait.SLICES)
@declares(Trait.AXIS, unmoved)
@declares(Trait.BOUNDS, (1, 2))
@rule("Slice", versions=(1, 10, 11, 13))
def slice_rule(node: Node) -> Outcome:
    """Any axis; along the stream from a fixed frame, to any end, with any step forward.

    Prefix: a fixed number of the last frames.  Refuses: a flip.
    """
    table = node.fact(0)
    if isinstance(table, Static):
        return _positional_table(node, table)
    x = the_stream(node)
    wanted = cuts(node, x.rank)
    along = [c for c in wanted if c.axis == x.axis]
    others = [c for c in wanted if c.axis != x.axis]
    steps: list[Step] = []
    for cut in along:
        if cut.step < 0:
            refuse(
                "it turns the stream around, so the first frame needs the last",
                hint="a flip in time can't stream; cut the model there",
            )
        start, end = bounds(x.extent, cut)
        if start.constant is None:
            last = (
                (newest(node, x, start, end, cut.step) or last_slice(node, x, start, end, cut.step))
                if not others
                else None
            )
            return last or refuse(
                f"it starts {x.extent - start} frames before the end of the whole stream",
                hint="take a fixed number of the last frames, on their own, or slice from the start",
            )
        x = crop(x, start.constant, x.extent - end)
        if cut.step > 1:
            window, y = windowed(x, 1, cut.step, node.options)
            name = f"{node.outputs[0]}#step" if others else node.outputs[0]
            x = replace(y, wire=name)
            picked = onnx_op("Slice", window, const([0]), const([BEYOND_ANY_SIZE]), const([x.axis]), const([cut.step]))
            steps.append(Step(node.name, node.op_type, (name,), (picked,), (x,)))
    if not others:
        return Outcome((x,), tuple(steps))
    if x.positional and len(others) == 1 and others[0].end is not None and others[0].end.moves and not along:
        return _table_of_pairs(node, x, others[0])
    window, y = _through(x, node)
    starts, ends, axes, strides = [], [], [], []
    for cut in others:
        if any(v is not None and v.constant is None for v in (cut.start, cut.end)):
            refuse(
                "it cuts another axis at a place that depends on the length of the stream", hint="use constant bounds"
            )
        starts.append(cut.start.constant)
        ends.append((cut.end.constant or 0) if cut.end is not None else (2**31 - 1 if cut.step > 0 else -(2**31) + 1))
        axes.append(cut.axis)
        strides.append(cut.step)
    shape = list(y.shape)
    for cut, begin, stop in zip(others, starts, ends):
        size = shape[cut.axis].constant
        if size is None:
            refuse("it cuts an axis of unknown size", hint="export with fixed channel sizes")
        shape[cut.axis] = Length.of(len(range(size)[slice(begin, stop if abs(stop) < 2**30 else None, cut.step)]))
    expr = onnx_op("Slice", window, const(starts), const(ends), const(axes), const(strides))
    y = y.placed(node.outputs[0], y.dtype, tuple(shape), y.axis)
    return as_outcome(node, [expr], [y], before=steps)


def _through(x: Stream, node: Node) -> tuple[Window, Stream]:
    (window,), y = align([x], node.options)
    return window, y


def _positional_table(node: Node, table: Static) -> Outcome:
    """Rows ``[start : start + extent]`` of a static table: looked up by frame position."""
    moving = [c for c in cuts(node, len(table.shape)) if any(v is not None and v.moves for v in (c.start, c.end))]
    if len(moving) == 2 and len(cuts(node, len(table.shape))) == 2:
        return _both_ways(node, table, moving)
    if len(moving) != 1 or moving[0].step != 1 or len(cuts(node, len(table.shape))) > 1:
        refuse(
            "it cuts a constant in a way that depends on the length of the stream",
            hint="slice a table of positions along one axis, from a fixed start",
        )
    cut = moving[0]
    rows = table.shape[cut.axis]
    end = cut.end if cut.end is not None else rows
    if cut.start.constant is None:
        start_sign = compare(cut.start, 0)
        refuse(
            "it reads a constant table from a place that depends on the length of the stream"
            + (" (counted from its end)" if start_sign == -1 else ""),
            hint="slice the table from a fixed start",
        )
    start = cut.start.constant
    if start < 0 or (end.constant is None and holds(end, 0, -1)):
        refuse(
            "it reads a constant table from its end, by the length of the stream",
            hint="slice the table from a fixed start",
        )
    return table_lookup(node, table, cut.axis, end - start, start)


def _both_ways(node: Node, table: Static, moving: list[Cut]) -> Outcome:
    """A table of pairs, cut to the length of the stream along both of its axes."""
    moving = sorted(moving, key=lambda c: c.axis)
    expr: Expr = Ref(table.wire)
    shape = list(table.shape)
    for role, cut in enumerate(moving):
        size, start = table.shape[cut.axis].constant, cut.start.constant
        if size is None or start is None or start < 0 or cut.step != 1 or cut.end is None or not holds(cut.end, 0, 1):
            refuse(
                "it reads a table of pairs from a place that depends on the length of the stream",
                hint="slice the table from a fixed start",
            )
        shape[cut.axis] = cut.end - start
        rate = rate_of(shape[cut.axis])
        index = onnx_op("Add", Position(rate, role=role), const(start)) if start else Position(rate, role=role)
        expr = onnx_op("Gather", expr, onnx_op("Min", onnx_op("Max", index, const(0)), const(size - 1)), axis=cut.axis)
    y = QueryKey(node.outputs[0], table.dtype, tuple(shape), (moving[0].axis, moving[1].axis), rate, positional=True)
    return as_outcome(node, [expr], [y])


def _table_of_pairs(node: Node, x: Stream, cut: Cut) -> Outcome:
    """Rows that were cut from a table by position, now cut along the columns: a pair of positions."""
    columns, start = x.shape[cut.axis].constant, cut.start.constant
    if columns is None or start is None or start < 0 or cut.step != 1 or cut.end is None:
        refuse(
            "it reads a table of pairs from a place that depends on the length of the stream",
            hint="slice the table from a fixed start",
        )
    role = int(cut.axis > x.axis)
    index = onnx_op("Add", Position(x.rate, role=role), const(start)) if start else Position(x.rate, role=role)
    clipped = onnx_op("Min", onnx_op("Max", index, const(0)), const(columns - 1))
    rows = undelayed(x, 1 - role)
    shape = (*x.shape[: cut.axis], cut.end - start, *x.shape[cut.axis + 1 :])
    low, high = sorted((x.axis, cut.axis))
    y = QueryKey(node.outputs[0], x.dtype, shape, (low, high), x.rate, positional=True, source=x.source)
    return as_outcome(node, [onnx_op("Gather", rows, clipped, axis=cut.axis)], [y])


def table_lookup(node: Node, table: Static, axis: int, extent: Length, offset: int = 0) -> Outcome:
    """Frames ``offset + index`` of a static table, clipped to it: a positional stream of `extent` frames."""
    rows = table.shape[axis].constant
    if rows is None:
        refuse("the size of a table of positions is not known", hint="export with a constant table")
    rate = rate_of(extent)
    index = onnx_op("Add", Position(rate), const(offset)) if offset else Position(rate)
    clipped = onnx_op("Min", onnx_op("Max", index, const(0)), const(rows - 1))
    shape = (*table.shape[:axis], extent, *table.shape[axis + 1 :])
    y = Stream(node.outputs[0], table.dtype, shape, axis, rate, positional=True)
    return as_outcome(node, [onnx_op("Gather", Ref(table.wire), clipped, axis=axis)], [y])


def rate_of(extent: Length) -> Fraction:
    """Frames per base frame of a wire of `extent` frames; refuses what does not grow with the stream."""
    rate = Fraction(extent.at(2 * LONG_STREAM) - extent.at(LONG_STREAM), LONG_STREAM)
    if rate <= 0 or extent.symbols() - {"T"}:
        refuse(
            f"its length, {extent} frames, does not follow the stream",
            hint="use a length that grows with the number of frames",
        )
    return rate


@declares(Trait.FORM)
@declares(Trait.SPLITS)
@declares(Trait.AXIS, unmoved)
@declares(Trait.BOUNDS, (1,))
@rule("Split", versions=(2, 11, 13, 18))
def split(node: Node) -> Outcome:
    """Any axis; along the stream into parts at fixed frames, the last open.

    Refuses: parts whose size follows the length of the stream.
    """
    x = the_stream(node)
    axis = node.axis(x.rank, default=0)
    if axis != x.axis:
        return passthrough(node, [x.axis, None][: len(node.facts)])
    sizes = (
        [Length.of(v) for v in node.ints("split") or []]
        if by_attribute(node, "split")
        else node.sizes(1, "the sizes of the parts")
    )
    if not sizes:
        refuse(
            "it cuts the whole stream into equal parts, so where they begin depends on its length",
            hint="reshape to frames of a fixed size instead",
        )
    facts: list[Fact] = []
    start = 0
    for k, (size, wire) in enumerate(zip(sizes, node.outputs)):
        if wire:
            facts.append(crop(x, start, x.extent - start - size))
        else:
            facts.append(x)
        if k + 1 < len(sizes):
            if size.constant is None:
                refuse("a part begins at a frame that depends on the length of the stream", hint="cut at fixed frames")
            start += size.constant
    return Outcome(tuple(facts))


@declares(Trait.PADS)
@declares(Trait.BOUNDS, (1,))
@rule("Pad", versions=(2, 11, 13, 18, 19, 21, 23, 24, 25))
def pad_rule(node: Node) -> Outcome:
    """Any axis and any amount, also negative; along the stream with a constant, the edge, or reflected at the ends.

    Refuses: along the stream, mode wrap, and an amount at the start that depends on the length; an axis of unknown size
    cropped.
    """
    x = the_stream(node)
    pads, value, mode = pads_of(node, x.rank)
    before, after = pads[x.axis]
    start = before.constant
    if start is None:
        refuse(
            "how much it pads at the start depends on the length of the stream",
            hint="pad a fixed number of frames at the start",
        )
    fill = Const(np.full([1] * x.rank, value, x.dtype.numpy()))
    rest = [p if k != x.axis else (Length.of(0), Length.of(0)) for k, p in enumerate(pads)]
    if any(p.constant is None for pair in rest for p in pair):
        refuse("how much it pads another axis depends on the length of the stream", hint="pad a fixed amount")
    if any(d.constant is None and -1 in (compare(p[0], 0), compare(p[1], 0)) for d, p in zip(x.shape, rest)):
        refuse(
            "it crops an axis of unknown size, of which nothing may be left",
            hint="export with fixed sizes for all axes but time",
        )
    steps: list[Step] = []
    if start or after.terms:
        x = pad(
            x, start, after, border_of(mode, fill, start, after), node.options, steps
        )  # before the other axes, so that the walker folds the border through their padding
    if any(p.terms for pair in rest for p in pair):
        window, y = _through(x, node)
        flat = [p[0].constant for p in rest] + [p[1].constant for p in rest]
        shape = tuple(d + p[0] + p[1] for d, p in zip(x.shape, rest))
        extra = () if value is None else (Const(np.asarray(value, x.dtype.numpy())),)
        expr = onnx_op("Pad", window, const(flat), *extra, mode=mode)
        return as_outcome(node, [expr], [y.placed(node.outputs[0], x.dtype, shape, x.axis)], before=steps)
    return Outcome((x,), tuple(steps))


@declares(Trait.FORM)
@declares(Trait.GATHERS)
@declares(Trait.BOUNDS, (1,))
@rule("Gather", versions=(1, 11, 13))
def gather(node: Node) -> Outcome:
    """Indices that stream (an embedding), a stream whose other axis is indexed, framing by positions at a fixed hop,
    or the first frame, once or again and again.

    Prefix: frames counted from the end (the last is -1).  Refuses: picking frames of the stream by other indices.
    """
    data, indices = node.facts
    assert data is not None and indices is not None
    axis = node.axis(len(shape_of(data)), default=0)
    if isinstance(data, Static) and isinstance(indices, Stream):
        return _embedding(node, data, indices, axis)
    if isinstance(data, Static) and isinstance(indices, QueryKey):
        rows = data.shape[axis].constant
        if rows is None or not indices.positional:
            refuse(
                "it looks up pairs of frames (query × key) by numbers that are no positions",
                hint="look up positions in a constant table",
            )
        kind = indices.dtype.numpy()
        return paired(
            node,
            [None, (indices.axes[0] + axis, indices.axes[1] + axis)],
            lambda inputs: onnx_op(
                "Gather",
                inputs[0],
                onnx_op(
                    "Max", onnx_op("Min", inputs[1], Const(np.asarray(rows - 1, kind))), Const(np.asarray(-rows, kind))
                ),
                axis=axis,
            ),
        )
    if isinstance(data, Stream) and data.axis != axis and not isinstance(indices, Stream):
        if isinstance(indices, ShapeTensor):
            refuse("which entry it takes depends on the length of the stream", hint="use a constant index")
        at = data.axis if data.axis < axis else data.axis + len(shape_of(indices)) - 1
        return passthrough(node, [at, None])
    if isinstance(data, Stream) and data.axis == axis and isinstance(indices, Stream):
        return framed(node, data, indices)
    if isinstance(data, Stream) and data.axis == axis:
        last = last_entries(node, data, indices) if isinstance(indices, (Static, ShapeTensor)) else None
        return last or first_entries(node, data, indices) or refuse(PICKS, PICKS_HINT)
    refuse(
        "it looks up one stream in another",
        hint="attention and copying over the whole stream can't stream; look up in a constant table",
    )


def _embedding(node: Node, table: Static, indices: Stream, axis: int) -> Outcome:
    """Rows of a table by indices that stream; indices of frames that are not real are replaced by 0, which is always
    valid.
    """
    steps: list[Step] = []
    indices = materialise_padding(indices, node.options, steps)
    (window,), y = align([indices], node.options, leads=False)
    expr: Expr = window
    if indices.positional:
        rows = table.shape[axis].constant
        if rows is None:
            refuse("the size of a table of positions is not known", hint="export with a constant table")
        expr = onnx_op(
            "Max",
            onnx_op("Min", expr, Const(np.asarray(rows - 1, indices.dtype.numpy()))),
            Const(np.asarray(-rows, indices.dtype.numpy())),
        )
    else:
        (window,), y = wait_until_known([window], y)
        expr = replace(window, mask=mask_padding(indices))
    shape = (*table.shape[:axis], *indices.shape, *table.shape[axis + 1 :])
    y = y.placed(node.outputs[0], table.dtype, shape, axis + indices.axis)
    return as_outcome(node, [onnx_op("Gather", Ref(table.wire), expr, axis=axis)], [y], before=steps)
