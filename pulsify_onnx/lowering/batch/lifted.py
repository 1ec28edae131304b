"""Writes operators on lifted tensors, which have a value per row, and on what these meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import ALONE
from pulsify_onnx.lowering.batch.alignment import Alignment, NotPerRow
from pulsify_onnx.lowering.batch.layouts import MIXED, SHARED, Layout, met
from pulsify_onnx.lowering.batch.operators import BATCH_FIRST, ELEMENTWISE, attribute, constant, entries
from pulsify_onnx.lowering.batch.placement import Placement
from pulsify_onnx.lowering.emitter import Emitter


class Lifted:
    """Writes by `plain` what takes values per row. Raises `NotPerRow` where an operator takes none."""

    def __init__(self, plain: Emitter, rows: Placement):
        self.plain, self.rows, self.align = plain, rows, Alignment(plain, rows)
        self.layout, self.place = rows.layout, rows.place

    def written(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        layouts: Sequence[Layout | None],
        attributes: Mapping[str, Any],
        name: str,
    ) -> ir.Value:
        """The output of an operator, lifted itself or of a tensor that has the rows on an axis of its own."""
        if op_type in ELEMENTWISE:
            return self._broadcast(op_type, inputs, layouts, attributes, name)
        x, first = inputs[0], layouts[0]
        if x is None or first is None or first.rank is None:
            raise NotPerRow
        if op_type == "Gather":
            return self._gathered(x, inputs[1], int(attribute(attributes, "axis", 0)))
        if any(x is not None and x.merged for x in layouts):
            raise NotPerRow
        if op_type == "Expand":
            return self._expanded(x, first, inputs[1])
        if op_type == "MatMul":
            return self._product(inputs, layouts)
        if op_type == "Concat":
            return self._concat(inputs, layouts, int(attribute(attributes, "axis", 0)))
        if not first.lifted or any(y is not None and y.lifted for y in layouts[1:]):
            raise NotPerRow
        if op_type == "Reshape":
            return self._reshaped(x, inputs[1])
        if op_type in ("Squeeze", "Unsqueeze"):
            axes = attribute(attributes, "axes")
            found = constant(inputs[1]) if axes is None and len(inputs) > 1 else None
            given = list(axes) if axes is not None else None if found is None else [int(a) for a in found.reshape(-1)]
            if given is None:
                raise NotPerRow
            return self.align.unsqueezed(x, given) if op_type == "Unsqueeze" else self.align.squeezed(x, given)
        if op_type == "Slice" and len(inputs) > 3 and constant(inputs[3]) is not None:
            axes = [int(a) % first.rank for a in np.asarray(constant(inputs[3])).reshape(-1)]
            made = self.plain.one(
                "Slice", x, inputs[1], inputs[2], self.plain.ints(*(a + 1 for a in axes)), *inputs[4:]
            )
            return self.place(made, replace(first, ones=tuple(o and k not in axes for k, o in enumerate(first.ones))))
        if op_type == "Transpose":
            perm = list(attribute(attributes, "perm") or range(first.rank)[::-1])
            made = self.plain.one("Transpose", x, perm=[0, *(p + 1 for p in perm)])
            return self.place(made, replace(first, ones=tuple(first.ones[p] for p in perm)))
        if op_type in ("AveragePool", "Conv") and first.ones[0]:
            made = self.plain.one(op_type, self.align.to(x, first.rank, 0), *inputs[1:], **attributes)
            return self.place(made, Layout(first.rank, 0))
        raise NotPerRow

    def rows_first(
        self, op_type: str, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None], **more: Any
    ) -> ir.Value:
        """An operator whose inputs have the batch first."""
        first = layouts[0]
        if (
            first is None
            or first.lifted
            or first.rows != 0
            or any(x is not None and not x.lifted and (x.merged or x.rows not in (0, SHARED)) for x in layouts)
        ):
            raise NotPerRow
        brought = [
            v if v is None or x is None or not x.lifted else self.align.to(v, max(x.rank or 0, BATCH_FIRST[op_type]), 0)
            for v, x in zip(inputs, layouts)
        ]
        return self.place(self.plain.one(op_type, *brought, **more), first)

    def _broadcast(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        layouts: Sequence[Layout | None],
        attributes: Mapping[str, Any],
        name: str,
    ) -> ir.Value:
        ranks = [x.rank for x in layouts if x is not None]
        plain = [x for x in layouts if x is not None and not x.lifted and x.rows != SHARED]
        if None in ranks or any(x.rows == MIXED for x in plain):
            raise NotPerRow
        rank = max(r or 0 for r in ranks)
        axes = {(x.rows + rank - (x.rank or 0), x.within) for x in plain}
        if len(axes) > 1:
            raise NotPerRow
        axis, within = axes.pop() if axes else (None, ALONE)
        aligned = [
            v
            if v is None or x is None or not x.lifted
            else self.align.padded(v, rank)
            if axis is None
            else self.align.repeated(self.align.to(v, rank, axis), rank, axis, within)
            for v, x in zip(inputs, layouts)
        ]
        made = self.plain.one(op_type, *aligned, node_name=name, **attributes)
        if axis is not None:
            return self.place(made, Layout(rank, axis, within=within))
        ones = [self.align.ones(v, rank) for v in inputs if v is not None]
        return self.place(made, Layout(rank, SHARED, True, tuple(all(o[k] for o in ones) for k in range(rank))))

    def _reshaped(self, value: ir.Value, shape: ir.Value | None) -> ir.Value:
        rank, target = entries(shape), constant(shape)
        if shape is None or rank is None or self.layout(shape).rows != SHARED:
            raise NotPerRow
        if target is not None:
            # a 0 copies a dimension, which stands one further now, as does the 0 itself
            made = self.plain.one("Reshape", value, self.plain.ints(0, *(int(d) for d in target)))
        else:
            made = self.plain.one("Reshape", value, self.plain.one("Concat", self.plain.ints(0), shape, axis=0))
        ones = tuple(bool(d == 1) for d in target) if target is not None else self.layout(shape).ones or (False,) * rank
        return self.place(made, Layout(rank, SHARED, True, ones))

    def _concat(self, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None], axis: int) -> ir.Value:
        found = [x for x in layouts if x is not None]
        rank = found[0].rank
        if rank is None or any(not x.lifted or x.rank != rank for x in found):
            raise NotPerRow
        axis %= rank
        ones = tuple(k != axis and any(x.ones[k] for x in found) for k in range(rank))
        return self.place(self.plain.one("Concat", *inputs, axis=axis + 1), Layout(rank, SHARED, True, ones))

    def _expanded(self, value: ir.Value, x: Layout, shape: ir.Value | None) -> ir.Value:
        rank = entries(shape)
        if not x.lifted or shape is None or rank is None:
            raise NotPerRow
        batch = self.rows.sizes.get(id(shape))
        full = max(rank, x.rank or 0)
        if batch is not None and full == rank:
            return self.place(self.plain.one("Expand", self.align.to(value, rank, batch), shape), Layout(rank, batch))
        if batch is not None or rank != full:
            raise NotPerRow
        target = constant(shape)
        made = self.plain.one(
            "Expand", self.align.padded(value, full), self.plain.one("Concat", self.plain.ints(1), shape, axis=0)
        )
        ones = self.align.ones(value, full)
        return self.place(
            made,
            Layout(full, SHARED, True, tuple(o and target is not None and target[k] == 1 for k, o in enumerate(ones))),
        )

    def _product(self, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None]) -> ir.Value:
        (a, b), (x, y) = inputs, layouts
        if (
            a is None
            or b is None
            or x is None
            or y is None
            or None in (x.rank, y.rank)
            or min(x.rank or 0, y.rank or 0) < 2
        ):
            raise NotPerRow
        rank = max(x.rank or 0, y.rank or 0)
        plain = (
            met([Layout(v.rank, v.rows) for v in (x, y) if not v.lifted])
            if not (x.lifted and y.lifted)
            else Layout(rank, SHARED)
        )
        if plain.rows == MIXED:
            raise NotPerRow
        if plain.rows == SHARED:
            made = self.plain.one(
                "MatMul", *(self.align.padded(v, rank) if w.lifted else v for v, w in ((a, x), (b, y)))
            )
            ones = [self.align.ones(a, rank), self.align.ones(b, rank)]
            joined = [*[p and q for p, q in zip(*ones)][: rank - 2], ones[0][rank - 2], ones[1][rank - 1]]
            return self.place(made, Layout(rank, SHARED, True, tuple(joined)))
        axis = plain.rows + rank - (plain.rank or 0)
        if axis >= rank - 2:
            raise NotPerRow
        made = self.plain.one("MatMul", *(self.align.to(v, rank, axis) if w.lifted else v for v, w in ((a, x), (b, y))))
        return self.place(made, Layout(rank, axis))

    def _gathered(self, value: ir.Value, index: ir.Value | None, axis: int) -> ir.Value:
        assert index is not None
        x, i = self.layout(value), self.layout(index)
        if x.rank is None or i.rank is None:
            raise NotPerRow
        axis %= x.rank
        full = x.rank + i.rank - 1
        if not i.lifted:  # so the data is
            if i.rows != SHARED:
                raise NotPerRow
            made = self.plain.one("Gather", value, index, axis=axis + 1)
            inner = (
                tuple(d == 1 for d in index.const_value.shape) if index.const_value is not None else (False,) * i.rank
            )
            return self.place(made, Layout(full, SHARED, True, x.ones[:axis] + inner + x.ones[axis + 1 :]))
        if not x.lifted and x.rows == SHARED:
            made = self.plain.one("Gather", value, index, axis=axis)
            if axis:
                perm = [axis, *range(axis), *range(axis + 1, full + 1)]
                made = self.plain.one("Transpose", made, perm=perm)
            own = self.align.ones(value, x.rank)
            return self.place(made, Layout(full, SHARED, True, own[:axis] + i.ones + own[axis + 1 :]))
        if x.rows == MIXED or i.rank > 1 or (not x.lifted and x.rows == axis):
            raise NotPerRow
        rank, rows, at = (x.rank + 1, 0, axis + 1) if x.lifted else (x.rank, x.rows, axis)
        perm = [rows, at, *(k for k in range(rank) if k not in (rows, at))]
        order = perm if i.rank else [p for p in perm if p != at]
        back = [order.index(k) for k in sorted(order)]
        ordered = self.plain.one("Transpose", value, perm=perm) if perm != sorted(perm) else value
        index, count = self.align.repeated(index, i.rank + 1, 0, x.within), i.rank
        made = self.plain.picked(ordered, index, count)
        made = self.plain.one("Transpose", made, perm=back) if back != sorted(back) else made
        if x.lifted:
            return self.place(made, Layout(full, SHARED, True, x.ones[:axis] + i.ones + x.ones[axis + 1 :]))
        return self.place(made, Layout(full, rows if i.rank or rows < axis else rows - 1, within=x.within))
