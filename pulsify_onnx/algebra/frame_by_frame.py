"""Whether a stream's frames are apart: each is made of the same frame of what is read, whatever comes before or
after it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pulsify_onnx.algebra.delay import DelayLike, Solution, Timing
from pulsify_onnx.algebra.facts import Fact, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.hidden import Mask, TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Merged, Ref, Step, Window, leaves
from pulsify_onnx.arrays import Const


def frames_apart(step: Step) -> bool:
    """Whether a step computes every frame from the same frame of its inputs, and remembers nothing."""
    return not step.states and all(map(_of_its_own, leaves(step)))


def _of_its_own(leaf: Expr) -> bool:
    """Whether a leaf of an expression is the same for all frames, or shows each its own."""
    if isinstance(leaf, Window):
        return _none(leaf.back) and _none(leaf.frames.extra) and _shows_all(leaf.mask)
    if isinstance(leaf, Dims):
        sides = (d.frames if isinstance(d, Merged) else d for d in leaf.dims)
        return all(_none(d.extra) for d in sides if isinstance(d, Frames))
    return isinstance(leaf, (Ref, Const))


def _none(delay: DelayLike) -> bool:
    """Whether a delay is 0 while the stream goes on, at a pulse of one frame."""
    return Solution(Timing())(delay) == 0


def _shows_all(mask: Mask | TimedMask | None) -> bool:
    """Whether a mask hides no frame of a stream that goes on: of one that comes at once, all are real from the first
    one on.
    """
    if isinstance(mask, TimedMask):
        return not mask.start and not mask.end
    return mask is None or (_none(mask.delay) and not mask.first)


def in_place(fact: Fact, extent: Length) -> bool:
    """Whether the frames of what streams are those of a stream of `extent` frames, or so many for each; so it is
    where nothing streams.
    """
    if isinstance(fact, Stream):
        return (
            fact.extent == extent * fact.rate
            and _none(fact.delay)
            and not (fact.pad_before or fact.pad_after.terms or fact.cached or fact.origin)
        )
    return isinstance(fact, (Static, ShapeTensor))


def all_apart(steps: Iterable[Step], facts: Iterable[Fact], extent: Length) -> bool:
    """Whether the frames of a stream of `extent` frames are apart in all of `steps` and `facts`."""
    return all(map(frames_apart, steps)) and all(in_place(fact, extent) for fact in facts)
