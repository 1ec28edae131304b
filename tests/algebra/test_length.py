"""Lengths as data: canonical forms against plain arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.ordering import assuming, compare, holds, larger, smaller
from pulsify_onnx.algebra.periods import common_unit, long_streams, run_ahead
from pulsify_onnx.algebra.quotients import ratio

T = Length.symbol(TIME)


@st.composite
def lengths(draw: st.DrawFn) -> tuple[Length, object]:
    """A length, and the same as a function of T."""
    length: Length = T
    steps: list[tuple[str, int]] = []
    for _ in range(draw(st.integers(0, 5))):
        op = draw(st.sampled_from(["add", "mul", "div"]))
        by = draw(st.integers(-6, 6)) if op == "add" else draw(st.integers(1, 4))
        steps.append((op, by))
        length = length + by if op == "add" else length * by if op == "mul" else length.floordiv(by)

    def value(t: int) -> int:
        for op, by in steps:
            t = t + by if op == "add" else t * by if op == "mul" else t // by
        return t

    return length, value


@settings(max_examples=80, deadline=None)
@given(lengths())
def test_canonical_forms_keep_their_value(pair) -> None:  # type: ignore[no-untyped-def]
    length, value = pair
    for t in range(0, 80):
        assert length.at(t) == value(t)


@settings(max_examples=30, deadline=None)
@given(lengths(), lengths())
def test_sums_and_extremes(a, b) -> None:  # type: ignore[no-untyped-def]
    for t in (0, 1, 7, 30, 61):
        assert (a[0] + b[0]).at(t) == a[1](t) + b[1](t)
        assert (a[0] - b[0]).at(t) == a[1](t) - b[1](t)
    far = 10_000
    for t in range(far, far + 40):
        assert smaller(a[0], b[0]).at(t) == min(a[1](t), b[1](t))
        assert larger(a[0], b[0]).at(t) == max(a[1](t), b[1](t))


@settings(max_examples=30, deadline=None)
@given(lengths(), st.integers(1, 6))
def test_how_far_a_wire_may_run_ahead(pair, step) -> None:  # type: ignore[no-untyped-def]
    length, value = pair
    rate = Fraction(length.at(10**6 * 5040 * 2) - length.at(10**6 * 5040), 10**6 * 5040)
    found = run_ahead(length, rate, step)
    assert all(rate * n - max(0, value(n)) <= found for n in range(0, 600, step))


def test_floors_of_floors_are_one() -> None:
    assert T.floordiv(2).floordiv(3) == T.floordiv(6)
    assert (T.floordiv(2) + 1).floordiv(2) == (T + 2).floordiv(4)
    assert (2 * T + 3).floordiv(2) == T + 1
    assert (T * Fraction(1, 2)).floor() == T.floordiv(2)
    assert (T * Fraction(3, 2)).ceil().at(3) == 5


@pytest.mark.parametrize(
    "a, b, sign",
    [(T, T - 1, 1), (T - 1, T, -1), (T, T, 0), (T.floordiv(2) * 2, T, None), (T, 5, 1), (Length.of(3), 4, -1)],
)
def test_compare(a: Length, b: Length, sign: int | None) -> None:
    assert compare(a, b) == sign


def test_units() -> None:
    assert common_unit(T.floordiv(2) * 2, T) == 2
    assert common_unit(T.floordiv(4) * 4, (T + 1).floordiv(2) * 2) == 4
    assert common_unit(T, T - 1) is None
    assert common_unit(T, T) == 1


def test_text() -> None:
    assert str((T + 3).floordiv(2) * 2 - 1) == "2*floor((T + 1)/2) + 1"
    assert math.isclose(float((T * Fraction(3, 2)).exact({TIME: 2})), 3)


def test_what_a_quotient_leaves_is_bounded() -> None:
    rest = T - T.floordiv(4) * 4
    assert rest.floordiv(4) == Length.of(0)
    assert (rest + 9).floordiv(8) == Length.of(1)
    assert rest.floordiv(2).constant is None and [rest.floordiv(2).at(t) for t in range(6)] == [0, 0, 1, 1, 0, 0]
    assert (rest * T).floordiv(4).at(7) == 5


def test_ratios_have_no_common_factors() -> None:
    n = Length.symbol("N")
    one = Length.of(1)
    assert ratio([n * 2, T * 4], [n, T]) == (Length.of(8), one)
    assert ratio([T * 2 + 6, n], [T + 3]) == (n * 2, one)
    assert ratio([n * (T + 3) * 4], [Length.of(2), T + 3]) == (n * 2, one)
    assert ratio([n, T], [n * 2]) == (T, Length.of(2))
    assert ratio([T], [n]) == (T, n)
    assert ratio([T.floordiv(2) + 1, n], [n * 3]) == (T.floordiv(2) + 1, Length.of(3))


def test_long_streams_of_every_phase() -> None:
    length = T.floordiv(3) + (T + 1).floordiv(4)
    found = long_streams(length)
    assert len(found) == 12 and found.start % 12 == 0 and found.start > 10**6
    assert [n - found.start for n in long_streams(length, 5, step=8, periods=2)] == [*range(0, 240, 8)]
    assert long_streams(length, 5, step=8).start % 120 == 0


@settings(max_examples=100, deadline=None)
@given(lengths(), st.integers(-3, 60), st.sets(st.sampled_from([-1, 0, 1]), min_size=1, max_size=2))
def test_what_is_assumed_of_short_streams_is_true_from_there_on_and_no_later(pair, number, signs) -> None:  # type: ignore[no-untyped-def]
    length, value = pair
    with assuming() as assumed:
        answer = holds(length, number, *signs)
    if answer is None or assumed.least > 1000:
        return
    true = [((value(t) > number) - (value(t) < number) in signs) == answer for t in range(1, 1200)]
    assert all(true[assumed.least - 1 :])
    assert assumed.least == 1 or not true[assumed.least - 2]


@pytest.mark.parametrize("number", [1, 2, 6, 33])
def test_a_length_that_meets_a_number_once_is_told_apart_only_after_it(number: int) -> None:
    with assuming() as assumed:
        assert holds(T - 9, number, 0) is False
    assert assumed.least == number + 10
