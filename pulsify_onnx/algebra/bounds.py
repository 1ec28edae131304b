"""What a delay must not be less than: so that what has come is known to be real, and what is mirrored has been seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from pulsify_onnx.algebra.delay import Bound, Delay, Timing
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.periods import run_ahead


@dataclass(frozen=True)
class AfterEnd(Bound):
    """How many frames of a wire of `delay` come after the pulse with the last data, where it has `more` of them than
    its rate says; nothing where the stream does not end.
    """

    delay: Delay
    more: int

    def delays(self) -> tuple[Delay, ...]:
        """That of the wire."""
        return (self.delay,)

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """As many as come late or are more."""
        return values[0] + self.more if at.end_of_stream else None


@dataclass(frozen=True)
class Known(Bound):
    """A wire of `rate` at which every frame that has come is one of the `extent` frames, however the stream goes on;
    ``always`` also where it never ends.
    """

    extent: Length
    rate: Fraction
    always: bool = False
    whole: bool = False

    def delays(self) -> tuple[Delay, ...]:
        """None: it follows from the lengths alone."""
        return ()

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """How far the wire would run ahead."""
        if not at.end_of_stream and not self.always:
            return None
        return run_ahead(self.extent, self.rate, math.lcm(at.step, self.rate.denominator) if self.whole else at.step)


@dataclass(frozen=True)
class SeenInwards(Bound):
    """A reader, every `stride` frames, of a wire that begins with `pad_before` mirrored frames; with `edge` all of them
    are the first real one.

    Frames of one pulse come together, so a frame may leave in the very pulse that brings the one it sees. The first
    `hidden` frames it does not look at.
    """

    delay: Delay
    pad_before: int
    edge: bool
    stride: int
    rate: Fraction
    hidden: int = 0

    def delays(self) -> tuple[Delay, ...]:
        """That of the wire it reads."""
        return (self.delay,)

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """The least delay of the reader, whose first frame sees the farthest one inwards."""
        mirrored = self.pad_before - max(first * self.stride, self.hidden)
        if mirrored <= 0:
            return None
        farthest = values[0] + self.pad_before + (0 if self.edge else mirrored)
        position = -(-(farthest + 1) // self.stride) - 1
        together = self.rate * at.step
        if together.denominator == 1 and int(together) % self.stride == 0:
            position = min(position, farthest // int(together) * (int(together) // self.stride))
        return position - first
