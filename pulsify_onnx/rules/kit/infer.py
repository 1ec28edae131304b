"""Types and shapes of a node's outputs, by onnx's own inference on that node alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import (
    Blocked,
    Deferred,
    Fact,
    Nothing,
    QueryKey,
    RelativeScores,
    Running,
    Shape,
    ShapeTensor,
    Static,
    Stream,
    WindowValue,
)
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import InvalidModel, Refusal
from pulsify_onnx.model.subgraphs import subgraphs
from pulsify_onnx.ort import ROUNDED, session
from pulsify_onnx.rules.kit.graph_types import Inferred, infer_nodes
from pulsify_onnx.rules.kit.node import Node


class NotInferred(Refusal, ValueError):
    """The types of a node's outputs can't be told: it is not as its schema says, or its inputs are not."""

    def __init__(self, problem: str):
        super().__init__(
            f"the type of its result can't be told ({' '.join(problem.split())})"[:300],
            "check the model with onnx.checker",
        )


def shape_of(fact: Fact) -> Shape:
    """The batch shape of a wire."""
    if isinstance(fact, ShapeTensor):
        return tuple(Length.of(d) for d in fact.shape)
    if isinstance(fact, Stream):
        return fact.whole
    if isinstance(fact, (Static, QueryKey, RelativeScores, Running, Deferred, Nothing, WindowValue)):
        return fact.shape
    raise TypeError(f"a blocked wire has no shape: {fact}")


_AS_FIRST = {"GroupNormalization", "MeanVarianceNormalization"}
"""Functions that onnx infers no shape for: it is that of their first input."""

_SAME_TYPES = {"LessOrEqual": "Less", "GreaterOrEqual": "Greater"}
"""Functions, which onnx infers no shape for in old opsets, and operators of the same types."""


MOST_KNOWN = 1024
"""Values of constants of more elements are not handed to the inference."""


def infer(node: Node, facts: tuple[Fact | None, ...] | None = None, measured: bool = True) -> list[Inferred]:
    """(dtype, shape) of every output; a dimension that onnx can't tell is None. Raises `NotInferred`.

    Not `measured`: sizes as onnx's inference has them, by which onnxruntime checks a file, where running gives others.
    """
    facts = node.facts if facts is None else facts
    if subgraphs(node.attributes.values()):
        return _infer_outer(node, facts)
    kind = node.op_type if node.domain else _SAME_TYPES.get(node.op_type, node.op_type)
    inputs = tuple(None if fact is None else _input(fact) for fact in facts)
    found = _inferred(kind, node.domain, node.opset, node.kept, tuple(map(bool, node.outputs)), inputs)
    out: list[Inferred] = []
    for dtype, told in found:
        shape = told
        if shape is not None and dtype != ir.DataType.UNDEFINED:
            shape = (
                _counted(shape, facts[0]) if kind == "Reshape" else _repeated(shape, facts) if kind == "Tile" else shape
            )
            shape = _measured(node, facts, shape) if measured and kind in ROUNDED else shape
        elif kind in _AS_FIRST and facts[0] is not None and dtype != ir.DataType.UNDEFINED:
            shape = shape_of(facts[0])
        out.append((dtype, shape))
    return out


Input = tuple[ir.DataType, Shape, Const | None]
"""What onnx's inference may know of an input: its type, its shape, and its value where that is known and small."""


def _input(fact: Fact) -> Input:
    assert not isinstance(fact, Blocked)
    small = isinstance(fact, Static) and fact.value is not None and fact.value.array.size <= MOST_KNOWN
    return fact.dtype, shape_of(fact), fact.value if isinstance(fact, Static) and small else None


