"""Values of a length over a whole period: what is asked of every phase at which a stream may end."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from pulsify_onnx.algebra.length import LARGE, Length


def long_streams(length: Length, *units: int, step: int = 1, periods: int = 1) -> range:
    """Numbers of base frames of long streams, every `step`, over so many periods of `length` and of what repeats every `units` frames."""
    period = math.lcm(step, *units, *length.divisors())
    start = LARGE // period * period
    return range(start, start + periods * period, step)


@lru_cache(maxsize=4096)
def most(length: Length, rate: Fraction, step: int) -> int:
    """``max over n of (rate*n - length(n))``, n every multiple of `step`, rounded up: how far a wire may run ahead."""
    far = long_streams(length, step=step, periods=2)
    ns = [*range(0, far.stop - far.start + 1, step), *far]
    if len(ns) > 20000:
        ns = ns[:: len(ns) // 20000 + 1]
    worst: int = max(math.ceil(rate * n - max(0, length.at(n))) for n in ns)
    return worst
