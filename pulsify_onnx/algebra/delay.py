"""Delays before they are known: sums of unknowns, of which each says what it must not be less than.

Rules tell which frames a result reads. How long a wire waits follows from that, from the pulse and from whether the
stream ends: the schedule finds the least value of every unknown, and only then a delay is a number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union
from weakref import WeakValueDictionary

DelayLike = Union["Delay", int]


@dataclass(frozen=True)
class Timing:
    """What a schedule is made for: every pulse is a multiple of `step` base frames, and the stream may end (or goes
    on for ever).
    """

    step: int = 1
    end_of_stream: bool = False


class Time:
    """An unknown: the least whole number that satisfies all of its ``bounds``. Made by `time`, so that equal bounds
    give one.

    ``floor``: what it is never below, where that is known.
    """

    __slots__ = ("__weakref__", "bounds", "floor", "serial")

    def __init__(self, bounds: tuple[Bound, ...], serial: int, floor: int | None):
        self.bounds, self.serial, self.floor = bounds, serial, floor

    def __repr__(self) -> str:
        return f"t{self.serial}"


class Bound:
    """What an unknown must not be less than; subclasses are frozen data."""

    def delays(self) -> tuple[Delay, ...]:
        """The delays that it follows from."""
        raise NotImplementedError

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """The least value, with those of `delays`; None where it asks for nothing. Nobody reads frames before the
        `first`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Delay:
    """A whole number of frames: ``constant``, and unknowns times whole numbers."""

    terms: tuple[tuple[Time, int], ...] = ()
    constant: int = 0

    @staticmethod
    def of(value: DelayLike) -> Delay:
        """`value` as a delay."""
        return value if isinstance(value, Delay) else Delay((), value)

    @property
    def known(self) -> int:
        """The number, of a delay that has been scheduled."""
        if self.terms:
            raise ValueError(f"{self} is not scheduled yet")
        return self.constant

    def floor(self) -> int | None:
        """What it is never below, where that is known."""
        total = self.constant
        for unknown, factor in self.terms:
            if unknown.floor is None or factor < 0:
                return None
            total += unknown.floor * factor
        return total

    def __bool__(self) -> bool:
        return bool(self.terms or self.constant)

    def __int__(self) -> int:
        return self.known

    def __add__(self, other: DelayLike) -> Delay:
        other = Delay.of(other)
        if not other.terms:
            return Delay(self.terms, self.constant + other.constant)
        total = dict(self.terms)
        for unknown, factor in other.terms:
            total[unknown] = total.get(unknown, 0) + factor
        terms = sorted(((t, f) for t, f in total.items() if f), key=lambda term: term[0].serial)
        return Delay(tuple(terms), self.constant + other.constant)

    __radd__ = __add__

    def __mul__(self, factor: int) -> Delay:
        return Delay(tuple((t, f * factor) for t, f in self.terms), self.constant * factor) if factor else Delay()

    __rmul__ = __mul__

    def __neg__(self) -> Delay:
        return self * -1

    def __sub__(self, other: DelayLike) -> Delay:
        return self + -Delay.of(other)

    def __rsub__(self, other: DelayLike) -> Delay:
        return -self + other

    def __str__(self) -> str:
        parts = [f"{'' if f == 1 else f'{f}*'}{t}" for t, f in self.terms]
        return " + ".join([*parts, *([str(self.constant)] if self.constant or not parts else [])])


_serials = itertools.count()
_known: WeakValueDictionary[tuple[Bound, ...], Time] = WeakValueDictionary()


def time(*bounds: Bound) -> Delay:
    """The least delay that satisfies all of `bounds`: a sum that is there already, or a number at once, where no
    more is to be found out.
    """
    bounds = tuple(dict.fromkeys(bounds))
    lows = [b for b in bounds if isinstance(b, AtLeast)]
    floor = max((low for b in lows if (low := b.floor()) is not None), default=None)
    if floor is not None:
        bounds = tuple(b for b in bounds if not isinstance(b, Begins) or -b.frame > floor)
    if len(lows) == len(bounds):
        if floor is not None and not any(b.delay.terms for b in lows):
            return Delay.of(floor)
        moving = [b for b in lows if b.delay.terms]
        if len(moving) == 1 and moving[0].stride == 1 and moving[0].floor() == floor:
            return moving[0].delay
    found = _known.get(bounds)
    if found is None:
        found = _known[bounds] = Time(bounds, next(_serials), floor)
    return Delay(((found, 1),))


@dataclass(frozen=True)
class AtLeast(Bound):
    """``delay / stride``, rounded up."""

    delay: Delay
    stride: int = 1

    def delays(self) -> tuple[Delay, ...]:
        """The one that it reads."""
        return (self.delay,)

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """Rounded up."""
        return -(-values[0] // self.stride)

    def floor(self) -> int | None:
        """What it is never below, where that is known."""
        low = self.delay.floor()
        return None if low is None else -(-low // self.stride)


@dataclass(frozen=True)
class Begins(Bound):
    """A wire whose `frame` comes no earlier than the stream begins; where nobody reads that one, the first that is
    read.
    """

    frame: int

    def delays(self) -> tuple[Delay, ...]:
        """None."""
        return ()

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """At which it is the very first frame that comes."""
        return -max(self.frame, first)


class Solution:
    """The least value of every unknown at a `timing`; ``first``: the first frame that is read of the wire which
    comes after it, where that is not 0.
    """

    def __init__(self, timing: Timing, first: Mapping[Time, int] | None = None):
        self.timing, self.first = timing, first or {}
        self._values: dict[Time, int] = {}

    def __call__(self, delay: DelayLike) -> int:
        """The value of `delay`."""
        if isinstance(delay, int):
            return delay
        self._solve(delay)
        return self._sum(delay)

    def _sum(self, delay: Delay) -> int:
        return delay.constant + sum(self._values[t] * f for t, f in delay.terms)

    def _solve(self, delay: Delay) -> None:
        todo = [t for t, _ in delay.terms]
        while todo:
            unknown = todo[-1]
            if unknown in self._values:
                todo.pop()
                continue
            open_ = [t for t in _reads(unknown) if t not in self._values]
            if open_:
                todo += open_
                continue
            first = self.first.get(unknown, 0)
            found = (b.least(self.timing, tuple(map(self._sum, b.delays())), first) for b in unknown.bounds)
            self._values[todo.pop()] = max(value for value in found if value is not None)


def _reads(unknown: Time) -> Iterator[Time]:
    for bound in unknown.bounds:
        for delay in bound.delays():
            for inner, _ in delay.terms:
                yield inner


Scheduled = Callable[[DelayLike], int]
"""The number that a delay has become."""
