"""One node of a model of fixed length that is about to be read anew: what its constants are, and how to replace
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NoReturn

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Static
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import refuse
from pulsify_onnx.model.edit import GraphEditor
from pulsify_onnx.prepare.fixed_length.export import EXPORT, NUMBER, SHARE, AmbiguousConstant, Export, offered
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.runtime.sidecar import ReadAnew


class Rewriting:
    """One node with a stream among its inputs."""

    def __init__(self, export: Export, raw: ir.Node, node: Node):
        self.export, self.raw, self.node = export, raw, node
        self.place = GraphEditor(export.source.model.graph, "length/{kind}", export.taken).before(raw)

    def array(self, index: int) -> Array | None:
        """Constant value of an input."""
        fact = self.node.fact(index)
        if not isinstance(fact, Static):
            return None
        return fact.value.array if fact.value is not None else self.export.source.constant(fact.wire)

    def numbers(self, index: int) -> list[int] | None:
        """The same as a list of whole numbers; None where the input is left out or not constant."""
        found = self.array(index)
        return None if found is None else [int(v) for v in found.reshape(-1)]

    def constant(self, index: int) -> str:
        """Its name."""
        return self.node.inputs[index] or ""

    def value(self, array: Array) -> ir.Value:
        """A new initializer."""
        value = self.place.constant(array)
        self.export.walk.learn(value.name or "", value)
        return value

    def op(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """A new node before this one."""
        value = self.place.op(op_type, *inputs, **attributes)
        made = value.producer()
        assert made is not None
        self.export.walk.visit(made)
        return value

    def put(self, index: int, value: ir.Value, now: str, others: Sequence[Array] = ()) -> None:
        """Read input `index` from `value` instead."""
        name = self.constant(index)
        was = self.array(index)
        shown = "a value for each frame" if was is None or was.size > 8 else str(was.tolist())
        self.export.changes.append(ReadAnew(node=self.node.name, constant=name, was=shown, now=now))
        said = self.export.said(self.node.name, (NUMBER, SHARE)) if others else None
        for other in others if said is None else ():
            told = f"{now} or as {other.tolist()}"
            self.export.doubts.append(
                AmbiguousConstant(self.node.name, self.node.op_type, name, told, value.name or "", other)
            )
        self.raw.replace_input_with(index, value)

    def integers(self, index: int, values: Sequence[int], others: Sequence[Sequence[int]] = ()) -> None:
        """Read input `index` as these numbers."""
        like = self.array(index)
        assert like is not None
        if list(values) != self.numbers(index):
            made = [np.asarray(v, like.dtype).reshape(like.shape) for v in (values, *others)]
            if others and self.export.said(self.node.name, (NUMBER, SHARE)) == NUMBER:
                return
            self.put(index, self.value(made[0]), str(list(values)), made[1:])

    def length(self, source: ir.Value, axis: int, times: Fraction, plus: int = 0) -> ir.Value:
        """int64 [1]: dimension `axis` of `source`, times the top of a fraction, plus a number, divided by its
        bottom.
        """
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
        said = self.export.said(self.node.name, choices)
        return said or self.refuse(index, why, offered(EXPORT, self.node.name, choices))

    def refuse(self, index: int, why: str, hint: str = EXPORT) -> NoReturn:
        """Refuse the node for its constant."""
        refuse(f"its constant {self.constant(index)!r} {why}", hint)
