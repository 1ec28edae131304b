"""Writes operators for a batch whose rows are streams of their own.

What counts frames (clocks, positions, lengths) has a value per row: it is `lifted`, with the rows on an axis before its
own. Where it meets a tensor of the batch, the rows go to the axis where that one has them. An operator that can't take
values per row gets those of the first row, and its node is noted as one that rows share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.lowering.batch.alignment import NotPerRow
from pulsify_onnx.lowering.batch.layouts import SHARED, UNKNOWN, Layout, regrouped
from pulsify_onnx.lowering.batch.lifted import Lifted
from pulsify_onnx.lowering.batch.moves import moved
from pulsify_onnx.lowering.batch.operators import BATCH_FIRST, RECURRENT
from pulsify_onnx.lowering.batch.placement import Placement
from pulsify_onnx.lowering.batch.resizes import resized
from pulsify_onnx.lowering.emitter import Emitter
from pulsify_onnx.lowering.writer import Writer

Values = Sequence[ir.Value]


class BatchWriter(Writer):
    """Writes operators on values per row by the writer `plain`. ``shared``: nodes that rows share; `node` tells the
    one at hand.
    """

    def __init__(self, plain: Emitter, batch: str, node: Callable[[], str]):
        self.plain, self.opset = plain, plain.opset
        self.rows = Placement(batch)
        self.layout, self.place = self.rows.layout, self.rows.place
        self.lifted = Lifted(plain, self.rows)
        self.shared = {}
        self._node = node

    def names(self, *wanted: str) -> list[str]:
        """`wanted`, or free names like them that end alike."""
        return self.plain.names(*wanted)

    def constant(self, array: Array | Const) -> ir.Value:
        """An initializer for `array`."""
        return self.plain.constant(array)

    def number(self, rows: ir.Value) -> ir.Value:
        """A number of each row."""
        return self.place(rows, Layout(0, SHARED, True))

    def whole(self, value: ir.Value) -> ir.Value:
        """A tensor that all rows share: of a lifted one, the first row."""
        found = self.layout(value)
        if not found.lifted:
            return value
        self.note()
        return self.place(self.plain.number(value), Layout(found.rank, SHARED))

    def regrouped(
        self, value: ir.Value, shape: ir.Value, rank: int, axis: int, within: tuple[Length, Length]
    ) -> ir.Value:
        """`value` reshaped to a `shape` of `rank` dimensions, in which its rows are on `axis`, merged with the axes
        `within`.
        """
        return self.place(self.plain.one("Reshape", value, shape), Layout(rank, axis, within=within))

    def settle(self, value: ir.Value, shape: Shape, static: bool) -> ir.Value:
        """Rows are where the shape has the batch."""
        return self.rows.settle(value, shape, static)

    def measure(self, value: ir.Value, shape: Shape) -> ir.Value:
        """Say what the shape of `value` is in a pulse."""
        return self.rows.measure(value, shape)

    def sized(self, shape: ir.Value, sizes: Shape) -> ir.Value:
        """Say what the entries of a computed shape are."""
        return self.rows.sized(shape, sizes)

    def order(self, value: ir.Value, size: Length) -> tuple[Length, Length] | None:
        """Sizes of the slower and the faster axis merged with the rows in a dimension of `size`, where that is
        known.
        """
        return self.rows.order(value, size)

    def state(self, past: ir.Value, shape: Sequence[int | str], rank: int) -> ir.Value:
        """A state has its rows first; one of fewer dimensions than it has is lifted."""
        if rank < len(shape):
            return self.place(past, Layout(rank, SHARED, True, tuple(d == 1 for d in shape[1:])))
        return self.place(past, Layout(len(shape), 0 if shape[0] == self.rows.batch else SHARED))

    def per_row(self, value: ir.Value) -> bool:
        """Whether it is lifted."""
        return self.layout(value).lifted

    def remembered(self, value: ir.Value, shape: Sequence[int | str]) -> ir.Value:
        """`value` as a state of `shape`; rows share one that does not begin with them."""
        found = self.layout(value)
        if len(shape) != (found.rank if found.rank is None or not found.lifted else found.rank + 1):
            value = self.whole(value)
            found = self.layout(value)
        if shape[0] != self.rows.batch or not (found.rows == 0 or found.lifted):
            self.note()
        return value

    def note(self) -> None:
        """The node at hand does something that rows share."""
        self.shared.setdefault(self._node())

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        outputs: int = 1,
        node_name: str = "",
        rewire: Callable[[ir.Graph], ir.Graph] | None = None,
        **attributes: Any,
    ) -> Values:
        """Outputs of an operator, row by row."""
        if op_type in RECURRENT:
            inputs = self._timed(*inputs)
        layouts = [None if v is None else self.layout(v) for v in inputs]
        if any(x is not None and x.lifted for x in layouts):
            try:
                if op_type in BATCH_FIRST and outputs == 1:
                    return (
                        self.lifted.rows_first(
                            op_type, inputs, layouts, domain=domain, node_name=node_name, **attributes
                        ),
                    )
                if domain or outputs > 1:
                    raise NotPerRow
                return (self.lifted.written(op_type, inputs, layouts, attributes, node_name),)
            except NotPerRow:
                inputs = tuple(None if v is None else self.whole(v) for v in inputs)
                layouts = [None if v is None else self.layout(v) for v in inputs]
        if (
            op_type in ("Resize", "Upsample")
            and (apart := resized(self.plain, self.rows, op_type, inputs, layouts, attributes, node_name)) is not None
        ):
            return (apart,)
        made = self.plain.op(
            op_type, *inputs, domain=domain, outputs=outputs, node_name=node_name, rewire=rewire, **attributes
        )
        shape, target = (self.rows.shape(v) for v in (*inputs, None)[:2])
        if op_type == "Reshape" and layouts[0] is not None and shape is not None and target is not None:
            found = [regrouped(layouts[0], shape, target)]
        else:
            found = moved(op_type, inputs, layouts, attributes)
        for k, out in enumerate(made):
            if not self.rows.placed(out):
                self.place(out, found[min(k, len(found) - 1)])
        if op_type == "Shape" and layouts[0] is not None and layouts[0].rank is not None and not attributes:
            self.place(made[0], Layout(1, SHARED, ones=(False,) * layouts[0].rank))
            if layouts[0].rows >= 0 and not layouts[0].merged:
                self.rows.sizes[id(made[0])] = layouts[0].rows
        return made

    def _timed(self, *inputs: ir.Value | None) -> tuple[ir.Value | None, ...]:
        """Inputs of a recurrence: lengths per row are repeated for the axes that are merged with the rows."""
        lengths = inputs[4] if len(inputs) > 4 else None
        x = self.layout(inputs[0]) if inputs[0] is not None else UNKNOWN
        if (
            lengths is None
            or not self.layout(lengths).lifted
            or not x.merged
            or None in (x.within[0].constant, x.within[1].constant)
        ):
            return inputs
        each = self.plain.one("Gather", lengths, self.constant(np.asarray(0, np.int64)), axis=1)
        return (
            *inputs[:4],
            self.place(self.lifted.align.repeated(each, 1, 0, x.within), Layout(1, 0, within=x.within)),
            *inputs[5:],
        )
