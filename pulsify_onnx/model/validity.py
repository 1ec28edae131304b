"""Whether a model that could be read makes sense: every name is defined once, every tensor has its data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from pulsify_onnx.errors import InvalidModel

OLDEST = 7


def check_model(model: ir.Model) -> None:
    """Raise `InvalidModel` where the model is not valid, saying what is wrong in one line."""
    graph = model.graph
    opset, newest = model.opset_imports.get(""), onnx.defs.onnx_opset_version()
    if not graph.outputs:
        raise InvalidModel("not an ONNX model, or one without outputs")
    if opset is None:
        raise InvalidModel("it imports no opset of ai.onnx")
    if opset < OLDEST:
        raise InvalidModel(f"opset {opset} is older than {OLDEST}; convert it with onnx.version_converter")
    if opset > newest:
        raise InvalidModel(f"opset {opset} is newer than {newest}, the newest that the installed onnx knows")
    _once((v.name for v in graph.inputs), "input")
    _once((v.name for v in graph.outputs), "output")
    for value in graph.inputs:
        if value.name not in graph.initializers and (
            not isinstance(value.type, ir.TensorType) or value.dtype == ir.DataType.UNDEFINED
        ):
            raise InvalidModel(
                f"input {value.name!r} has no type"
                if value.dtype in (None, ir.DataType.UNDEFINED)
                else f"input {value.name!r} is no tensor: {value.type}"
            )
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            raise InvalidModel(f"input {value.name!r} has a negative dimension: {value.shape}")
    _texts(model)
    _graph(graph, set())
    for function in model.functions.values():
        for node in ir.traversal.RecursiveGraphIterator(function):
            _words(node)


def _texts(model: ir.Model) -> None:
    """Texts that go into the pulsed model are texts: protobuf gives bytes where they are not UTF-8."""
    labels = [d.value for v in model.graph.inputs for d in v.shape or () if not isinstance(d, int)]
    for text in (model.graph.name, *labels, *model.metadata_props.items(), *model.opset_imports):
        for word in text if isinstance(text, tuple) else (text,):
            if word is not None and not isinstance(word, str):
                raise InvalidModel(f"{word!r} is no text")


def _once(names: Iterable[str | None], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise InvalidModel(f"an {what} has no name")
        if name in seen:
            raise InvalidModel(f"{what} {name!r} appears twice")
        seen.add(name)


def _graph(graph: ir.Graph, outer: set[ir.Value]) -> None:
    """Every value that is read is made in this graph or around it; the order of nodes does not matter."""
    if not isinstance(graph.name or "", str):
        raise InvalidModel(f"a graph is called {graph.name!r}, which is no text")
    known = {*outer, *graph.inputs, *graph.initializers.values()}
    for node in graph:
        known.update(node.outputs)
    for name, value in graph.initializers.items():
        if value.const_value is None:
            raise InvalidModel(f"initializer {name!r} has no data")
        _tensor(value.const_value, name)
    for node in graph:
        title = _words(node)
        for read in node.inputs:
            if read is not None and read not in known:
                raise InvalidModel(f"{title} reads {read.name!r}, which nothing defines")
        for attr in node.attributes.values():
            if attr.type == ir.AttributeType.UNDEFINED:
                raise InvalidModel(f"{title} has an attribute {attr.name!r} of no type")
            if attr.type == ir.AttributeType.GRAPH:
                _graph(attr.as_graph(), known)
            elif attr.type == ir.AttributeType.TENSOR:
                _tensor(attr.as_tensor(), f"{node.op_type}.{attr.name}")
    for value in graph.outputs:
        if value not in known:
            raise InvalidModel(f"output {value.name!r} is defined by nothing")


def _words(node: ir.Node) -> str:
    """What to call a node, whose names are all texts."""
    title = f"node {node.name!r}" if node.name else f"a node {node.op_type}"
    words = [
        node.op_type,
        node.domain,
        node.name or "",
        *node.attributes,
        *(v.name or "" for v in (*node.inputs, *node.outputs) if v is not None),
    ]
    if not node.op_type or not all(isinstance(word, str) for word in words):
        raise InvalidModel(f"{title} has no operator, or a name that is no text")
    return title


def _tensor(tensor: ir.TensorProtocol, name: str) -> None:
    if isinstance(tensor, ir.ExternalTensor):
        _external(tensor, name)
        if tensor.dtype != ir.DataType.BOOL:
            return  # it stays on disk
    try:
        array = tensor.numpy()
    except Exception as problem:
        raise InvalidModel(
            f"tensor {name!r} can't be read "
            f"({str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__})"
        ) from problem
    if array.dtype == bool and (np.ascontiguousarray(array).view(np.uint8) > 1).any():
        raise InvalidModel(f"tensor {name!r} has values that are neither true nor false")


def _external(tensor: ir.ExternalTensor, name: str) -> None:
    """Data outside the model file must lie beside it or below, and be long enough."""
    base = Path(tensor.base_dir or ".").resolve()
    path = (base / str(tensor.location)).resolve()
    if not path.is_relative_to(base):
        raise InvalidModel(f"the data of {name!r} is in {tensor.location!s}, outside the model's folder")
    if not path.is_file():
        raise InvalidModel(f"the data of {name!r} is missing: {path}")
    wanted = (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)
    if path.stat().st_size < wanted or (tensor.length is not None and tensor.length < tensor.nbytes):
        raise InvalidModel(
            f"the data of {name!r} in {path.name} is cut short: {wanted} bytes wanted, {path.stat().st_size} there"
        )
