"""Lengths as data: integer expressions in the number of base frames ``T`` and other symbolic dimensions.

A `Length` is a polynomial over atoms (a symbol, a floored quotient, a minimum or maximum) in a canonical
form, so that two ways to compute one length are equal. Nothing here knows of ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from typing import Union

TIME = "T"
"""The symbol for the number of base frames of the whole stream."""

LARGE = 5040 * 1001
"""Where lengths are compared: far beyond every constant of a network, divisible by all common strides."""


@dataclass(frozen=True)
class Symbol:
    """A dimension known by name only."""

    name: str

    def evaluate(self, at: Mapping[str, int]) -> Fraction:
        return Fraction(at[self.name])


@dataclass(frozen=True)
class Floor:
    """``floor(of / by)``."""

    of: Length
    by: int

    def evaluate(self, at: Mapping[str, int]) -> Fraction:
        return Fraction(math.floor(self.of.exact(at) / self.by))


@dataclass(frozen=True)
class Extreme:
    """The smaller (``largest`` false) or the larger of two lengths."""

    a: Length
    b: Length
    largest: bool

    def evaluate(self, at: Mapping[str, int]) -> Fraction:
        a, b = self.a.exact(at), self.b.exact(at)
        return max(a, b) if self.largest else min(a, b)


Atom = Union[Symbol, Floor, Extreme]
Monomial = tuple[Atom, ...]
LengthLike = Union["Length", int, Fraction]


@lru_cache(maxsize=65536)
def _order(atom: Atom) -> str:
    return repr(atom)


@dataclass(frozen=True)
class Length:
    """A polynomial with rational coefficients; ``terms`` are sorted and without zeros."""

    terms: tuple[tuple[Monomial, Fraction], ...]

    @staticmethod
    def of(value: LengthLike) -> Length:
        """`value` as a length."""
        return value if isinstance(value, Length) else _constant(value)

    @staticmethod
    def symbol(name: str) -> Length:
        """The length that is called `name`."""
        return Length((((Symbol(name),), Fraction(1)),))

    @cached_property
    def constant(self) -> int | None:
        """The value, where it depends on nothing and is whole."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and self.terms[0][0] == () and self.terms[0][1].denominator == 1:
            return int(self.terms[0][1])
        return None

    @property
    def ratio(self) -> Fraction | None:
        """The value, where it depends on nothing."""
        if not self.terms:
            return Fraction(0)
        return self.terms[0][1] if len(self.terms) == 1 and self.terms[0][0] == () else None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def symbols(self) -> frozenset[str]:
        """Names this length depends on."""
        return self._symbols

    @cached_property
    def _symbols(self) -> frozenset[str]:
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                if isinstance(atom, Symbol):
                    found.add(atom.name)
                elif isinstance(atom, Floor):
                    found |= atom.of.symbols()
                else:
                    found |= atom.a.symbols() | atom.b.symbols()
        return frozenset(found)

    @property
    def moves(self) -> bool:
        """Whether it depends on the length of the stream."""
        return TIME in self.symbols()

    def divisors(self) -> frozenset[int]:
        """Every number by which a part of this length is floored."""
        found: set[int] = set()
        for monomial, coefficient in self.terms:
            found.add(coefficient.denominator)
            for atom in monomial:
                if isinstance(atom, Floor):
                    found |= {atom.by, *atom.of.divisors()}
                elif isinstance(atom, Extreme):
                    found |= atom.a.divisors() | atom.b.divisors()
        return frozenset(found)

    def exact(self, at: Mapping[str, int]) -> Fraction:
        """The value at given symbols, as a fraction."""
        total = Fraction(0)
        for monomial, coefficient in self.terms:
            for atom in monomial:
                coefficient = coefficient * atom.evaluate(at)
            total += coefficient
        return total

    def evaluate(self, at: Mapping[str, int]) -> int:
        """The value at given symbols; rounded down where it is not whole."""
        return math.floor(self.exact(at))

    def at(self, frames: int, others: int = 1) -> int:
        """The value for a stream of `frames` base frames; other symbols count as `others`."""
        return self.evaluate({name: others for name in self.symbols()} | {TIME: frames})

    def floor(self) -> Length:
        """This length rounded down to a whole number."""
        by = math.lcm(*(c.denominator for _, c in self.terms)) if self.terms else 1
        return self if by == 1 else (self * by).floordiv(by)

    def ceil(self) -> Length:
        """This length rounded up to a whole number."""
        return -((-self).floor())

    def floordiv(self, by: int) -> Length:
        """``floor(self / by)`` in canonical form."""
        if by < 0:
            return (-self).floordiv(-by)
        if by == 1:
            return self.floor()
        if len(quotients := {math.floor(value / by) for value in _values(self)}) == 1:
            return Length.of(quotients.pop())
        whole: list[tuple[Monomial, Fraction]] = []
        rest: list[tuple[Monomial, Fraction]] = []
        for monomial, coefficient in self.terms:
            quotient = math.floor(coefficient / by)
            if quotient:
                whole.append((monomial, Fraction(quotient)))
            if coefficient - quotient * by:
                rest.append((monomial, coefficient - quotient * by))
        outside, inside = _collect(whole), _collect(rest)
        if inside.ratio is not None:
            return outside + math.floor(inside.ratio / by)
        nested = _sole_floor(inside)
        if nested is not None:
            atom, offset = nested
            return outside + (atom.of + offset * atom.by).floordiv(atom.by * by)
        return outside + Length((((Floor(inside, by),), Fraction(1)),))

    def over(self, by: Length) -> Length | None:
        """This length divided by `by`, a product of symbols and a number, where every term of it is a multiple; else None."""
        if len(by.terms) != 1:
            return Length.of(1) if self == by else None
        (atoms, coefficient), = by.terms
        terms: list[tuple[Monomial, Fraction]] = []
        for monomial, own in self.terms:
            rest = list(monomial)
            for atom in atoms:
                if atom not in rest:
                    return None
                rest.remove(atom)
            terms.append((tuple(rest), own / coefficient))
        return _collect(terms)

    def __add__(self, other: LengthLike) -> Length:
        other = Length.of(other)
        return _collect([*self.terms, *other.terms]) if self.terms and other.terms else self if self.terms else other

    __radd__ = __add__

    def __neg__(self) -> Length:
        return Length(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: LengthLike) -> Length:
        return self + (-Length.of(other))

    def __rsub__(self, other: LengthLike) -> Length:
        return Length.of(other) - self

    def __mul__(self, other: LengthLike) -> Length:
        return _collect([(tuple(sorted(a + b, key=_order)), x * y)
                         for a, x in self.terms for b, y in Length.of(other).terms])

    __rmul__ = __mul__

    def __str__(self) -> str:
        def show(atom: Atom) -> str:
            if isinstance(atom, Symbol):
                return atom.name
            if isinstance(atom, Floor):
                return f"floor(({atom.of})/{atom.by})"
            return f"{'max' if atom.largest else 'min'}({atom.a}, {atom.b})"

        parts = []
        for monomial, c in self.terms:
            body = "*".join(map(show, monomial))
            parts.append(body if body and c == 1 else f"{c}*{body}" if body else str(c))
        return " + ".join(parts).replace("+ -", "- ") or "0"


