"""Lengths as they are shown, read back."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

from pulsify_onnx.algebra.length import Extreme, Floor, Length


def parse(text: str) -> Length:
    """The length that ``str`` shows as `text`. Raises ValueError."""
    try:
        return _read(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError) as problem:
        raise ValueError(f"{text!r} is no length") from problem


def _read(node: ast.expr) -> Length:
    """A length from its syntax tree, of the very atoms that are written there."""
    match node:
        case ast.Constant(value=int(number)):
            return Length.of(number)
        case ast.Name(id=name):
            return Length.symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=of):
            return -_read(of)
        case ast.BinOp(left=a, op=op, right=b) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_read(a), _read(b))
        case ast.Call(func=ast.Name(id="floor"), args=[ast.BinOp(left=of, op=ast.Div(), right=by)]):
            if isinstance(by, ast.Constant) and isinstance(by.value, int) and by.value > 0:
                return Length((((Floor(_read(of), by.value),), Fraction(1)),))
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=[a, b]):
            return Length((((Extreme(_read(a), _read(b), name == "max"),), Fraction(1)),))
    raise ValueError(ast.unparse(node))


def _quotient(a: Length, b: Length) -> Length:
    return a * (1 / Fraction(b.ratio or 0))


_OPERATORS: dict[type[ast.operator], Callable[[Length, Length], Length]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _quotient,
}
