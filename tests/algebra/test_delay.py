"""Delays before they are known: sums of unknowns, and the least values that satisfy their bounds."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

import pytest

from pulsify_onnx.algebra.delay import AtLeast, Begins, Bound, Delay, Solution, Time, Timing, time


@dataclass(frozen=True)
class Pulse(Bound):
    """`plus` frames more than a pulse, asked for with an end only where `ends`."""

    plus: int = 0
    ends: bool = False

    def delays(self) -> tuple[Delay, ...]:
        return ()

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        return None if self.ends and not at.end_of_stream else at.step + self.plus


def terms(delay: Delay) -> list[int]:
    return [factor for _, factor in delay.terms]


@pytest.fixture
def s() -> Delay:
    return time(Pulse())


@pytest.fixture
def t() -> Delay:
    return time(Pulse(3))


def test_numbers_are_delays() -> None:
    assert Delay.of(3) + 4 == 4 + Delay.of(3) == Delay((), 7)
    assert 4 - Delay.of(3) == Delay.of(1) == -Delay.of(-1) and Delay.of(3) - 4 == Delay.of(-1)
    assert 2 * Delay.of(3) == Delay.of(3) * 2 == Delay.of(6)
    assert Delay.of(3).known == int(Delay.of(3)) == Delay.of(3).floor() == 3
    assert not Delay() and Delay.of(-1)


def test_sums_have_one_form(s: Delay, t: Delay) -> None:
    assert s + t == t + s and hash(s + t) == hash(t + s)
    assert (s + t) - t == s and (s + 2) - (s + 2) == Delay()
    assert terms(s * 2 + s) == [3] and s * 0 == Delay() and 3 * (s + 1) == s * 3 + 3
    assert terms(s - t * 2) == [1, -2] and s - s == Delay() and not s - s
    assert 5 - s == -s + 5


def test_what_is_not_scheduled_is_no_number(s: Delay) -> None:
    for read in (int, lambda d: d.known):
        with pytest.raises(ValueError, match="is not scheduled yet"):
            read(s + 1)
    assert s, "an unknown may be anything, so it is not nothing"


def test_text(s: Delay, t: Delay) -> None:
    names = [str(unknown) for d in (s, t) for unknown, _ in d.terms]
    assert str(s * 2 + t - 1) == " + ".join([f"2*{names[0]}", names[1], "-1"])
    assert str(Delay()) == "0" and str(Delay.of(4)) == "4" and str(s) == names[0]


def test_numbers_alone_are_a_number_at_once() -> None:
    assert time(AtLeast(Delay.of(3)), AtLeast(Delay.of(5))) == Delay.of(5)
    assert time(AtLeast(Delay.of(7), 2)) == Delay.of(4) and time(AtLeast(Delay.of(-7), 2)) == Delay.of(-3)
    assert time(AtLeast(Delay.of(-2))) == Delay.of(-2), "no floor at 0 but what is asked for"


def test_a_sum_above_all_numbers_is_taken_as_it_is(s: Delay) -> None:
    early = time(AtLeast(s), AtLeast(Delay.of(0)))
    assert early.floor() == 0
    assert time(AtLeast(early + 2), AtLeast(Delay.of(2))) == early + 2
    assert time(AtLeast(early + 2), AtLeast(Delay.of(-9))) == early + 2
    assert time(AtLeast(early + 2), AtLeast(Delay.of(3))) not in (early + 2, Delay.of(3)), (
        "3 may be more than it, or less"
    )
    assert time(AtLeast(early + 2, 2)) != early + 2, "rounded up it is another number"
    assert time(AtLeast(early), AtLeast(time(AtLeast(s), AtLeast(Delay.of(1))))) != early


def test_equal_bounds_are_one_unknown(s: Delay) -> None:
    assert time(AtLeast(s), Pulse(1)) is not None
    assert time(AtLeast(s), Pulse(1)) == time(AtLeast(s), Pulse(1)) == time(AtLeast(s), Pulse(1), AtLeast(s))
    assert time(AtLeast(s), Pulse(1)) != time(AtLeast(s), Pulse(2))


def test_unknowns_that_nobody_has_are_forgotten() -> None:
    import pulsify_onnx.algebra.delay as module

    kept = time(Pulse(1234))
    gc.collect()
    before = len(module._known)
    more = time(Pulse(1235))
    assert len(module._known) == before + 1
    del more
    gc.collect()
    assert len(module._known) == before and time(Pulse(1234)) == kept


def test_floors(s: Delay) -> None:
    above = time(AtLeast(s), AtLeast(Delay.of(2)))
    assert s.floor() is None and above.floor() == 2
    assert (above * 3 + 1).floor() == 7
    assert (-above).floor() is None, "what is taken away may be large"
    assert (above + s).floor() is None
    assert time(AtLeast(above + 3, 2)).floor() == 3, "rounded up"


def test_least_values() -> None:
    pulse = time(Pulse())
    reader = time(AtLeast(pulse + 4, 2), AtLeast(Delay.of(3)))
    assert [Solution(Timing(step))(reader) for step in (1, 2, 3, 16)] == [3, 3, 4, 10]
    assert Solution(Timing(16))(2 * reader - pulse + 1) == 5
    assert Solution(Timing(16))(7) == 7 and Solution(Timing(16))(Delay.of(7)) == 7


def test_a_wire_begins_with_the_first_frame_that_is_read() -> None:
    early = time(AtLeast(Delay.of(-7)), Begins(2))
    ((unknown, _),) = early.terms
    assert Solution(Timing())(early) == -2 and early.floor() == -7
    assert [Solution(Timing(), {unknown: first})(early) for first in (0, 1, 2, 4, 7, 9)] == [-2, -2, -2, -4, -7, -7]
    assert time(AtLeast(Delay.of(-2)), Begins(2)) == Delay.of(-2), "it is no earlier, whatever is read"


def test_bounds_may_ask_for_nothing() -> None:
    late = time(AtLeast(time(Pulse())), Pulse(5, ends=True))
    assert Solution(Timing(2))(late) == 2 and Solution(Timing(2, True))(late) == 7


def test_a_chain_of_thousands_is_solved_without_recursion() -> None:
    depth = 5000
    assert depth > sys.getrecursionlimit()
    x = first = time(Pulse())
    for _ in range(depth):
        x = time(AtLeast(x + 2), AtLeast(Delay()), Pulse(1, ends=True))
    assert len(x.terms) == 1 and isinstance(x.terms[0][0], Time) and x != first
    assert Solution(Timing(4))(x) == 2 * depth + 4
    assert Solution(Timing(4, True))(x) == 2 * depth + 4


def test_a_chain_that_branches_is_solved_once() -> None:
    """Two readers of two readers …: 2^60 ways through it."""
    asked: list[int] = []

    @dataclass(frozen=True)
    class Counted(Bound):
        of: Delay
        number: int

        def delays(self) -> tuple[Delay, ...]:
            return (self.of,)

        def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
            asked.append(self.number)
            return values[0] + 1

    x = time(Pulse())
    for k in range(60):
        a, b = time(Counted(x, 2 * k)), time(Counted(x, 2 * k + 1))
        x = time(AtLeast(a), AtLeast(b))
    value = Solution(Timing(1))
    assert value(x) == value(x) == 61 and sorted(asked) == list(range(120))
