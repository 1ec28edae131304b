"""Delays: the one place that computes them.

A reader of frames ``t*stride … t*stride + span - 1`` is a window on the tapped delay line of a wire. Padding and
cropping move indices and the border only; joins align. Every function is pure: facts in, expressions and facts out.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce

import numpy as np

from pulsify_onnx.algebra.bounds import Known, SeenInwards
from pulsify_onnx.algebra.delay import AtLeast, Begins, Bound, Delay, time
from pulsify_onnx.algebra.facts import Mirror, Padding, PaddingFrames, Stream
from pulsify_onnx.algebra.hidden import Mask, only_real
from pulsify_onnx.algebra.length import LONG_STREAM, Length, LengthLike
from pulsify_onnx.algebra.ordering import assume, holds, larger, smaller
from pulsify_onnx.algebra.periods import common_unit, long_streams
from pulsify_onnx.algebra.plan import Frames, Options, Position, Requirement, Step, Test, Window
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import Refusal, refuse


class RateMismatch(Refusal):
    """Two streams meet at different rates; the walker may settle it by giving their inputs other rates."""

    def __init__(self, a: Stream, b: Stream):
        super().__init__(
            f"{a.source or a.wire} gives {a.rate} frames where {b.source or b.wire} gives {b.rate}",
            "bring both to one rate before they meet",
        )
        self.a, self.b = a, b


NEVER_NEGATIVE = "pad by a number that is never negative"

NONE = Length(())
MOST_FRAMES = 1024
"""A border whose frames differ has no more: it is written into the graph, and every operator behind it is folded
over it.
"""
SHORT = 33
"""Streams of fewer frames are asked too whether a length that is negative for long ones is so for all."""


def has_border(x: Stream) -> bool:
    """Whether `x` has frames that did not come over its wire."""
    return x.pad_before > 0 or bool(x.pad_after.terms)


def frames(x: Stream, extra: int = 0) -> Frames:
    """The frames of one pulse of `x`."""
    return Frames(x.rate, extra)


def indices(x: Stream) -> Position:
    """Batch indices of the frames of one pulse of `x`."""
    return Position(x.rate, x.delay)


def undelayed(x: Stream, role: int = 0) -> Window:
    """The frames of `x` that would come with this pulse if nothing were late; `role` is its side of a pair."""
    return Window(x.wire, -x.delay, Frames(x.rate, role=role), role=role)


def zero(x: Stream) -> Const:
    """A border of zeros for `x`."""
    return Const(np.zeros([1] * x.rank, x.dtype.numpy()))


def ending(count: Length, rate: Fraction) -> Fraction:
    """How many base frames before the end of the stream the frames after the first `count` begin."""
    return max(n - count.at(n) / rate for n in long_streams(count, rate.denominator))


def pad(x: Stream, before: int, after: LengthLike, border: Padding, options: Options, steps: list[Step]) -> Stream:
    """`x` with frames of `border` before and after it: nothing flows, only indices move.

    Negative numbers crop. Where `x` has another border already, that one is made solid first (appended to `steps`),
    also
    where the new frames would mirror mirrored ones.
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
        _most(after)
        for count in (before, after) if not border.edge else ():
            assume(x.extent - count, (1,))  # onnxruntime mirrors no more frames than there are
    if has_border(x) and (x.border != border or (not isinstance(border, Const) and (before or x.pad_after.terms))):
        if not _led(x, before, after, border, options):
            x = materialise_padding(x, options, steps)
        elif before and not x.pad_after.terms and not after.terms:
            border = _joined(x, before, border)
        else:
            return _ended(x, before, after, border, options, steps)
    reach = x.reach.padded(ending(x.extent - x.pad_after, x.rate)) if after.terms else x.reach
    return replace(
        x,
        shape=_with(x, x.extent + before + after),
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
        shape=_with(x, x.extent + before + after),
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
        shape=_with(x, x.extent - start - end),
        delay=x.delay + start,
        pad_before=max(0, x.pad_before - start),
        cached=max(0, x.cached - start),
        pad_after=pad_after,
        border=border,
        reach=x.reach.shifted(start / x.rate),
        positional=x.positional and not start,
    )


def windowed(
    x: Stream, span: int, stride: int, options: Options, through: bool = False, hidden: int = 0
) -> tuple[Window, Stream]:
    """A reader of `span` frames every `stride`: its window, and the stream of its outputs.

    The output has the least delay that the network allows; wire, shape and dtype are `x`'s with the new extent.
    `through`: a reader of single frames treats mirrored ones as those they mirror, so they stay a border of its
    outputs.
    The first `hidden` frames, mirrored ones, it does not look at.
    """
    extent = (x.extent - span).floordiv(stride) + 1
    rate = x.rate / stride
    if through and isinstance(x.border, Mirror) and span == stride == 1:
        (window,), y = align([x], options)
        return window, y
    pad_before = (x.pad_before - span) // stride + 1 if x.pad_before >= span and not isinstance(x.border, Mirror) else 0
    whole = (x.extent - x.pad_after - span).floordiv(stride) + 1
    delay = time(
        AtLeast(x.delay + (span - stride), stride),
        _begins(pad_before, options),
        *_mirrored(x, stride, hidden),
        *((Known(whole, rate),) if x.pad_after.terms else ()),
    )
    back = stride * delay - x.delay
    window = Window(
        x.wire, back, Frames(x.rate, span - stride), _mask(x, x.pad_before > 0, bool(x.pad_after.terms)), x.border
    )
    reach = x.reach.joined(x.reach.shifted((span - 1) / x.rate))
    y = replace(
        x,
        shape=_with(x, extent),
        rate=rate,
        delay=delay,
        pad_before=pad_before,
        pad_after=NONE,
        reach=reach,
        positional=False,
        border=x.border if pad_before else None,
        cached=0,
    )
    return window, y