@lru_cache(maxsize=4096)
def _inferred(
    kind: str,
    domain: str,
    opset: int,
    attributes: tuple[tuple[str, Attribute], ...],
    outputs: tuple[bool, ...],
    inputs: tuple[Input | None, ...],
) -> list[Inferred]:
    """(dtype, shape) of every output as onnx has them, or onnxruntime for an operator that onnx has no schema of."""
    names: dict[str, Length] = {}
    types, data = {}, {}
    for k, told in enumerate(inputs):
        if told is None:
            continue
        dtype, shape, value = told
        names |= {str(d): d for d in shape if d.constant is None}
        dims = [str(d) if d.constant is None else d.constant for d in shape]
        types[f"i{k}"] = helper.make_tensor_type_proto(dtype.value, dims)
        if value is not None:
            data[f"i{k}"] = onnx.numpy_helper.from_array(value.array)
    proto = onnx.NodeProto(
        op_type=kind,
        domain=domain,
        input=["" if told is None else f"i{k}" for k, told in enumerate(inputs)],
        output=[f"o{k}" if there else "" for k, there in enumerate(outputs)],
    )
    proto.attribute.extend(ir.serde.serialize_attribute(kept.attr) for _, kept in attributes)
    try:
        schema = onnx.defs.get_schema(kind, opset, domain)
    except onnx.defs.SchemaError:
        return _by_runtime(domain, opset, proto, types, data, names)
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    proto.output[:] = [
        o or (f"o{k}" if k < len(schema.outputs) and schema.outputs[k].option == single else "")
        for k, o in enumerate(proto.output)
    ]
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=10
        )
    except Exception as problem:
        raise NotInferred(str(problem)) from problem
    out: list[Inferred] = []
    for k, there in enumerate(outputs):
        if not there:
            out.append((ir.DataType.UNDEFINED, None))
            continue
        tensor = found[f"o{k}"].tensor_type if f"o{k}" in found and found[f"o{k}"].HasField("tensor_type") else None
        if tensor is None:
            raise NotInferred(f"no type for output {k}")
        sizes = (
            Length.of(d.dim_value) if d.HasField("dim_value") else names.get(d.dim_param) for d in tensor.shape.dim
        )
        out.append((ir.DataType(tensor.elem_type), tuple(sizes) if tensor.HasField("shape") else None))
    return out


_SPREADING = {"Range", "ConstantOfShape", "Expand", "Tile", "Pad", "Resize", "Upsample", "OneHot", "EyeLike"}


def vast(node: Node) -> bool:
    """Whether an operator makes more of its small inputs than is folded, so that running it might take all memory."""
    if node.domain or node.op_type not in _SPREADING:
        return False
    try:
        shape = infer(node, measured=False)[0][1]
    except NotInferred:
        return False
    return shape is not None and math.prod(d.constant or 1 for d in shape if d is not None) > evaluate.FOLDED_ELEMENTS


def overstated(node: Node, shape: tuple[Length | None, ...]) -> dict[int, int]:
    """Sizes by axis of `shape`, which `infer` gave for the first output, of which onnx's inference alone says more."""
    if node.op_type not in ROUNDED or node.domain:
        return {}
    told = infer(node, measured=False)[0][1] or ()
    return {
        k: d.constant
        for k, (d, t) in enumerate(zip(shape, told))
        if d is not None
        and t is not None
        and d.constant is not None
        and t.constant is not None
        and d.constant < t.constant
    }


def _measured(
    node: Node, facts: tuple[Fact | None, ...], shape: tuple[Length | None, ...]
) -> tuple[Length | None, ...]:
    """`shape` with the sizes that onnxruntime gives where those of the input are known, found by running the
    operator on zeros.
    """
    x = facts[0]
    if x is None or len(shape) != len(shape_of(x)):
        return shape
    dims, resized = shape_of(x), node.op_type in ("Resize", "Upsample")
    if not resized and not node.attr("ceil_mode", 0) and node.attr("auto_pad", "NOTSET") == "NOTSET":
        return shape
    run = _resized(facts) if resized else _in_windows(node, facts)
    if run is None:
        return shape
    inputs, changes = run
    found = evaluate.evaluate(node.op_type, inputs, {**node.attributes, **changes}, opset=node.opset)
    if found is None:
        return shape
    return tuple(
        d if dims[k].constant is None or (k < 2 and not resized) else Length.of(n)
        for k, (d, n) in enumerate(zip(shape, found[0].shape))
    )


def _resized(facts: tuple[Fact | None, ...]) -> tuple[list[Array | None], dict[str, Any]] | None:
    """Inputs of a resampling of an input whose size is known, by scales that are not whole."""
    values = [f.value.array if isinstance(f, Static) and f.value is not None else None for f in facts[1:]]
    dims = [d.constant for d in shape_of(facts[0])]  # type: ignore[arg-type]
    known = all((v is None) == (f is None) for v, f in zip(values, facts[1:])) and None not in dims
    whole = all(v is None or not v.size or v.dtype.kind != "f" or (v == np.floor(v)).all() for v in values)
    size = math.prod(d for d in dims if d is not None)
    return (
        ([np.zeros([d or 0 for d in dims], np.float32), *values], {})
        if known and not whole and size <= evaluate.FOLDED_ELEMENTS
        else None
    )


