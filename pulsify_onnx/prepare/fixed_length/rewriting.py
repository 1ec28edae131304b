"""One node of a model of fixed length that is about to be read anew: what its constants are, and how to replace them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Static
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.runtime.sidecar import ReadAnew

if TYPE_CHECKING:
    from pulsify_onnx.prepare.fixed_length.walk import Baked

EXPORT = "export the model with a dynamic length"
NUMBER, SHARE, FILL = "number", "share", "fill"
"""Answers to what a number of an export means: it is one, it follows the length, it fills up to a multiple of frames."""
READINGS = (NUMBER, SHARE, FILL)
ENDING = "convert without an end of stream, or export the model with a dynamic length"


@dataclass(frozen=True)
class Doubt:
    """A constant of `node` with another reading: a model that is tried, and what the two readings are in words."""

    node: str
    op_type: str
    constant: str
    told: str
    written: str = ""
    other: Array | None = field(default=None, compare=False)
    inputs: tuple[str | None, ...] = ()
    choices: tuple[str, ...] = (NUMBER, SHARE)

    def model(self, model: ir.Model) -> ir.Model:
        """A copy of the model in the other reading: with `other` as the initializer `written`, or with the node's `inputs` as they were."""
        copy = model.clone()
        if self.other is not None:
            copy.graph.initializers[self.written].const_value = ir.tensor(self.other)
            return copy
        node = next(n for n in copy.graph if n.name == self.node)
        known = {v.name: v for n in copy.graph for v in (*n.inputs, *n.outputs) if v is not None} | dict(copy.graph.initializers)
        node.resize_inputs(len(self.inputs))
        for k, name in enumerate(self.inputs):
            node.replace_input_with(k, None if name is None else known[name])
        return copy


def offered(hint: str, node: str, choices: Sequence[str]) -> str:
    """`hint`, and the options that answer which reading of `node` is meant."""
    return f"{hint}; or say what it is: " + " or ".join(f"--reading {shlex.quote(f'{node}={choice}')}" for choice in choices)


class Rewriting:
    """One node with a stream among its inputs."""

    def __init__(self, walker: Baked, raw: ir.Node, node: Node):
        self.walker, self.raw, self.node, self.count = walker, raw, node, 0

    def array(self, index: int) -> Array | None:
        """Constant value of an input."""
        fact = self.node.fact(index)
        if not isinstance(fact, Static):
            return None
        return fact.value.array if fact.value is not None else self.walker.source.constant(fact.wire)

    def numbers(self, index: int) -> list[int] | None:
        """The same as a list of whole numbers; None where the input is left out or not constant."""
        found = self.array(index)
        return None if found is None else [int(v) for v in found.reshape(-1)]

    def constant(self, index: int) -> str:
        """Its name."""
        return self.node.inputs[index] or ""

    def value(self, array: Array) -> ir.Value:
        """A new initializer."""
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)))
        value = ir.Value(name=self._free("number"), const_value=tensor, shape=ir.Shape(np.shape(array)), type=ir.TensorType(tensor.dtype))
        self.walker.source.model.graph.register_initializer(value)
        self.walker.learn(value.name or "", value)
        return value

    def op(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """A new node before this one."""
        made = ir.Node("", op_type, inputs, [ir.AttrInt64(k, v) for k, v in attributes.items()], name=self._free("node"))
        made.outputs[0].name = self._free("value")
        graph = self.walker.source.model.graph
        graph.insert_before(self.raw, made)
        self.walker.visit_made(made)
        return made.outputs[0]

    def _free(self, what: str) -> str:
        self.count += 1
        return f"{self.node.name}/length/{what}_{self.count}"

    def put(self, index: int, value: ir.Value, now: str, others: Sequence[Array] = ()) -> None:
        """Read input `index` from `value` instead."""
        name = self.constant(index)
        was = self.array(index)
        shown = "a value for each frame" if was is None or was.size > 8 else str(was.tolist())
        self.walker.changes.append(ReadAnew(node=self.node.name, constant=name, was=shown, now=now))
        said = self.walker.said(self.node.name, (NUMBER, SHARE)) if others else None
        for other in others if said is None else ():
            told = f"{now} or as {other.tolist()}"
            self.walker.doubts.append(Doubt(self.node.name, self.node.op_type, name, told, value.name or "", other))
        self.raw.replace_input_with(index, value)

    def integers(self, index: int, values: Sequence[int], others: Sequence[Sequence[int]] = ()) -> None:
        """Read input `index` as these numbers."""
        like = self.array(index)
        assert like is not None
        if list(values) != self.numbers(index):
            made = [np.asarray(v, like.dtype).reshape(like.shape) for v in (values, *others)]
            if others and self.walker.said(self.node.name, (NUMBER, SHARE)) == NUMBER:
                return
            self.put(index, self.value(made[0]), str(list(values)), made[1:])

    def length(self, source: ir.Value, axis: int, times: Fraction, plus: int = 0) -> ir.Value:
        """int64 [1]: dimension `axis` of `source`, times the top of a fraction, plus a number, divided by its bottom."""
        size = self.op("Gather", self.op("Shape", source), self.value(np.asarray([axis], np.int64)), axis=0)
        if times.numerator != 1:
            size = self.op("Mul", size, self.value(np.asarray([times.numerator], np.int64)))
        if plus:
            size = self.op("Add", size, self.value(np.asarray([plus], np.int64)))
        if times.denominator != 1:
            size = self.op("Div", size, self.value(np.asarray([times.denominator], np.int64)))
        return size

    def ask(self, index: int, why: str, choices: tuple[str, ...] = (NUMBER,)) -> str:
        """Which of the `choices` the node was said to mean; refuses it where nothing was said."""
        said = self.walker.said(self.node.name, choices)
        return said or self.refuse(index, why, offered(EXPORT, self.node.name, choices))

    def refuse(self, index: int, why: str, hint: str = EXPORT) -> NoReturn:
        """Refuse the node for its constant."""
        refuse(f"its constant {self.constant(index)!r} {why}", hint)
