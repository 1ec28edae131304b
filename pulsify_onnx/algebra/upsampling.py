"""Readers that make several frames in the place of each: how early each of them may come, and where a pulse of them begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from pulsify_onnx.algebra.delay import Bound, Delay, Timing, time
from pulsify_onnx.algebra.facts import Border, Stream
from pulsify_onnx.algebra.plan import Options, Step, Window
from pulsify_onnx.algebra.windows import faster, pad, windowed


@dataclass(frozen=True)
class Earliest(Bound):
    """The delay of a wire that has `factor` frames for each of a reader's, the last of which need `early` of them less than it has.

    `first`: the delay of what the reader reads; with `edge` its frame 0 may not come before the first real frame, its own edge.
    """

    first: Delay
    reader: Delay
    factor: int
    early: int
    rate: Fraction
    edge: bool

    def delays(self) -> tuple[Delay, ...]:
        """Those of what is read, and of the reader."""
        return self.first, self.reader

    def least(self, at: Timing, values: tuple[int, ...]) -> int | None:
        """The least delay of the wire."""
        first, reader = values
        together = self.rate * at.step
        if together.denominator == 1:
            first = first // int(together) * int(together)  # the pulse with which the first one comes
        spare = reader - min(first, reader) if self.edge else reader
        return self.factor * reader - min(self.early, self.factor * spare)


@dataclass(frozen=True)
class Upsampled:
    """A reader that makes several frames of each: the `window` that its operator is given, and the stream `y` of what comes out, whose extent is the caller's to tell.

    The frames of a pulse begin at frame ``start`` of what the operator makes of the window. With `more` copies of its last
    frame at its end the operator makes all of them.
    """

    window: Window
    y: Stream
    start: Delay
    more: int


def upsampled(x: Stream, taps: Sequence[tuple[int, int] | None], after: int, border: Border, options: Options, steps: list[Step]) -> Upsampled:
    """`x` with ``len(taps)`` frames in the place of each: frame ``len(taps) * t + r`` is made of frames ``t + first`` to ``t + last``, which `taps` has for r (None: of none).

    Before the first and after the last frame there are frames of `border`, `after` of them at the end.
    """
    factor = len(taps)
    read = [(r, *tap) for r, tap in enumerate(taps) if tap is not None]
    low, high = min(0, *(first for _, first, _ in read)), max(0, *(last for _, _, last in read))
    window, y = windowed(pad(x, -low, after, border, options, steps), high - low + 1, 1, options)
    early = min(factor * (high - last) + r for r, _, last in read)
    delay = time(Earliest(x.delay, y.delay, factor, early, x.rate, edge=low < 0)) if early else y.delay * factor
    between = low - min(first - Fraction(r, factor) for r, first, _ in read)
    return Upsampled(window, replace(faster(y, factor, between), delay=delay), factor * (y.delay - low) - delay, max(0, -(-early // factor) - high))
