"""Types of what a subgraph gives, by onnx's own inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
import onnx_ir as ir
from onnx import helper

from pulsify_onnx.algebra.facts import Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Const

MOST_TOLD = 1 << 16
"""The largest dimension of which onnx is asked to follow values: it would list them one by one."""

Typed = tuple[ir.DataType, Shape]

Inferred = tuple[ir.DataType, tuple[Length | None, ...] | None]


def infer_graph(
    graph: ir.Graph, inputs: Mapping[str, Typed], constants: Mapping[str, Const], opset: int
) -> list[Inferred]:
    """(dtype, shape) of the outputs of a subgraph on `inputs` and outer `constants`; what onnx can't tell is as
    declared, or None.
    """
    proto = ir.serde.serialize_graph(graph)
    declared = {v.name: v for v in proto.output}
    rows = [helper.make_tensor_value_info(v.name or "", ir.DataType.UNDEFINED.value, None) for v in graph.outputs]
    values = [*proto.initializer, *(onnx.numpy_helper.from_array(v.array, n) for n, v in constants.items())]
    return infer_nodes(proto.node, values, inputs, rows, declared, opset)


def infer_nodes(
    nodes: Iterable[onnx.NodeProto],
    initializers: Iterable[onnx.TensorProto],
    inputs: Mapping[str, Typed],
    outputs: list[onnx.ValueInfoProto],
    declared: Mapping[str, onnx.ValueInfoProto],
    opset: int,
) -> list[Inferred]:
    """(dtype, shape) of `outputs` of a graph of `nodes` on typed `inputs`. Raises ValueError where onnx can't tell a
    type.
    """
    names: dict[str, Length] = {}
    rows = [
        helper.make_tensor_value_info(name, dtype.value, [_dim(d, names) for d in shape])
        for name, (dtype, shape) in inputs.items()
    ]
    graph = helper.make_graph(list(nodes), "body", rows, outputs, list(initializers))
    domains = {n.domain for n in graph.node} - {"", "ai.onnx"}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in sorted(domains))],
        ir_version=10,
    )
    told = all(d.constant is None or d.constant <= MOST_TOLD for _, shape in inputs.values() for d in shape)
    try:
        found = {v.name: v for v in onnx.shape_inference.infer_shapes(model, data_prop=told).graph.output}
    except Exception as problem:
        raise ValueError(str(problem)) from problem
    out: list[Inferred] = []
    for value in outputs:
        tensor = found[value.name].type.tensor_type
        told = declared[value.name].type.tensor_type if value.name in declared else tensor
        kind = tensor.elem_type or told.elem_type
        if not kind:
            raise ValueError(f"no type for {value.name}")
        out.append((ir.DataType(kind), _merged(_shape(tensor, names), _shape(told, names))))
    return out


def _dim(d: Length, names: dict[str, Length]) -> int | str:
    if d.constant is not None:
        return d.constant
    names[str(d)] = d
    return str(d)


def _shape(tensor: onnx.TypeProto.Tensor, names: Mapping[str, Length]) -> tuple[Length | None, ...] | None:
    if not tensor.HasField("shape"):
        return None
    return tuple(
        Length.of(d.dim_value) if d.HasField("dim_value") else names.get(d.dim_param) for d in tensor.shape.dim
    )


def _merged(
    a: tuple[Length | None, ...] | None, b: tuple[Length | None, ...] | None
) -> tuple[Length | None, ...] | None:
    if a is None or b is None or len(a) != len(b):
        return a if a is not None else b
    return tuple(x if x is not None else y for x, y in zip(a, b))
