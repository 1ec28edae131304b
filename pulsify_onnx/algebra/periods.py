"""Values of a length over a whole period: what is asked of every phase at which a stream may end."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from pulsify_onnx.algebra.length import LONG_STREAM, TIME, Length, LengthLike


def long_streams(length: Length, *units: int, step: int = 1, periods: int = 1) -> range:
    """Numbers of base frames of long streams, every `step`, over so many periods of `length` and of what repeats
    every `units` frames.
    """
    period = math.lcm(step, *units, *length.divisors())
    start = LONG_STREAM // period * period
    return range(start, start + periods * period, step)


def common_unit(a: LengthLike, b: LengthLike) -> int | None:
    """Smallest-known ``u`` such that `a` equals `b` for every stream of a multiple of ``u`` frames; None if none.

    A U-Net joins ``2*floor(T/2)`` with ``T``: the batch model itself runs for even T only.
    """
    a, b = Length.of(a), Length.of(b)
    if a == b:
        return 1
    unit = math.lcm(*a.divisors(), *b.divisors())
    others = {name: 3 for name in a.symbols() | b.symbols()}
    start = unit * (LONG_STREAM // unit)
    if all(
        a.exact(others | {TIME: start + unit * k}) == b.exact(others | {TIME: start + unit * k}) for k in range(1, 5)
    ):
        return unit
    return None


@lru_cache(maxsize=4096)
def run_ahead(length: Length, rate: Fraction, step: int) -> int:
    """``max over n of (rate*n - length(n))``, n every multiple of `step`, rounded up: how far a wire may run ahead.

    A wire whose `length` is a number may run as far ahead as it likes: whatever comes after that is known not to be
    real.
    """
    if length.constant is not None:
        return -length.constant
    far = long_streams(length, step=step, periods=2)
    ns = [*range(0, far.stop - far.start + 1, step), *far]
    if len(ns) > 20000:
        ns = ns[:: len(ns) // 20000 + 1]
    worst: int = max(math.ceil(rate * n - max(0, length.at(n))) for n in ns)
    return worst
