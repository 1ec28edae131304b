"""The first frame of a stream and the last one, alone or again and again: around the stream they are a border."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pulsify_onnx.algebra.facts import Deferred, Fact, Padding, Running, Shape, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import assume
from pulsify_onnx.algebra.padding import EDGE, crop, materialise_padding, pad
from pulsify_onnx.algebra.plan import Outcome, Step
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker
from pulsify_onnx.rules.framing import PICKS, PICKS_HINT
from pulsify_onnx.rules.kit.combinators import BACK, BACK_HINT
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.traits import Trait, has
from pulsify_onnx.rules.kit.views import axes_said


def repeated(node: Node, frame: Stream, shape: Shape) -> Outcome | None:
    """The only frame of a stream as often as `shape` has it, which is as that of the frame off the stream's axis; None
    for anything else.
    """
    count = shape[frame.axis].constant if frame.axis < len(shape) else None
    if frame.extent.constant != 1 or not count or frame.merged or not _alike(shape, frame):
        return None
    steps: list[Step] = []
    border: Padding = EDGE
    if frame.pad_before and isinstance(frame.border, Const):
        border = frame.border
    elif frame.pad_after.terms or (frame.pad_before and frame.border != EDGE):
        frame = materialise_padding(frame, node.options, steps)
    return Outcome((pad(frame, count - 1, 0, border, node.options, steps),), tuple(steps))


def first_entries(node: Node, x: Stream, indices: Fact) -> Outcome | None:
    """Frame 0 of `x`, once or again and again, by constant indices; None for others.

    A later frame alone is no edge: an export of one length that was unrolled takes one after the other.
    """
    if not isinstance(indices, Static) or indices.value is None or indices.value.array.ndim > 1:
        return None
    values = indices.value.array
    if not values.size or values.any() or x.merged:
        return None
    assume(x.extent - 1, (0, 1))
    part = replace(crop(x, 0, x.extent - 1), shape=_with(x, Length.of(1)))
    if values.ndim:
        return repeated(node, part, _with(x, Length.of(values.size)))
    blame = Blocker(node.name, node.op_type, PICKS, PICKS_HINT, x.wire)
    shape = (*x.shape[: x.axis], *x.shape[x.axis + 1 :])
    return Outcome((Deferred(node.outputs[0], x.dtype, shape, "first", part, (x.axis,), blame),))


def of_edges(node: Node) -> bool:
    """Whether a node reads what is known to be the first or the last frame of a stream."""
    return any(map(_edge, node.facts))


def at_edges(node: Node, then: Callable[[Node], Outcome]) -> Outcome | None:
    """The first or last frame with its axis or repeated, or the stream with the last one after it; None for anything
    else. `then`: what becomes of a node otherwise.
    """
    if has(node, Trait.JOINS):
        return _followed(node, then)
    edge = node.facts[0]
    x = _edge(edge)
    if edge is None or x is None or not all(isinstance(f, (Static, ShapeTensor)) for f in node.facts[1:]):
        return None
    shape = _placed(node, shape_of(edge), x)
    if shape is None or not _alike(shape, x):
        return None
    if isinstance(edge, Deferred):
        return repeated(node, x, shape) if edge.form == "first" else None
    if shape[x.axis].moves:
        blame = Blocker(node.name, node.op_type, BACK, BACK_HINT, x.wire)
        return Outcome((Deferred(node.outputs[0], x.dtype, shape, "last", x, (x.axis,), blame),))
    outcome = then(node)
    (value,) = outcome.facts
    return replace(outcome, facts=(replace(value, last=x),)) if isinstance(value, Running) else outcome


def _edge(fact: Fact | None) -> Stream | None:
    """The stream whose last frame, or whose only one, a value is."""
    if isinstance(fact, Running):
        return fact.last
    return fact.x if isinstance(fact, Deferred) and fact.form in ("first", "last") else None


def _placed(node: Node, own: Sequence[Length], x: Stream) -> Shape | None:
    """The shape of a result that has the frame of `x` on its axis, or has it there again and again."""
    there = len(own) == x.rank
    if has(node, Trait.SAME_ORDER) and not has(node, Trait.EXPANDS):
        new = axes_said(node) or []
        whole = (*own[: x.axis], Length.of(1), *own[x.axis :])
        return whole if not there and [a % x.rank for a in new] == [x.axis] and node.op_type == "Unsqueeze" else None
    if not has(node, Trait.REPEATS) or not (there or (has(node, Trait.EXPANDS) and not x.axis)):
        return None
    told = node.sizes(1, "the target shape") or []
    if not has(node, Trait.EXPANDS):
        return tuple(d * r for d, r in zip(own, told))
    rank = max(len(own), len(told))
    mine, wanted = ([*[Length.of(1)] * (rank - len(s)), *s] for s in (own, told))
    return tuple(w if m.constant == 1 else m for m, w in zip(mine, wanted))


def _followed(node: Node, then: Callable[[Node], Outcome]) -> Outcome | None:
    """A stream with its own last frame after it, again and again."""
    at = max((k for k, f in enumerate(node.facts) if isinstance(f, Stream)), default=-1)
    x = node.facts[at] if at >= 0 else None
    if not isinstance(x, Stream) or node.axis(x.rank) != x.axis or x.merged:
        return None
    count, end = Length.of(0), at + 1
    for fact in node.facts[end:]:
        if _edge(fact) != x or fact is None or not _alike(shape_of(fact), x):
            break
        count, end = count + shape_of(fact)[x.axis], end + 1
    if end == at + 1:
        return None
    steps: list[Step] = []
    x = pad(x, 0, count, EDGE, node.options, steps)
    outcome = then(replace(node, facts=(*node.facts[:at], x, *node.facts[end:])))
    return replace(outcome, steps=(*steps, *outcome.steps))


def _alike(shape: Sequence[Length], x: Stream) -> bool:
    """Whether a tensor of `shape` has frames as `x` has them."""
    return len(shape) == x.rank and all(d == own for k, (d, own) in enumerate(zip(shape, x.shape)) if k != x.axis)


def _with(x: Stream, count: Length) -> Shape:
    return (*x.shape[: x.axis], count, *x.shape[x.axis + 1 :])
