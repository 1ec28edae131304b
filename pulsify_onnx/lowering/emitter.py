"""Writes ONNX nodes: shared constants, common subexpressions once, named by what of the source they serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.lowering.older_forms import older
from pulsify_onnx.lowering.writer import Writer
from pulsify_onnx.model.edit import free_name, free_names

OWN = "pulsify/"
"""What names of nodes and tensors begin with that the source does not have."""


def served(node: str, what: str) -> str:
    """The name of a node that the source does not have: what of the source it serves, and what it is."""
    return f"{OWN}{node}/{what}"


def serves(name: str) -> tuple[str, ...]:
    """What of the source a node may serve, by its `name`: one of these, where a node or a tensor is called so."""
    own = (name.removeprefix(OWN).rpartition("/")[0],) if name.startswith(OWN) else ()
    first, _, number = name.rpartition("_")
    return (*own, *((first,) if number.isdecimal() else ()))


class Emitter(Writer):
    """A graph under construction. Equal operators on equal inputs are written once. All rows are one stream.

    `serving`: what of the source they are written for now.
    """

    def __init__(self, opset: int, reserved: set[str], serving: Callable[[], str]):
        self.opset, self.serving = opset, serving
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.domains: set[str] = set()
        self._taken = set(reserved)
        self._node_names: set[str] = set()
        self._constants: dict[Const, ir.Value] = {}
        self._made: dict[Any, Sequence[ir.Value]] = {}
        self._count = 0
        self.any_pulse: Callable[[], ir.Value] | None = None
        """Of a graph for pulses of any size: a zero that is computed from the size of its pulse."""
        self.shared = {}

    def names(self, *wanted: str) -> list[str]:
        """`wanted`, or free names like them that end alike."""
        return free_names(wanted, self._taken)

    def constant(self, array: Array | Const) -> ir.Value:
        """An initializer for `array`."""
        key = array if isinstance(array, Const) else Const(array)
        if key not in self._constants:
            tensor = ir.tensor(key.array)
            value = ir.Value(
                name=self.name(f"pulsify/const_{len(self._constants)}"),
                const_value=tensor,
                shape=ir.Shape(key.array.shape),
                type=ir.TensorType(tensor.dtype),
            )
            self.initializers[value.name or ""] = value
            self._constants[key] = value
        return self._constants[key]

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        outputs: int = 1,
        node_name: str = "",
        rewire: Callable[[ir.Graph], ir.Graph] | None = None,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Outputs of an operator."""
        old = older(self, op_type, inputs, attributes, self.any_pulse) if domain == "" else None
        if old is not None:
            return (old,)
        attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()}
        key = (
            op_type,
            domain,
            tuple(id(v) if v is not None else None for v in inputs),
            outputs,
            tuple(sorted(attributes.items(), key=lambda pair: pair[0])),
        )
        if key in self._made:
            return self._made[key]
        attrs = [_attribute(k, v, rewire) for k, v in attributes.items()]
        node = ir.Node(
            domain,
            op_type,
            inputs,
            attrs,
            num_outputs=outputs,
            name=free_name(node_name or served(self.serving(), f"{op_type}_{len(self.nodes)}"), self._node_names),
        )
        for out in node.outputs:
            out.name = self.name(f"pulsify/{self._count}")
            self._count += 1
        if domain:
            self.domains.add(domain)
        self.nodes.append(node)
        self._made[key] = node.outputs
        return node.outputs

    def number(self, rows: ir.Value) -> ir.Value:
        """Its first entry."""
        return self.one("Gather", rows, self.constant(np.asarray(0, np.int64)), axis=0)

    def whole(self, value: ir.Value) -> ir.Value:
        """Every tensor is."""
        return value

    def regrouped(
        self, value: ir.Value, shape: ir.Value, rank: int, axis: int, within: tuple[Length, Length]
    ) -> ir.Value:
        """A Reshape."""
        return self.one("Reshape", value, shape)

    def settle(self, value: ir.Value, shape: Shape, static: bool) -> ir.Value:
        """As it is."""
        return value

    def measure(self, value: ir.Value, shape: Shape) -> ir.Value:
        """As it is."""
        return value

    def sized(self, shape: ir.Value, sizes: Shape) -> ir.Value:
        """As it is."""
        return shape

    def order(self, value: ir.Value, size: Length) -> tuple[Length, Length] | None:
        """It is not known."""
        return None

    def state(self, past: ir.Value, shape: Sequence[int | str], rank: int) -> ir.Value:
        """As it is."""
        return past

    def per_row(self, value: ir.Value) -> bool:
        """None has."""
        return False

    def remembered(self, value: ir.Value, shape: Sequence[int | str]) -> ir.Value:
        """As it is."""
        return value

    def note(self) -> None:
        """There is but one stream."""

    def passed_on(self, value: ir.Value, what: str) -> ir.Value:
        """`value` under a name of its own."""
        node = ir.Node("", "Identity", [value], name=free_name(served(self.serving(), what), self._node_names))
        self.nodes.append(node)
        return node.outputs[0]

    def prune(self, results: set[ir.Value]) -> None:
        """Drop what was written for nothing."""
        kept = []
        for node in reversed(self.nodes):
            if any(v in results or v.uses() for v in node.outputs):
                kept.append(node)
            else:
                for k in range(len(node.inputs)):
                    node.replace_input_with(k, None)
        self.nodes = kept[::-1]


def _attribute(name: str, value: Any, rewire: Callable[[ir.Graph], ir.Graph] | None) -> ir.Attr:
    if isinstance(value, Attribute):
        kept = value.attr
        if kept.type == ir.AttributeType.GRAPH and rewire is not None:
            return ir.AttrGraph(name, rewire(kept.as_graph()))
        return kept
    if isinstance(value, ir.Graph):
        return ir.AttrGraph(name, rewire(value) if rewire is not None else value)
    return ir.convenience.convert_attribute(name, list(value) if isinstance(value, tuple) else value)
