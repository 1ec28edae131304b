"""Which axis of a tensor has the rows of the batch, and how operators move it.

Rows are streams of their own as long as no operator mixes them. What is not known to keep them apart is taken to mix them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import ALONE
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Attribute
from pulsify_onnx.algebra.quotients import ratio
from pulsify_onnx.arrays import Array
from pulsify_onnx.lowering.batch.kinds import BATCH_FIRST, CHANNELWISE, ELEMENTWISE, NORMALISED, ONE_AXIS, SOFTMAX, interpolated

SHARED, MIXED = -1, -2
"""``rows`` of a tensor that is the same for all rows, and of one whose rows are not known to be apart."""


@dataclass(frozen=True)
class Layout:
    """Where a tensor has its rows. A `lifted` one has them on an axis of their own, before the `rank` others; ``ones``: which of
    these others have one element. ``within``: sizes of a slower and of a faster axis that are merged with the rows."""

    rank: int | None
    rows: int
    lifted: bool = False
    ones: tuple[bool, ...] = ()
    within: tuple[Length, Length] = ALONE

    @property
    def merged(self) -> bool:
        """Whether other axes are merged with the rows."""
        return self.within != ALONE


UNKNOWN = Layout(None, MIXED)


def attribute(attributes: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The plain value of an attribute of an operator about to be written."""
    value = attributes.get(name, default)
    if isinstance(value, Attribute):
        value = value.attr
    return value.value if isinstance(value, ir.Attr) else value


