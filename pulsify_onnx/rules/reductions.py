"""Reductions: kept over other axes than the stream's, running values over the stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Count, Expr, Outcome, State, Step
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op, passthrough, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.running import (
    Accumulator,
    Feed,
    cast,
    feed,
    lowest,
    number,
    reduce_by,
    reduced,
    running_sum,
    squeeze_by,
    wide,
)
from pulsify_onnx.rules.kit.views import axes_of


def squeezed(axis: int, gone: Sequence[int], keepdims: bool) -> int:
    """Where `axis` is after axes `gone` were reduced."""
    return axis if keepdims else axis - sum(a < axis for a in gone)


NAMES = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)

_VERSIONS = {
    "ReduceSum": (1, 11, 13),
    "ReduceLogSum": (1, 11, 13, 18, 28),
    "ReduceLogSumExp": (1, 11, 13, 18, 28),
    "ReduceMax": (1, 11, 12, 13, 18, 20),
    "ReduceMin": (1, 11, 12, 13, 18, 20),
}


def reduced_axes(node: Node, rank: int) -> list[int] | None:
    """The axes that a Reduce operator takes; None where it does nothing."""
    axes = axes_of(node, rank)
    if axes:
        return axes
    return None if node.attr("noop_with_empty_axes", 0) else list(range(rank))


def reduction(node: Node) -> Outcome:
    """Any axes; over the stream too, with any other axes.

    Prefix: the reduction of the frames so far.  State: one accumulator (two for LogSumExp).
    """
    x = the_stream(node)
    axes = reduced_axes(node, x.rank)
    if axes is None:
        return passthrough(node, [x.axis, None][: len(node.facts)])
    keepdims = bool(node.attr("keepdims", 1))
    if x.axis not in axes:
        return passthrough(node, [squeezed(x.axis, axes, keepdims), None][: len(node.facts)])
    if "Log" in node.op_type and not x.dtype.is_floating_point():
        refuse("it takes the logarithm of a running sum of whole numbers", hint="cast to float before it")
    return reduce_stream(node, RUNNING.get(node.op_type), x, axes, keepdims)


for _name in NAMES:
    rule(_name, versions=_VERSIONS.get(_name, (1, 11, 13, 18)))(reduction)


Finish = Callable[[Expr, Feed, Sequence[int]], Expr]


@dataclass(frozen=True)
class Reduction:
    """How frames (each after `each`) reduce to a pulse's value, how that joins the past, and what is made of the
    total.
    """

    reduce: str
    join: str
    each: Callable[[Expr], Expr] | None = None
    finish: Finish | None = None

    def neutral(self, dtype: ir.DataType) -> Const:
        """What changes nothing."""
        if self.reduce in ("ReduceSum", "ReduceProd"):
            return number(0 if self.reduce == "ReduceSum" else 1, dtype)
        return lowest(dtype, 1 if self.reduce == "ReduceMax" else -1)


def elements(source: Feed, axes: Sequence[int]) -> Expr:
    """int64: elements per frame that a reduction over `axes` takes."""
    inner = math.prod((source.x.shape[a] for a in axes if a != source.x.axis), start=Length.of(1))
    return const(inner.constant) if inner.constant is not None else Count(inner)


def averaged(total: Expr, source: Feed, axes: Sequence[int]) -> Expr:
    """`total` over the number of elements so far."""
    count = onnx_op("Mul", onnx_op("Max", source.seen(), const(1)), elements(source, axes))
    return onnx_op("Div", total, onnx_op("Cast", count, to=int(wide(source.x.dtype))))


def rooted(total: Expr, source: Feed, axes: Sequence[int]) -> Expr:
    """The square root of `total`."""
    dtype = wide(source.x.dtype)
    exact = dtype if dtype.is_floating_point() else ir.DataType.DOUBLE
    return cast(onnx_op("Sqrt", cast(total, dtype, exact)), exact, dtype)


def _log(total: Expr, source: Feed, axes: Sequence[int]) -> Expr:
    return onnx_op("Log", total)


def _square(value: Expr) -> Expr:
    return onnx_op("Mul", value, value)


def _absolute(value: Expr) -> Expr:
    return onnx_op("Abs", value)


RUNNING = {
    "ReduceSum": Reduction("ReduceSum", "Add"),
    "ReduceMean": Reduction("ReduceSum", "Add", finish=averaged),
    "ReduceLogSum": Reduction("ReduceSum", "Add", finish=_log),
    "ReduceL1": Reduction("ReduceSum", "Add", _absolute),
    "ReduceL2": Reduction("ReduceSum", "Add", _square, rooted),
    "ReduceSumSquare": Reduction("ReduceSum", "Add", _square),
    "ReduceProd": Reduction("ReduceProd", "Mul"),
    "ReduceMax": Reduction("ReduceMax", "Max"),
    "ReduceMin": Reduction("ReduceMin", "Min"),
}
"""All but LogSumExp, which needs two accumulators."""


def reduce_stream(node: Node, running: Reduction | None, x: Stream, axes: Sequence[int], keepdims: bool) -> Outcome:
    """The frames of `x` so far reduced over `axes`, the stream's among them (by LogSumExp without `running`)."""
    steps: list[Step] = []
    source = feed([x], node.options, steps)
    dtype = wide(x.dtype)
    if running is None:
        value, states = log_sum_exp(node, source, axes)
    else:
        total, states = accumulated(node, source, running, axes)
        value = running.finish(total, source, axes) if running.finish else total
    if running is None or running.finish is _log:
        value = source.settled(value, dtype)
    if not keepdims:
        value = squeeze_by(node, value, axes)
    fact = source.fact(node.outputs[0], x.dtype, reduced(x.shape, axes, keepdims))
    if running is RUNNING["ReduceMean"]:
        fact = replace(fact, mean=(x, tuple(sorted(axes))))
    if running is RUNNING["ReduceMax"]:
        fact = replace(fact, maximum=(x, tuple(sorted(axes))))
    return as_outcome(node, [cast(value, dtype, x.dtype)], [fact], states, steps)


