"""What depends on positions alone: evaluated on frame indices, without any stream."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.delay import Delay, DelayLike
from pulsify_onnx.algebra.facts import QueryKey, Stream
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Op, Position, QueryKeyRead, Ref, Window
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.rules.kit.node import Context

FAR_FRAME = 1_000_000
"""About where a mask is looked at again, far from the start."""


TRIED = 97
"""Consecutive frames on which indices are tried: a prime, so that no period of theirs goes unseen."""

PLACES = (0, 5, 1000, FAR_FRAME, FAR_FRAME + 1001)
"""Where they are tried."""


class Unknown(Exception):
    """A value that is not known from positions alone."""


@dataclass(frozen=True)
class Sides:
    """Frames before the first one (negative: after it) at which either side is evaluated, and how many more than
    asked for.
    """

    a: DelayLike
    b: DelayLike
    more: tuple[int, int] = (0, 0)


def _number(frames: DelayLike) -> int:
    """A number of frames that does not depend on when; raises `Unknown` for others."""
    found = Delay.of(frames)
    if found.terms:
        raise Unknown
    return found.constant


class Positions:
    """Evaluates expressions on `frames` consecutive frames of either side, without any stream.

    With a `rate` also of streams that come late: whatever they are made of must have that rate, frame by frame.
    """

    def __init__(self, world: Context, opset: int, frames: int, rate: Fraction | None = None):
        self.world, self.opset, self.frames, self.rate = world, opset, frames, rate
        self.memo: dict[object, Array] = {}

    def value(self, expr: Expr | None, at: Sides) -> Array | None:
        """The value of `expr`; raises `Unknown` where it depends on data."""
        if expr is None:
            return None
        key = (expr, at)
        if key not in self.memo:
            self.memo[key] = self._value(expr, at)
        return self.memo[key]

    def _value(self, expr: Expr, at: Sides) -> Array:
        if isinstance(expr, Const):
            return expr.array
        if isinstance(expr, Ref):
            const = self.world.value_of(expr.wire)
            if const is None:
                raise Unknown
            return const.array
        if isinstance(expr, Position):
            back = at.b if expr.role else at.a
            return np.arange(self.frames + _number(expr.extra) + at.more[expr.role], dtype=np.int64) - _number(
                back + expr.delay
            )
        if isinstance(expr, Dims):
            return np.asarray(
                [
                    self.frames + _number(d.extra) + at.more[d.role]
                    if isinstance(d, Frames)
                    else d
                    if isinstance(d, int)
                    else 1
                    for d in expr.dims
                ],
                np.int64,
            )
        if isinstance(expr, Window):
            fact = self.world.fact_of(expr.wire)
            if not isinstance(fact, Stream) or fact.origin is not None or expr.mask is not None:
                raise Unknown
            if self.rate is None and not fact.positional:
                raise Unknown
            if self.rate is not None and expr.frames != Frames(self.rate):
                raise Unknown
            back = (at.b if expr.role else at.a) + expr.back
            return self.of(expr.wire, Sides(back, back, (at.more[expr.role],) * 2))
        if isinstance(expr, QueryKeyRead):
            fact = self.world.fact_of(expr.wire)
            if not isinstance(fact, QueryKey) or not fact.positional:
                raise Unknown
            return self.of(expr.wire, sides_inside(expr, at))
        if isinstance(expr, Op):
            inputs = [self.value(e, at) for e in expr.inputs]
            found = evaluate.evaluate(
                expr.op_type, inputs, dict(expr.attributes), opset=self.opset, domain=expr.domain, outputs=expr.outputs
            )
            if found is None:
                raise Unknown
            return found[expr.index]
        raise Unknown

    def batch(self, x: Stream, place: int) -> Array:
        """Frames `place` and on of the batch tensor of `x`, which is computed from positions."""
        back = -(place + x.delay)
        return self.of(x.wire, Sides(back, back))

    def of(self, wire: str, at: Sides) -> Array:
        """The value of a positional wire."""
        step = self.world.step_of(wire)
        if step is None:
            raise Unknown
        found = self.value(step.exprs[step.wires.index(wire)], at)
        assert found is not None
        return found


def sides_inside(grid: QueryKeyRead, at: Sides) -> Sides:
    """Where the pair of a `Grid` is evaluated when its reader is at `at`."""
    a, b = at.a + grid.a[0], at.b + grid.b[0]
    return Sides(b, a, at.more[::-1]) if grid.swapped else Sides(a, b, at.more)