def _in_windows(node: Node, facts: tuple[Fact | None, ...]) -> tuple[list[Array | None], dict[str, Any]] | None:
    """Inputs and attributes of a pool or transposed convolution of one channel; axes of unknown size are long enough
    for a window.
    """
    kernel = node.ints("kernel_shape") or [d.constant or 0 for d in shape_of(facts[1])[2:]]  # type: ignore[arg-type]
    spans = [k * d for k, d in zip(kernel, node.ints("dilations") or [1] * len(kernel))]
    size = [1, 1, *(s if d.constant is None else d.constant for s, d in zip(spans, shape_of(facts[0])[2:]))]  # type: ignore[arg-type]
    if math.prod(size) > 1 << 22 or facts[0] is None:
        return None
    x = np.zeros(size, facts[0].dtype.numpy())  # type: ignore[union-attr]
    return ([x, np.zeros([1, 1, *kernel], x.dtype)], {"group": 1}) if node.op_type == "ConvTranspose" else ([x], {})


def _counted(shape: tuple[Length | None, ...], source: Fact | None) -> tuple[Length | None, ...]:
    """The only dimension of a reshaped tensor that is not known, by the number of its elements."""
    rest = math.prod(d.constant or 0 for d in shape if d is not None)
    if source is None or shape.count(None) != 1 or not rest:
        return shape
    whole = math.prod(shape_of(source), start=Length.of(1))
    own = whole.floordiv(rest)
    return tuple(own if d is None and own * rest == whole else d for d in shape)


def _repeated(shape: tuple[Length | None, ...], facts: tuple[Fact | None, ...]) -> tuple[Length | None, ...]:
    """The dimensions of a tiled tensor that onnx gives no name: those of the source as often as they are repeated."""
    source, repeats = facts[0], facts[1] if len(facts) == 2 else None
    if (
        source is None
        or not isinstance(repeats, Static)
        or repeats.value is None
        or repeats.value.array.shape != (len(shape),)
    ):
        return shape
    return tuple(own * int(n) if d is None else d for d, own, n in zip(shape, shape_of(source), repeats.value.array))


def _infer_outer(node: Node, facts: tuple[Fact | None, ...]) -> list[Inferred]:
    """The same for a node with subgraphs, which also read outer values."""
    inputs = {
        name: (fact.dtype, shape_of(fact))
        for name, fact in [*zip(node.inputs, facts), *node.outer.items()]
        if name and fact is not None and not isinstance(fact, Blocked)
    }
    constants = {
        name: fact.value
        for name, fact in [*zip(node.inputs, facts), *node.outer.items()]
        if name and isinstance(fact, Static) and fact.value is not None
    }
    proto = onnx.NodeProto(
        op_type=node.op_type, domain=node.domain, input=[n or "" for n in node.inputs], output=node.outputs
    )
    proto.attribute.extend(ir.serde.serialize_attribute(a) for a in node.attributes.values())
    wanted = [helper.make_tensor_value_info(o, 0, None) for o in node.outputs if o]
    found = iter(
        infer_nodes(
            [proto],
            [onnx.numpy_helper.from_array(v.array, n) for n, v in constants.items()],
            {n: t for n, t in inputs.items() if n not in constants},
            wanted,
            {},
            node.opset,
        )
    )
    return [next(found) if o else (ir.DataType.UNDEFINED, None) for o in node.outputs]


def _by_runtime(
    domain: str,
    opset: int,
    proto: onnx.NodeProto,
    types: Mapping[str, onnx.TypeProto],
    data: Mapping[str, onnx.TensorProto],
    names: Mapping[str, Length],
) -> list[Inferred]:
    """Output types of a model of that node alone, as onnxruntime sees them."""
    for name, tensor in data.items():
        tensor.name = name
    graph = helper.make_graph(
        [proto],
        "types",
        [helper.make_value_info(n, t) for n, t in types.items() if n not in data],
        [onnx.ValueInfoProto(name=o) for o in proto.output if o],
        list(data.values()),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(d, v) for d, v in {"": 17, domain: opset}.items()],
        ir_version=8,
    )
    try:
        found = {o.name: o for o in session(model.SerializeToString(), severity=4, plain=True).get_outputs()}
    except InvalidModel as problem:
        raise NotInferred(str(problem.__cause__)) from problem
    out: list[Inferred] = []
    for name in proto.output:
        if not name:
            out.append((ir.DataType.UNDEFINED, None))
            continue
        kind = found[name].type
        if not kind.startswith("tensor("):
            raise NotInferred(f"{kind} is no tensor")
        dims = tuple(Length.of(d) if isinstance(d, int) else names.get(d or "") for d in found[name].shape)
        out.append((_RUNTIME_TYPES.get(kind[7:-1]) or ir.DataType[kind[7:-1].upper()], dims or None))
    return out


_RUNTIME_TYPES = {
    "float": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "double": ir.DataType.DOUBLE,
    "bfloat16": ir.DataType.BFLOAT16,
}