def constant(value: ir.Value | None) -> Array | None:
    """The value of a constant."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def axes_of(inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any], index: int, rank: int) -> list[int] | None:
    """The axes that an operator takes as an attribute or as its input `index`; None where they are not known, all without any."""
    given = attribute(attributes, "axes")
    if given is None and len(inputs) > index and inputs[index] is not None:
        found = constant(inputs[index])
        if found is None:
            return None
        given = found.reshape(-1).tolist()
    return [int(a) % rank for a in given] if given is not None else list(range(rank))


def regrouped(x: Layout, shape: Sequence[Length], target: Sequence[Length]) -> Layout:
    """Where the rows of a tensor of `shape` are once it is reshaped to `target`."""
    if x.rows < 0 or x.lifted or x.rank != len(shape):
        return Layout(len(target), x.rows) if x.rows == SHARED and not x.lifted else UNKNOWN
    rows = shape[x.rows].over(x.within[0] * x.within[1])
    before, after = [*shape[: x.rows], x.within[0]], [x.within[1], *shape[x.rows + 1:]]
    for k, size in enumerate(target):
        (slower, left), (faster, right) = ratio(before, target[:k]), ratio(after, target[k + 1:])
        if rows is not None and left == right == Length.of(1) and size == slower * rows * faster:
            return Layout(len(target), k, within=(slower, faster))
    return UNKNOWN


def met(layouts: Sequence[Layout]) -> Layout:
    """The layout of tensors that broadcast."""
    ranks = [x.rank for x in layouts if x.rank is not None]
    rank = max(ranks) if len(ranks) == len(layouts) else None
    if all(x.rows == SHARED for x in layouts):
        return Layout(rank, SHARED)
    if rank is None or any(x.rows == MIXED for x in layouts):
        return UNKNOWN
    found = {x.rows + rank - (x.rank or 0) for x in layouts if x.rows != SHARED}
    return Layout(rank, found.pop()) if len(found) == 1 else UNKNOWN


def moved(op_type: str, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None], attributes: Mapping[str, Any], opset: int) -> list[Layout]:
    """Layouts of the outputs of an operator on tensors that are not lifted; the last one is that of all further outputs."""
    merged = {x.within for x in layouts if x is not None and x.rows >= 0}
    if merged <= {ALONE}:
        return _moved(op_type, inputs, layouts, attributes, opset)
    if len(merged) > 1 or op_type in ("Reshape", "Flatten", "Expand"):
        return [UNKNOWN]
    within = merged.pop()
    return [replace(x, within=within) if x.rows >= 0 else x for x in _moved(op_type, inputs, layouts, attributes, opset)]


def _moved(op_type: str, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None], attributes: Mapping[str, Any], opset: int) -> list[Layout]:
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
    rule = _RULES.get(op_type)
    if op_type == "Gather":
        return [_gathered(known[0], known[1], int(attribute(attributes, "axis", 0)))]
    if op_type in ("FusedMatMul", "TransposeMatMul"):
        return [_flipped(known[0], known[1])]
    if op_type in ("MatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul"):
        return [_product(known[0], known[3] if op_type == "QLinearMatMul" else known[1])]
    if op_type in ("GRU", "LSTM", "RNN"):
        return [Layout(4, 2), Layout(3, 1)] if first.rows == 1 else [UNKNOWN]
    if op_type in BATCH_FIRST:
        return [first] if all(x.rows in (0, SHARED) for x in known) and first.rows == 0 else [UNKNOWN]
    if op_type.startswith("Skip"):
        same = met(known)
        return [same if 0 <= same.rows < (same.rank or 0) - 1 else UNKNOWN]
    if op_type == "GatedRMSNorm":
        same = met([known[0], *known[2:]])
        return [same if 0 <= same.rows < (same.rank or 0) - 1 and known[1].rows == SHARED else UNKNOWN]
    if op_type in ("MatMulNBits", "MatMulBnb4"):
        return [first if first.rank is not None and first.rows != first.rank - 1 and all(x.rows == SHARED for x in known[1:]) else UNKNOWN]
    if op_type in ("Concat", "QLinearConcat"):
        known = known[2::3] if op_type == "QLinearConcat" else known
        axis = int(attribute(attributes, "axis", 0))
        where = {x.rows for x in known if x.rows != SHARED}
        rank = next((x.rank for x in known if x.rank is not None), None)
        apart = rank is not None and where and len(where) == 1 and axis % rank not in where
        return [Layout(rank, where.pop())] if apart else [UNKNOWN]
    if op_type in ("Gemm", "FusedGemm", "QGemm"):
        weights, bias = (known[3], known[4:]) if op_type == "QGemm" else (known[1], known[2:])
        apart = first.rows == 0 and not attribute(attributes, "transA", 0) and weights.rows == SHARED and met([Layout(2, 0), *bias]) == Layout(2, 0)
        return [Layout(2, 0)] if apart else [UNKNOWN]
    if op_type == "Einsum":
        return [_summed(str(attribute(attributes, "equation")), known)]
    if first.rows == SHARED or any(x.rows not in (SHARED, first.rows) for x in known) or first.rank is None:
        return [UNKNOWN]
    if op_type in CHANNELWISE:
        return [Layout(None if op_type == "STFT" else first.rank, 0)] if first.rows == 0 else [UNKNOWN]
    if any(x.rows != SHARED for x in known[1:]) and op_type != "GatherElements":
        return [UNKNOWN]
    return [UNKNOWN if rule is None else rule(inputs, first, first.rank, attributes, opset)]


def _shared_rank(op_type: str, inputs: Sequence[ir.Value | None], known: Sequence[Layout]) -> int | None:
    if op_type == "Range":
        return 1
    if op_type == "Gather" and None not in (known[0].rank, known[1].rank):
        return (known[0].rank or 0) + (known[1].rank or 0) - 1
    if op_type in ("Reshape", "Expand"):
        return entries(inputs[1])
    return known[0].rank if op_type in ("Concat", "Slice", "Transpose", "CumSum", "Pad", "Softmax") and known else None


def entries(shape: ir.Value | None) -> int | None:
    """How many dimensions a shape that is computed has."""
    if shape is not None and shape.const_value is not None:
        return int(shape.const_value.size)
    size = shape.shape[0] if shape is not None and shape.shape is not None and len(shape.shape) == 1 else None
    return size if isinstance(size, int) else None


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


def _flipped(a: Layout, b: Layout) -> Layout:
    """A product of matrices that are transposed first, with rows along neither of their two axes."""
    return _product(a, b) if all(x.rows == SHARED or x.rank is not None and x.rows < x.rank - 2 for x in (a, b)) else UNKNOWN


def _gathered(x: Layout, index: Layout, axis: int) -> Layout:
    if x.rank is None or index.rank is None or (x.rows == SHARED) == (index.rows == SHARED):
        return UNKNOWN
    axis, rank = axis % x.rank, x.rank + index.rank - 1
    if x.rows == SHARED:
        return Layout(rank, index.rows + axis)
    return UNKNOWN if axis == x.rows else Layout(rank, x.rows + (index.rank - 1 if axis < x.rows else 0))


def _summed(equation: str, known: Sequence[Layout]) -> Layout:
    equation = equation.replace(" ", "")
    if "->" not in equation or "." in equation and any(x.rank is None for x in known):
        return UNKNOWN
    left, out = equation.split("->")
    terms = left.split(",")
    covered = [(x.rank or 0) - len(term) + 3 if "." in term else 0 for term, x in zip(terms, known)]
    rest = "".join(chr(0x100 + k) for k in range(max(covered)))  # what an ellipsis stands for, aligned at its end
    terms = [term.replace("...", rest[len(rest) - count:]) for term, count in zip(terms, covered)]
    out = out.replace("...", rest)
    letters = {term[x.rows] for term, x in zip(terms, known) if x.rows != SHARED}
    letter = letters.pop() if len(letters) == 1 else ""
    return Layout(len(out), out.index(letter)) if letter and letter in out else UNKNOWN


_Rule = Callable[[Sequence[Any], Layout, int, Mapping[str, Any], int], Layout]
_RULES: dict[str, _Rule] = {}


def _on(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule
    return register


@_on("Transpose")
def _transposed(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    perm = attribute(attributes, "perm") or range(rank)[::-1]
    return Layout(rank, list(perm).index(x.rows))


@_on("Reshape")
def _reshaped(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    target = constant(inputs[1])
    if target is not None and x.rows > 0 and not (target[: x.rows + 1] == 0).all():
        return UNKNOWN
    return Layout(entries(inputs[1]), x.rows) if x.rows == 0 or target is not None else UNKNOWN


@_on("Flatten")
def _flat(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    return Layout(2, 0) if x.rows == 0 and int(attribute(attributes, "axis", 1)) % rank == 1 else UNKNOWN


def _listed(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> list[int] | None:
    given = attribute(attributes, "axes")
    found = constant(inputs[1]) if given is None and len(inputs) > 1 else None
    return list(given) if given is not None else None if found is None else [int(a) for a in found.reshape(-1)]


@_on("Unsqueeze")
def _unsqueezed(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    given = _listed(inputs, attributes)
    if given is None:
        return UNKNOWN
    full = rank + len(given)
    new = {a % full for a in given}
    return Layout(full, [k for k in range(full) if k not in new][x.rows])


@_on("Squeeze")
def _squeezed(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    given = _listed(inputs, attributes)
    return _without(x, rank, None if given is None else [a % rank for a in given], False)


@_on("Slice")
def _sliced(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    axes = axes_of(inputs, attributes, 3, rank)
    return UNKNOWN if axes is None or x.rows in axes else x


@_on("Pad")
def _padded(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    pads = attribute(attributes, "pads")
    if pads is None:
        found = constant(inputs[1]) if len(inputs) < 4 else None
        pads = None if found is None else found.tolist()
    return x if pads is not None and not pads[x.rows] and not pads[x.rows + rank] else UNKNOWN


@_on("CumSum", "CumProd")
def _cumulative(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    axis = constant(inputs[1])
    return x if axis is not None and int(axis.reshape(-1)[0]) % rank != x.rows else UNKNOWN


@_on(*SOFTMAX)
def _softmax(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    opset = int(attribute(attributes, "opset", opset))  # QLinearSoftmax says which one it is of
    axis = int(attribute(attributes, "axis", -1 if opset >= 13 else 1)) % rank
    return x if (axis != x.rows if opset >= 13 else axis > x.rows) else UNKNOWN


@_on(*NORMALISED)
def _normalised(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    return x if int(attribute(attributes, "axis", -1)) % rank > x.rows else UNKNOWN


def _apart(default: int) -> _Rule:
    def rule(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
        return x if int(attribute(attributes, "axis", default)) % rank != x.rows else UNKNOWN
    return rule


_RULES.update({name: _apart(default) for name, default in ONE_AXIS.items()} | {"GatherElements": _apart(0)})


@_on("MeanVarianceNormalization")
def _mean_variance(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    return UNKNOWN if x.rows in [a % rank for a in attribute(attributes, "axes", (0, 2, 3))] else x


@_on("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")
def _reduced(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    axes = axes_of(inputs, attributes, 1, rank)
    return _without(x, rank, axes, bool(attribute(attributes, "keepdims", 1)))


@_on("ArgMax", "ArgMin")
def _extreme(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    return _without(x, rank, [int(attribute(attributes, "axis", 0)) % rank], bool(attribute(attributes, "keepdims", 1)))


def _without(x: Layout, rank: int, axes: list[int] | None, keepdims: bool) -> Layout:
    if axes is None or x.rows in axes:
        return UNKNOWN
    return x if keepdims else Layout(rank - len(axes), x.rows - sum(a < x.rows for a in axes))


@_on("Expand")
def _expanded(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    full = entries(inputs[1])
    return UNKNOWN if full is None else Layout(max(full, rank), x.rows + max(full - rank, 0))


@_on("Tile")
def _tiled(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    repeats = constant(inputs[1])
    return x if repeats is not None and repeats[x.rows] == 1 else UNKNOWN


@_on("Resize", "Upsample")
def _resized(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    scales = scales_of(inputs, attributes)
    known = scales is not None and scales.size == rank and scales[x.rows] == 1
    return x if known and not interpolated(attribute(attributes, "mode", "nearest"), rank, x.rows) else UNKNOWN


def transposed(value: ir.Value | None) -> bool:
    """Whether a Transpose that the source does not have makes `value`, but for what onnxruntime moves one through."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("Transpose", "Cast", "DequantizeLinear", "Identity", "Slice"):
        return False
    return transposed(node.inputs[0]) if node.op_type != "Transpose" else (node.name or "").startswith("pulsify/")


