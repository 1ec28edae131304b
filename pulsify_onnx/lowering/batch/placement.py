"""Where every tensor of a pulsed graph has the rows of the batch, as far as it is written."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.lowering.batch.layouts import MIXED, SHARED, UNKNOWN, Layout


class Placement:
    """Layouts of tensors and what is known of their shapes; the batch is the dimension `batch`. ``sizes``: which
    entry of a shape it is.
    """

    def __init__(self, batch: str):
        self.batch = batch
        self.sizes: dict[int, int] = {}
        self._layouts: dict[int, Layout] = {}
        self._shapes: dict[int, Shape] = {}

    def layout(self, value: ir.Value) -> Layout:
        """Where `value` has its rows."""
        if value.const_value is not None:
            return Layout(len(value.const_value.shape), SHARED)
        return self._layouts.get(id(value), UNKNOWN)

    def placed(self, value: ir.Value) -> bool:
        """Whether it is known where `value` has its rows."""
        return id(value) in self._layouts

    def place(self, value: ir.Value, layout: Layout) -> ir.Value:
        """Say where `value` has its rows."""
        if value.const_value is None:
            self._layouts[id(value)] = layout
        return value

    def shape(self, value: ir.Value | None) -> Shape | None:
        """The shape of `value` in a pulse, where it is known."""
        return self._shapes.get(id(value))

    def measure(self, value: ir.Value, shape: Shape) -> ir.Value:
        """Say what the shape of `value` is in a pulse."""
        self._shapes[id(value)] = shape
        return value

    def settle(self, value: ir.Value, shape: Shape, static: bool) -> ir.Value:
        """Say what the shape of a wire's tensor is in a pulse; a `static` one without the batch in it is the same
        for all rows.
        """
        named = [k for k, d in enumerate(shape) if self.batch in d.symbols()]
        rows = named[0] if len(named) == 1 else MIXED if named or not static else SHARED
        alone = len(named) == 1 and str(shape[named[0]]) == self.batch
        found, rank = self.layout(value), len(shape)
        self._shapes[id(value)] = shape
        if found.lifted:
            if found.rank == rank:
                self.place(value, replace(found, ones=tuple(a or b == Length.of(1) for a, b in zip(found.ones, shape))))
            return value
        if rows >= 0 and not alone:
            of_rows = shape[rows].over(found.within[0] * found.within[1]) if found.merged else None
            known = of_rows is not None and str(of_rows) in of_rows.symbols()
            return self.place(
                value, found if found.rows == SHARED else replace(found, rank=rank, rows=rows) if known else UNKNOWN
            )
        return self.place(value, Layout(rank, SHARED if found.rows == SHARED and rows == MIXED else rows))

    def order(self, value: ir.Value, size: Length) -> tuple[Length, Length] | None:
        """Sizes of the slower and the faster axis merged with the rows of `value` to a dimension of `size`, where it
        has one.
        """
        found, shape = self.layout(value), self.shape(value)
        return found.within if found.merged and shape is not None and shape[found.rows] == size else None

    def sized(self, shape: ir.Value, sizes: Shape) -> ir.Value:
        """Say what the entries of a computed shape are."""
        if shape.const_value is None:
            shape.shape, shape.type = ir.Shape([len(sizes)]), ir.TensorType(ir.DataType.INT64)
            self.place(shape, Layout(1, SHARED, ones=tuple(d == Length.of(1) for d in sizes)))
        batch = [k for k, d in enumerate(sizes) if str(d) == self.batch]
        if len(batch) == 1:
            self.sizes[id(shape)] = batch[0]
        return self.measure(shape, sizes)
