"""Where the outputs of a Scan have the rows of the batch: its body is walked with the layouts of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from pulsify_onnx.lowering.batch.kinds import CONTRIB
from pulsify_onnx.lowering.batch.layouts import UNKNOWN, Layout, attribute, constant, moved


def scanned(body: ir.Graph, layouts: Sequence[Layout | None], attributes: Mapping[str, Any], outer: Callable[[ir.Value], Layout], opset: int) -> list[Layout]:
    """Layouts of the outputs of a Scan of `body`; `outer` gives those of tensors that it reads from outside."""
    count = int(attribute(attributes, "num_scan_inputs"))
    carried = len(layouts) - count
    axes = list(attribute(attributes, "scan_input_axes") or [0] * count)
    inside: dict[ir.Value, Layout] = {}
    for k, (value, found) in enumerate(zip(body.inputs, layouts)):
        inside[value] = UNKNOWN if found is None else found if k < carried else _frame(found, int(axes[k - carried]))

    def at(value: ir.Value) -> Layout:
        return inside[value] if value in inside else outer(value)

    for node in body:
        kept = constant(node.inputs[1]) if node.op_type == "Reshape" else None  # the first axis of no other shape is known to be the rows'
        known = node.op_type != "Reshape" or kept is not None and kept.size and kept[0] == 0
        if not known or node.domain and node.op_type not in CONTRIB or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            made = [UNKNOWN]
        else:
            made = moved(node.op_type, node.inputs, [None if v is None else at(v) for v in node.inputs], node.attributes, opset)
        inside.update((out, made[min(k, len(made) - 1)]) for k, out in enumerate(node.outputs))
    given = [at(v) for v in body.outputs]
    if any(a.rows != inside[v].rows for a, v in zip(given[:carried], body.inputs)):
        return [UNKNOWN]
    out_axes = list(attribute(attributes, "scan_output_axes") or [0] * (len(given) - carried))
    return [*given[:carried], *(_stacked(x, int(axis)) for x, axis in zip(given[carried:], out_axes))]


def _frame(x: Layout, axis: int) -> Layout:
    if x.rank is None:
        return UNKNOWN
    axis %= x.rank
    return UNKNOWN if axis == x.rows else replace(x, rank=x.rank - 1, rows=x.rows - (0 <= axis < x.rows))


def _stacked(x: Layout, axis: int) -> Layout:
    if x.rank is None:
        return UNKNOWN
    return replace(x, rank=x.rank + 1, rows=x.rows + (axis % (x.rank + 1) <= x.rows) if x.rows >= 0 else x.rows)
