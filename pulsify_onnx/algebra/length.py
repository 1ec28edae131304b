"""Lengths as data: integer expressions in the number of base frames ``T`` and other symbolic dimensions.

A `Length` is a polynomial over atoms (a symbol, a floored quotient, a minimum or maximum) in a canonical
form, so that two ways to compute one length are equal. Nothing here knows of ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Union

TIME = "T"
"""The symbol for the number of base frames of the whole stream."""

LONG_STREAM = 5040 * 1001
"""Where lengths are compared: far beyond every constant of a network, divisible by all common strides."""


@dataclass(frozen=True)
class Symbol:
    """A dimension known by name only."""

    name: str

    def evaluate(self, at: Mapping[str, int]) -> Fraction:
        """The value at given symbols."""
        return Fraction(at[self.name])


@dataclass(frozen=True)
class Floor:
    """``floor(of / by)``."""

    of: Length
    by: int

    def evaluate(self, at: Mapping[str, int]) -> Fraction:
        """The value at given symbols."""
        return Fraction(math.floor(self.of.exact(at) / self.by))


@dataclass(frozen=True)
class Extreme:
    """The smaller (``largest`` false) or the larger of two lengths."""

    a: Length
    b: Length
    largest: bool

    def evaluate(self, at: Mapping[str, int]) -> Fraction:
        """The value at given symbols."""
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
        """This length divided by `by`, a product of symbols and a number, where every term of it is a multiple; else
        None.
        """
        if len(by.terms) != 1:
            return Length.of(1) if self == by else None
        ((atoms, coefficient),) = by.terms
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
        return _collect(
            [(tuple(sorted(a + b, key=_order)), x * y) for a, x in self.terms for b, y in Length.of(other).terms]
        )

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
    """All values of a length that does not grow with the stream, such as what a floored quotient leaves; empty where
    it may.
    """
    atoms = [atom for monomial, _ in length.terms for atom in monomial]
    if not length.moves or length.symbols() != {TIME} or len(atoms) < 2 or not all(_linear(atom) for atom in atoms):
        return set()
    period = math.lcm(*length.divisors())
    grows = length.exact({TIME: period}) != length.exact({TIME: 0})
    return (
        set()
        if grows or period > 5040 or any(len(monomial) > 1 for monomial, _ in length.terms)
        else {length.exact({TIME: t}) for t in range(period)}
    )


def _linear(atom: Atom) -> bool:
    """Whether an atom grows by the same amount over every period."""
    return isinstance(atom, Symbol) or (
        isinstance(atom, Floor)
        and all(len(monomial) < 2 and all(map(_linear, monomial)) for monomial, _ in atom.of.terms)
    )


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
