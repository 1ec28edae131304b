"""Frames of a wire that are not real, hidden from its readers: which they are, and what is read in their place."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pulsify_onnx.algebra.delay import Delay, DelayLike
from pulsify_onnx.algebra.facts import Padding, Stream
from pulsify_onnx.algebra.length import Length


@dataclass(frozen=True)
class Mask:
    """Frames of a wire that are real; all others read as ``border``: a constant frame, or mirrored ones.

    Those of a wire with `delay` whose index is at least `first` and below `end` are real; `before` and `after` say
    which side is asked about at all. With `computed` the frames before the first are not zeros by themselves. With
    `sealed` the window is masked whatever the border; a `guard` hides what may be there before the stream begins even
    where nothing comes late. Frames mirrored at the end are found up to `reach` frames before their place.
    ``infinite``: the number of frames with those of an infinite border; all others read as zeros, so that what is made
    of no frame at all is finite. ``reader``: the delay of a reader whose own frames are meant; past the end it hides
    only what is known to be no frame.
    """

    delay: Delay
    first: int
    end: Length
    border: Padding
    before: bool
    after: bool
    rate: Fraction
    computed: bool = False
    sealed: bool = False
    guard: bool = False
    reach: int = 0
    infinite: Length | None = None
    reader: Delay | None = None


def only_real(x: Stream, border: Padding, sealed: bool = False, guard: bool = False) -> Mask:
    """What shows nothing but the frames that come over the wire of `x` and are real; all others read as `border`."""
    return Mask(
        x.delay,
        x.pad_before,
        x.extent - x.pad_after,
        border,
        True,
        True,
        x.rate,
        computed=guard and x.positional,
        sealed=sealed,
        guard=guard,
    )


def only_read_by(y: Stream, back: DelayLike, border: Padding) -> Mask:
    """What shows nothing but the frames that real ones of `y` are made of, one of each, on a window `back` frames
    before the pulse.
    """
    return Mask(
        y.delay - back,
        y.pad_before,
        y.extent - y.pad_after,
        border,
        True,
        not y.positional,
        y.rate,
        computed=y.positional,
        sealed=True,
        reader=y.delay,
    )


@dataclass(frozen=True)
class TimedMask:
    """A mask at a time: a frame is real iff ``low <= position < high``, positions counted in the concatenation of the
    wire's pulses.

    `start` and `end` say which side needs the test at all. With `arrival` the arriving pulse is masked, and the history
    begins with frames of the border (a constant) and remembers masked ones; else the window is masked. ``within``: the
    positions of an infinite border and of the frames between its two sides.
    """

    low: int
    high: Length
    border: Padding
    start: bool
    end: bool
    arrival: bool
    reach: int = 0
    within: tuple[int, Length] | None = None
