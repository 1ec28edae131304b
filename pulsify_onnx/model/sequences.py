"""Loops that collect a tensor per round in a sequence and join them at the end: the same loops with a scan output."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from pulsify_onnx.model.edit import GraphEditor
from pulsify_onnx.model.schema import axes_are_input


class SequencesAsScanOutputs(ir.passes.InPlacePass):
    """Rewrite every loop state that is a sequence, appended to once a round and joined afterwards."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Loops that do anything else with a sequence stay."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
                continue
            while (found := _collected(node)) is not None:
                rewritten = _rewrite(model.graph, node, found, model.opset_imports.get("", 0))
                if rewritten is None:
                    break
                node, modified = rewritten, True
        return ir.passes.PassResult(model, modified)


def _collected(loop: ir.Node) -> tuple[int, ir.Node, ir.Node] | None:
    """(state, SequenceInsert in the body, the node that joins) of the first state that is nothing but collected."""
    body = loop.attributes["body"].as_graph()
    for k, start in enumerate(loop.inputs[2:]):
        made = start.producer() if start is not None else None
        if made is None or made.op_type != "SequenceEmpty":
            continue
        insert = body.outputs[k + 1].producer()
        if (
            insert is None
            or insert.op_type != "SequenceInsert"
            or len(insert.inputs) > 2
            or insert.inputs[0] is not body.inputs[k + 2]
        ):
            continue
        final = loop.outputs[k]
        joins = [use.node for use in final.uses()]
        alone = len(body.inputs[k + 2].uses()) == 1 and not insert.outputs[0].uses() and not final.is_graph_output()
        if alone and len(joins) == 1 and joins[0].op_type == "ConcatFromSequence" and joins[0].graph is loop.graph:
            return k, insert, joins[0]
    return None


def _rewrite(graph: ir.Graph, loop: ir.Node, found: tuple[int, ir.Node, ir.Node], opset: int) -> ir.Node | None:
    k, insert, join = found
    value = insert.inputs[1]
    assert value is not None
    axis = join.attributes["axis"].as_int()
    stacked = "new_axis" in join.attributes and bool(join.attributes["new_axis"].as_int())
    declared = next(
        (
            v.shape
            for v in (value, insert.outputs[0], insert.inputs[0], loop.outputs[k])
            if v is not None and v.shape is not None
        ),
        None,
    )
    rank = len(declared) if declared is not None else None
    one = value.shape is not None and not stacked and value.shape[axis] == 1
    if (rank is None and (axis != 0 or not stacked)) or (not stacked and not one):
        return None
    axis = axis if rank is None or axis >= 0 else axis + rank + stacked
    body = loop.attributes["body"].as_graph()
    kept = [v for j, v in enumerate(loop.inputs) if j != k + 2]
    results = [v for j, v in enumerate(loop.outputs) if j != k]
    out = ir.Node("", "Identity", [value], num_outputs=1)
    out.outputs[0].name = f"{value.name}/collected"
    body.append(out)
    del body.outputs[k + 1]
    body.outputs.append(out.outputs[0])
    body.remove(insert, safe=False)
    del body.inputs[k + 2]
    attributes = list(loop.attributes.values())
    fresh = ir.Node(loop.domain, "Loop", kept, attributes, num_outputs=len(results) + 1, name=loop.name)
    for old, new in zip(results, fresh.outputs):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    frames = fresh.outputs[-1]
    frames.name = f"{loop.outputs[k].name}/frames"
    graph.insert_before(loop, fresh)
    editor = GraphEditor(graph)
    place = editor.before(loop)
    joined: ir.Value = frames
    if stacked and axis:
        assert rank is not None
        order = [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)]
        joined = place.op("Transpose", frames, perm=order)
    elif not stacked:
        assert rank is not None
        order = [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)]
        moved = place.op("Transpose", frames, perm=order) if axis else frames
        if axes_are_input("Squeeze", opset):
            joined = place.op("Squeeze", moved, editor.named(f"{frames.name}/axis", np.asarray([axis + 1], np.int64)))
        else:
            joined = place.op("Squeeze", moved, axes=[axis + 1])
    last = join.outputs[0]
    name = last.name
    if last.is_graph_output():
        joined = place.op("Identity", joined)
    joined.type, joined.shape = last.type, last.shape
    last.replace_all_uses_with(joined, replace_graph_outputs=True)
    graph.remove([join, loop], safe=True)
    joined.name = name
    return fresh
