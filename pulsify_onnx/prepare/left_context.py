"""Attention over the whole past, cut to its last frames: another network, and said so.

The cut is a mask inserted into the batch model itself, before any analysis. So the stream is exact for that model,
`verify` compares with it, and for recordings of up to as many frames it is the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Pair, Stream
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.analysis.walker import analyze
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import UsageError
from pulsify_onnx.model.load import Source
from pulsify_onnx.rules.kit.masks import UNBOUNDED
from pulsify_onnx.runtime.sidecar import LeftContext


def cut_past(source: Source, axes: Mapping[str, int], left_context: int) -> tuple[Source, LeftContext]:
    """A copy of `source` in which attention over the whole past sees its last `left_context` frames only.

    Raises `UsageError` where no attention is unbounded in the past, or `left_context` is below 1.
    """
    if left_context < 1:
        raise UsageError(f"--left-context {left_context}: a frame sees itself at least, so 1 is the least")
    source = replace(source, model=source.model.clone())
    names: list[str] = []
    while True:
        plan = analyze(source, axes, Options())
        found = [b.node for b in plan.blockers if b.reason == UNBOUNDED and b.node not in names]
        if not found:
            break
        for node in [n for n in source.model.graph if n.name in found]:
            _insert(source.model.graph, node, plan, left_context)
            names.append(node.name or "")
    if not names:
        raise UsageError("--left-context: no attention of this model sees the whole past")
    return source, LeftContext(left_context=left_context, nodes=tuple(names))


def _insert(graph: ir.Graph, node: ir.Node, plan: Plan, left_context: int) -> None:
    build = _Before(graph, node)
    if node.op_type == "Softmax":
        scores = node.inputs[0]
        assert scores is not None
        pair = plan.facts[scores.name or ""]
        assert isinstance(pair, Pair)
        keys = int(node.attributes["axis"].value) if "axis" in node.attributes else -1
        keys %= len(pair.shape)
        queries = pair.axes[0] if pair.axes[1] == keys else pair.axes[1]
        far = build.far(scores, queries, scores, keys, len(pair.shape), queries, keys, left_context)
        low = build.constant(np.asarray(-np.inf, pair.dtype.numpy()))
        node.replace_input_with(0, build.op("Where", far, low, scores))
        return
    query, key = node.inputs[0], node.inputs[1]
    assert query is not None and key is not None
    fact = plan.facts[query.name or ""]
    assert isinstance(fact, Stream)
    near = build.op("Not", build.far(query, fact.axis, key, fact.axis, 2, 0, 1, left_context))
    node.resize_inputs(max(4, len(node.inputs)))
    mask = node.inputs[3]
    if mask is None:
        node.replace_input_with(3, near)
    elif mask.dtype == ir.DataType.BOOL:
        node.replace_input_with(3, build.op("And", mask, near))
    else:
        low = build.constant(np.asarray(-np.inf, (mask.dtype or fact.dtype).numpy()))
        node.replace_input_with(3, build.op("Where", near, mask, low))


class _Before:
    """Writes nodes before a node of the batch model."""

    def __init__(self, graph: ir.Graph, node: ir.Node):
        self.graph, self.node, self.count = graph, node, 0

    def op(self, op_type: str, *inputs: ir.Value) -> ir.Value:
        """Output of an operator."""
        made = ir.Node("", op_type, inputs, name=f"{self.node.name}/left_context_{self.count}")
        made.outputs[0].name = f"{self.node.name}/left_context_{self.count}_out"
        self.count += 1
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def constant(self, array: Array) -> ir.Value:
        """A new initializer."""
        tensor = ir.tensor(array)
        value = ir.Value(name=f"{self.node.name}/left_context_const_{self.count}", const_value=tensor, shape=ir.Shape(array.shape),
                         type=ir.TensorType(tensor.dtype))
        self.count += 1
        self.graph.register_initializer(value)
        return value

    def far(self, query: ir.Value, query_axis: int, key: ir.Value, key_axis: int, rank: int, row: int, column: int, left_context: int) -> ir.Value:
        """bool of `rank` dimensions: keys more than `left_context` - 1 frames before their query."""
        zero, one = self.constant(np.asarray(0, np.int64)), self.constant(np.asarray(1, np.int64))
        sides = []
        for value, axis, at in ((query, query_axis, row), (key, key_axis, column)):
            count = self.op("Gather", self.op("Shape", value), self.constant(np.asarray(axis, np.int64)))
            shape = [1] * rank
            shape[at] = -1
            sides.append(self.op("Reshape", self.op("Range", zero, count, one), self.constant(np.asarray(shape, np.int64))))
        return self.op("Less", sides[1], self.op("Sub", sides[0], self.constant(np.asarray(left_context - 1, np.int64))))
