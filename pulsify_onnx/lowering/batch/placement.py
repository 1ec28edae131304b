"""An emitter that knows where every tensor has the rows of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.length import Length
from pulsify_onnx.lowering.batch.layouts import MIXED, SHARED, UNKNOWN, Layout
from pulsify_onnx.lowering.writer import Emitter


class PlacedEmitter(Emitter):
    """Keeps the layouts of tensors and what is known of their shapes. ``shared``: nodes that rows share."""

    def __init__(self, opset: int, reserved: set[str], node: Callable[[], str]):
        super().__init__(opset, reserved)
        self._layouts: dict[int, Layout] = {}
        self._node = node
        self._writing = False
        self._sizes: dict[int, int] = {}
        self._shapes: dict[int, tuple[Length, ...]] = {}
        self.shared: dict[str, None] = {}

    def layout(self, value: ir.Value) -> Layout:
        """Where `value` has its rows."""
        if value.const_value is not None:
            return Layout(len(value.const_value.shape), SHARED)
        return self._layouts.get(id(value), UNKNOWN)

    def axes(self, value: ir.Value) -> int | None:
        """How many dimensions the tensor really has."""
        found = self.layout(value)
        return found.rank if found.rank is None or not found.lifted else found.rank + 1

    def place(self, value: ir.Value, layout: Layout) -> ir.Value:
        """Say where `value` has its rows."""
        if value.const_value is None:
            self._layouts[id(value)] = layout
        return value

    def settle(self, value: ir.Value, shape: tuple[Length, ...], rows: int, alone: bool) -> ir.Value:
        """What is known of a wire's tensor by its shape in a pulse: on which axis it has the batch (or SHARED, MIXED), `alone` or merged with other axes."""
        found, rank = self.layout(value), len(shape)
        self._shapes[id(value)] = shape
        if found.lifted:
            if found.rank == rank:
                self.place(value, replace(found, ones=tuple(a or b == Length.of(1) for a, b in zip(found.ones, shape))))
            return value
        if rows >= 0 and not alone:
            of_rows = shape[rows].over(found.within[0] * found.within[1]) if found.merged else None
            known = of_rows is not None and str(of_rows) in of_rows.symbols()
            return self.place(value, found if found.rows == SHARED else replace(found, rank=rank, rows=rows) if known else UNKNOWN)
        return self.place(value, Layout(rank, SHARED if found.rows == SHARED and rows == MIXED else rows))

    def regrouped(self, value: ir.Value, shape: ir.Value, layout: Layout) -> ir.Value:
        """`value` reshaped to a `shape` in which its rows are where `layout` says."""
        return self.place(self._one("Reshape", value, shape), layout)

    def order(self, value: ir.Value, size: Length) -> tuple[Length, Length] | None:
        """Sizes of the slower and the faster axis merged with the rows of `value` to a dimension of `size`, where it has one."""
        found, shape = self.layout(value), self._shapes.get(id(value))
        return found.within if found.merged and shape is not None and shape[found.rows] == size else None

    def measure(self, value: ir.Value, shape: tuple[Length, ...]) -> ir.Value:
        """Say what the shape of `value` is in a pulse."""
        self._shapes[id(value)] = shape
        return value

    def sized(self, shape: ir.Value, sizes: tuple[Length, ...], batch: int | None) -> ir.Value:
        """Say what the entries of a computed shape are, and which of them is the batch."""
        if shape.const_value is None:
            shape.shape, shape.type = ir.Shape([len(sizes)]), ir.TensorType(ir.DataType.INT64)
            self.place(shape, Layout(1, SHARED, ones=tuple(d == Length.of(1) for d in sizes)))
        if batch is not None:
            self._sizes[id(shape)] = batch
        return self.measure(shape, sizes)

    def per_row(self, value: ir.Value) -> ir.Value:
        """A vector with an entry per row is a number of each row."""
        return self.place(value, Layout(0, SHARED, True))

    def note(self) -> None:
        """The node at hand does something that rows share."""
        self.shared.setdefault(self._node())

    def first(self, value: ir.Value) -> ir.Value:
        """A tensor that all rows share: of a lifted one, the first row."""
        found = self.layout(value)
        if not found.lifted:
            return value
        self.note()
        return self.place(self._one("Gather", value, self.constant(np.asarray(0, np.int64)), axis=0), Layout(found.rank, SHARED))

    def _write(self, op_type: str, *inputs: ir.Value | None, **more: Any) -> Sequence[ir.Value]:
        was, self._writing = self._writing, True
        try:
            return super().op(op_type, *inputs, **more)
        finally:
            self._writing = was

    def _plainly(self, write: Callable[[], ir.Value]) -> ir.Value:
        """What `write` gives, as it is written."""
        self._writing = True
        try:
            return write()
        finally:
            self._writing = False

    def _one(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return self._write(op_type, *inputs, **attributes)[0]

    def prune(self, results: set[ir.Value]) -> None:
        """Drop what was written for nothing, where an operator turned out to take no values per row."""
        kept = []
        for node in reversed(self.nodes):
            if any(v in results or v.uses() for v in node.outputs):
                kept.append(node)
            else:
                for k in range(len(node.inputs)):
                    node.replace_input_with(k, None)
        self.nodes = kept[::-1]
