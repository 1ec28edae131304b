"""The model as it is read: loaded, checked, inlined, and without what nothing reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from pulsify_onnx.bodies import subgraphs
from pulsify_onnx.errors import InvalidModel
from pulsify_onnx.facts import Array

OLDEST = 7
NEWEST_IR = 14


@dataclass(frozen=True)
class Source:
    """A batch model ready for analysis. ``opset`` is that of ai.onnx."""

    model: ir.Model
    file: str
    sha256: str
    opset: int

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Graph inputs that are not initializers with a default."""
        graph = self.model.graph
        return tuple(v for v in graph.inputs if v.name not in graph.initializers)

    def constant(self, name: str) -> Array | None:
        """Value of an initializer."""
        value = self.model.graph.initializers.get(name)
        return None if value is None or value.const_value is None else np.asarray(value.const_value.numpy())


def load(model: str | Path | ir.Model | onnx.ModelProto) -> Source:
    """Read a model from a file (external data stays on disk) or from memory. Raises `InvalidModel`."""
    file, digest = "", ""
    try:
        if isinstance(model, (str, Path)):
            path = Path(model)
            if not path.is_file():
                raise InvalidModel(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
            file, digest = path.name, _sha256(path)
            found = ir.load(path)
        elif isinstance(model, onnx.ModelProto):
            found = ir.from_proto(model)
        else:
            found = model.clone() if hasattr(model, "clone") else ir.from_proto(ir.to_proto(model))
        return Source(_prepared(found, file), file, digest, found.opset_imports.get("", 0))
    except InvalidModel:
        raise
    except Exception as problem:
        raise InvalidModel(f"{file or 'model'}: not a valid ONNX model ({type(problem).__name__}: {_first_line(problem)})") from problem


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip()
    return text.splitlines()[0][:200] if text else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _prepared(model: ir.Model, file: str) -> ir.Model:
    graph = model.graph
    if not graph.outputs:
        raise InvalidModel(f"{file or 'model'}: not an ONNX model, or one without outputs")
    opset = model.opset_imports.get("", 0)
    if opset < OLDEST:
        raise InvalidModel(f"{file or 'model'}: opset {opset} is older than {OLDEST}; convert it with onnx.version_converter")
    for inlining in (common.InlinePass(), common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
                     common.TopologicalSortPass(), common.RemoveUnusedNodesPass()):
        inlining(model)
    _name_all(graph)
    return model


def _name_all(graph: ir.Graph) -> None:
    """Unique names for all nodes and values; those of inputs, outputs and initializers stay."""
    fixed = {v.name for v in [*graph.inputs, *graph.outputs] if v.name} | set(graph.initializers)
    taken = set(fixed)
    for k, node in enumerate(graph):
        for j, out in enumerate(node.outputs):
            if out.is_graph_output():
                continue
            if not out.uses():
                out.name = ""
            elif not out.name or out.name in taken:
                out.name = _free(f"{out.name or node.op_type}_{k}_{j}", taken)
            taken.add(out.name or "")
        if not node.name:
            node.name = next((o.name for o in node.outputs if o.name), None) or f"{node.op_type}_{k}"
    for node in graph:
        for inner in subgraphs(node.attributes.values()):
            _name_inside(inner, graph, taken, node.name or "")


def _name_inside(graph: ir.Graph, main: ir.Graph, taken: set[str], where: str) -> None:
    """Names that no other subgraph has, since branches are walked in place of their node; constants move to the main graph."""
    def rename(value: ir.Value, wanted: str) -> None:
        value.name = _free(wanted, taken)
        taken.add(value.name)

    for name, value in list(graph.initializers.items()):
        graph.initializers.pop(name)
        rename(value, name)
        main.register_initializer(value)
        if value.is_graph_output():  # a subgraph gives only what it computes
            copy = ir.Node("", "Identity", [value], num_outputs=1)
            graph.append(copy)
            for k, out in enumerate(graph.outputs):
                if out is value:
                    graph.outputs[k] = copy.outputs[0]
    for value in graph.inputs:
        rename(value, value.name or "in")
    for k, node in enumerate(graph):
        for j, out in enumerate(node.outputs):
            if out.uses() or out.is_graph_output():
                rename(out, out.name or f"{node.op_type}_{k}_{j}")
            else:
                out.name = ""
        node.name = node.name or next((o.name for o in node.outputs if o.name), None) or f"{where}/{node.op_type}_{k}"
        for inner in subgraphs(node.attributes.values()):
            _name_inside(inner, main, taken, node.name or where)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
