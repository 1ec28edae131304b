"""Which of two lengths is the larger: for every long stream, and from how many frames on that is true.

What is decided by the lengths of long streams only is told to whoever is `assuming`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from pulsify_onnx.algebra.length import LONG_STREAM, TIME, Extreme, Length, LengthLike


def compare(a: LengthLike, b: LengthLike) -> int | None:
    """-1, 0 or 1 as `a` is below, equal to or above `b` for every long enough stream; None if not known. What is
    decided by it asks `holds`.
    """
    signs = _signs(Length.of(a) - Length.of(b))
    return next(iter(signs)) if len(signs) == 1 else None


@lru_cache(maxsize=4096)
def _signs(difference: Length) -> frozenset[int]:
    """The signs that a length has in long streams, whatever the sizes that do not follow them."""
    residues = range(min(64, 2 * math.lcm(*difference.divisors())))
    times = (
        [LONG_STREAM * step + residue for step in (1, 2) for residue in residues] if difference.moves else [LONG_STREAM]
    )
    values = (
        difference.exact({TIME: time} | others)
        for others in _sizes(sorted(difference.symbols() - {TIME}))
        for time in times
    )
    signs = frozenset((value > 0) - (value < 0) for value in values)
    return signs | {0} if {-1, 1} <= signs else signs


def _sizes(names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Sizes of dimensions that are known by name only: each may be anything from 1 on."""
    if not names:
        yield {}
        return
    for size in (1, 2, 3, *(1 << k for k in range(2, LONG_STREAM.bit_length() + 1))):
        yield {name: size + 11 * i for i, name in enumerate(names)}
        yield {name: size + 11 * i for i, name in enumerate(reversed(names))}
        yield dict.fromkeys(names, size)


def holds(a: LengthLike, b: LengthLike, *signs: int) -> bool | None:
    """Whether the sign of ``a - b`` is among `signs` in every long enough stream; None if not known.

    Shorter streams, of which the answer is not true, are told to whoever is `assuming`.
    """
    difference = Length.of(a) - Length.of(b)
    answers = {sign in signs for sign in _signs(difference)}
    if len(answers) != 1:
        return None
    answer = answers.pop()
    assume(difference, [sign for sign in (-1, 0, 1) if (sign in signs) == answer])
    return answer


@dataclass
class Assumed:
    """The fewest base frames of a stream for which all that was decided is true."""

    least: int = 1


_ASSUMED: ContextVar[Assumed | None] = ContextVar("assumed", default=None)


@contextmanager
def assuming() -> Iterator[Assumed]:
    """What is decided by the lengths of long streams in here is true from so many base frames on."""
    found = Assumed()
    token = _ASSUMED.set(found)
    try:
        yield found
    finally:
        _ASSUMED.reset(token)


def assume(difference: LengthLike, signs: Iterable[int]) -> None:
    """Streams are so long that the sign of `difference` is among `signs`."""
    found = _ASSUMED.get()
    if found is not None:
        found.least = max(found.least, _from(Length.of(difference), frozenset(signs)))


@lru_cache(maxsize=4096)
def _from(difference: Length, signs: frozenset[int]) -> int:
    """Base frames from which on the sign of `difference` is among `signs`."""
    if not difference.moves:
        return 1
    others = {name: 1 for name in difference.symbols()}

    @cache
    def sign(n: int) -> int:
        value = difference.exact(others | {TIME: n})
        return (value > 0) - (value < 0)

    period = min(5040, 2 * math.lcm(*difference.divisors()))
    final = sign(LONG_STREAM)
    starts = [1 << k for k in range(LONG_STREAM.bit_length())]
    short = [start for start in starts if any(sign(n) != final for n in range(start, start + period))]
    if not short:
        return 1
    lowest, highest = short[-1], 2 * short[-1] + period
    while period == 2 and highest - lowest > 2:  # no quotient: it changes once
        middle = (lowest + highest) // 2
        lowest, highest = (middle, highest) if sign(middle) != final else (lowest, middle)
    opposite = 0
    for n in range(highest, 0, -1):
        if sign(n) not in signs:
            return n + 1
        opposite = opposite + 1 if sign(n) == -final else 0
        if opposite == period:  # every shorter stream is a whole number of periods before one of these
            break
    return 1


def smaller(a: LengthLike, b: LengthLike) -> Length:
    """The smaller of two lengths."""
    return _extreme(Length.of(a), Length.of(b), largest=False)


def larger(a: LengthLike, b: LengthLike) -> Length:
    """The larger of two lengths."""
    return _extreme(Length.of(a), Length.of(b), largest=True)


def _extreme(a: Length, b: Length, largest: bool) -> Length:
    difference = a - b
    signs = _signs(difference)
    if (len(signs) == 1 and (not a.moves or not b.moves or difference.constant is not None)) or (
        not difference.moves and not {-1, 1} <= signs
    ):
        sign = max(signs, key=abs)
        assume(difference, (0, sign))
        return a if (sign >= 0) == largest else b
    first, second = sorted((a, b), key=str)
    return Length((((Extreme(first, second, largest),), Fraction(1)),))
