"""How precisely a model computes: the types that its values pass through."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 2e-4, "float64": 1e-7}


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def float_types(graph: onnx.GraphProto) -> set[str]:
    """The floating-point types that values pass through: the least precise one sets the tolerance."""
    kinds = {t.data_type for t in graph.initializer} | {
        v.type.tensor_type.elem_type for v in [*graph.input, *graph.output]
    }
    for node in nodes(graph):
        kinds |= {a.i for a in node.attribute if a.name == "to"}
    names = {
        onnx.TensorProto.FLOAT16: "float16",
        onnx.TensorProto.FLOAT: "float32",
        onnx.TensorProto.DOUBLE: "float64",
        onnx.TensorProto.BFLOAT16: "bfloat16",
    }
    return {names[k] for k in kinds if k in names}
