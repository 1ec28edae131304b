"""Where the largest and smallest values are: kept over other axes than the stream's, running values over the stream."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from pulsify_onnx.algebra.attributes import attributes
from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Expr, Op, Outcome, Step
from pulsify_onnx.algebra.windows import indices
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op, passthrough, the_stream
from pulsify_onnx.rules.kit.gating import along
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.running import Accumulator, cast, feed, lowest, number, reduce_by, reduced, squeeze_by, wide
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.kit.views import offers
from pulsify_onnx.rules.reductions import squeezed


@rule("ArgMax", versions=(1, 11, 12, 13))
@rule("ArgMin", versions=(1, 11, 12, 13))
def arg_extreme(node: Node) -> Outcome:
    """Any axis.

    Prefix: over the stream, where the best frame so far was.  State: its value and its index.
    """
    x = the_stream(node)
    axis = node.axis(x.rank, default=0)
    keepdims = bool(node.attr("keepdims", 1))
    if axis != x.axis:
        return passthrough(node, [squeezed(x.axis, [axis], keepdims)])
    steps: list[Step] = []
    source = feed([x], node.options, steps)
    x, largest = source.x, node.op_type == "ArgMax"
    dtype = wide(x.dtype)
    neutral = lowest(dtype, 1 if largest else -1)
    shape = reduced(x.shape, [axis], True)
    top = Accumulator(source, f"{node.outputs[0]}.best", dtype, shape, "best", neutral)
    index = Accumulator(source, f"{node.outputs[0]}.index", ir.DataType.INT64, shape, "index")
    value = source.only_real(source.value(), neutral)
    last: dict[str, Any] = {"select_last_index": 1} if node.attr("select_last_index", 0) else {}
    best = reduce_by(node, "ReduceMax" if largest else "ReduceMin", value, [axis])
    at = onnx_op("Add", onnx_op(node.op_type, value, axis=axis, keepdims=1, **last), source.start)
    a, b = (top.past, best) if largest else (best, top.past)
    better = onnx_op("Not", onnx_op("Less", b, a)) if last else onnx_op("Less", a, b)
    now = onnx_op("Where", better, at, index.past)
    states = [
        top.becomes(source.settled(onnx_op("Max" if largest else "Min", top.past, best), dtype)),
        index.becomes(now),
    ]
    fact = source.fact(node.outputs[0], ir.DataType.INT64, reduced(x.shape, [axis], keepdims))
    return as_outcome(node, [now if keepdims else squeeze_by(node, now, [axis])], [fact], states, steps)


@declares(Trait.BOUNDS, (1,))
@rule("TopK", versions=(1, 10, 11, 24))
def top_k(node: Node) -> Outcome:
    """Any axis.

    Prefix: over the stream, the best frames so far and where they were.  State: their values and indices.
    Refuses: a number of frames that depends on the length of the stream.
    """
    x = the_stream(node)
    axis = node.axis(x.rank, default=-1)
    if axis != x.axis:
        return passthrough(node, [x.axis, None][: len(node.facts)], out_axes=[x.axis, x.axis])
    if not offers(node, "GatherElements"):
        refuse(
            "before opset 11, nothing can pick the indices of the best frames so far",
            hint="export with opset 11 or later",
        )
    found = node.const(1, "the number of frames it picks")
    assert found is not None
    k = int(found.reshape(-1)[0])
    return _best_frames(node, x, k, bool(node.attr("largest", 1)))


def _best_frames(node: Node, x: Stream, k: int, largest: bool) -> Outcome:
    steps: list[Step] = []
    source = feed([x], node.options, steps)
    x = source.x
    dtype, axis = wide(x.dtype), x.axis
    neutral = lowest(dtype, 1 if largest else -1)
    shape = (*x.shape[:axis], Length.of(k), *x.shape[axis + 1 :])
    name = next(o for o in node.outputs if o)
    top = Accumulator(source, f"{name}.best", dtype, shape, "best")
    index = Accumulator(source, f"{name}.index", ir.DataType.INT64, shape, "index")
    window = source.windows[0]
    slots = const(range(k))
    past = onnx_op("Where", along(onnx_op("Less", slots, source.before()), x), top.past, neutral)
    values = onnx_op("Concat", past, source.only_real(source.value(), neutral), axis=axis)
    frames = onnx_op("Expand", along(indices(x), x), onnx_op("Shape", window))
    places = onnx_op("Concat", index.past, frames, axis=axis)
    options = attributes({"axis": axis, "largest": int(largest), "sorted": 1}.items())
    best: Expr
    best, picked = (Op("TopK", (values, const([k])), options, outputs=2, index=i) for i in range(2))
    best = onnx_op(
        "Where", along(onnx_op("Less", slots, source.seen()), x), best, number(0, dtype)
    )  # what fills the others is not finite
    at: Expr = onnx_op("GatherElements", places, picked, axis=axis)
    states = [top.becomes(best), index.becomes(at)]
    facts = [source.fact(node.outputs[0], x.dtype, shape), source.fact(node.outputs[1], ir.DataType.INT64, shape)]
    return as_outcome(node, [cast(best, dtype, x.dtype), at], facts, states, steps)
