"""Streams of a multiple of so many base frames: lengths that agree there, and what the name of a dimension promises."""

from __future__ import annotations

import ast
import math
from fractions import Fraction

from pulsify_onnx.algebra.length import TIME, Length, Symbol
from pulsify_onnx.algebra.length import Floor as FloorAtom
from pulsify_onnx.algebra.ordering import larger, smaller

MOST = 1 << 20
"""A larger number in the name of a dimension is no promise."""


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
