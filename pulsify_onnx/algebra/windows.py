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
from pulsify_onnx.algebra.facts import Border, Mirror, Onset, Stream
from pulsify_onnx.algebra.hidden import Mask, only_real
from pulsify_onnx.algebra.length import LARGE, Length, LengthLike
from pulsify_onnx.algebra.ordering import assume, holds, larger, smaller
from pulsify_onnx.algebra.periods import common_unit, long_streams
from pulsify_onnx.algebra.plan import Frames, Options, Position, Requirement, Step, Test, Window
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import Refusal, refuse


class RateMismatch(Refusal):
    """Two streams meet at different rates; the walker may settle it by giving their inputs other rates."""

    def __init__(self, a: Stream, b: Stream):
        super().__init__(f"{a.source or a.wire} gives {a.rate} frames where {b.source or b.wire} gives {b.rate}",
                         "bring both to one rate before they meet")
        self.a, self.b = a, b


NEVER_NEGATIVE = "pad by a number that is never negative"

NONE = Length(())
MOST_FRAMES = 1024
"""A border whose frames differ has no more: it is written into the graph, and every operator behind it is folded over it."""
SHORT = 33
"""Streams of fewer frames are asked too whether a length that is negative for long ones is so for all."""


def bordered(x: Stream) -> bool:
    """Whether `x` has frames that did not come over its wire."""
    return x.lead > 0 or bool(x.trail.terms)


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


def pad(x: Stream, before: int, after: LengthLike, border: Border, options: Options, steps: list[Step]) -> Stream:
    """`x` with frames of `border` before and after it: nothing flows, only indices move.

    Negative numbers crop. Where `x` has another border already, that one is made solid first (appended to `steps`), also
    where the new frames would mirror mirrored ones.
    """
    after = Length.of(after)
    if before < 0:
        return pad(crop(x, start=-before), 0, after, border, options, steps)
    least = after.constant if after.constant is not None else 0 if holds(after, -1, 1) else -1
    both = f"it pads the end by {after} frames, which crops some streams and pads others"
    if least < 0 and holds(after, 1, -1):
        if any(after.at(n) > 0 for n in range(1, SHORT)):
            steps.append(Step(x.wire, "Pad", (), (), (), requires=(Requirement(Test(ends=True), both, NEVER_NEGATIVE),)))
        return pad(crop(x, end=-after), before, 0, border, options, steps)
    if least < 0:
        refuse(both, hint=NEVER_NEGATIVE)
    if not before and not after.terms:
        return x
    if after.terms and x.extent.at(2 * LARGE) - x.extent.at(LARGE) < LARGE * x.rate - 1:
        refuse(f"it pads the end of {x.extent} frames, which comes before the end of the stream", hint="pad before cutting the stream off")
    if isinstance(border, Mirror):
        _most(after)
        for count in (before, after) if not border.edge else ():
            assume(x.extent - count, (1,))  # onnxruntime mirrors no more frames than there are
    if bordered(x) and (x.border != border or not isinstance(border, Const) and (before or x.trail.terms)):
        if not _led(x, before, after, border, options):
            x = solid(x, options, steps)
        elif before and not x.trail.terms and not after.terms:
            border = _joined(x, before, border)
        else:
            return _ended(x, before, after, border, options, steps)
    reach = x.reach.padded(ending(x.extent - x.trail, x.rate)) if after.terms else x.reach
    return replace(x, shape=_with(x, x.extent + before + after), delay=x.delay - before, lead=x.lead + before,
                   trail=x.trail + after, border=border, reach=reach.shifted(-before / x.rate), positional=False)


def lengthened(x: Stream, before: int, after: LengthLike) -> Stream:
    """`x`, which begins with mirrored frames, with more of them: places for a reader that does not look at them."""
    after = Length.of(after)
    return replace(x, shape=_with(x, x.extent + before + after), delay=x.delay - before, lead=x.lead + before, trail=x.trail + after,
                   reach=(x.reach.padded(ending(x.extent - x.trail, x.rate)) if after.terms else x.reach).shifted(-before / x.rate), positional=False)


