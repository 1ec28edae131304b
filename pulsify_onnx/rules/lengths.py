"""Positions compared with the length of the stream: what holds for every real frame, whatever the length."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.delay import Delay
from pulsify_onnx.algebra.facts import ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dims, Expr, Op, Outcome, Position, Ref, Window
from pulsify_onnx.arrays import Const
from pulsify_onnx.rules.kit.combinators import onnx_op
from pulsify_onnx.rules.kit.node import Context, Node
from pulsify_onnx.rules.reshape import constant_over_time

COMPARED: dict[str, Callable[[float, float], bool]] = {
    "Less": float.__lt__,
    "LessOrEqual": float.__le__,
    "Greater": float.__gt__,
    "GreaterOrEqual": float.__ge__,
}


def decided(node: Node) -> Outcome | None:
    """The comparison of frame positions with a length, where it has one answer for all frames that are real; else
    None.
    """
    test = COMPARED.get(node.op_type)
    at = next((k for k, f in enumerate(node.facts) if isinstance(f, ShapeTensor)), None)
    if test is None or at is None:
        return None
    length, x = node.facts[at], node.facts[1 - at]
    if (
        not isinstance(length, ShapeTensor)
        or not isinstance(x, Stream)
        or len(set(length.values)) != 1
        or math.prod(length.shape) != 1
        or len(length.shape) > x.rank
    ):
        return None
    most = _most(x, node.world)
    over = (most - length.values[0]).constant if most is not None else None
    if over is None or over > 0:
        return None
    answer, *others = {test(d, 0.0) if at else test(0.0, d) for d in (-1.0, float(over))}
    if others:
        return None
    value = Const(np.asarray(answer))
    return constant_over_time(
        node, Static(node.outputs[0], ir.DataType.BOOL, ()), x.shape, lambda dims: onnx_op("Expand", value, Dims(dims))
    )


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
        expr.op_type == "Cast" and dict(expr.attributes)["to"] in _NUMBERS
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


_NUMBERS = {int(t) for t in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE)}
