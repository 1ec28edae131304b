"""Between which bounds the scores of every query and key lie: what masks them is known from positions, and data counts
as 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.plan import Expr, Op, QueryKeyRead, When
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.rules.kit.positions import Positions, Sides, Unknown, sides_inside

Range = tuple[Array, Array]
"""The least and the greatest value that is possible, broadcastable to the shape of an expression."""

DATA: Range = (np.zeros((), np.float32), np.zeros((), np.float32))
"""What a value of the stream counts as: small beside what masks."""

ANYTHING: Range = (np.full((), -np.inf, np.float32), np.full((), np.inf, np.float32))


class Scores:
    """Ranges of scores: data counts as 0, what is masked is far below."""

    def __init__(self, positions: Positions):
        self.positions = positions

    def bound(self, expr: Expr | None, at: Sides) -> Array:
        """An upper bound of `expr`."""
        return self.range(expr, at)[1]

    def range(self, expr: Expr | None, at: Sides) -> Range:
        """Bounds of `expr`."""
        try:
            value = self.positions.value(expr, at)
            found = np.asarray(value, np.float32) if value is not None else np.zeros((), np.float32)
            return found, found
        except Unknown:
            pass
        if isinstance(expr, QueryKeyRead):
            step = self.positions.world.step_of(expr.wire)
            if step is not None:
                return self.range(step.exprs[step.wires.index(expr.wire)], sides_inside(expr, at))
        if isinstance(expr, When):
            (a, b), (c, d) = self.range(expr.yes, at), self.range(expr.no, at)
            return np.minimum(a, c), np.maximum(b, d)
        if isinstance(expr, Op) and (expr.domain, expr.op_type) in _RANGES:
            with np.errstate(invalid="ignore", over="ignore"):
                low, high = _RANGES[expr.domain, expr.op_type](self, expr, at)
            return _known(low, -np.inf), _known(high, np.inf)
        if isinstance(expr, Op) and any(
            low.any() or high.any()
            for low, high in (self.range(e, at) for e in expr.inputs if isinstance(e, (Op, QueryKeyRead)))
        ):
            return ANYTHING
        return DATA

    def truth(self, expr: Expr | None, at: Sides) -> tuple[Array, Array]:
        """(surely true, surely false) of a condition."""
        try:
            value = np.asarray(self.positions.value(expr, at), bool)
            return value, ~value
        except Unknown:
            pass
        if isinstance(expr, QueryKeyRead):
            step = self.positions.world.step_of(expr.wire)
            if step is not None:
                return self.truth(step.exprs[step.wires.index(expr.wire)], sides_inside(expr, at))
        if isinstance(expr, When):
            (a, b), (c, d) = self.truth(expr.yes, at), self.truth(expr.no, at)
            return a & c, b & d
        if isinstance(expr, Op):
            if expr.op_type == "Not":
                return self.truth(expr.inputs[0], at)[::-1]
            if expr.op_type in ("And", "Or"):
                (at_, af), (bt, bf) = (self.truth(e, at) for e in expr.inputs)
                return (at_ & bt, af | bf) if expr.op_type == "And" else (at_ | bt, af & bf)
            if expr.op_type in ("Cast", "Unsqueeze", "Reshape", "Expand") and not isinstance(expr.inputs[0], Const):
                found = self._moved(expr, self.truth(expr.inputs[0], at), at)
                if found is not None:
                    return found
        never = np.zeros((), bool)
        return never, never

    def _moved(self, expr: Op, both: tuple[Array, Array], at: Sides) -> tuple[Array, Array] | None:
        if expr.op_type == "Cast" or both[0].ndim == 0:
            return both
        try:
            rest = [self.positions.value(e, at) for e in expr.inputs[1:]]
        except Unknown:
            return None
        moved = [
            evaluate.evaluate(expr.op_type, [b, *rest], dict(expr.attributes), opset=self.positions.opset) for b in both
        ]
        return None if moved[0] is None or moved[1] is None else (moved[0][0], moved[1][0])


def _known(bound: Array, unknown: float) -> Array:
    """A bound, `unknown` where it came to nothing (the difference of two infinities)."""
    nothing = np.isnan(bound)
    return np.where(nothing, np.float32(unknown), bound) if nothing.any() else bound


def _where(s: Scores, e: Op, at: Sides) -> Range:
    true, false = s.truth(e.inputs[0], at)
    (a, b), (c, d) = s.range(e.inputs[1], at), s.range(e.inputs[2], at)
    return np.where(true, a, np.where(false, c, np.minimum(a, c))), np.where(
        true, b, np.where(false, d, np.maximum(b, d))
    )


def _products(s: Scores, e: Op, at: Sides) -> Range:
    for x, factor in ((0, 1), (1, 0)):
        if e.op_type == "Div" and x == 1:
            break
        try:
            by = np.asarray(s.positions.value(e.inputs[factor], at), np.float32)
        except Unknown:
            continue
        low, high = s.range(e.inputs[x], at)
        if e.op_type == "Div" and not by.all():
            return ANYTHING
        ends = (low / by, high / by) if e.op_type == "Div" else (low * by, high * by)
        return np.minimum(*ends), np.maximum(*ends)
    pure = all(not low.any() and not high.any() for low, high in (s.range(x, at) for x in e.inputs))
    return DATA if pure else ANYTHING


def _sum(s: Scores, e: Op, at: Sides) -> Range:
    ends = [s.range(x, at) for x in e.inputs]
    return sum((low for low, _ in ends[1:]), start=ends[0][0]), sum((high for _, high in ends[1:]), start=ends[0][1])


def _difference(s: Scores, e: Op, at: Sides) -> Range:
    (a, b), (c, d) = s.range(e.inputs[0], at), s.range(e.inputs[1], at)
    return a - d, b - c


def _negative(s: Scores, e: Op, at: Sides) -> Range:
    low, high = s.range(e.inputs[0], at)
    return -high, -low


def _extreme(s: Scores, e: Op, at: Sides) -> Range:
    choose = np.minimum if e.op_type == "Min" else np.maximum
    low, high = s.range(e.inputs[0], at)
    for x in e.inputs[1:]:
        more = s.range(x, at)
        low, high = choose(low, more[0]), choose(high, more[1])
    return low, high


def _cast(s: Scores, e: Op, at: Sides) -> Range:
    true, false = s.truth(e.inputs[0], at)
    if true.any() or false.any():
        return true.astype(np.float32), np.float32(1) - false
    return s.range(e.inputs[0], at)


def _moved_range(s: Scores, e: Op, at: Sides) -> Range:
    ends = s.range(e.inputs[0], at)
    if all(x.ndim == 0 for x in ends):
        return ends
    try:
        rest = [s.positions.value(x, at) for x in e.inputs[1:]]
    except Unknown:
        return ANYTHING
    full = np.broadcast_shapes(*(x.shape for x in ends))
    moved = [
        evaluate.evaluate(
            e.op_type,
            [np.ascontiguousarray(np.broadcast_to(x, full), np.float32), *rest],
            dict(e.attributes),
            opset=s.positions.opset,
        )
        for x in ends
    ]
    return (
        ANYTHING
        if moved[0] is None or moved[1] is None
        else (np.asarray(moved[0][0], np.float32), np.asarray(moved[1][0], np.float32))
    )


_RANGES: dict[tuple[str, str], Callable[[Scores, Op, Sides], Range]] = {
    ("", name): function
    for function, names in (
        (_where, "Where"),
        (_sum, "Add Sum"),
        (_difference, "Sub"),
        (_negative, "Neg"),
        (_products, "Mul Div"),
        (_extreme, "Min Max"),
        (_cast, "Cast"),
        (_moved_range, "Identity Unsqueeze Squeeze Reshape Expand Transpose"),
    )
    for name in names.split()
}
