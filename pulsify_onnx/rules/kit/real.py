"""Which frames of a pulse are real: asked here, and nowhere else among the rules.

A frame is real iff its batch index is at least 0 and below the extent of its stream. None comes before the first where
nothing comes late, and none after the last while the stream goes on; what is asked then is nothing (`cases`). Frames
that are hidden rather than asked about are a `Mask` (`pulsify_onnx/algebra/hidden.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Count, Expr, Position, Start, Test, When
from pulsify_onnx.algebra.windows import indices
from pulsify_onnx.rules.kit.combinators import const, onnx_op


@dataclass(frozen=True)
class Valid:
    """Frames that have batch `index`: those from `first` on and below `end` are real."""

    index: Position
    end: Length
    first: int = 0

    @staticmethod
    def of(x: Stream) -> Valid:
        """The frames of a pulse of `x`."""
        return Valid(indices(x), x.extent)

    def flags(self, late: bool = True, ended: bool = False) -> Expr | None:
        """Bool [frames]: which are real, where some may come before the first (`late`) and some after the last
        (`ended`); None where all are.
        """
        tests = [onnx_op("Less", const(self.first - 1), self.index)] if late else []
        tests += [onnx_op("Less", self.index, Count(self.end))] if ended else []
        return onnx_op("And", *tests) if len(tests) == 2 else tests[0] if tests else None

    def anywhere(self) -> Expr:
        """Bool [frames]: which are real, of frames that may come before the first at any time."""
        early, both = self.flags(), self.flags(ended=True)
        assert early is not None and both is not None
        return When(Test.past(self.end), both, early)


def cases(x: Stream, ends: bool, make: Callable[[bool, bool], Sequence[Expr]]) -> list[Expr]:
    """What `make` (late, ended) gives, for the case that the schedule finds: `x` comes late, and (where that
    matters, `ends`) the stream may end.
    """
    late = Test(late=x.delay)
    endless = [When(late, yes, no) for yes, no in zip(make(True, False), make(False, False))]
    if not ends:
        return list(endless)
    ended = (When(late, yes, no) for yes, no in zip(make(True, True), make(False, True)))
    return [When(Test.past(x.extent), yes, no) for yes, no in zip(ended, endless)]


def where_real(x: Stream, ends: bool, make: Callable[[Expr], Expr], otherwise: Expr) -> Expr:
    """What `make` gives for a bool [frames] that says which frames of this pulse of `x` are real; `otherwise` where
    nothing but real ones can be seen.
    """

    def case(late: bool, ended: bool) -> list[Expr]:
        flags = Valid.of(x).flags(late, ended)
        return [otherwise if flags is None else make(flags)]

    return cases(x, ends, case)[0]


def begins(x: Stream) -> Expr:
    """int64 scalar: batch index of the first frame of this pulse."""
    return Start(x.rate, x.delay)


def started(x: Stream) -> Expr:
    """Bool scalar: frame 0 of `x` came before this pulse, so what is carried is its own and not the initial value."""
    return onnx_op("Less", const(0), begins(x))


def going_on(x: Stream) -> Expr:
    """Bool scalar: this pulse begins before the end of `x`."""
    return onnx_op("Less", begins(x), Count(x.extent))


def before_first(x: Stream) -> Expr:
    """int64 scalar: frames that come before frame 0, from the first one of this pulse on."""
    return onnx_op("Max", onnx_op("Neg", begins(x)), const(0))


def before_end(x: Stream, count: Expr) -> Expr:
    """int64 scalar: how many of the first `count` frames of this pulse come before the end of `x`; not above 0
    without one.
    """
    return onnx_op("Min", count, onnx_op("Sub", Count(x.extent), begins(x)))


def newest_real(x: Stream, count: Expr) -> Expr:
    """int64 [1]: where the last one of the `count` frames of this pulse is that comes before the end of `x`; the
    first one without any.
    """
    last = onnx_op(
        "Min", onnx_op("Sub", Count(x.extent), onnx_op("Add", begins(x), const(1))), onnx_op("Sub", count, const([1]))
    )
    return onnx_op("Max", last, const([0]))


def real_of(x: Stream, count: Expr) -> Expr:
    """How many of the first `count` frames of `x`, counted from frame 0 of the batch, are there."""
    ended = onnx_op("Max", onnx_op("Min", count, Count(x.extent)), const(0))
    return When(Test.past(x.extent), ended, When(Test(late=x.delay), onnx_op("Max", count, const(0)), count))


def nearest(x: Stream) -> Expr:
    """int64 [frames]: batch index of every frame of this pulse of `x`, and of the real one next to it where it is
    none.
    """
    index = indices(x)
    ended = onnx_op("Max", onnx_op("Min", index, onnx_op("Sub", Count(x.extent), const(1))), const(0))
    return When(Test.past(x.extent), ended, When(Test(late=x.delay), onnx_op("Max", index, const(0)), index))
