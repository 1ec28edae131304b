"""Where operators on tensors that are not lifted leave the rows of the batch.

Tensors that flow have shapes that say so. What rules write between these and what counts frames is followed here,
operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from pulsify_onnx.lowering.batch.layouts import MIXED, SHARED, UNKNOWN, Layout, met
from pulsify_onnx.lowering.batch.operators import ELEMENTWISE, RECURRENT, attribute, axes_told, constant, entries


def moved(
    op_type: str, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None], attributes: Mapping[str, Any]
) -> list[Layout]:
    """Layouts of the outputs of an operator on tensors that are not lifted; the last one is that of all further
    outputs.

    Axes merged with the rows stay so, also where the rows' axis is not known.
    """
    merged = {x.within for x in layouts if x is not None and x.merged}
    if not merged:
        return _moved(op_type, inputs, layouts, attributes)
    if len(merged) > 1 or op_type in ("Reshape", "Flatten", "Expand"):
        return [UNKNOWN]
    within = merged.pop()
    if any(x is not None and x.rows >= 0 and not x.merged for x in layouts):
        return [UNKNOWN]
    return [replace(x, within=within) if x.rows != SHARED else x for x in _moved(op_type, inputs, layouts, attributes)]


def _moved(
    op_type: str, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None], attributes: Mapping[str, Any]
) -> list[Layout]:
    known = [x for x in layouts if x is not None]
    if op_type in ("Shape", "Size"):
        return [Layout(1 if op_type == "Shape" else 0, SHARED)]
    if op_type in ELEMENTWISE:
        return [met(known)]
    if all(x.rows == SHARED for x in known):
        return [Layout(_shared_rank(op_type, inputs, known), SHARED)]
    if any(x.rows == MIXED for x in known) or not known or layouts[0] is None:
        return [UNKNOWN]
    first = layouts[0]
    if op_type == "Gather":
        return [_gathered(known[0], known[1], int(attribute(attributes, "axis", 0)))]
    if op_type == "MatMul":
        return [_product(known[0], known[1])]
    if op_type in RECURRENT:
        return [Layout(4, 2), Layout(3, 1)] if first.rows == 1 else [UNKNOWN]
    if op_type == "Concat":
        axis = int(attribute(attributes, "axis", 0))
        where = {x.rows for x in known if x.rows != SHARED}
        rank = next((x.rank for x in known if x.rank is not None), None)
        apart = rank is not None and where and len(where) == 1 and axis % rank not in where
        return [Layout(rank, where.pop())] if apart else [UNKNOWN]
    rule = _RULES.get(op_type)
    if rule is None or first.rows == SHARED or first.rank is None or any(x.rows != SHARED for x in known[1:]):
        return [UNKNOWN]
    return [rule(inputs, first, first.rank, attributes)]


def _shared_rank(op_type: str, inputs: Sequence[ir.Value | None], known: Sequence[Layout]) -> int | None:
    if op_type == "Range":
        return 1
    if op_type == "Gather" and None not in (known[0].rank, known[1].rank):
        return (known[0].rank or 0) + (known[1].rank or 0) - 1
    if op_type in ("Reshape", "Expand"):
        return entries(inputs[1])
    return known[0].rank if op_type in ("Concat", "Slice", "Transpose", "CumSum", "Pad", "Softmax") and known else None


def _product(a: Layout, b: Layout) -> Layout:
    if b.rank == 1 and a.rank is not None and b.rows == SHARED and a.rows < a.rank - 1:
        return Layout(a.rank - 1, a.rows)
    if a.rank is None or b.rank is None or min(a.rank, b.rank) < 2:
        return UNKNOWN
    rank = max(a.rank, b.rank)
    at, bt = (None if x.rows == SHARED else x.rows + rank - (x.rank or 0) for x in (a, b))
    if at == rank - 1 or bt == rank - 2:  # the dimension that is summed
        return UNKNOWN
    if at is not None and bt is not None:
        return Layout(rank, at) if at == bt and at < rank - 2 else UNKNOWN
    return Layout(rank, at if at is not None else bt or 0)


def _gathered(x: Layout, index: Layout, axis: int) -> Layout:
    if x.rank is None or index.rank is None or (x.rows == SHARED) == (index.rows == SHARED):
        return UNKNOWN
    axis, rank = axis % x.rank, x.rank + index.rank - 1
    if x.rows == SHARED:
        return Layout(rank, index.rows + axis)
    return UNKNOWN if axis == x.rows else Layout(rank, x.rows + (index.rank - 1 if axis < x.rows else 0))


_Rule = Callable[[Sequence[Any], Layout, int, Mapping[str, Any]], Layout]
_RULES: dict[str, _Rule] = {}


def _on(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@_on("Transpose")
def _transposed(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    perm = attribute(attributes, "perm") or range(rank)[::-1]
    return Layout(rank, list(perm).index(x.rows))


@_on("Reshape")
def _reshaped(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    target = constant(inputs[1])
    if target is not None and x.rows > 0 and not (target[: x.rows + 1] == 0).all():
        return UNKNOWN
    return Layout(entries(inputs[1]), x.rows) if x.rows == 0 or target is not None else UNKNOWN


def _listed(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> list[int] | None:
    given = attribute(attributes, "axes")
    found = constant(inputs[1]) if given is None and len(inputs) > 1 else None
    return list(given) if given is not None else None if found is None else [int(a) for a in found.reshape(-1)]


@_on("Unsqueeze")
def _unsqueezed(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    given = _listed(inputs, attributes)
    if given is None:
        return UNKNOWN
    full = rank + len(given)
    new = {a % full for a in given}
    return Layout(full, [k for k in range(full) if k not in new][x.rows])


@_on("Squeeze")
def _squeezed(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    given = _listed(inputs, attributes)
    return _without(x, rank, None if given is None else [a % rank for a in given], False)


@_on("Slice")
def _sliced(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    axes = axes_told(inputs, attributes, 3, rank)
    return UNKNOWN if axes is None or x.rows in axes else x


@_on("Pad")
def _padded(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    pads = attribute(attributes, "pads")
    if pads is None:
        found = constant(inputs[1]) if len(inputs) < 4 else None
        pads = None if found is None else found.tolist()
    return x if pads is not None and not pads[x.rows] and not pads[x.rows + rank] else UNKNOWN


@_on(
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
def _reduced(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    axes = axes_told(inputs, attributes, 1, rank)
    return _without(x, rank, axes, bool(attribute(attributes, "keepdims", 1)))


@_on("ArgMax", "ArgMin")
def _extreme(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    return _without(x, rank, [int(attribute(attributes, "axis", 0)) % rank], bool(attribute(attributes, "keepdims", 1)))


def _without(x: Layout, rank: int, axes: list[int] | None, keepdims: bool) -> Layout:
    if axes is None or x.rows in axes:
        return UNKNOWN
    return x if keepdims else Layout(rank - len(axes), x.rows - sum(a < x.rows for a in axes))


@_on("Expand")
def _expanded(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    full = entries(inputs[1])
    return UNKNOWN if full is None else Layout(max(full, rank), x.rows + max(full - rank, 0))


@_on("AveragePool", "Conv", "QLinearAveragePool")
def _kept_first(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any]) -> Layout:
    return x if x.rows == 0 else UNKNOWN
