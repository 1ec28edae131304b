"""Lengths that are shown and read back."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.length_text import parse
from pulsify_onnx.algebra.ordering import larger, smaller

T = Length.symbol(TIME)


@pytest.mark.parametrize(
    "length",
    [
        T,
        Length.of(0),
        T - 9,
        2 * T.floordiv(4) - 1,
        T * T * Fraction(1, 2) - T,
        (T + 1).floordiv(2).floordiv(3) + T.floordiv(7),
        smaller(T.floordiv(2), (T - 3).floordiv(3)) - 5,
        larger(T - 3, Length.symbol("S")) * Length.symbol("B"),
        -T + Fraction(1, 3),
    ],
)
def test_what_is_shown_is_read_as_it_was(length):
    assert parse(str(length)) == length
    assert str(parse(str(length))) == str(length)


@pytest.mark.parametrize(
    "text",
    ["", "T +", "T / 0", "T / T", "T ** 2", "floor(T)", "floor((T)/-2)", "min(T)", "1.5", "__import__('os').getpid()"],
)
def test_what_is_no_length_is_not_read(text):
    with pytest.raises(ValueError, match="is no length"):
        parse(text)