def accumulated(node: Node, source: Feed, running: Reduction, axes: Sequence[int]) -> tuple[Expr, tuple[State, ...]]:
    """The accumulator after this pulse, and its states."""
    x = source.x
    dtype = wide(x.dtype)
    neutral = running.neutral(dtype)
    value = source.only_real(source.value(), neutral)
    if running.each is not None:
        value = running.each(value)
    tag = running.join.lower()
    held = Accumulator(
        source, f"{node.outputs[0]}.{tag}", dtype, reduced(x.shape, axes, True), tag, None if tag == "add" else neutral
    )
    here = reduce_by(node, running.reduce, value, axes)
    if running.join == "Add":
        return running_sum(held, here)
    after: Expr = onnx_op(running.join, held.past, here)
    if running.reduce in ("ReduceMax", "ReduceMin"):
        after = source.settled(after, dtype)
    return after, (held.becomes(after),)


def log_sum_exp(node: Node, source: Feed, axes: Sequence[int]) -> tuple[Expr, tuple[State, ...]]:
    """``log(sum(exp(x)))`` by a running maximum and a sum scaled by it."""
    x = source.x
    dtype = wide(x.dtype)
    floor = number(np.finfo(dtype.numpy()).min, dtype)
    shape = reduced(x.shape, axes, True)
    top = Accumulator(source, f"{node.outputs[0]}.max", dtype, shape, "max", floor)
    total = Accumulator(source, f"{node.outputs[0]}.add", dtype, shape, "add")
    value = source.value()
    high = onnx_op("Max", top.past, reduce_by(node, "ReduceMax", source.only_real(value, floor), axes))
    scaled = source.only_real(onnx_op("Exp", onnx_op("Sub", value, high)), number(0, dtype))
    after, sums = running_sum(
        total, reduce_by(node, "ReduceSum", scaled, axes), onnx_op("Exp", onnx_op("Sub", top.past, high))
    )
    return onnx_op("Add", high, onnx_op("Log", after)), (top.becomes(high), *sums)
