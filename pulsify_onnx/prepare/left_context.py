"""Attention over the whole past, cut to its last frames: another network, and said so.

The cut is a mask inserted into the batch model itself, before any analysis. So the stream is exact for that model,
`verify` compares with it, and for recordings of up to as many frames it is the original.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import QueryKey, Stream
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.analysis.walker import analyze
from pulsify_onnx.errors import UsageError
from pulsify_onnx.model.edit import GraphEditor, Place
from pulsify_onnx.prepare.passes import NAMED, ORDERED, Contract, Prepared
from pulsify_onnx.rules.kit.masks import UNBOUNDED
from pulsify_onnx.rules.kit.traits import Trait, declared, has
from pulsify_onnx.runtime.sidecar import LeftContext


@dataclass(frozen=True)
class CutPast:
    """Attention over the whole past sees its last `left_context` frames (its own among them) only."""

    left_context: int

    requires: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED)
    ensures: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED)

    def __call__(self, model: Prepared) -> Prepared:
        """Raises `UsageError` where no attention is unbounded in the past, or `left_context` is below 1."""
        if self.left_context < 1:
            raise UsageError(f"--left-context {self.left_context}: a frame sees itself at least, so 1 is the least")
        axes, _ = (
            model.read
            if model.read is not None and model.read[1].options == Options()
            else choose(model.source, model.axes, Options())
        )
        source = replace(model.source, model=model.source.model.clone())
        editor = GraphEditor(source.model.graph, "left_context/{kind}")
        names: list[str] = []
        while True:
            plan = analyze(source, axes, Options())
            found = [b.node for b in plan.blockers if b.reason == UNBOUNDED and b.node not in names]
            if not found:
                break
            for node in [n for n in source.model.graph if n.name in found]:
                _insert(editor.before(node), plan, self.left_context)
                names.append(node.name or "")
        if not names:
            raise UsageError("--left-context: no attention of this model sees the whole past")
        return Prepared(
            source,
            model.axes,
            replace(model.notes, approximation=LeftContext(left_context=self.left_context, nodes=tuple(names))),
        )


def _insert(place: Place, plan: Plan, left_context: int) -> None:
    node = place.node
    if not has(node, Trait.MASK):
        scores = node.inputs[0]
        assert scores is not None
        pair = plan.facts[scores.name or ""]
        assert isinstance(pair, QueryKey)
        keys = int(node.attributes["axis"].value) if "axis" in node.attributes else -1
        keys %= len(pair.shape)
        queries = pair.axes[0] if pair.axes[1] == keys else pair.axes[1]
        far = _far(place, scores, queries, scores, keys, len(pair.shape), queries, keys, left_context)
        low = place.constant(np.asarray(-np.inf, pair.dtype.numpy()))
        node.replace_input_with(0, place.op("Where", far, low, scores))
        return
    query, key = node.inputs[0], node.inputs[1]
    assert query is not None and key is not None
    fact = plan.facts[query.name or ""]
    assert isinstance(fact, Stream)
    index, rank = declared(node, Trait.MASK), 4 if has(node, Trait.BIAS) else 2
    near = place.op("Not", _far(place, query, fact.axis, key, fact.axis, rank, rank - 2, rank - 1, left_context))
    node.resize_inputs(max(index + 1, len(node.inputs)))
    mask = node.inputs[index]
    if mask is None and not has(node, Trait.BIAS):
        node.replace_input_with(index, near)
    elif mask is not None and mask.dtype == ir.DataType.BOOL:
        node.replace_input_with(index, place.op("And", mask, near))
    else:
        dtype = ((mask.dtype if mask is not None else None) or fact.dtype).numpy()
        low = place.constant(np.asarray(-np.inf, dtype))
        node.replace_input_with(
            index, place.op("Where", near, place.constant(np.asarray(0, dtype)) if mask is None else mask, low)
        )


def _far(
    place: Place,
    query: ir.Value,
    query_axis: int,
    key: ir.Value,
    key_axis: int,
    rank: int,
    row: int,
    column: int,
    left_context: int,
) -> ir.Value:
    """Bool of `rank` dimensions: keys more than `left_context` - 1 frames before their query."""
    zero, one = place.constant(np.asarray(0, np.int64)), place.constant(np.asarray(1, np.int64))
    sides = []
    for value, axis, at in ((query, query_axis, row), (key, key_axis, column)):
        count = place.op("Gather", place.op("Shape", value), place.constant(np.asarray(axis, np.int64)))
        shape = [1] * rank
        shape[at] = -1
        sides.append(
            place.op("Reshape", place.op("Range", zero, count, one), place.constant(np.asarray(shape, np.int64)))
        )
    return place.op("Less", sides[1], place.op("Sub", sides[0], place.constant(np.asarray(left_context - 1, np.int64))))
