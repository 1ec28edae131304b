"""Sums of exponentials so far, as exporters write them in the space of logarithms: the frames less their maximum over
the whole stream, exponentials, their sums so far, logarithms, and the maximum again.

The maximum is there for the range of floats alone, so the one of the frames so far does: it is carried with the sum,
which is scaled anew whenever it grows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.facts import Deferred, Fact, Running, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Outcome, Step
from pulsify_onnx.algebra.windows import align
from pulsify_onnx.errors import Blocker
from pulsify_onnx.rules.kit.combinators import BACK, BACK_HINT, as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.gating import along, recurrence_inputs
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import where_real
from pulsify_onnx.rules.kit.running import Accumulator, Feed, cast, number, reduce_by, reduced, running_sum, wide

_BELOW, _POWERS, _SUMS, _LOGS = "below its maximum", "powers", "sums", "logarithms"


def summing(node: Node) -> Outcome | None:
    """A stream less its maximum, its exponentials, their sums so far, and these with the maximum again; None for
    anything else.
    """
    if node.op_type == "Sub":
        return _below(node)
    pending = next((f for f in node.facts if isinstance(f, Deferred)), None)
    if pending is None:
        return None
    if node.op_type == "Add" and pending.form == _LOGS:
        other = next(f for f in node.facts if f is not pending)
        return _so_far(node, pending) if _maximum_of(other, pending.x) == pending.axes else None
    if (node.op_type, pending.form) == ("CumSum", _POWERS):
        return _next(node, pending, _SUMS) if _forwards(node, pending.x) else None
    goes = {("Exp", _BELOW): _POWERS, ("Log", _SUMS): _LOGS}.get((node.op_type, pending.form))
    return None if goes is None else _next(node, pending, goes)


def _next(node: Node, pending: Deferred, form: str) -> Outcome:
    return Outcome((replace(pending, wire=node.outputs[0], form=form),))


def _maximum_of(fact: Fact | None, x: Stream) -> tuple[int, ...] | None:
    """The axes over which `fact` is the maximum of `x`, shaped to broadcast against it."""
    if not isinstance(fact, Running) or fact.maximum is None or fact.maximum[0] != x:
        return None
    axes = fact.maximum[1]
    missing = x.rank - len(fact.shape)
    full = (*(Length.of(1) for _ in range(missing)), *fact.shape)
    return axes if missing >= 0 and full == reduced(x.shape, axes, True) else None


def _below(node: Node) -> Outcome | None:
    x, top = node.facts
    axes = _maximum_of(top, x) if isinstance(x, Stream) else None
    if axes is None or not isinstance(x, Stream) or not x.dtype.is_floating_point():
        return None
    blame = Blocker(node.name, node.op_type, BACK, BACK_HINT, x.wire)
    return Outcome((Deferred(node.outputs[0], x.dtype, x.shape, _BELOW, x, axes, blame),))


def _forwards(node: Node, x: Stream) -> bool:
    """Whether a sum so far runs along the stream, and takes its own frame."""
    axis = node.const(1, "the axis")
    along = axis is not None and axis.size == 1 and int(axis.reshape(-1)[0]) % x.rank == x.axis
    return along and not node.attr("reverse", 0) and not node.attr("exclusive", 0)


def _so_far(node: Node, pending: Deferred) -> Outcome:
    steps: list[Step] = []
    x = materialise_padding(pending.x, node.options, steps)
    (window,), y = recurrence_inputs([x], node.options, True, True, steps)
    source = Feed((y,), (window,), node.options)
    dtype, name = wide(x.dtype), node.outputs[0]
    floor, zero = number(np.finfo(dtype.numpy()).min, dtype), number(0, dtype)
    top = Accumulator(source, f"{name}.max", dtype, reduced(x.shape, pending.axes, True), "max", floor)
    total = Accumulator(source, f"{name}.add", dtype, reduced(x.shape, [x.axis], True), "add")
    value = source.value()
    high = onnx_op("Max", top.past, reduce_by(node, "ReduceMax", source.only_real(value, floor), pending.axes))
    share = source.only_real(onnx_op("Exp", onnx_op("Sub", value, high)), zero)
    scale = onnx_op("Exp", onnx_op("Sub", top.past, high))
    _, sums = running_sum(total, reduce_by(node, "ReduceSum", share, [x.axis]), scale)
    here = onnx_op("Add", onnx_op("CumSum", share, const(x.axis)), onnx_op("Mul", total.past, scale))
    made = cast(onnx_op("Add", onnx_op("Log", here), high), dtype, x.dtype)
    logs = y.placed(f"{name}#so_far", x.dtype, x.shape, x.axis)
    states = (top.becomes(high), *sums)
    steps.append(Step(node.name, node.op_type, (logs.wire,), (made,), (logs,), states))
    (window,), y = align([logs], node.options)
    # before the first frame there is nothing to take the logarithm of
    shown = where_real(y, True, lambda real: onnx_op("Where", along(real, x), window, number(0, x.dtype)), window)
    return as_outcome(node, [shown], [y.placed(name, x.dtype, x.shape, x.axis)], before=steps)
