"""Cumulative operators: the pulse's own sums or products, combined with those of all frames before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.border import has_border
from pulsify_onnx.algebra.facts import ALONE, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import crop, pad
from pulsify_onnx.algebra.plan import Expr, Outcome, Past, Position, State, Step, Window
from pulsify_onnx.algebra.windows import frames
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op, passthrough, the_stream
from pulsify_onnx.rules.kit.gating import along, recurrence_inputs, select
from pulsify_onnx.rules.kit.merged_time import constant_in_time
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import started, where_real
from pulsify_onnx.rules.kit.registry import rule


@dataclass(frozen=True)
class _Kind:
    combine: str
    neutral: int
    verb: str


KINDS = {"CumSum": _Kind("Add", 0, "sums"), "CumProd": _Kind("Mul", 1, "multiplies")}


def _counted(node: Node, x: Stream) -> bool:
    """Whether the sums of a stream follow from the positions of its frames, exactly."""
    return (
        node.op_type == "CumSum"
        and x.positional
        and x.dtype.is_integer()
        and not has_border(x)
        and x.around == ALONE
        and x.origin is None
        and constant_in_time(x, node.world)
    )


def _count(node: Node, x: Stream) -> Outcome:
    """As many times the value of a frame as there are frames."""
    number: Expr = Position(x.rate) if node.attr("exclusive", 0) else onnx_op("Add", Position(x.rate), const(1))
    if x.dtype != ir.DataType.INT64:
        number = onnx_op("Cast", number, to=int(x.dtype))
    expr = onnx_op("Mul", along(number, x), Window(x.wire, 0, frames(x)))
    return as_outcome(node, [expr], [x.placed(node.outputs[0], x.dtype, x.shape, x.axis)])


@rule("CumSum", versions=(11, 14))
@rule("CumProd", versions=(26,))
def cumulative(node: Node) -> Outcome:
    """Any axis; along the stream forward, inclusive or exclusive.

    State: the sum or product so far, but for a sum of whole numbers that are the same in every frame, which counts
    frames.  Refuses: reverse along the stream.
    """
    x = the_stream(node)
    found = node.const(1, "the axis")
    if found is None or found.size != 1:
        refuse("it has no axis", hint="export it with a constant axis")
    axis = int(found.reshape(-1)[0]) % x.rank
    if axis != x.axis:
        return passthrough(node, [x.axis, None])
    kind = KINDS[node.op_type]
    if node.attr("reverse", 0):
        refuse(
            f"it {kind.verb} from the last frame backwards", hint=f"accumulate forwards: {node.op_type} without reverse"
        )
    if _counted(node, x):
        return _count(node, x)
    steps: list[Step] = []
    (window,), y = recurrence_inputs([x], node.options, False, True, steps)
    neutral = Const(np.asarray(kind.neutral, x.dtype.numpy()))
    feed = where_real(y, False, lambda real: select(along(real, x), window, neutral, x.dtype), window)
    name = f"{node.outputs[0]}.{'sum' if kind.neutral == 0 else 'product'}"
    shape = (*x.shape[: x.axis], Length.of(1), *x.shape[x.axis + 1 :])
    past: Expr = Past(name)
    if kind.neutral:
        past = select(started(y), past, neutral, x.dtype)
    inclusive = onnx_op(node.op_type, feed, const(x.axis))
    last = onnx_op("Gather", inclusive, const([-1]), axis=x.axis)
    state = State(name, x.dtype, shape, onnx_op(kind.combine, past, last), "cumulative")
    made = as_outcome(
        node,
        [onnx_op(kind.combine, inclusive, past)],
        [y.placed(node.outputs[0], x.dtype, x.shape, x.axis)],
        [state],
        steps,
    )
    return _exclusive(node, made, neutral) if node.attr("exclusive", 0) else made


def _exclusive(node: Node, inclusive: Outcome, neutral: Const) -> Outcome:
    """The sums or products up to the frame before: those of the frame itself, a frame earlier, behind a first one of
    none.
    """
    (y,), steps = inclusive.facts, list(inclusive.steps)
    assert isinstance(y, Stream)
    first = Const(neutral.array.reshape([1] * y.rank))
    return Outcome((pad(crop(y, end=1), 1, 0, first, node.options, steps),), tuple(steps))
