"""Operators that are not defined everywhere: what is not a frame of the batch model must not take them to infinity.

While a delayed stream warms up its frames are zeros or less than whole sums, so a quotient, a root or a logarithm of
them may be infinite or NaN where no frame of the batch model is. Such an operator reads a harmless number there, unless
its operand is known to suit it whatever the frames are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.hidden import only_read_by
from pulsify_onnx.algebra.plan import Expr, Frames, Op, Outcome, Ref, Step, Window
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.rules.kit.node import Context

HARMLESS = {
    "Div": (1, 1),
    "Mod": (1, 1),
    "Reciprocal": (0, 1),
    "Log": (0, 1),
    "Sqrt": (0, 1),
    "Pow": (0, 1),
    "ReduceLogSum": (0, 1),
    "Acos": (0, 0),
    "Acosh": (0, 1),
    "Asin": (0, 0),
    "Atanh": (0, 0),
}
"""The operand that matters, and a value of it that suits."""

NORMS = {
    "MeanVarianceNormalization": 0.0,
    "LayerNormalization": 1e-5,
    "InstanceNormalization": 1e-5,
    "GroupNormalization": 1e-5,
    "RMSNormalization": 1e-5,
}
"""Operators that divide by a deviation, and the epsilon they add to it unless told; without one, values that are all
alike do not suit.
"""

RISKY = {*HARMLESS, *NORMS}

DEEP = 24
"""Operators that are looked through for the least value of an operand."""


def total(outcome: Outcome, world: Context) -> Outcome:
    """`outcome`, whose operators give finite values for frames that are not real."""
    return replace(outcome, steps=tuple(_total(step, world) for step in outcome.steps))


def _total(step: Step, world: Context) -> Step:
    if not any(isinstance(e, Op) and e.op_type in RISKY for e in step.exprs):
        return step
    exprs = []
    for expr, y in zip(step.exprs, step.facts):
        if (
            isinstance(expr, Op)
            and expr.domain == ""
            and isinstance(y, Stream)
            and y.dtype.is_floating_point()
            and expr.op_type in RISKY
        ):
            index, value = HARMLESS.get(expr.op_type, (0, None))
            operand = expr.inputs[index]
            if isinstance(operand, Window) and not _suits(expr, world):
                window = _masked(operand, y, value, world)
                expr = replace(expr, inputs=(*expr.inputs[:index], window, *expr.inputs[index + 1 :]))
        exprs.append(expr)
    return replace(step, exprs=tuple(exprs))


def _masked(w: Window, y: Stream, value: int | None, world: Context) -> Window:
    """`w` with `value` (None: values that all differ) where no real frame of `y` is made of it.

    As it is where it is masked already, for its border then suits.
    """
    x = world.fact_of(w.wire)
    if w.mask is not None or w.frames != Frames(y.rate, role=w.frames.role) or not isinstance(x, Stream) or x.merged:
        return w
    frame = [1 if k == x.axis else d.constant or 1 for k, d in enumerate(x.shape)]
    array = np.sin(np.arange(math.prod(frame))).reshape(frame) if value is None else np.full([1] * x.rank, value)
    border = Const(array.astype(x.dtype.numpy()))
    return replace(w, mask=only_read_by(y, w.back, border))


def _suits(expr: Op, world: Context) -> bool:
    """Whether an operator gives finite values whatever the frames are."""
    if expr.op_type in NORMS:
        told = dict(expr.attributes).get("epsilon", NORMS[expr.op_type])
        return bool((told.attr.value if isinstance(told, Attribute) else told) != 0)
    bounds = Bounds(world)
    least = [bounds.least(e) for e in expr.inputs]
    if expr.op_type == "Sqrt":
        return least[0] >= 0
    if expr.op_type == "Pow":
        power = bounds.constant(expr.inputs[1])
        whole = power is not None and bool((power == np.round(power)).all())
        return power is not None and bool((power >= 0).all()) and (whole or least[0] >= 0)
    if expr.op_type == "Acosh":
        return least[0] >= 1
    return expr.op_type in ("Div", "Mod", "Reciprocal", "Log", "ReduceLogSum") and least[HARMLESS[expr.op_type][0]] > 0


@dataclass
class Bounds:
    """Lower bounds of expressions over all finite values of the stream."""

    world: Context
    known: dict[str, float] = field(default_factory=dict)

    def constant(self, expr: Expr | None) -> Array | None:
        """The value of a constant."""
        found = expr if isinstance(expr, Const) else self.world.value_of(expr.wire) if isinstance(expr, Ref) else None
        return (
            None if found is None or not np.issubdtype(found.array.dtype, np.number) else found.array.astype(np.float64)
        )

    def least(self, expr: Expr | None, depth: int = DEEP) -> float:
        """What `expr` is never below; -inf where that is not known."""
        value = self.constant(expr)
        if value is not None:
            return float(value.min()) if value.size else -np.inf
        if isinstance(expr, Window) and depth:
            return self._window(expr, depth)
        if isinstance(expr, Op) and expr.domain == "" and depth:
            return self._operator(expr, depth - 1)
        return -np.inf

    def _window(self, w: Window, depth: int) -> float:
        if w.wire not in self.known:
            self.known[w.wire] = -np.inf
            made = self.world.step_of(w.wire)
            if made is not None:
                self.known[w.wire] = self.least(made.exprs[made.wires.index(w.wire)], depth - 1)
        found = self.known[w.wire]
        border = w.mask.border if w.mask is not None else None
        if border is not None:
            found = min(found, float(border.array.min())) if isinstance(border, Const) else -np.inf
        return min(found, 0.0) if w.back else found  # a history begins as zeros

    def _operator(self, e: Op, depth: int) -> float:
        name = e.op_type
        if name in (
            "Abs",
            "Exp",
            "Sigmoid",
            "Softmax",
            "Softplus",
            "Relu",
            "HardSigmoid",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
        ):
            return max(0.0, self.least(e.inputs[0], depth)) if name in ("Abs", "Relu") else 0.0
        if name in ("Mul", "Pow"):
            power = self.constant(e.inputs[1]) if name == "Pow" else None
            if (name == "Mul" and e.inputs[0] == e.inputs[1]) or (power is not None and bool((power % 2 == 0).all())):
                return 0.0
        parts = [self.least(x, depth) for x in e.inputs if x is not None]
        if name in ("Mul", "Div"):
            return 0.0 if min(parts) >= 0 else -np.inf
        if name == "Pow":
            return 0.0 if parts[0] >= 0 else -np.inf
        if name in ("Add", "Sum"):
            return sum(parts)
        if name == "Clip":
            return max(parts[0], self.least(e.inputs[1], depth) if len(e.inputs) > 1 else -np.inf)
        if name == "Max":
            return max(parts)
        if name == "Cast":
            return float(np.floor(parts[0]))
        if name == "Min":
            return min(parts)
        if name == "Sqrt":
            return float(np.sqrt(max(0.0, parts[0])))
        if name in (
            "Identity",
            "Reshape",
            "Transpose",
            "Unsqueeze",
            "Squeeze",
            "Expand",
            "Slice",
            "Gather",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
        ):
            return parts[0]
        if name == "ReduceSum":
            return 0.0 if parts[0] >= 0 else -np.inf
        return -np.inf
