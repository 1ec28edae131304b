"""Readers of frames: the windows they have, and the delays of what they give.

A reader of frames ``t*stride … t*stride + span - 1`` is a window on the tapped delay line of a wire; joins align. Every
function is pure: facts in, expressions and facts out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce

from pulsify_onnx.algebra.border import NONE, border_mask, shape_with
from pulsify_onnx.algebra.bounds import Known, SeenInwards
from pulsify_onnx.algebra.delay import AtLeast, Begins, Bound, Delay, time
from pulsify_onnx.algebra.facts import Mirror, Stream
from pulsify_onnx.algebra.hidden import Mask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import smaller
from pulsify_onnx.algebra.periods import common_unit
from pulsify_onnx.algebra.plan import Frames, Options, Position, Window
from pulsify_onnx.errors import Refusal, refuse


class RateMismatch(Refusal):
    """Two streams meet at different rates; the walker may settle it by giving their inputs other rates."""

    def __init__(self, a: Stream, b: Stream):
        super().__init__(
            f"{a.source or a.wire} gives {a.rate} frames where {b.source or b.wire} gives {b.rate}",
            "bring both to one rate before they meet",
        )
        self.a, self.b = a, b


def frames(x: Stream, extra: int = 0) -> Frames:
    """The frames of one pulse of `x`."""
    return Frames(x.rate, extra)


def indices(x: Stream) -> Position:
    """Batch indices of the frames of one pulse of `x`."""
    return Position(x.rate, x.delay)


def undelayed(x: Stream, role: int = 0) -> Window:
    """The frames of `x` that would come with this pulse if nothing were late; `role` is its side of a pair."""
    return Window(x.wire, -x.delay, Frames(x.rate, role=role), role=role)


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
        x.wire, back, Frames(x.rate, span - stride), border_mask(x, x.pad_before > 0, bool(x.pad_after.terms)), x.border
    )
    reach = x.reach.joined(x.reach.shifted((span - 1) / x.rate))
    y = replace(
        x,
        shape=shape_with(x, extent),
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
    return window, replace(y, shape=shape_with(y, extent))


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
            border_mask(x, x.pad_before > pad_before, x.pad_after != pad_after),
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
    reach = x.reach.apart((1 - Fraction(1, factor) if between is None else between) / x.rate)
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


def _begins(pad_before: int, options: Options) -> Bound:
    """What a wire waits for whose first `pad_before` frames need not come."""
    return AtLeast(Delay.of(-pad_before)) if options.advance else Begins(pad_before)


def _mirrored(x: Stream, stride: int, hidden: int = 0) -> tuple[Bound, ...]:
    """What a reader waits for whose frame 0 sees a frame farthest inwards of the start."""
    if not x.pad_before or not isinstance(x.border, Mirror):
        return ()
    return (SeenInwards(x.delay, x.pad_before, x.border.edge, stride, x.rate, hidden),)


def in_parts(x: Stream, count: int) -> Stream:
    """`x` with every frame taken to `count` parts that follow each other."""
    return replace(at_higher_rate(x, count), reach=x.reach.in_parts(count, 1 / x.rate))


def of_parts(x: Stream, y: Stream, count: int) -> Stream:
    """`y`, of which each frame is `count` of those of `x`: where these are parts of frames, it depends on these."""
    return replace(y, reach=x.reach.together(count, 1 / x.rate) or y.reach)