def fewer(window: Window, y: Stream, extent: Length, span: int, stride: int) -> tuple[Window, Stream]:
    """A reader, as `windowed` gives it, whose frames are no more than `extent`: an infinite border ends with what
    the last of them reads.
    """
    extent = smaller(y.extent, extent)
    if isinstance(window.mask, Mask) and window.mask.infinite is not None:
        window = replace(window, mask=replace(window.mask, infinite=(extent - 1) * stride + span))
    return window, replace(y, shape=_with(y, extent))


def indices_read(window: Window, y: Stream, stride: int, before: int) -> Position:
    """Batch indices of the frames of a `window` of which `y` is made, `stride` for each of its own, in what was
    padded with `before` frames at the start.
    """
    return Position(window.frames.rate, y.delay * stride + before, window.frames.extra)


def align(xs: Sequence[Stream], options: Options, leads: bool = True) -> tuple[list[Window], Stream]:
    """Bring streams that meet to one delay: a window for each, and the joined stream (wire and shape of the first).

    Borders of equal width pass through unless `leads` is false; mirrored ones only where all are the same. Raises
    RateMismatch, and Refusal where lengths differ.
    """
    first = next((x for x in xs if not x.positional), xs[0])
    for x in xs:
        if x.origin != first.origin:
            refuse(
                "it joins relative positions, counted from a query to a key, with frames of the stream",
                hint="count positions from the first frame",
            )
        if x.rate != first.rate:
            raise RateMismatch(first, x)
        if x.extent != first.extent and common_unit(x.extent, first.extent) is None:
            refuse(
                f"it joins streams of different lengths: {first.extent} frames and {x.extent} frames for T base frames",
                hint="pad or crop one of them so that both have one length",
            )
    if any(isinstance(x.border, Mirror) for x in xs):
        leads = leads and len({(x.pad_before, x.pad_after, x.border) for x in xs}) == 1
    pad_before = min(x.pad_before for x in xs) if leads else 0
    pad_after = reduce(smaller, dict.fromkeys(x.pad_after for x in xs)) if leads else NONE
    bounds: list[Bound] = [AtLeast(x.delay) for x in xs if not x.positional]
    for x in xs:
        bounds += _mirrored(x, 1) if x.pad_before > pad_before else ()
        bounds += (Known(x.extent - x.pad_after, x.rate),) if x.pad_after != pad_after else ()
    delay = time(*bounds, _begins(pad_before, options)) if bounds else Delay.of(-pad_before)
    reads = [
        Window(
            x.wire,
            delay - x.delay,
            Frames(x.rate),
            _mask(x, x.pad_before > pad_before, x.pad_after != pad_after),
            x.border,
        )
        for x in xs
    ]
    reach = first.reach
    for x in xs:
        reach = reach.joined(x.reach)
    y = replace(
        first,
        delay=delay,
        pad_before=pad_before,
        pad_after=pad_after,
        reach=reach,
        positional=all(x.positional for x in xs),
        border=first.border if pad_before or pad_after.terms else None,
        cached=0,
    )
    return reads, y


def at_higher_rate(x: Stream, factor: int, between: Fraction | None = None) -> Stream:
    """`x`, which has no border at its end, with `factor` frames in the place of each; the extent is the caller's to
    tell.

    A border at the start is one still, of frames that the analysis folds.

    `between`: how much further back than `x` one of them reaches, in frames of `x`; told where the last of them, which
    lies nearly a frame later, has less to read than the first.
    """
    reach = replace(
        x.reach, between=x.reach.between + (1 - Fraction(1, factor) if between is None else between) / x.rate
    )
    return replace(
        x,
        rate=x.rate * factor,
        delay=x.delay * factor,
        pad_before=x.pad_before * factor,
        pad_after=NONE,
        border=None,
        reach=reach,
        positional=False,
    )


def wait_until_known(reads: Sequence[Window], y: Stream, always: bool = False) -> tuple[list[Window], Stream]:
    """Aligned streams at a delay at which every frame that has come stays real, however the stream goes on: where it
    may end, or `always`.
    """
    delay = time(AtLeast(y.delay), Known(y.extent, y.rate, always, whole=True))
    return [replace(w, back=w.back + (delay - y.delay)) for w in reads], replace(y, delay=delay)