def crop(x: Stream, start: int = 0, end: LengthLike = 0) -> Stream:
    """`x` without its first and last frames: more delay, no state."""
    end = Length.of(end)
    trail = larger(0, x.trail - end)
    border = x.border.upto(x.axis, start, x.lead - start) if isinstance(x.border, Onset) and x.lead > start else x.border
    return replace(x, shape=_with(x, x.extent - start - end), delay=x.delay + start, lead=max(0, x.lead - start), cached=max(0, x.cached - start),
                   trail=trail, border=border, reach=x.reach.shifted(start / x.rate), positional=x.positional and not start)


def windowed(x: Stream, span: int, stride: int, options: Options, through: bool = False, hidden: int = 0) -> tuple[Window, Stream]:
    """A reader of `span` frames every `stride`: its window, and the stream of its outputs.

    The output has the least delay that the network allows; wire, shape and dtype are `x`'s with the new extent.
    `through`: a reader of single frames treats mirrored ones as those they mirror, so they stay a border of its outputs.
    The first `hidden` frames, mirrored ones, it does not look at.
    """
    extent = (x.extent - span).floordiv(stride) + 1
    rate = x.rate / stride
    if through and isinstance(x.border, Mirror) and span == stride == 1:
        (window,), y = align([x], options)
        return window, y
    lead = (x.lead - span) // stride + 1 if x.lead >= span and not isinstance(x.border, Mirror) else 0
    whole = (x.extent - x.trail - span).floordiv(stride) + 1
    delay = time(AtLeast(x.delay + (span - stride), stride), _begins(lead, options), *_mirrored(x, stride, hidden), *((Known(whole, rate),) if x.trail.terms else ()))
    back = stride * delay - x.delay
    window = Window(x.wire, back, Frames(x.rate, span - stride), _mask(x, x.lead > 0, bool(x.trail.terms)), x.border)
    reach = x.reach.joined(x.reach.shifted((span - 1) / x.rate))
    y = replace(x, shape=_with(x, extent), rate=rate, delay=delay, lead=lead, trail=NONE, reach=reach, positional=False,
                border=x.border if lead else None, cached=0)
    return window, y


def fewer(window: Window, y: Stream, extent: Length, span: int, stride: int) -> tuple[Window, Stream]:
    """A reader, as `windowed` gives it, whose frames are no more than `extent`: an infinite border ends with what the last of them reads."""
    extent = smaller(y.extent, extent)
    if isinstance(window.mask, Mask) and window.mask.infinite is not None:
        window = replace(window, mask=replace(window.mask, infinite=(extent - 1) * stride + span))
    return window, replace(y, shape=_with(y, extent))


def indices_read(window: Window, y: Stream, stride: int, before: int) -> Position:
    """Batch indices of the frames of a `window` of which `y` is made, `stride` for each of its own, in what was padded with `before` frames at the start."""
    return Position(window.frames.rate, y.delay * stride + before, window.frames.extra)


def align(xs: Sequence[Stream], options: Options, leads: bool = True) -> tuple[list[Window], Stream]:
    """Bring streams that meet to one delay: a window for each, and the joined stream (wire and shape of the first).

    Borders of equal width pass through unless `leads` is false; mirrored ones only where all are the same. Raises RateMismatch, and Refusal where lengths differ.
    """
    first = next((x for x in xs if not x.positional), xs[0])
    for x in xs:
        if x.origin != first.origin:
            refuse("it joins relative positions, counted from a query to a key, with frames of the stream", hint="count positions from the first frame")
        if x.rate != first.rate:
            raise RateMismatch(first, x)
        if x.extent != first.extent and common_unit(x.extent, first.extent) is None:
            refuse(f"it joins streams of different lengths: {first.extent} frames and {x.extent} frames for T base frames",
                   hint="pad or crop one of them so that both have one length")
    if any(isinstance(x.border, Mirror) for x in xs):
        leads = leads and len({(x.lead, x.trail, x.border) for x in xs}) == 1
    lead = min(x.lead for x in xs) if leads else 0
    trail = reduce(smaller, dict.fromkeys(x.trail for x in xs)) if leads else NONE
    bounds: list[Bound] = [AtLeast(x.delay) for x in xs if not x.positional]
    for x in xs:
        bounds += _mirrored(x, 1) if x.lead > lead else ()
        bounds += (Known(x.extent - x.trail, x.rate),) if x.trail != trail else ()
    delay = time(*bounds, _begins(lead, options)) if bounds else Delay.of(-lead)
    reads = [Window(x.wire, delay - x.delay, Frames(x.rate), _mask(x, x.lead > lead, x.trail != trail), x.border) for x in xs]
    reach = first.reach
    for x in xs:
        reach = reach.joined(x.reach)
    y = replace(first, delay=delay, lead=lead, trail=trail, reach=reach, positional=all(x.positional for x in xs),
                border=first.border if lead or trail.terms else None, cached=0)
    return reads, y


