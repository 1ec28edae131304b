"""Global pools: a running value where the stream is a spatial axis, kept where it is the batch."""

from __future__ import annotations

from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import onnx_op, passthrough, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.running import number, wide
from pulsify_onnx.rules.reductions import RUNNING, Reduction, reduce_stream


@rule("GlobalAveragePool", versions=(1, 22))
def global_average_pool(node: Node) -> Outcome:
    """Per frame where time is the batch.

    Prefix: the average over the frames so far.  State: a sum.
    """
    return _pooled(node, "ReduceMean")


@rule("GlobalMaxPool", versions=(1, 22))
def global_max_pool(node: Node) -> Outcome:
    """Per frame where time is the batch.

    Prefix: the maximum over the frames so far.  State: a maximum.
    """
    return _pooled(node, "ReduceMax")


def _pooled(node: Node, op_type: str) -> Outcome:
    x = the_stream(node)
    if x.axis < 2:
        return passthrough(node, [x.axis])
    return reduce_stream(node, RUNNING[op_type], x, range(2, x.rank), keepdims=True)


@rule("GlobalLpPool", versions=(2, 22))
def global_lp_pool(node: Node) -> Outcome:
    """Per frame where time is the batch.

    Prefix: the norm of the frames so far.  State: a sum.
    """
    x = the_stream(node)
    if x.axis < 2:
        return passthrough(node, [x.axis])
    p = int(node.attr("p", 2))
    if p < 1:
        refuse(f"its norm has p = {p}", hint="use p of 1 or more")
    power, root = number(p, wide(x.dtype)), number(1 / p, wide(x.dtype))
    norm = Reduction(
        "ReduceSum",
        "Add",
        lambda value: onnx_op("Pow", onnx_op("Abs", value), power),
        lambda total, source, axes: onnx_op("Pow", total, root),
    )
    return reduce_stream(node, norm, x, range(2, x.rank), keepdims=True)
