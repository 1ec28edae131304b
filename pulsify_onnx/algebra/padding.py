"""Frames put around a stream or taken from its ends: indices move, and nothing flows; a border that must be in the
stream is made solid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.border import (
    MOST_FRAMES,
    NONE,
    border_frames,
    border_mask,
    digest,
    ending,
    has_border,
    most_mirrored,
    shape_with,
)
from pulsify_onnx.algebra.bounds import Known
from pulsify_onnx.algebra.delay import AtLeast, time
from pulsify_onnx.algebra.facts import Mirror, Padding, PaddingFrames, Stream
from pulsify_onnx.algebra.length import LONG_STREAM, Length, LengthLike
from pulsify_onnx.algebra.ordering import assume, holds, larger
from pulsify_onnx.algebra.plan import Frames, Options, Requirement, Step, Test, Window
from pulsify_onnx.algebra.windows import align
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse

EDGE = Mirror(edge=True)
"""The outermost frame again and again."""

NEVER_NEGATIVE = "pad by a number that is never negative"

SHORT = 33
"""Streams of fewer frames are asked too whether a length that is negative for long ones is so for all."""


def pad(x: Stream, before: int, after: LengthLike, border: Padding, options: Options, steps: list[Step]) -> Stream:
    """`x` with frames of `border` before and after it: nothing flows, only indices move.

    Negative numbers crop. Where `x` has another border already, that one is made solid first (appended to `steps`),
    also where the new frames would mirror mirrored ones.
    """
    after = Length.of(after)
    if before < 0:
        return pad(crop(x, start=-before), 0, after, border, options, steps)
    least = after.constant if after.constant is not None else 0 if holds(after, -1, 1) else -1
    both = f"it pads the end by {after} frames, which crops some streams and pads others"
    if least < 0 and holds(after, 1, -1):
        if any(after.at(n) > 0 for n in range(1, SHORT)):
            steps.append(
                Step(x.wire, "Pad", (), (), (), requires=(Requirement(Test(ends=True), both, NEVER_NEGATIVE),))
            )
        return pad(crop(x, end=-after), before, 0, border, options, steps)
    if least < 0:
        refuse(both, hint=NEVER_NEGATIVE)
    if not before and not after.terms:
        return x
    if after.terms and x.extent.at(2 * LONG_STREAM) - x.extent.at(LONG_STREAM) < LONG_STREAM * x.rate - 1:
        refuse(
            f"it pads the end of {x.extent} frames, which comes before the end of the stream",
            hint="pad before cutting the stream off",
        )
    if isinstance(border, Mirror):
        most_mirrored(after)
        for count in (before, after) if not border.edge else ():
            assume(x.extent - count, (1,))  # onnxruntime mirrors no more frames than there are
    again = isinstance(border, Const) or border == EDGE  # more of the same frames
    if has_border(x) and (x.border != border or (not again and (before or x.pad_after.terms))):
        if not _led(x, before, after, border, options):
            x = materialise_padding(x, options, steps)
        elif before and not x.pad_after.terms and not after.terms:
            border = _joined(x, before, border)
        else:
            return _ended(x, before, after, border, options, steps)
    reach = x.reach.padded(ending(x.extent - x.pad_after, x.rate)) if after.terms else x.reach
    return replace(
        x,
        shape=shape_with(x, x.extent + before + after),
        delay=x.delay - before,
        pad_before=x.pad_before + before,
        pad_after=x.pad_after + after,
        border=border,
        reach=reach.shifted(-before / x.rate),
        positional=False,
    )


def lengthened(x: Stream, before: int, after: LengthLike) -> Stream:
    """`x`, which begins with mirrored frames, with more of them: places for a reader that does not look at them."""
    after = Length.of(after)
    return replace(
        x,
        shape=shape_with(x, x.extent + before + after),
        delay=x.delay - before,
        pad_before=x.pad_before + before,
        pad_after=x.pad_after + after,
        reach=(x.reach.padded(ending(x.extent - x.pad_after, x.rate)) if after.terms else x.reach).shifted(
            -before / x.rate
        ),
        positional=False,
    )


def crop(x: Stream, start: int = 0, end: LengthLike = 0) -> Stream:
    """`x` without its first and last frames: more delay, no state."""
    end = Length.of(end)
    pad_after = larger(0, x.pad_after - end)
    border = (
        x.border.upto(x.axis, start, x.pad_before - start)
        if isinstance(x.border, PaddingFrames) and x.pad_before > start
        else x.border
    )
    return replace(
        x,
        shape=shape_with(x, x.extent - start - end),
        delay=x.delay + start,
        pad_before=max(0, x.pad_before - start),
        cached=max(0, x.cached - start),
        pad_after=pad_after,
        border=border,
        reach=x.reach.shifted(start / x.rate),
        positional=x.positional and not start,
    )


def border_of_copies(first: Stream, x: Stream, count: int) -> Padding | None:
    """The border that the `count` frames of `first` are before `x`: one constant frame, or the first one of `x` itself,
    again and again. None for others.
    """
    if isinstance(first.border, Const) and count <= first.pad_before:
        return first.border
    alone = count <= first.pad_before + 1 and (not first.pad_before or first.border == EDGE)
    begins = first.delay + first.pad_before == x.delay + x.pad_before and (not x.pad_before or x.border == EDGE)
    same = (first.wire, first.rate, first.cached) == (x.wire, x.rate, x.cached) and not (first.merged or x.merged)
    return EDGE if alone and begins and same else None


def materialise_padding(x: Stream, options: Options, steps: list[Step]) -> Stream:
    """`x` with its border really in the stream (or `x` itself, without one); the step goes to `steps`."""
    if not has_border(x) and not x.cached:
        return x
    (window,), y = align([x], options, leads=False)
    name = f"{x.wire}#solid{digest(x)}"
    y = replace(y, wire=name)
    steps.append(Step(x.wire, "Pad", (name,), (window,), (y,)))
    return y


def as_output(x: Stream, options: Options, steps: list[Step]) -> Stream:
    """`x` as it leaves the graph: solid, or with `advance` as early as it can be, without the frames that never
    come.
    """
    early = -x.delay.constant
    if (
        not options.advance
        or x.delay.terms
        or not 0 < early <= x.pad_before
        or isinstance(x.border, Mirror)
        or x.pad_after.terms
    ):
        return materialise_padding(x, options, steps)
    border = x.border.upto(x.axis, 0, early) if isinstance(x.border, PaddingFrames) else x.border
    y = replace(x, pad_before=early, pad_after=NONE, border=border)
    if x.pad_before == early:
        return y
    mask = border_mask(x, True, False)
    y = replace(y, wire=f"{x.wire}#early{digest(x)}")
    steps.append(Step(x.wire, "Pad", (y.wire,), (Window(x.wire, 0, Frames(x.rate), mask, x.border),), (y,)))
    return y


def _led(x: Stream, before: int, after: Length, border: Padding, options: Options) -> bool:
    """Whether `x` keeps its border at the start where another one is put around it.

    Both are known frame by frame and finite, it may come early, and no stream is so short that its end cuts the border
    off.
    """
    early = x.delay.floor()
    if not x.pad_before or not all(
        isinstance(b, (Const, PaddingFrames)) and np.isfinite(border_frames(b).astype(np.float64)).all()
        for b in (border, x.border)
    ):
        return False
    if not options.advance and (before + x.pad_before > MOST_FRAMES or (early is not None and early >= 0)):
        return False
    own = x.extent - x.pad_after
    return not after.terms or not any(0 <= own.at(n) < x.pad_before for n in range(1, SHORT))


def _joined(x: Stream, before: int, border: Padding) -> Padding:
    """The border of `x` after `before` frames of `border`, frame by frame where they differ."""
    parts = [_rows(border, before, x.axis), _rows(x.border, x.pad_before, x.axis)]
    shape = np.broadcast_shapes(*(np.take(part, [0], x.axis).shape for part in parts))
    wide = [
        np.broadcast_to(part, [part.shape[x.axis] if k == x.axis else d for k, d in enumerate(shape)]) for part in parts
    ]
    return PaddingFrames(Const(np.concatenate(wide, x.axis))).upto(x.axis, 0, before + x.pad_before)


def _rows(border: Padding | None, count: int, axis: int) -> Array:
    """`count` frames of a border that is known."""
    assert isinstance(border, (Const, PaddingFrames))
    return border_frames(border) if isinstance(border, PaddingFrames) else np.repeat(border_frames(border), count, axis)


def _ended(x: Stream, before: int, after: Length, border: Padding, options: Options, steps: list[Step]) -> Stream:
    """`x`, which keeps its border at the start, padded with another one: what comes after its end is made solid."""
    own, pad_before = x.border, x.pad_before
    if x.pad_after.terms:
        x = _solid_end(x, steps)
    if after.terms:
        x = replace(
            _solid_end(pad(replace(x, pad_before=0, border=None), 0, after, border, options, steps), steps),
            pad_before=pad_before,
            border=own,
        )
    return pad(x, before, 0, border, options, steps)


def _solid_end(x: Stream, steps: list[Step]) -> Stream:
    """`x` with its border at the end really in the stream."""
    delay = time(AtLeast(x.delay), Known(x.extent - x.pad_after, x.rate))
    y = replace(
        x,
        wire=f"{x.wire}#ended{digest(x)}",
        delay=delay,
        pad_after=NONE,
        border=x.border if x.pad_before else None,
        cached=0,
    )
    steps.append(
        Step(
            x.wire,
            "Pad",
            (y.wire,),
            (Window(x.wire, delay - x.delay, Frames(x.rate), border_mask(x, False, True), x.border),),
            (y,),
        )
    )
    return y