def kept_real(xs: Sequence[Stream], options: Options) -> tuple[list[Window], list[Stream]]:
    """Streams without borders at one delay at which every frame that has come stays real, however the stream goes
    on: windows, and the streams as these show them.
    """
    reads, y = wait_until_known(*align(xs, options), always=True)
    return reads, [replace(x, delay=y.delay) for x in xs]


def foldable(x: Stream, factor: int) -> bool:
    """Whether the border of `x` can be one still with `factor` frames in the place of each."""
    return not isinstance(x.border, Mirror) and x.pad_before * factor <= MOST_FRAMES and not x.merged and not x.cached


def materialise_padding(x: Stream, options: Options, steps: list[Step]) -> Stream:
    """`x` with its border really in the stream (or `x` itself, without one); the step goes to `steps`."""
    if not has_border(x) and not x.cached:
        return x
    (window,), y = align([x], options, leads=False)
    name = f"{x.wire}#solid{_digest(x)}"
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
    mask = _mask(x, True, False)
    y = replace(y, wire=f"{x.wire}#early{_digest(x)}")
    steps.append(Step(x.wire, "Pad", (y.wire,), (Window(x.wire, 0, Frames(x.rate), mask, x.border),), (y,)))
    return y


def mask_padding(x: Stream) -> Mask:
    """A mask that hides everything but the real frames of `x`, whatever came early or late, behind zeros."""
    return only_real(x, zero(x), sealed=True)


def _digest(x: Stream) -> str:
    border = _frames(x.border).tobytes() if isinstance(x.border, (Const, PaddingFrames)) else repr(x.border).encode()
    key = repr((x.delay.constant, x.pad_before, str(x.pad_after), str(x.extent))).encode() + border
    return f"{zlib.crc32(key):08x}"


def _led(x: Stream, before: int, after: Length, border: Padding, options: Options) -> bool:
    """Whether `x` keeps its border at the start where another one is put around it.

    Both are known frame by frame and finite, it may come early, and no stream is so short that its end cuts the border
    off.
    """
    early = x.delay.floor()
    if not x.pad_before or not all(
        isinstance(b, (Const, PaddingFrames)) and np.isfinite(_frames(b).astype(np.float64)).all()
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


def _frames(border: Const | PaddingFrames) -> Array:
    """The frames of a border, or the only one."""
    return border.frames.array if isinstance(border, PaddingFrames) else border.array


def _rows(border: Padding | None, count: int, axis: int) -> Array:
    """`count` frames of a border that is known."""
    assert isinstance(border, (Const, PaddingFrames))
    return _frames(border) if isinstance(border, PaddingFrames) else np.repeat(_frames(border), count, axis)


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
        wire=f"{x.wire}#ended{_digest(x)}",
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
            (Window(x.wire, delay - x.delay, Frames(x.rate), _mask(x, False, True), x.border),),
            (y,),
        )
    )
    return y


def _with(x: Stream, extent: Length) -> tuple[Length, ...]:
    return (*x.shape[: x.axis], extent, *x.shape[x.axis + 1 :])


def _begins(pad_before: int, options: Options) -> Bound:
    """What a wire waits for whose first `pad_before` frames need not come."""
    return AtLeast(Delay.of(-pad_before)) if options.advance else Begins(pad_before)


def _mirrored(x: Stream, stride: int, hidden: int = 0) -> tuple[Bound, ...]:
    """What a reader waits for whose frame 0 sees a frame farthest inwards of the start."""
    if not x.pad_before or not isinstance(x.border, Mirror):
        return ()
    return (SeenInwards(x.delay, x.pad_before, x.border.edge, stride, x.rate, hidden),)


def _most(length: Length) -> int:
    """The largest value of a number of frames that must not grow with the stream."""
    long = long_streams(length, periods=2)
    near, far, farther = (max(length.at(n + before) for n in long) for before in (-long.start, 0, long.start))
    if farther > far:
        refuse(
            f"it pads {length} mirrored frames at the end, more and more with the length of the stream",
            hint="pad a fixed number of frames",
        )
    return max(near, far)


def _mask(x: Stream, before: bool, after: bool) -> Mask | None:
    border = x.border
    if border is None or (not before and not after):
        return None
    if isinstance(border, Mirror):
        reach = _most(x.pad_after) * (1 if border.edge else 2) if after else 0
        return Mask(
            x.delay,
            x.pad_before,
            x.extent - x.pad_after,
            border,
            before and x.pad_before > 0,
            after,
            x.rate,
            sealed=True,
            reach=reach,
        )
    if isinstance(border, PaddingFrames):
        return Mask(x.delay, x.pad_before, x.extent, border, True, False, x.rate, sealed=True) if before else None
    computed = (
        not x.source
    )  # no history that starts as zeros: frames before the first are computed from their positions
    infinite = None if np.isfinite(border.array.astype(np.float64)).all() else x.extent
    return Mask(
        x.delay,
        x.pad_before,
        x.extent - x.pad_after,
        border,
        before,
        after,
        x.rate,
        computed=computed,
        infinite=infinite,
    )
