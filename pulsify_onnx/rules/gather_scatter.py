"""Reading and writing by index: indices may stream, but they must not pick frames of the stream.

Frames that are not real hold any number at all, which is no valid index: they are replaced by 0, which always is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pulsify_onnx.algebra.facts import Fact, Stream
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Expr, Outcome, Step, Window
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.framing import PICKS, PICKS_HINT, picked, shifted
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE, aligned_inputs, as_outcome, same_op
from pulsify_onnx.rules.kit.guarded import guarded
from pulsify_onnx.rules.kit.infer import infer, shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.writing import WRITES, written

FIXED = "its indices have a fixed number of frames, so they fit one length of the stream only"
FIXED_HINT = "compute the indices from the input, so that they have its length"


def _rank(fact: Fact | None) -> int:
    return 0 if fact is None else len(shape_of(fact))


def indexed(node: Node, axes: Sequence[int | None], index: int = 1) -> Outcome:
    """Keep an operator whose input `index` has indices; those of frames that are not real become 0."""
    before: list[Step] = []
    fact = node.fact(index)
    if isinstance(fact, Stream):
        fact = materialise_padding(fact, node.options, before)
        node = replace(node, facts=(*node.facts[:index], fact, *node.facts[index + 1 :]))
    exprs, y, axis = aligned_inputs(node, axes, leads=not isinstance(fact, Stream), late=isinstance(fact, Stream))
    window = exprs[index] if index < len(exprs) else None
    if isinstance(fact, Stream) and isinstance(window, Window):
        exprs[index] = guarded(window, fact, 0)
    ((dtype, shape),) = infer(node)
    if shape is None or any(d is None for k, d in enumerate(shape) if k != axis):
        refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
    done: list[Expr | None] = list(exprs)
    return as_outcome(node, [same_op(node, done)], [y.placed(node.outputs[0], dtype, shape, axis)], before=before)


@rule("GatherElements", versions=(11, 13))
def gather_elements(node: Node) -> Outcome:
    """Data and indices that stream along the same other axis; a constant table looked up by indices that stream; the
    frames at their own position, or some frames later.

    Refuses: picking frames of the stream by other indices.
    """
    data, indices = node.facts
    axis = node.axis(_rank(data), default=0)
    if isinstance(data, Stream) and data.axis == axis:
        if isinstance(indices, Stream) and indices.positional:
            return shifted(node, data, indices)
        refuse(PICKS, PICKS_HINT)
    if isinstance(data, Stream) and not isinstance(indices, Stream):
        refuse(FIXED, FIXED_HINT)
    if isinstance(indices, Stream) and not isinstance(data, Stream) and indices.axis != axis:
        refuse(
            "its table has a fixed number of frames, so it fits one length of the stream only",
            hint="expand the table to the length of the stream",
        )
    return indexed(node, [f.axis if isinstance(f, Stream) else None for f in node.facts])


@rule("GatherND", versions=(11, 12, 13))
def gather_nd(node: Node) -> Outcome:
    """A constant table looked up by indices that stream; a stream along axes that are not indexed; both along a batch
    axis; the frames at their own position, or some frames later.

    Refuses: picking frames of the stream by other indices.
    """
    data, indices = node.facts
    batch = int(node.attr("batch_dims", 0))
    assert indices is not None
    depth = shape_of(indices)[-1].constant
    if depth is None:
        refuse("the length of an index is not known", hint=UNKNOWN_SHAPE)
    axes: list[int | None] = [None, None]
    if isinstance(indices, Stream):
        if indices.axis == indices.rank - 1:
            refuse("the stream runs along the coordinates of an index", hint="see --axis")
        if indices.axis < batch and not isinstance(data, Stream):
            refuse(
                "its table has a fixed number of frames, so it fits one length of the stream only",
                hint="look up in one table for all frames",
            )
        axes[1] = indices.axis
    if isinstance(data, Stream):
        if batch <= data.axis < batch + depth:
            if isinstance(indices, Stream) and indices.positional and not batch:
                return picked(node, data, indices)
            refuse(PICKS, PICKS_HINT)
        if data.axis < batch and not isinstance(indices, Stream):
            refuse(FIXED, FIXED_HINT)
        axes[0] = data.axis if data.axis < batch else _rank(indices) - 1 + data.axis - batch - depth
    return indexed(node, axes)


@rule("ScatterElements", versions=(11, 13, 16, 18))
@rule("Scatter", versions=(9, 11))
def scatter_elements(node: Node) -> Outcome:
    """Data, indices and updates that all stream along an axis that is not indexed; along the stream a range of frames
    from a fixed one on, by positions.

    Refuses: writing to other frames of the stream by index.
    """
    data = node.facts[0]
    axis = node.axis(_rank(data), default=0)
    if isinstance(data, Stream) and data.axis == axis:
        return written(node, axis)
    for fact in node.facts:
        if isinstance(fact, Stream) and fact.axis == axis:
            refuse(WRITES, PICKS_HINT)
        if not isinstance(fact, Stream):
            refuse(FIXED, FIXED_HINT)
    return indexed(node, [f.axis if isinstance(f, Stream) else None for f in node.facts])


@rule("ScatterND", versions=(11, 13, 16, 18))
def scatter_nd(node: Node) -> Outcome:
    """Data and updates that stream along an axis that is not indexed, with constant indices; along the stream a range
    of frames from a fixed one on, by positions.

    Refuses: writing to other frames of the stream by index.
    """
    data, indices, updates = node.facts
    assert indices is not None
    depth = shape_of(indices)[-1].constant
    if depth is None:
        refuse("the length of an index is not known", hint=UNKNOWN_SHAPE)
    if isinstance(data, Stream) and data.axis < depth:
        return written(node, None)
    if isinstance(indices, Stream):
        refuse(WRITES, PICKS_HINT)
    if not isinstance(data, Stream) or not isinstance(updates, Stream):
        refuse(
            "its data or its updates have a fixed number of frames, so they fit one length of the stream only",
            hint="expand them to the length of the stream",
        )
    first = _rank(indices) - 1
    if updates.axis < first or updates.axis - first + depth != data.axis:
        refuse(WRITES, PICKS_HINT)
    return indexed(node, [data.axis, None, data.axis])
