"""Positions compared with the length of the stream: what holds for every real frame, whatever the length."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.delay import Delay
from pulsify_onnx.algebra.facts import Deferred, Fact, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import holds
from pulsify_onnx.algebra.plan import Dims, Expr, Op, Outcome, Position, Ref, Window
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker
from pulsify_onnx.rules.kit.combinators import LENGTH, LENGTH_HINT, broadcast, onnx_op
from pulsify_onnx.rules.kit.node import Context, Node
from pulsify_onnx.rules.reshape import constant_over_time

COMPARED: dict[str, Callable[[float, float], bool]] = {
    "Less": float.__lt__,
    "LessOrEqual": float.__le__,
    "Greater": float.__gt__,
    "GreaterOrEqual": float.__ge__,
}


def decided(node: Node) -> Outcome | None:
    """The comparison of frame positions with a length, where it has one answer for all frames that are real, or their
    minimum; else None.
    """
    if node.op_type in ("Min", "Clip"):
        return _limited(node)
    at = next((k for k, f in enumerate(node.facts) if isinstance(f, ShapeTensor)), None)
    if node.op_type not in COMPARED or at is None:
        return None
    length, x = _one_length(node.facts[at], node.facts[1 - at]), node.facts[1 - at]
    if length is None or not isinstance(x, Stream):
        return None
    answer = compared(node.op_type, x, length, at, node.world)
    if answer is None:
        return None
    value = Const(np.asarray(answer))
    return constant_over_time(
        node, Static(node.outputs[0], ir.DataType.BOOL, ()), x.shape, lambda dims: onnx_op("Expand", value, Dims(dims))
    )


def compared(op_type: str, x: Stream, length: Length, at: int, world: Context) -> bool | None:
    """What a comparison of `x` with `length`, its input `at`, gives for all real frames; None where it is not one
    answer.
    """
    most, test = _most(x, world), COMPARED[op_type]
    over = (most - length).constant if most is not None else None
    if over is None or over > 0:
        return None
    answer, *others = {test(d, 0.0) if at else test(0.0, d) for d in (-1.0, float(over))}
    return None if others else answer


def _one_length(fact: Fact | None, x: Fact | None) -> Length | None:
    """The length that meets every element of `x`."""
    if (
        not isinstance(fact, ShapeTensor)
        or not isinstance(x, Stream)
        or len(set(fact.values)) != 1
        or math.prod(fact.shape) != 1
        or len(fact.shape) > x.rank
    ):
        return None
    return fact.values[0]


def _limited(node: Node) -> Outcome | None:
    """Frames no larger than a length: themselves where they never are, else not computed."""
    at = next((k for k, f in enumerate(node.facts) if isinstance(f, ShapeTensor)), None)
    own = 1 - (at or 0) if node.op_type == "Min" else 0
    x = node.fact(own)
    limit = None if at is None else _one_length(node.facts[at], x)
    if limit is None or not isinstance(x, Stream) or (at != 2 if node.op_type == "Clip" else len(node.facts) != 2):
        return None
    most = _most(x, node.world)
    over = (most - limit).constant if most is not None else None
    never = over is not None and over <= 0
    made = Outcome((x,))
    if node.op_type == "Clip" and node.fact(1) is not None:
        low = node.fact(1)
        value = low.value if isinstance(low, Static) else None
        if value is None or value.array.size != 1:
            return None
        never = never and holds(int(np.ceil(value.array.item())), limit, -1, 0) is True
        made = broadcast(replace(node, inputs=node.inputs[:2], facts=node.facts[:2]))
    y = made.facts[0]
    if never or not isinstance(y, Stream):
        return made
    blame = Blocker(node.name, node.op_type, LENGTH, LENGTH_HINT, node.inputs[own] or "")
    return replace(made, facts=(Deferred(node.outputs[0], y.dtype, y.shape, "limited", y, (), blame, limit=limit),))


def _most(x: Stream, world: Context) -> Length | None:
    """The greatest value of a positional wire over its real frames, where it counts them."""
    made = world.step_of(x.wire)
    return (
        _of(made.exprs[made.wires.index(x.wire)], x, world)
        if made is not None and x.positional and x.origin is None
        else None
    )


def _of(expr: Expr | None, x: Stream, world: Context) -> Length | None:
    if isinstance(expr, Position):
        delay = Delay.of(expr.delay)
        return None if delay.terms else x.extent - 1 - delay.constant
    if isinstance(expr, Window):
        inner = world.fact_of(expr.wire)
        return _most(inner, world) if isinstance(inner, Stream) and not expr.back and expr.mask is None else None
    if not isinstance(expr, Op):
        return None
    if expr.op_type in ("Unsqueeze", "Squeeze", "Reshape", "Transpose", "Expand") or (
        expr.op_type == "Cast" and _to_numbers(expr)
    ):
        return _of(expr.inputs[0], x, world)
    by = expr.inputs[1] if len(expr.inputs) == 2 else None
    by = world.value_of(by.wire) if isinstance(by, Ref) else by
    if (
        expr.op_type not in ("Add", "Sub", "Mul")
        or not isinstance(by, Const)
        or by.array.size != 1
        or float(by.array.item()) % 1
    ):
        return None
    found, number = _of(expr.inputs[0], x, world), int(by.array.item())
    if found is None or (expr.op_type == "Mul" and number < 0):
        return None
    return found * number if expr.op_type == "Mul" else found + number if expr.op_type == "Add" else found - number


def _to_numbers(cast: Op) -> bool:
    told = dict(cast.attributes)["to"]
    return (told.attr.value if isinstance(told, Attribute) else told) in NUMBERS


NUMBERS = {int(t) for t in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE)}
