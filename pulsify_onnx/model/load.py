"""The model as it is read: loaded, checked, inlined, and without what nothing reads."""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import InvalidModel
from pulsify_onnx.model import large, validity
from pulsify_onnx.model.opsets import AtLeastOpset9, OneOpset
from pulsify_onnx.model.sequences import SequencesAsScanOutputs
from pulsify_onnx.model.subgraphs import subgraphs

BATCH_NAMES = {"b", "n", "bs", "bsz", "batch", "batchsize", "batch_size", "batch_dim", "nbatch", "n_batch", "num_batch"}
"""A first dimension of one of these names is the batch when another dimension is dynamic too."""


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
    """Read a model from a file (external data stays on disk) or from memory. Raises `InvalidModel`, and nothing
    else.
    """
    file, digest = "", ""
    try:
        if isinstance(model, (str, Path)):
            path = Path(model)
            if not path.is_file():
                raise InvalidModel("no such file" if not path.exists() else "not a file")
            file, digest = path.name, _sha256(path)
        with _quiet():
            found = _read(model)
            _one_name(found)
            validity.check_model(found)
            found = _prepared(found)
        return Source(found, file, digest, found.opset_imports[""])
    except InvalidModel as problem:
        raise InvalidModel(f"{model if isinstance(model, (str, Path)) else 'model'}: {problem}") from problem
    except Exception as problem:
        root = _root(problem)
        raise InvalidModel(
            f"{file or 'model'}: not a valid ONNX model ({type(root).__name__}: {_first_line(root)})"
        ) from problem


def _read(model: str | Path | ir.Model | onnx.ModelProto) -> ir.Model:
    """The model, of which nothing is the caller's but the data of its tensors."""
    if isinstance(model, ir.Model):
        found = model.clone()
    else:
        proto = model if isinstance(model, onnx.ModelProto) else _from_file(Path(model))
        found = ir.from_proto(proto)
        _passed_through(found.graph, proto.graph)
        if not isinstance(model, onnx.ModelProto):
            ir.external_data.set_base_dir(found.graph, Path(model).parent)
            return found
    _own_names(found)
    return found


def _from_file(path: Path) -> onnx.ModelProto:
    return (
        large.read_model(path)
        if path.stat().st_size > large.INLINE_LIMIT
        else onnx.load(path, load_external_data=False)
    )


def _passed_through(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    """An output that is an input has that one's type and shape, which an output need not tell."""
    types = {info.name: info.type for info in proto.input}
    for value in graph.inputs:
        if value.is_graph_output() and value.name in types:
            value.type = ir.serde.deserialize_type_proto_for_type(types[value.name])
            value.shape = ir.serde.deserialize_type_proto_for_shape(types[value.name])


def _own_names(model: ir.Model) -> None:
    """Tensors with names of their own on the data of those that the caller has: naming a value names its tensor, and
    that its protobuf.
    """

    def own(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.serde.TensorProtoTensor):
            return copy.copy(tensor)
        if tensor.dtype == ir.DataType.STRING:
            return ir.StringTensor(tensor.numpy().ravel().tolist(), shape=tensor.shape, name=tensor.name)
        return ir.LazyTensor(lambda: tensor, tensor.dtype, tensor.shape, cache=True, name=tensor.name)

    def graphs(graph: ir.Graph | ir.Function) -> None:
        for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
            value.const_value = None if value.const_value is None else own(value.const_value)
        for node in graph:
            for name, attr in list(node.attributes.items()):
                if attr.type == ir.AttributeType.TENSOR and not attr.is_ref():
                    node.attributes[name] = ir.AttrTensor(name, own(attr.as_tensor()))
            for inner in subgraphs(node.attributes.values()):
                graphs(inner)

    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        graphs(owner)


def _one_name(model: ir.Model) -> None:
    """The standard domain has two names; here it is the empty one."""
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        if "ai.onnx" in owner.opset_imports:
            owner.opset_imports.setdefault("", owner.opset_imports.pop("ai.onnx"))
        for node in ir.traversal.RecursiveGraphIterator(owner):
            if node.domain == "ai.onnx":
                node.domain = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """onnx_ir logs what is wrong with a model; `validity` says the same as an error."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _root(problem: BaseException) -> BaseException:
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return problem


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip()
    return text.splitlines()[0][:200] if text else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _prepared(model: ir.Model) -> ir.Model:
    for each in (
        OneOpset(),
        common.InlinePass(),
        AtLeastOpset9(),
        SequencesAsScanOutputs(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.TopologicalSortPass(),
        common.RemoveUnusedNodesPass(),
    ):
        each(model)
    _name_all(model.graph)
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
    """Names that no other subgraph has, since branches are walked in place of their node; constants move to the main
    graph.
    """

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
