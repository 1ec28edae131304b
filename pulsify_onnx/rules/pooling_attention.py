"""Attention pooling: a softmax over the stream, until a weighted sum over the stream closes it.

The sum is carried with the running maximum of the scores and the sum of their exponentials, both sums scaled anew
whenever the maximum grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.facts import Deferred, Shape, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Expr, Outcome, Step
from pulsify_onnx.errors import Blocker
from pulsify_onnx.rules.kit.combinators import as_outcome, onnx_op, same_op
from pulsify_onnx.rules.kit.infer import infer
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import lookup
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
from pulsify_onnx.rules.reductions import reduced_axes

OVER_TIME = "it is taken over the whole stream, so every frame needs the last"
OVER_TIME_HINT = "take it over the channels; attention over the past needs a window"


def softmax_over_time(node: Node, x: Stream) -> Outcome:
    """Weights of the frames of `x`, not computed."""
    steps: list[Step] = []
    scores = materialise_padding(x, node.options, steps)
    blame = Blocker(node.name, node.op_type, OVER_TIME, OVER_TIME_HINT, x.wire)
    return Outcome((Deferred(node.outputs[0], x.dtype, x.shape, "weights", scores, (x.axis,), blame),), tuple(steps))


def pooling(node: Node) -> Outcome | None:
    """Weights with their axes moved, or times a stream, or a weighted sum of it; None for anything else."""
    pending = [f for f in node.facts if isinstance(f, Deferred)]
    if len(pending) != 1:
        return None
    weights = pending[0]
    if node.op_type in ("Transpose", "Squeeze", "Unsqueeze") and weights.form == "weights":
        return _moved(node, weights)
    if node.op_type == "Mul":
        return _weighted(node, weights)
    if node.op_type == "ReduceSum" and weights.form == "weighted":
        return _summed(node, weights)
    return _product(node, weights) if node.op_type == "MatMul" and weights.form == "weights" else None


def _moved(node: Node, weights: Deferred) -> Outcome:
    """The same axes of the scores moved: a softmax does not mind."""
    outcome = lookup(node)(replace(node, facts=(weights.x, *node.facts[1:])))
    scores = outcome.facts[0]
    assert isinstance(scores, Stream)
    fact = replace(weights, wire=node.outputs[0], shape=scores.shape, x=scores, axes=(scores.axis,))
    return Outcome((fact,), outcome.steps)


def _weighted(node: Node, weights: Deferred) -> Outcome | None:
    other = next(f for f in node.facts if f is not weights)
    if not isinstance(other, Stream) or weights.form not in ("weights", "weighted"):
        return None
    if weights.x.rank - weights.x.axis != other.rank - other.axis:
        return None
    steps: tuple[Step, ...] = ()
    values: Stream = other
    if weights.values is not None:
        outcome = lookup(node)(replace(node, facts=tuple(weights.values if f is weights else f for f in node.facts)))
        found = outcome.facts[0]
        assert isinstance(found, Stream)
        values, steps = found, outcome.steps
    else:
        own: list[Step] = []
        values, steps = materialise_padding(other, node.options, own), tuple(own)
    if values.pad_before or values.pad_after.terms:
        return None
    shape = _broadcast(weights.x, values)
    return Outcome((replace(weights, wire=node.outputs[0], shape=shape, form="weighted", values=values),), steps)


def _broadcast(a: Stream, b: Stream) -> Shape:
    rank = max(a.rank, b.rank)
    one = Length.of(1)
    left, right = ((*(one for _ in range(rank - x.rank)), *x.shape) for x in (a, b))
    return tuple(q if p.constant == 1 else p for p, q in zip(left, right))


def _summed(node: Node, weighted: Deferred) -> Outcome | None:
    x, values = weighted.x, weighted.values
    assert values is not None
    rank = len(weighted.shape)
    axes = reduced_axes(node, rank)
    time = rank - (x.rank - x.axis)
    if axes is None or time not in axes:
        return None
    keepdims = bool(node.attr("keepdims", 1))

    def product(weight: Expr, value: Expr) -> Expr:
        return reduce_by(node, "ReduceSum", onnx_op("Mul", weight, value), [time])

    def finish(total: Expr) -> Expr:
        rest = [a for a in axes if a != time]
        total = reduce_by(node, "ReduceSum", total, rest) if rest else total
        return total if keepdims else squeeze_by(node, total, axes)

    return _carried(
        node, x, values, reduced(weighted.shape, [time], True), product, finish, reduced(weighted.shape, axes, keepdims)
    )


def _product(node: Node, weights: Deferred) -> Outcome | None:
    """A matrix product that sums over the frames of both factors."""
    a, b = node.facts
    first = a is weights
    values = b if first else a
    x = weights.x
    if not isinstance(values, Stream):
        return None
    left, right = (x, values) if first else (values, x)
    if left.axis != left.rank - 1 or right.axis != max(right.rank - 2, 0):
        return None
    ((_, shape),) = infer(node)
    if not shape or any(d is None for d in shape):
        return None
    known = tuple(d for d in shape if d is not None)
    return _carried(
        node, x, values, known, lambda w, v: same_op(node, [w, v] if first else [v, w]), lambda total: total, known
    )


def _carried(
    node: Node,
    scores: Stream,
    values: Stream,
    held: Shape,
    product: Callable[[Expr, Expr], Expr],
    finish: Callable[[Expr], Expr],
    shape: Shape,
) -> Outcome:
    """The sum of `product` (of weights and values; of shape `held`) over the frames so far, weights adding up to 1."""
    steps: list[Step] = []
    source = feed([scores, values], node.options, steps)
    x = source.x
    dtype = wide(x.dtype)
    floor, zero, kept = number(np.finfo(dtype.numpy()).min, dtype), number(0, dtype), reduced(x.shape, [x.axis], True)
    name = node.outputs[0]
    top = Accumulator(source, f"{name}.max", dtype, kept, "max", floor)
    weight = Accumulator(source, f"{name}.weight", dtype, kept, "weight")
    total = Accumulator(source, f"{name}.add", dtype, held, "add")
    high = onnx_op("Max", top.past, reduce_by(node, "ReduceMax", source.only_real(source.value(0), floor, 0), [x.axis]))
    share = source.only_real(onnx_op("Exp", onnx_op("Sub", source.value(0), high)), zero, 0)
    scale = onnx_op("Exp", onnx_op("Sub", top.past, high))
    weight_now, weights = running_sum(weight, reduce_by(node, "ReduceSum", share, [x.axis]), scale)
    total_now, totals = running_sum(total, product(share, source.only_real(source.value(1), zero, 1)), scale)
    result = cast(finish(source.settled(onnx_op("Div", total_now, weight_now), dtype)), dtype, x.dtype)
    states = [top.becomes(high), *weights, *totals]
    return as_outcome(node, [result], [source.fact(name, x.dtype, shape)], states, steps)
