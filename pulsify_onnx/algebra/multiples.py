"""Streams of a multiple of so many base frames: lengths that agree there, and what the name of a dimension promises."""

from __future__ import annotations

import ast
import math
from fractions import Fraction

from pulsify_onnx.algebra.length import LONG_STREAM, TIME, Length, Symbol
from pulsify_onnx.algebra.length import Floor as FloorAtom
from pulsify_onnx.algebra.ordering import larger, smaller

MOST = 1 << 20
"""A larger number in the name of a dimension is no promise."""

MOST_PERIOD = 5040
"""Lengths with a longer period are not compared value by value."""


def of_multiples(length: Length, unit: int) -> Length:
    """`length` of streams of ``unit * T`` base frames."""
    total = Length.of(0)
    for monomial, coefficient in length.terms:
        term = Length.of(coefficient)
        for atom in monomial:
            if isinstance(atom, Symbol):
                term = term * Length.symbol(atom.name) * (unit if atom.name == TIME else 1)
            elif isinstance(atom, FloorAtom):
                term = term * of_multiples(atom.of, unit).floordiv(atom.by)
            else:
                a, b = of_multiples(atom.a, unit), of_multiples(atom.b, unit)
                term = term * (larger(a, b) if atom.largest else smaller(a, b))
        total = total + term
    return total


def quotient(top: Length, bottom: Length) -> tuple[int, int] | None:
    """(q, u): `top` is q times `bottom` for every stream of a multiple of u base frames; None where there is no such
    number.
    """
    if not bottom.moves:
        return None
    far = math.lcm(*top.divisors(), *bottom.divisors()) * LONG_STREAM
    over, under = (_slope(length, far) for length in (top, bottom))
    if under <= 0 or over <= 0 or (over / under).denominator != 1:
        return None
    times = int(over / under)
    if same(top, bottom * times):
        return times, 1
    unit = math.lcm(*top.divisors(), *bottom.divisors())
    return (times, unit) if of_multiples(top, unit) == of_multiples(bottom, unit) * times else None


def same(a: Length, b: Length) -> bool:
    """Whether two lengths are equal for every stream: written in one way, or over a whole period, with which they grow
    by one number.
    """
    difference = a - b
    if not difference.terms:
        return True
    period = _period(difference) if difference.symbols() == {TIME} else 0
    return 0 < period <= MOST_PERIOD and all(difference.exact({TIME: t}) == 0 for t in range(2 * period))


def _period(length: Length) -> int:
    """Frames over which a length grows by one number, wherever they begin; 0 where it is no sum of floored ones."""
    found = 1
    for monomial, _ in length.terms:
        for atom in monomial:
            if len(monomial) > 1 or not isinstance(atom, (Symbol, FloorAtom)):
                return 0
            if isinstance(atom, FloorAtom):
                steps = math.lcm(*(c.denominator for _, c in atom.of.terms))
                found = math.lcm(found, _period(atom.of) * steps * atom.by)
    return found


def _slope(length: Length, far: int) -> Fraction:
    others = dict.fromkeys(length.symbols(), 3)
    return (length.exact(others | {TIME: 2 * far}) - length.exact(others | {TIME: far})) / far


def promised(label: str | None) -> int:
    """The number that a dimension of this name is a multiple of: exporters write ``2*k``."""
    if not label or "*" not in label or len(label) > 200:
        return 1
    try:
        found = _multiple(ast.parse(label.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 1
    return found if 0 < found <= MOST else 1


def _multiple(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _multiple(node.left) * _multiple(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        return math.gcd(_multiple(node.left), _multiple(node.right))
    return 1


def base_frames(multiple: int, rate: Fraction) -> int:
    """What the base frames are a multiple of where `rate` frames for each are a `multiple`."""
    return (multiple / rate).numerator