@lru_cache(maxsize=4096)
def _constant(value: int | Fraction) -> Length:
    return Length((((), Fraction(value)),)) if value else Length(())


def _collect(terms: Iterable[tuple[Monomial, Fraction]]) -> Length:
    total: dict[Monomial, Fraction] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    kept = [(m, c) for m, c in total.items() if c]
    kept.sort(key=lambda term: (-len(term[0]), tuple(map(_order, term[0]))))
    return Length(tuple(kept))


def _values(length: Length) -> set[Fraction]:
    """All values of a length that does not grow with the stream, such as what a floored quotient leaves; empty where it may."""
    atoms = [atom for monomial, _ in length.terms for atom in monomial]
    if not length.moves or length.symbols() != {TIME} or len(atoms) < 2 or not all(_linear(atom) for atom in atoms):
        return set()
    period = math.lcm(*length.divisors())
    grows = length.exact({TIME: period}) != length.exact({TIME: 0})
    return set() if grows or period > 5040 or any(len(monomial) > 1 for monomial, _ in length.terms) else {length.exact({TIME: t}) for t in range(period)}


def _linear(atom: Atom) -> bool:
    """Whether an atom grows by the same amount over every period."""
    return isinstance(atom, Symbol) or isinstance(atom, Floor) and all(
        len(monomial) < 2 and all(map(_linear, monomial)) for monomial, _ in atom.of.terms)


def _sole_floor(length: Length) -> tuple[Floor, int] | None:
    """(atom, c) where `length` is ``Floor(...) + c``: floors of floors are one floor."""
    offset = 0
    atom: Floor | None = None
    for monomial, coefficient in length.terms:
        if monomial == () and coefficient.denominator == 1:
            offset = int(coefficient)
        elif len(monomial) == 1 and isinstance(monomial[0], Floor) and coefficient == 1 and atom is None:
            atom = monomial[0]
        else:
            return None
    return (atom, offset) if atom is not None else None


def compare(a: LengthLike, b: LengthLike) -> int | None:
    """-1, 0 or 1 as `a` is below, equal to or above `b` for every long enough stream; None if not known. What is decided by it asks `holds`."""
    signs = _signs(Length.of(a) - Length.of(b))
    return next(iter(signs)) if len(signs) == 1 else None


@lru_cache(maxsize=4096)
def _signs(difference: Length) -> frozenset[int]:
    """The signs that a length has in long streams, whatever the sizes that do not follow them."""
    residues = range(min(64, 2 * math.lcm(*difference.divisors())))
    times = [LARGE * step + residue for step in (1, 2) for residue in residues] if difference.moves else [LARGE]
    values = (difference.exact({TIME: time} | others) for others in _sizes(sorted(difference.symbols() - {TIME})) for time in times)
    signs = frozenset((value > 0) - (value < 0) for value in values)
    return signs | {0} if {-1, 1} <= signs else signs


def _sizes(names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Sizes of dimensions that are known by name only: each may be anything from 1 on."""
    if not names:
        yield {}
        return
    for size in (1, 2, 3, *(1 << k for k in range(2, LARGE.bit_length() + 1))):
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
    final = sign(LARGE)
    starts = [1 << k for k in range(LARGE.bit_length())]
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
    if len(signs) == 1 and (not a.moves or not b.moves or difference.constant is not None) or not difference.moves and not {-1, 1} <= signs:
        sign = max(signs, key=abs)
        assume(difference, (0, sign))
        return a if (sign >= 0) == largest else b
    first, second = sorted((a, b), key=str)
    return Length((((Extreme(first, second, largest),), Fraction(1)),))
