"""Streams that go on from a cache of the source: its frames come before the first one of the pulse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.cached import behind_cache, with_cache, without_first
from pulsify_onnx.algebra.facts import Running, Static, Stream, Wait
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import (
    Count,
    Dims,
    Expr,
    Frames,
    Outcome,
    Ref,
    Requirement,
    StateLink,
    Step,
    Test,
    When,
    Window,
    rebuilt,
)
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.merged_time import alike, by_frame
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import begins
from pulsify_onnx.rules.kit.views import BEYOND_ANY_SIZE


def resumed(node: Node, axis: int) -> Outcome:
    """``Concat(cache, x)``: the cache is the history of the result, at every pulse."""
    cache, x = node.facts[0], node.facts[-1]
    if (
        len(node.facts) != 2
        or not isinstance(cache, Static)
        or not isinstance(x, Stream)
        or not cache.shape[axis].constant
    ):
        refuse(
            "it puts a state of the source before the stream together with something else, or of unknown size",
            hint="concatenate a cache of fixed size and the stream, in this order",
        )
    count = cache.shape[axis].constant or 0
    steps: list[Step] = []
    x = materialise_padding(x, node.options, steps)
    past_the_end = Requirement(
        Test(ends=True),
        "its cache would hold frames from past the end",
        "convert without --end-of-stream: the model streams by its own caches",
    )
    requires = (
        *(() if x.extent == Length.symbol(TIME) * x.rate else (past_the_end,)),
        Requirement(
            Test(late=x.delay),
            "its cache goes on with a stream that comes {} frames late, so it would hold frames from before the "
            "first one",
            "leave the cache out of the export, so that it becomes a state by itself",
        ),
    )
    wire = node.outputs[0]
    window, y = behind_cache(x, count)
    y = replace(y, wire=wire)
    made = Step(node.name, node.op_type, (wire,), (window,), (y,), history=cache.wire, requires=requires)
    return Outcome((y,), (*steps, made))


def newest(node: Node, x: Stream, start: Length, end: Length, by: int) -> Outcome | None:
    """As many of the last frames as a cache had: what the cache is at the next pulse. None for other slices.

    Where the stream may end, those before the last real one: a cache never holds frames from past the end.
    """
    made, whole = node.world.step_of(x.wire), node.world.fact_of(x.wire)
    if made is None or not made.history or not isinstance(whole, Stream) or x != whole or by != 1 or end != x.extent:
        return None
    count = x.cached
    if (x.extent - start).constant != count:
        return None
    last: Expr = onnx_op("Slice", with_cache(x), const([-count]), const([BEYOND_ANY_SIZE]), const([x.axis]))
    real = onnx_op("Max", onnx_op("Sub", Count(x.extent - count), begins(without_first(x, count))), const(0))
    at = onnx_op("Add", onnx_op("Reshape", real, const([1])), const(np.arange(count)))
    last = When(Test(ends=True), onnx_op("Gather", with_cache(x), at, axis=x.axis), last)
    shape = (*x.shape[: x.axis], Length.of(count), *x.shape[x.axis + 1 :])
    fact = Running(node.outputs[0], x.dtype, shape, (Wait.of(x),))
    return as_outcome(node, [last], [fact], carries=[StateLink(made.history, node.outputs[0], x.wire)])


def carried_on(node: Node, run: Callable[[Node], Outcome]) -> Outcome | None:
    """What a node makes of a stream that begins with a cache, where it treats all frames alike: of its frames and of
    the cache. None for others.

    So the result begins with a cache, too, and is not late by as many frames.
    """
    streams = node.streams
    caches = {x.wire: _cache(x, node) for x in streams}
    counts = {x.cached for x in streams}
    if (
        not streams
        or not all(caches.values())
        or len(counts) > 1
        or len(node.outputs) > 1
        or node.outer
        or not all(f is None or isinstance(f, (Static, Stream)) for f in node.facts)
    ):
        return None
    count = counts.pop()
    facts = tuple(without_first(f, count) if isinstance(f, Stream) else f for f in node.facts)
    rows = {f.wire: f for f in facts if isinstance(f, Stream)}
    model = next(iter(rows.values()))
    outcome = run(replace(node, facts=facts))
    if (
        len(outcome.steps) != 1
        or outcome.pulse_multiple > 1
        or not alike(outcome.facts[0], model, rows, outcome.steps)
        or not by_frame(outcome.steps[0], rows)
    ):
        return None
    (made,), (y,) = outcome.steps, outcome.facts
    if not isinstance(y, Stream) or made.wires != node.outputs or y.delay:
        return None
    begins = f"{y.wire}#cache"
    shape = (*y.shape[: y.axis], Length.of(count), *y.shape[y.axis + 1 :])
    cache = Step(
        node.name,
        node.op_type,
        (begins,),
        (_of_cache(made.exprs[0], caches, count),),
        (Static(begins, y.dtype, shape, own=True),),
    )
    y = without_first(y, -count)
    return Outcome((y,), (cache, replace(made, facts=(y,), history=begins)))


def _cache(x: Stream, node: Node) -> str:
    """The frames that came before this pulse, where the caller has them all; else empty."""
    made = node.world.step_of(x.wire)
    return made.history if made is not None and node.world.fact_of(x.wire) == x else ""


def _of_cache(expr: Expr, caches: Mapping[str, str], count: int) -> Expr:
    """An expression on the frames of a pulse as one on those of the caches."""
    if isinstance(expr, Window):
        return Ref(caches[expr.wire])
    if isinstance(expr, Dims):
        return Dims(tuple(count if isinstance(d, Frames) else d for d in expr.dims))
    return rebuilt(expr, lambda e: _of_cache(e, caches, count))