def scales_of(inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> Array | None:
    """The scales of a Resize or Upsample; None where they are not known."""
    index = 2 if len(inputs) > 2 else 1
    return constant(inputs[index]) if index < len(inputs) else np.asarray(attribute(attributes, "scales", ()))


@_on("QuantizeLinear", "DequantizeLinear")
def _quantised(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    return x


@_on("OneHot")
def _one_hot(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    axis = int(attribute(attributes, "axis", -1)) % (rank + 1)
    return Layout(rank + 1, x.rows + (axis <= x.rows))


@_on("DFT")
def _transformed(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    given = constant(inputs[2]) if opset >= 20 and len(inputs) > 2 else np.asarray(attribute(attributes, "axis", 1 if opset < 20 else -2))
    known = given is not None or inputs[2] is None
    return x if known and (-2 if given is None else int(given.reshape(-1)[0])) % rank != x.rows else UNKNOWN


@_on("Det")
def _determinant(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    return Layout(rank - 2, x.rows) if x.rows < rank - 2 else UNKNOWN


@_on("BranchwiseRMSNorm", "Inverse", "Trilu")
def _triangle(inputs: Sequence[Any], x: Layout, rank: int, attributes: Mapping[str, Any], opset: int) -> Layout:
    return x if x.rows < rank - 2 else UNKNOWN
