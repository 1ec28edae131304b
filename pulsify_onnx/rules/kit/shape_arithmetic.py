"""Shape arithmetic: the small integer subgraphs of exporters, evaluated on `Length` objects.

Every operator here works on numpy arrays of lengths, so constants and lengths in T take one path. What depends on T
in a way that has no `Length` gives None; it is then up to a rule, or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Fact, Running, ShapeTensor, Static
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import holds, larger, smaller
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.views import by_attribute

FOLDED = {
    "Constant": "Becomes an initializer.",
    "Shape": "Lengths are followed as expressions; the shape arithmetic of exporters vanishes.",
    "Size": "Lengths are followed as expressions; the shape arithmetic of exporters vanishes.",
}
"""Operators that are answered for where no rule does: their rows in the support table."""

MOST_SIZES = 4096
"""More elements than this are data, not sizes."""

_INTEGERS = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}


def evaluate_shapes(node: Node) -> Fact | None:
    """The fact of the only output of a node on Sizes and constants, or of ``Shape`` and ``Size``; None if it has
    none.
    """
    compute = _OPERATORS.get(node.op_type) if node.domain == "" else None
    if compute is None or len([o for o in node.outputs if o]) != 1:
        return None
    if node.op_type in ("Shape", "Size"):
        arrays: list[Array | None] = []
    else:
        arrays = []
        for fact in node.facts:
            if fact is None:
                arrays.append(None)
            elif isinstance(fact, ShapeTensor):
                arrays.append(fact.array())
            elif isinstance(fact, Static) and fact.value is not None and fact.value.array.size <= MOST_SIZES:
                arrays.append(_lengths(fact.value.array))
            else:
                return None
            if arrays[-1] is None and fact is not None:
                return None
    found = compute(node, arrays)
    if found is None or found.size > MOST_SIZES:
        return None
    return _fact(node, found)


def asks_for_sizes(node: Node) -> bool:
    """Whether it is a Shape or a Size."""
    return node.op_type in ("Shape", "Size") and node.domain == ""


def told(node: Node) -> bool:
    """Whether the sizes that a Shape or Size of a value that does not stream asks for follow from those of the
    graph's inputs.
    """
    fact = node.facts[0] if asks_for_sizes(node) else None
    if not isinstance(fact, (Static, Running)):
        return True
    return all(d.symbols() <= node.world.symbols for d in fact.shape)


def _lengths(array: Array) -> Array | None:
    if array.dtype.kind not in "iubf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        return None
    out = np.empty(array.size, dtype=object)
    out[:] = [Length.of(Fraction(v.item() if array.dtype.kind == "f" else int(v))) for v in array.ravel()]
    return out.reshape(array.shape)


def _fact(node: Node, found: Array) -> Fact:
    dtype = _dtype(node)
    values = tuple(found.ravel().tolist())
    if all(v.ratio is not None for v in values):
        numbers = np.array([float(v.ratio) if dtype.is_floating_point() else int(v.ratio) for v in values])
        array = numbers.astype(dtype.numpy()).reshape(found.shape)
        return Static(node.outputs[0], dtype, tuple(Length.of(d) for d in found.shape), Const(array))
    return ShapeTensor(node.outputs[0], dtype, found.shape, values)


def _dtype(node: Node) -> ir.DataType:
    if node.op_type in ("Shape", "Size"):
        return ir.DataType.INT64
    if node.op_type == "Cast":
        return ir.DataType(node.attr("to"))
    if node.op_type in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not"):
        return ir.DataType.BOOL
    if node.op_type == "ConstantOfShape":
        value = node.attr("value")
        return (
            ir.DataType.FLOAT
            if value is None
            else ir.DataType(value.data_type if hasattr(value, "data_type") else value.dtype)
        )
    index = 1 if node.op_type == "Where" else 0
    fact = node.facts[index]
    assert fact is not None and not hasattr(fact, "by")
    return fact.dtype


def _elementwise(f: Callable[..., Length | None]) -> Callable[[Node, list[Array | None]], Array | None]:
    def run(node: Node, arrays: list[Array | None]) -> Array | None:
        present = [a for a in arrays if a is not None]
        shape = np.broadcast_shapes(*(a.shape for a in present))
        flat = [np.broadcast_to(a, shape).ravel() for a in present]
        out = np.empty(math.prod(shape), dtype=object)
        for i, values in enumerate(zip(*flat)):
            value = f(node, *values)
            if value is None:
                return None
            out[i] = value
        return out.reshape(shape)

    return run


def _reduced(f: Callable[[Length, Length], Length | None]) -> Callable[[Node, list[Array | None]], Array | None]:
    """Elementwise on any number of inputs."""

    def many(node: Node, *values: Length) -> Length | None:
        total: Length | None = values[0]
        for v in values[1:]:
            total = None if total is None else f(total, v)
        return total

    return _elementwise(many)


def _divide(node: Node, a: Length, b: Length) -> Length | None:
    by = b.ratio
    if not by:
        return None
    if node.facts[0].dtype.is_floating_point():  # type: ignore[union-attr]
        return a * (1 / by)
    if by.denominator != 1:
        return None
    positive = holds(a, -1, 1)
    if not positive and not holds(a, 1, -1):  # ONNX divides integers towards zero
        return None
    return a.floordiv(int(by)) if positive == (by > 0) or a.ratio == 0 else -((-a).floordiv(int(by)))


def _modulo(node: Node, a: Length, b: Length) -> Length | None:
    by = b.constant
    return None if not by else a - a.floordiv(by) * by


def _compared(*signs: int) -> Callable[..., Length | None]:
    def run(node: Node, a: Length, b: Length) -> Length | None:
        answer = holds(a, b, *signs)
        if answer is None and not (a - b).moves:
            refuse(
                f"it compares {a} with {b}, which is true of some sizes and not of others",
                hint="export with fixed sizes for all axes but time",
            )
        return None if answer is None else Length.of(int(answer))

    return run


def _cast(node: Node, a: Length) -> Length | None:
    to = ir.DataType(node.attr("to"))
    if to == ir.DataType.BOOL:
        truth = holds(a, 0, -1, 1)
        return None if truth is None else Length.of(int(truth))
    if to in _INTEGERS:
        if a.floor() == a:
            return a
        positive = holds(a, 0, 0, 1)
        return None if positive is None else a.floor() if positive else a.ceil()
    return a


def _where(node: Node, condition: Length, a: Length, b: Length) -> Length | None:
    return (a if condition.constant else b) if condition.constant is not None else None


def _not(node: Node, a: Length) -> Length | None:
    return None if a.constant is None else Length.of(1 - a.constant)


def _shape(node: Node, arrays: list[Array | None]) -> Array | None:
    fact = node.facts[0]
    assert fact is not None
    dims = shape_of(fact)
    start, end = node.attr("start", 0) or 0, node.attr("end")
    return _vector(dims[start:end])


def _size(node: Node, arrays: list[Array | None]) -> Array | None:
    fact = node.facts[0]
    assert fact is not None
    out = np.empty((), dtype=object)
    out[()] = math.prod(shape_of(fact), start=Length.of(1))
    return out


def _vector(values: tuple[Length, ...]) -> Array:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _ints(array: Array | None) -> list[int] | None:
    if array is None:
        return None
    values = [v.constant for v in array.ravel()]
    return None if any(v is None for v in values) else [int(v) for v in values]


def _gather(node: Node, arrays: list[Array | None]) -> Array | None:
    data, indices = arrays
    assert data is not None and indices is not None
    at = _ints(indices)
    return (
        None
        if at is None
        else np.asarray(
            np.take(data, np.array(at, dtype=int).reshape(indices.shape), axis=node.attr("axis", 0)), dtype=object
        )
    )


def _concat(node: Node, arrays: list[Array | None]) -> Array | None:
    return np.concatenate([a for a in arrays if a is not None], axis=node.attr("axis"))


def _slice(node: Node, arrays: list[Array | None]) -> Array | None:
    data = arrays[0]
    assert data is not None
    if by_attribute(node, "starts"):
        starts, ends, axes, steps = node.ints("starts"), node.ints("ends"), node.ints("axes"), None
    else:
        starts, ends, axes, steps = (_ints(arrays[k]) if k < len(arrays) else None for k in (1, 2, 3, 4))
    if starts is None or ends is None:
        return None
    index = [slice(None)] * data.ndim
    for k, axis in enumerate(axes if axes is not None else range(len(starts))):
        step = steps[k] if steps else 1
        end: int | None = ends[k]
        if step < 0 and ends[k] < -data.shape[axis]:
            end = None
        index[axis] = slice(starts[k], end, step)
    return data[tuple(index)]


def _axes(node: Node, arrays: list[Array | None]) -> list[int] | None:
    return node.ints("axes") if by_attribute(node, "axes") else _ints(arrays[1]) if len(arrays) > 1 else None


def _squeeze(node: Node, arrays: list[Array | None]) -> Array | None:
    assert arrays[0] is not None
    axes = _axes(node, arrays)
    return np.squeeze(arrays[0], tuple(axes) if axes is not None else None)


def _unsqueeze(node: Node, arrays: list[Array | None]) -> Array | None:
    axes = _axes(node, arrays)
    return None if axes is None or arrays[0] is None else np.expand_dims(arrays[0], tuple(axes))


def _reshape(node: Node, arrays: list[Array | None]) -> Array | None:
    target = _ints(arrays[1])
    return None if target is None or arrays[0] is None or 0 in target else arrays[0].reshape(target)


def _transpose(node: Node, arrays: list[Array | None]) -> Array | None:
    assert arrays[0] is not None
    return np.transpose(arrays[0], node.ints("perm"))


def _expand(node: Node, arrays: list[Array | None]) -> Array | None:
    target = _ints(arrays[1])
    if target is None or arrays[0] is None:
        return None
    return np.broadcast_to(arrays[0], np.broadcast_shapes(arrays[0].shape, tuple(target)))


def _product(node: Node, arrays: list[Array | None]) -> Array | None:
    data = arrays[0]
    assert data is not None
    axes = _axes(node, arrays)
    out = np.prod(data, axis=tuple(axes) if axes else None, keepdims=bool(node.attr("keepdims", 1)))
    return np.asarray(out, dtype=object)


_Evaluator = Callable[[Node, list[Array | None]], "Array | None"]

_OPERATORS: dict[str, _Evaluator] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "ReduceProd": _product,
    "Identity": _elementwise(lambda node, a: a),
    "Cast": _elementwise(_cast),
    "Add": _reduced(lambda a, b: a + b),
    "Sub": _reduced(lambda a, b: a - b),
    "Mul": _reduced(lambda a, b: a * b),
    "Min": _reduced(smaller),
    "Max": _reduced(larger),
    "Div": _elementwise(_divide),
    "Mod": _elementwise(_modulo),
    "Neg": _elementwise(lambda node, a: -a),
    "Floor": _elementwise(lambda node, a: a.floor()),
    "Ceil": _elementwise(lambda node, a: a.ceil()),
    "Equal": _elementwise(_compared(0)),
    "Less": _elementwise(_compared(-1)),
    "LessOrEqual": _elementwise(_compared(-1, 0)),
    "Greater": _elementwise(_compared(1)),
    "GreaterOrEqual": _elementwise(_compared(0, 1)),
    "Where": _elementwise(_where),
    "Not": _elementwise(_not),
    "And": _reduced(lambda a, b: a * b),
    "Or": _reduced(larger),
}
