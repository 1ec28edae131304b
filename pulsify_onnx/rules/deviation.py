"""Mean and deviation over the stream: what is left of a stream less its own mean, until it is squared and summed.

The sum of squared deviations is carried as (mean, sum of squares about it) and joined pulse by pulse, which is as
exact as the two passes of the batch model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pulsify_onnx.algebra.facts import Deferred, Fact, Running, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Outcome, Step
from pulsify_onnx.errors import Blocker
from pulsify_onnx.rules.kit.combinators import BACK, BACK_HINT, as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.running import (
    Accumulator,
    cast,
    feed,
    number,
    reduce_by,
    reduced,
    running_sum,
    squeeze_by,
    wide,
)
from pulsify_onnx.rules.reductions import elements, reduced_axes

TOTALS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool")


def deviating(node: Node) -> Outcome | None:
    """A mean spread over its frames, a stream less its mean, the square of that, or its sum; None for anything else."""
    facts = node.facts
    first = facts[0]
    if node.op_type == "Expand":
        return _spread(node)
    if node.op_type == "Sub":
        return _difference(node)
    if not isinstance(first, Deferred):
        return None
    squares = (node.op_type == "Pow" and _is_two(facts[1])) or (node.op_type == "Mul" and facts[1] == first)
    if first.form == "deviation" and squares:
        return Outcome((replace(first, wire=node.outputs[0], form="square"),))
    return _total(node, first) if node.op_type in TOTALS else None


def _is_two(fact: Fact | None) -> bool:
    return (
        isinstance(fact, Static)
        and fact.value is not None
        and fact.value.array.size == 1
        and float(fact.value.array.reshape(-1)[0]) == 2.0
    )


def _blame(node: Node, x: Stream) -> Blocker:
    return Blocker(node.name, node.op_type, BACK, BACK_HINT, x.wire)


def _mean_of(fact: Fact | None, x: Stream) -> tuple[int, ...] | None:
    """The axes over which `fact` is the mean of `x`, shaped to broadcast against it."""
    if isinstance(fact, Deferred):
        return fact.axes if fact.form == "mean" and fact.x == x else None
    if not isinstance(fact, Running) or fact.mean is None or fact.mean[0] != x:
        return None
    missing = x.rank - len(fact.shape)
    full = (*(Length.of(1) for _ in range(missing)), *fact.shape)
    return fact.mean[1] if missing >= 0 and full == reduced(x.shape, fact.mean[1], True) else None


def _spread(node: Node) -> Outcome | None:
    mean, target = node.facts[0], node.facts[1]
    if not isinstance(mean, Running) or mean.mean is None or not isinstance(target, ShapeTensor):
        return None
    x = mean.mean[0]
    axes = _mean_of(mean, x)
    if (
        axes is None
        or not all(t == d or t.constant == 1 for t, d in zip(target.values, x.shape))
        or len(target.values) != x.rank
    ):
        return None
    if target.values[x.axis] != x.extent:
        return None
    shape = tuple(d if t == d or k not in axes else t for k, (t, d) in enumerate(zip(target.values, x.shape)))
    return Outcome((Deferred(node.outputs[0], mean.dtype, shape, "mean", x, axes, _blame(node, x)),))


def _difference(node: Node) -> Outcome | None:
    a, b = node.facts
    x, other = (a, b) if isinstance(a, Stream) else (b, a)
    if not isinstance(x, Stream) or not x.dtype.is_floating_point():
        return None
    axes = _mean_of(other, x)
    if axes is None:
        return None
    return Outcome((Deferred(node.outputs[0], x.dtype, x.shape, "deviation", x, axes, _blame(node, x)),))


def _total(node: Node, pending: Deferred) -> Outcome | None:
    """The sum or mean of squared deviations over the axes of the mean."""
    squared = node.op_type in ("ReduceSumSquare", "ReduceL2")
    if pending.form != ("deviation" if squared else "square"):
        return None
    rank = pending.x.rank
    axes = list(range(2, rank)) if node.op_type == "GlobalAveragePool" else reduced_axes(node, rank)
    if axes is None or tuple(sorted(axes)) != pending.axes:
        return None
    return _joined(node, pending.x, axes, keepdims=bool(node.attr("keepdims", 1)))


def _joined(node: Node, x: Stream, axes: Sequence[int], keepdims: bool) -> Outcome:
    steps: list[Step] = []
    source = feed([x], node.options, steps)
    dtype = wide(x.dtype)
    shape = reduced(x.shape, axes, True)
    mean = Accumulator(source, f"{node.outputs[0]}.mean", dtype, shape, "mean")
    squares = Accumulator(source, f"{node.outputs[0]}.squares", dtype, shape, "squares")
    zero, one, inner = number(0, dtype), const(1), elements(source, axes)
    before = onnx_op("Mul", source.before(), inner)
    seen = onnx_op("Mul", source.seen(), inner)
    old, total, here = (
        onnx_op("Cast", n, to=int(dtype)) for n in (before, onnx_op("Max", seen, one), onnx_op("Sub", seen, before))
    )
    value = source.only_real(source.value(), zero)
    center = onnx_op(
        "Div",
        reduce_by(node, "ReduceSum", value, axes),
        onnx_op("Cast", onnx_op("Max", onnx_op("Sub", seen, before), one), to=int(dtype)),
    )
    apart = source.only_real(onnx_op("Sub", value, center), zero)
    own = reduce_by(node, "ReduceSum", onnx_op("Mul", apart, apart), axes)
    moved, share = onnx_op("Sub", center, mean.past), onnx_op("Div", here, total)
    after, sums = running_sum(
        squares, onnx_op("Add", own, onnx_op("Mul", onnx_op("Mul", moved, moved), onnx_op("Mul", old, share)))
    )
    states = [*running_sum(mean, onnx_op("Mul", moved, share))[1], *sums]
    result = (
        onnx_op("Div", after, total)
        if node.op_type in ("ReduceMean", "GlobalAveragePool")
        else onnx_op("Sqrt", after)
        if node.op_type == "ReduceL2"
        else after
    )
    fact = source.fact(node.outputs[0], x.dtype, reduced(x.shape, axes, keepdims))
    return as_outcome(
        node, [cast(result if keepdims else squeeze_by(node, result, axes), dtype, x.dtype)], [fact], states, steps
    )
