"""Editing a graph: new nodes before a node, new constants, and names that nothing has yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from pulsify_onnx.arrays import Array


def free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or a name like it that is not `taken`; it is then."""
    return free_names([wanted], taken)[0]


def free_names(wanted: Sequence[str], taken: set[str]) -> list[str]:
    """`wanted`, or names like them that end alike and are not `taken`; they are then."""
    names, k = list(wanted), 1
    while not taken.isdisjoint(names):
        names, k = [f"{name}_{k}" for name in wanted], k + 1
    taken.update(names)
    return names


def names_of(graph: ir.Graph) -> set[str]:
    """Names of all nodes and values of a graph and of the graphs in it."""
    found = {v.name for v in graph.inputs} | set(graph.initializers)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        found |= {node.name, *(out.name for out in node.outputs)}
    return {name for name in found if name}


class GraphEditor:
    """Adds to a graph.

    `label`: what new names say behind that of the node before which they stand, "{kind}" in it being node, value or
    number. Without one they are onnx_ir's, as at loading, where all names are looked through in the end. `taken`: names
    in use, where the caller has them.
    """

    def __init__(self, graph: ir.Graph, label: str = "", taken: set[str] | None = None):
        self.graph, self.label, self.count = graph, label, 0
        self.taken = taken if taken is not None else names_of(graph) if label else set()

    def before(self, node: ir.Node) -> Place:
        """Where new nodes go that `node` is to read."""
        return Place(self, node)

    def named(self, name: str, array: Array) -> ir.Value:
        """The constant of that name, made of `array` where there is none yet."""
        if name not in self.graph.initializers:
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=name)
            self.graph.register_initializer(
                ir.Value(
                    name=name, const_value=tensor, shape=ir.Shape(np.shape(array)), type=ir.TensorType(tensor.dtype)
                )
            )
            self.taken.add(name)
        return self.graph.initializers[name]

    def free_name(self, node: ir.Node, kind: str) -> str | None:
        """A name for something new before `node`; None without a label."""
        if not self.label:
            return None
        self.count += 1
        return free_name(f"{node.name}/{self.label.format(kind=kind)}_{self.count}", self.taken)


@dataclass(frozen=True)
class Place:
    """A place before `node`."""

    editor: GraphEditor
    node: ir.Node

    def op(
        self, op_type: str, *inputs: ir.Value | None, **attributes: int | Sequence[int] | Sequence[float]
    ) -> ir.Value:
        """The result of a new operator of the standard domain."""
        made = ir.Node(
            "",
            op_type,
            inputs,
            ir.convenience.convert_attributes(attributes),
            num_outputs=1,
            name=self.editor.free_name(self.node, "node"),
        )
        made.outputs[0].name = self.editor.free_name(self.node, "value")
        self.editor.graph.insert_before(self.node, made)
        return made.outputs[0]

    def constant(self, array: Array) -> ir.Value:
        """A new constant."""
        name = self.editor.free_name(self.node, "number")
        assert name is not None, "a constant has a name from the start"
        return self.editor.named(name, array)