def faster(x: Stream, factor: int, between: Fraction | None = None) -> Stream:
    """`x`, which has no border at its end, with `factor` frames in the place of each; the extent is the caller's to tell.

    A border at the start is one still, of frames that the analysis folds.

    `between`: how much further back than `x` one of them reaches, in frames of `x`; told where the last of them, which
    lies nearly a frame later, has less to read than the first.
    """
    reach = replace(x.reach, between=x.reach.between + (1 - Fraction(1, factor) if between is None else between) / x.rate)
    return replace(x, rate=x.rate * factor, delay=x.delay * factor, lead=x.lead * factor, trail=NONE, border=None, reach=reach, positional=False)


def timely(reads: Sequence[Window], y: Stream, always: bool = False) -> tuple[list[Window], Stream]:
    """Aligned streams at a delay at which every frame that has come stays real, however the stream goes on: where it may end, or `always`."""
    delay = time(AtLeast(y.delay), Known(y.extent, y.rate, always, whole=True))
    return [replace(w, back=w.back + (delay - y.delay)) for w in reads], replace(y, delay=delay)


def kept_real(xs: Sequence[Stream], options: Options) -> tuple[list[Window], list[Stream]]:
    """Streams without borders at one delay at which every frame that has come stays real, however the stream goes on: windows, and the streams as these show them."""
    reads, y = timely(*align(xs, options), always=True)
    return reads, [replace(x, delay=y.delay) for x in xs]


def foldable(x: Stream, factor: int) -> bool:
    """Whether the border of `x` can be one still with `factor` frames in the place of each."""
    return not isinstance(x.border, Mirror) and x.lead * factor <= MOST_FRAMES and not x.merged and not x.cached


def solid(x: Stream, options: Options, steps: list[Step]) -> Stream:
    """`x` with its border really in the stream (or `x` itself, without one); the step goes to `steps`."""
    if not bordered(x) and not x.cached:
        return x
    (window,), y = align([x], options, leads=False)
    name = f"{x.wire}#solid{_digest(x)}"
    y = replace(y, wire=name)
    steps.append(Step(x.wire, "Pad", (name,), (window,), (y,)))
    return y


def leaving(x: Stream, options: Options, steps: list[Step]) -> Stream:
    """`x` as it leaves the graph: solid, or with `advance` as early as it can be, without the frames that never come."""
    early = -x.delay.constant
    if not options.advance or x.delay.terms or not 0 < early <= x.lead or isinstance(x.border, Mirror) or x.trail.terms:
        return solid(x, options, steps)
    border = x.border.upto(x.axis, 0, early) if isinstance(x.border, Onset) else x.border
    y = replace(x, lead=early, trail=NONE, border=border)
    if x.lead == early:
        return y
    mask = _mask(x, True, False)
    y = replace(y, wire=f"{x.wire}#early{_digest(x)}")
    steps.append(Step(x.wire, "Pad", (y.wire,), (Window(x.wire, 0, Frames(x.rate), mask, x.border),), (y,)))
    return y


def sealed(x: Stream) -> Mask:
    """A mask that hides everything but the real frames of `x`, whatever came early or late, behind zeros."""
    return only_real(x, zero(x), sealed=True)


def _digest(x: Stream) -> str:
    border = _frames(x.border).tobytes() if isinstance(x.border, (Const, Onset)) else repr(x.border).encode()
    key = repr((x.delay.constant, x.lead, str(x.trail), str(x.extent))).encode() + border
    return f"{zlib.crc32(key):08x}"


def _led(x: Stream, before: int, after: Length, border: Border, options: Options) -> bool:
    """Whether `x` keeps its border at the start where another one is put around it.

    Both are known frame by frame and finite, it may come early, and no stream is so short that its end cuts the border off.
    """
    early = x.delay.floor()
    if not x.lead or not all(isinstance(b, (Const, Onset)) and np.isfinite(_frames(b).astype(np.float64)).all() for b in (border, x.border)):
        return False
    if not options.advance and (before + x.lead > MOST_FRAMES or early is not None and early >= 0):
        return False
    own = x.extent - x.trail
    return not after.terms or not any(0 <= own.at(n) < x.lead for n in range(1, SHORT))


