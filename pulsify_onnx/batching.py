"""A batch for a model that was exported for one stream: its inputs get a batch dimension, and constants of 1 that stand for it follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.bodies import all_nodes
from pulsify_onnx.draft import Lowered, LoweredState
from pulsify_onnx.errors import Blocker, CannotStream, UsageError
from pulsify_onnx.source import Source

LABEL = "batch"


def with_batch(source: Source, axes: Mapping[str, int]) -> Source:
    """A copy of `source`, whose stream inputs run along `axes`, that takes any number of rows. Raises `CannotStream` where it has no batch of 1."""
    model = source.model.clone()
    source = replace(source, model=model)
    if LABEL in {str(d.value) for v in source.inputs for d in v.shape or () if not isinstance(d, int)}:
        raise UsageError(f"--batch: the model has a dimension {LABEL} already")
    for value in source.inputs:
        _widen(value, axes.get(value.name or ""))
    first = {0 if axis else 1 for axis in axes.values()}
    for node in all_nodes(model.graph):
        for out in node.outputs:
            out.shape = None
        if node.op_type == "Reshape" and not node.domain and len(first) == 1:
            _follow(model.graph, node, next(iter(first)))
    return source


def _widen(value: ir.Value, axis: int | None) -> None:
    """Make the batch dimension of an input symbolic: the first one, or that after time. Static inputs without one are for all rows."""
    shape = list(value.shape or ())
    at = 1 if axis == 0 else 0
    if axis is None and (len(shape) < 2 or shape[0] != 1):
        return
    if at >= len(shape) or shape[at] != 1:
        size = shape[at] if at < len(shape) else "missing"
        raise CannotStream((Blocker(value.name or "", "input", f"its dimension {at}, where a batch would be, is {size}, not 1",
                                    "export with a batch of 1, or with a dynamic batch"),))
    value.shape = ir.Shape([LABEL if k == at else d for k, d in enumerate(shape)])


def _follow(graph: ir.Graph, node: ir.Node, at: int) -> None:
    """A Reshape to 1 where its input has the batch keeps what is there."""
    target = node.inputs[1]
    if target is None or target.const_value is None or node.attributes.get("allowzero") is not None and node.attributes["allowzero"].as_int():
        return
    sizes = target.const_value.numpy().copy()
    if sizes.size <= at or sizes[at] != 1:
        return
    sizes[at] = 0
    name = f"{node.name}/{LABEL}"
    made = ir.Value(name=name, const_value=ir.tensor(np.asarray(sizes, np.int64), name=name), shape=ir.Shape(sizes.shape), type=ir.TensorType(ir.DataType.INT64))
    graph.register_initializer(made)
    node.replace_input_with(1, made)


def apart(lowered: Lowered) -> None:
    """Raise `CannotStream` where the rows of the batch are no streams of their own."""
    if lowered.shared:
        raise CannotStream(tuple(Blocker(name, "batch", "it does not keep the rows of a batch apart, or cannot count the frames of each",
                                         "run a stream in a session of its own, without --batch") for name in lowered.shared))


def sized(lowered: Lowered, rows: int) -> Lowered:
    """The pulsed model for exactly so many rows."""
    for value in (*lowered.model.graph.inputs, *lowered.model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([rows if not isinstance(d, int) and d.value == LABEL else d for d in value.shape])
    states = tuple(_sized(s, rows) for s in lowered.states)
    return replace(lowered, states=states, batch=rows)


def _sized(state: LoweredState, rows: int) -> LoweredState:
    return replace(state, shape=tuple(rows if d == LABEL else d for d in state.shape))


def told(document: dict[str, Any], rows: int | None) -> dict[str, Any]:
    """The sidecar of a model that was given a batch: it says so, and how many rows there are where that is fixed."""
    if rows is not None:
        for entry in (*document["inputs"], *document["outputs"]):
            entry["shape"] = [rows if d == LABEL else d for d in entry["shape"]]
    return {**document, "source_batch": 1}


__all__ = ["apart", "sized", "told", "with_batch"]
