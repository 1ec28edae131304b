"""Lengths at multiples of a pulse: how far frames may be ahead of them, and of which multiples two are equal."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from pulsify_onnx.algebra.length import LARGE, TIME, Length, LengthLike


def common_unit(a: LengthLike, b: LengthLike) -> int | None:
    """Smallest-known ``u`` such that `a` equals `b` for every stream of a multiple of ``u`` frames; None if none.

    A U-Net joins ``2*floor(T/2)`` with ``T``: the batch model itself runs for even T only.
    """
    a, b = Length.of(a), Length.of(b)
    if a == b:
        return 1
    unit = math.lcm(*a.divisors(), *b.divisors())
    others = {name: 3 for name in a.symbols() | b.symbols()}
    start = unit * (LARGE // unit)
    if all(a.exact(others | {TIME: start + unit * k}) == b.exact(others | {TIME: start + unit * k}) for k in range(1, 5)):
        return unit
    return None


@lru_cache(maxsize=4096)
def most(length: Length, rate: Fraction, step: int) -> int:
    """``max over n of (rate*n - length(n))``, n every multiple of `step`, rounded up: how far a wire may run ahead."""
    period = math.lcm(step, *length.divisors())
    ns = [*range(0, 2 * period + 1, step), *range(LARGE // period * period, LARGE // period * period + 2 * period, step)]
    if len(ns) > 20000:
        ns = ns[:: len(ns) // 20000 + 1]
    worst: int = max(math.ceil(rate * n - max(0, length.at(n))) for n in ns)
    return worst
