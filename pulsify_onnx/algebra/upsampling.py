"""Readers that make several frames in the place of each: how early each of them may come, and where a pulse of them
begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from pulsify_onnx.algebra.delay import Bound, Delay, Timing, time
from pulsify_onnx.algebra.facts import Padding, Stream
from pulsify_onnx.algebra.padding import pad
from pulsify_onnx.algebra.plan import Options, Step, Window
from pulsify_onnx.algebra.windows import at_higher_rate, windowed


@dataclass(frozen=True)
class Earliest(Bound):
    """The delay of a wire that has `factor` frames for each of a reader's, the last of which need `early` of them less
    than it has.

    `begin`: the delay of what the reader reads; with `edge` its frame 0 may not come before the first real frame, its
    own edge.
    """

    begin: Delay
    reader: Delay
    factor: int
    early: int
    rate: Fraction
    edge: bool

    def delays(self) -> tuple[Delay, ...]:
        """Those of what is read, and of the reader."""
        return self.begin, self.reader

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """The least delay of the wire."""
        begin, reader = values
        together = self.rate * at.step
        if together.denominator == 1:
            begin = begin // int(together) * int(together)  # the pulse with which the first one comes
        spare = reader - min(begin, reader) if self.edge else reader
        return self.factor * reader - min(self.early, self.factor * spare)


@dataclass(frozen=True)
class Upsampled:
    """Several frames in the place of each: the stream `y` of them, whose extent is the caller's to tell.

    The frames of a pulse begin at frame ``start`` of what the operator makes of the window that it is given. With
    `more` copies of its last frame at the end of that window the operator makes all of them.
    """

    y: Stream
    start: Delay
    more: int


Taps = Sequence[tuple[int, int] | None]
"""For every r: frame ``len(taps) * t + r`` is made of frames ``t + first`` to ``t + last``; None: of none at all."""


def _hull(taps: Taps) -> tuple[int, int]:
    """The first and the last frame that any is made of, or its own."""
    read = [tap for tap in taps if tap is not None]
    return min(0, *(first for first, _ in read)), max(0, *(last for _, last in read))


def spread(x: Stream, y: Stream, taps: Taps) -> Upsampled:
    """Frames by `taps` in the place of each of `x`, where `y` is the stream of windows that have all that is read
    for one of `x`.
    """
    factor, (low, high) = len(taps), _hull(taps)
    read = [(r, *tap) for r, tap in enumerate(taps) if tap is not None]
    early = min(factor * (high - last) + r for r, _, last in read)
    delay = time(Earliest(x.delay, y.delay, factor, early, x.rate, edge=low < 0)) if early else y.delay * factor
    between = low - min(first - Fraction(r, factor) for r, first, _ in read)
    return Upsampled(
        replace(at_higher_rate(y, factor, between), delay=delay),
        factor * (y.delay - low) - delay,
        max(0, -(-early // factor) - high),
    )


def upsampled(
    x: Stream, taps: Taps, after: int, border: Padding, options: Options, steps: list[Step]
) -> tuple[Window, Upsampled]:
    """Frames by `taps` in the place of each of `x`, and the window of `x` that they are made of.

    Before the first and after the last frame of `x` there are frames of `border`, `after` of them at the end.
    """
    low, high = _hull(taps)
    window, y = windowed(pad(x, -low, after, border, options, steps), high - low + 1, 1, options)
    return window, spread(x, y, taps)