def _joined(x: Stream, before: int, border: Border) -> Border:
    """The border of `x` after `before` frames of `border`, frame by frame where they differ."""
    parts = [_rows(border, before, x.axis), _rows(x.border, x.lead, x.axis)]
    shape = np.broadcast_shapes(*(np.take(part, [0], x.axis).shape for part in parts))
    wide = [np.broadcast_to(part, [part.shape[x.axis] if k == x.axis else d for k, d in enumerate(shape)]) for part in parts]
    return Onset(Const(np.concatenate(wide, x.axis))).upto(x.axis, 0, before + x.lead)


def _frames(border: Const | Onset) -> Array:
    """The frames of a border, or the only one."""
    return border.frames.array if isinstance(border, Onset) else border.array


def _rows(border: Border | None, count: int, axis: int) -> Array:
    """`count` frames of a border that is known."""
    assert isinstance(border, (Const, Onset))
    return _frames(border) if isinstance(border, Onset) else np.repeat(_frames(border), count, axis)


def _ended(x: Stream, before: int, after: Length, border: Border, options: Options, steps: list[Step]) -> Stream:
    """`x`, which keeps its border at the start, padded with another one: what comes after its end is made solid."""
    own, lead = x.border, x.lead
    if x.trail.terms:
        x = _solid_end(x, steps)
    if after.terms:
        x = replace(_solid_end(pad(replace(x, lead=0, border=None), 0, after, border, options, steps), steps), lead=lead, border=own)
    return pad(x, before, 0, border, options, steps)


def _solid_end(x: Stream, steps: list[Step]) -> Stream:
    """`x` with its border at the end really in the stream."""
    delay = time(AtLeast(x.delay), Known(x.extent - x.trail, x.rate))
    y = replace(x, wire=f"{x.wire}#ended{_digest(x)}", delay=delay, trail=NONE, border=x.border if x.lead else None, cached=0)
    steps.append(Step(x.wire, "Pad", (y.wire,), (Window(x.wire, delay - x.delay, Frames(x.rate), _mask(x, False, True), x.border),), (y,)))
    return y


def _with(x: Stream, extent: Length) -> tuple[Length, ...]:
    return (*x.shape[: x.axis], extent, *x.shape[x.axis + 1:])


def _begins(lead: int, options: Options) -> Bound:
    """What a wire waits for whose first `lead` frames need not come."""
    return AtLeast(Delay.of(-lead)) if options.advance else Begins(lead)


def _mirrored(x: Stream, stride: int, hidden: int = 0) -> tuple[Bound, ...]:
    """What a reader waits for whose frame 0 sees a frame farthest inwards of the start."""
    if not x.lead or not isinstance(x.border, Mirror):
        return ()
    return (SeenInwards(x.delay, x.lead, x.border.edge, stride, x.rate, hidden),)


def _most(length: Length) -> int:
    """The largest value of a number of frames that must not grow with the stream."""
    long = long_streams(length, periods=2)
    near, far, farther = (max(length.at(n + before) for n in long) for before in (-long.start, 0, long.start))
    if farther > far:
        refuse(f"it pads {length} mirrored frames at the end, more and more with the length of the stream", hint="pad a fixed number of frames")
    return max(near, far)


def _mask(x: Stream, before: bool, after: bool) -> Mask | None:
    border = x.border
    if border is None or not before and not after:
        return None
    if isinstance(border, Mirror):
        reach = _most(x.trail) * (1 if border.edge else 2) if after else 0
        return Mask(x.delay, x.lead, x.extent - x.trail, border, before and x.lead > 0, after, x.rate, sealed=True, reach=reach)
    if isinstance(border, Onset):
        return Mask(x.delay, x.lead, x.extent, border, True, False, x.rate, sealed=True) if before else None
    computed = not x.source  # no history that starts as zeros: frames before the first are computed from their positions
    infinite = None if np.isfinite(border.array.astype(np.float64)).all() else x.extent
    return Mask(x.delay, x.lead, x.extent - x.trail, border, before, after, x.rate, computed=computed, infinite=infinite)
