"""Operators that sample, mark or reorder along some axes and leave the others alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.border import zero
from pulsify_onnx.algebra.facts import QueryKey, Static, Stream
from pulsify_onnx.algebra.padding import crop, pad
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Outcome, QueryKeyRead, Step
from pulsify_onnx.algebra.query_key import indices_of
from pulsify_onnx.algebra.windows import align, indices
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, const, keep_unless, onnx_op, passthrough, static, the_stream
from pulsify_onnx.rules.kit.gating import select
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import CONTRIB, rule


@rule("OneHot", versions=(9, 11, 28))
def one_hot(node: Node) -> Outcome:
    """Indices that stream along any axis, with a fixed depth.

    Refuses: a depth or values that change with the stream.
    """
    x = the_stream(node)
    at = node.axis(x.rank + 1, default=-1)
    return passthrough(node, [x.axis if x.axis < at else x.axis + 1, None, None])


@rule("ReverseSequence", versions=(10, 28))
def reverse_sequence(node: Node) -> Outcome:
    """Any axis but the time axis of the sequences; along their batch axis with lengths that stream too.

    Refuses: turning the stream around.
    """
    x = node.facts[0]
    time, batch = (int(node.attr(name)) for name in ("time_axis", "batch_axis"))
    if isinstance(x, Stream) and x.axis == time:
        refuse(
            "it turns the stream around, so the first frame needs the last",
            hint="a flip in time can't stream; cut the model there",
        )
    lengths = node.facts[1]
    if isinstance(lengths, Stream) or not isinstance(x, Stream) or x.axis == batch:
        refuse("every frame is a sequence of its own length", hint="turn them around by a Slice with step -1")
    return passthrough(node, [x.axis, None])


@rule("Det", versions=(11, 22))
@rule("Inverse", versions=(1,), domain=CONTRIB)
def matrices(node: Node) -> Outcome:
    """Any axis but the two of the matrices.

    Refuses: a stream along the rows or columns of a matrix.
    """
    x = the_stream(node)
    return keep_unless(
        node, [x.rank - 2, x.rank - 1], "the stream runs along the rows or columns of the matrix", hint="see --axis"
    )


def _grid(x: Stream, k: int, y: Stream) -> Expr:
    """int64 index along axis `k` of `x` (frames of the batch along the stream), shaped to broadcast against the last
    two axes.
    """
    shape: list[Dim] = [-1, 1] if k == x.rank - 2 else [1, -1]
    if k == x.axis:
        return onnx_op("Reshape", indices(y), Dims(tuple(shape)))
    size = x.shape[k].constant
    if size is None:
        refuse("the size of the matrix is not known", hint="export with fixed sizes")
    return const(np.arange(size).reshape([int(d) for d in shape if isinstance(d, int)]))


@rule("Trilu", versions=(14,))
@rule("Trilu", versions=(1,), domain=CONTRIB)
def trilu(node: Node) -> Outcome:
    """Any axis; where a row or a column is a frame, by its position.

    Where rows and columns both follow the stream it stays a pair of positions, for attention to close.
    """
    if isinstance(node.facts[0], QueryKey):
        return _triangle_of_pairs(node, node.facts[0])
    x = the_stream(node)
    if x.axis < x.rank - 2:
        return passthrough(node, [x.axis, None][: len(node.facts)])
    (window,), y = align([x], node.options, leads=False)
    k = static(node, 1) or const(0)
    offset = onnx_op("Sub", _grid(x, x.rank - 1, y), _grid(x, x.rank - 2, y))
    k = onnx_op("Reshape", k, const([1, 1]))
    inside = (
        onnx_op("Not", onnx_op("Less", offset, k))
        if node.attr("upper", 1)
        else onnx_op("Not", onnx_op("Less", k, offset))
    )
    expr = _where(inside, window, x.dtype)
    return as_outcome(node, [expr], [y.placed(node.outputs[0], x.dtype, x.shape, x.axis)])


def _triangle_of_pairs(node: Node, x: QueryKey) -> Outcome:
    """The triangle by the positions of queries and keys."""
    if x.axes != (len(x.shape) - 2, len(x.shape) - 1):
        refuse("it cuts a triangle across other axes than those of its frames", hint="keep queries and keys last")
    k = static(node, 1) or const(0)
    row = onnx_op("Reshape", indices_of(x, 0), const([-1, 1]))
    column = onnx_op("Reshape", indices_of(x, 1), const([1, -1]))
    offset, k = onnx_op("Sub", column, row), onnx_op("Reshape", k, const([1, 1]))
    inside = (
        onnx_op("Not", onnx_op("Less", offset, k))
        if node.attr("upper", 1)
        else onnx_op("Not", onnx_op("Less", k, offset))
    )
    expr = _where(inside, QueryKeyRead(x.wire, (0, 0), (0, 0)), x.dtype)
    return as_outcome(node, [expr], [replace(x, wire=node.outputs[0], alive=None)])


def _where(inside: Expr, value: Expr, dtype: ir.DataType) -> Expr:
    """`value` with zeros outside of a triangle."""
    return (
        onnx_op("And", inside, value)
        if dtype == ir.DataType.BOOL
        else select(inside, value, Const(np.zeros((), dtype.numpy())), dtype)
    )


@rule("EyeLike", versions=(9, 22))
def eye_like(node: Node) -> Outcome:
    """Rows or columns that are frames, by their position.

    Refuses: two axes that both follow the stream.
    """
    x = the_stream(node)
    (_,), y = align([x], node.options, leads=False)
    kind = node.attr("dtype") or int(x.dtype)
    rows, columns = _grid(x, 0, y), _grid(x, 1, y)
    ones = onnx_op("Equal", columns, onnx_op("Add", rows, const(int(node.attr("k", 0)))))
    out = y.placed(node.outputs[0], type(x.dtype)(kind), x.shape, x.axis)
    return as_outcome(node, [onnx_op("Cast", ones, to=int(kind))], [out])


@rule("GridSample", versions=(16, 20, 22))
def grid_sample(node: Node) -> Outcome:
    """The channels of the image, the rows and columns of a grid that streams, or both along the batch.

    Refuses: an image that streams along its height or width, which the grid spans as a whole.
    """
    x, grid = node.facts
    if isinstance(x, Stream) and x.axis > 1:
        refuse(
            "the grid spans the whole image, so its points move with the length of the stream",
            hint="sample a window of fixed size",
        )
    if (isinstance(x, Stream) and x.axis == 0 and not isinstance(grid, Stream)) or (
        isinstance(grid, Stream) and grid.axis == 0 and not isinstance(x, Stream)
    ):
        refuse(
            "the image and the grid have a frame each, but only one of them streams",
            hint="expand the other along the batch",
        )
    at = None
    if isinstance(grid, Stream):
        if grid.axis == grid.rank - 1:
            refuse("the stream runs along the coordinates of the grid", hint="see --axis")
        at = grid.axis + 1 if grid.axis else 0
    return passthrough(node, [x.axis if isinstance(x, Stream) else None, at])


@rule("RoiAlign", versions=(10, 16, 22))
@rule("MaxRoiPool", versions=(1, 22))
def regions(node: Node) -> Outcome:
    """The channels only.

    Refuses: boxes or images that stream.
    """
    x = node.facts[0]
    if not isinstance(x, Stream) or x.axis != 1:
        refuse("its boxes lie anywhere in the whole recording", hint="cut out boxes outside the model")
    return passthrough(node, [1, *[None] * (len(node.facts) - 1)])


@rule("DeformConv", versions=(19, 22))
def deformed(node: Node) -> Outcome:
    """The batch axis, with offsets that stream along it too.

    Refuses: a stream along a spatial axis or the channels: its offsets may reach any frame.
    """
    axes: list[int | None] = []
    for k, fact in enumerate(node.facts):
        if isinstance(fact, Stream) and (fact.axis or k in (1, 3)):
            refuse("its offsets may reach any frame of the stream", hint="use an ordinary convolution along time")
        axes.append(0 if isinstance(fact, Stream) else None)
    if any(isinstance(node.fact(k), Static) for k in (0, 2)):
        refuse(
            "the image and its offsets have a frame each, but only one of them streams",
            hint="expand the other along the batch",
        )
    return passthrough(node, axes)


@rule("Col2Im", versions=(18,))
def col2im(node: Node) -> Outcome:
    """The batch axis only.

    Refuses: blocks along the stream, whose image has a fixed size.
    """
    return keep_unless(
        node, [1, 2], "it adds blocks into an image of a fixed size", hint="use ConvTranspose along time instead"
    )


@rule("CenterCropPad", versions=(18,))
def center_crop_pad(node: Node) -> Outcome:
    """Any axis that keeps its size; along the stream a number of frames that does not follow its length.

    Refuses: a fixed length out of the middle of the stream.
    """
    x = the_stream(node)
    target = node.sizes(1, "the target shape")
    assert target is not None
    axes = [a % x.rank for a in node.ints("axes") or range(x.rank)]
    wanted = dict(zip(axes, target))
    more = wanted.get(x.axis, x.extent) - x.extent
    if more.constant is None:
        refuse("the middle of the stream is known only when it has ended", hint="slice from the start instead")
    steps: list[Step] = []
    sizes = [wanted.get(k, d) for k, d in enumerate(x.shape)]
    changed = [k for k, (a, b) in enumerate(zip(sizes, x.shape)) if k != x.axis and a != b]
    if changed:
        (window,), y = align([x], node.options)
        shape = const([_known(sizes[k].constant) for k in changed])
        wire = node.outputs[0] if not more.constant else f"{node.outputs[0]}#across"
        x = y.placed(wire, x.dtype, tuple(sizes), x.axis)
        steps.append(
            Step(node.name, node.op_type, (wire,), (onnx_op("CenterCropPad", window, shape, axes=changed),), (x,))
        )
    if more.constant < 0:
        x = crop(x, start=-more.constant // 2, end=-more.constant - -more.constant // 2)
    elif more.constant:
        x = pad(x, more.constant // 2, more.constant - more.constant // 2, zero(x), node.options, steps)
    return Outcome((x,), tuple(steps))


def _known(size: int | None) -> int:
    if size is None:
        refuse("the target size of another axis is not known", hint="export with fixed sizes")
    return size
