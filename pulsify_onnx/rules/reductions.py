"""Reductions over axes other than the stream's."""

from __future__ import annotations

from pulsify_onnx.errors import refuse
from pulsify_onnx.node import Node
from pulsify_onnx.plan import Outcome
from pulsify_onnx.rules.combine import kept, the_stream
from pulsify_onnx.rules.registry import rule
from pulsify_onnx.views import axes_of


def squeezed(axis: int, gone: list[int], keepdims: bool) -> int:
    """Where `axis` is after axes `gone` were reduced."""
    return axis if keepdims else axis - sum(a < axis for a in gone)


REDUCE = {"ReduceL1": 18, "ReduceL2": 18, "ReduceLogSum": 18, "ReduceLogSumExp": 18, "ReduceMax": 18, "ReduceMean": 18,
          "ReduceMin": 18, "ReduceProd": 18, "ReduceSum": 13, "ReduceSumSquare": 18}


def reduction(node: Node) -> Outcome:
    """Over any axes but the stream's."""
    x = the_stream(node)
    axes = axes_of(node, x.rank, changed=REDUCE[node.op_type])
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return kept(node, [x.axis, None][: len(node.facts)])
        axes = list(range(x.rank))
    if x.axis in axes:
        refuse("it reduces the whole stream", hint="cut the model there")
    return kept(node, [squeezed(x.axis, axes, bool(node.attr("keepdims", 1))), None][: len(node.facts)])


for _name in REDUCE:
    _versions = {"ReduceSum": (1, 11, 13), "ReduceMax": (1, 11, 12, 13, 18, 20), "ReduceMin": (1, 11, 12, 13, 18, 20)}
    rule(_name, versions=_versions.get(_name, (1, 11, 13, 18)))(reduction)
