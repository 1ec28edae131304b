"""Writes operators for a batch whose rows are streams of their own.

What counts frames (clocks, positions, lengths) has a value per row: it is `lifted`, with the rows on an axis before its
own. Where it meets a tensor of the batch, the rows go to the axis where that one has them. An operator that can't take
values per row gets those of the first row, and its node is noted as one that rows share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import ALONE, Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.lowering.batch import layouts as table
from pulsify_onnx.lowering.batch.layouts import (
    BATCH_FIRST,
    ELEMENTWISE,
    MIXED,
    SHARED,
    UNKNOWN,
    Layout,
    attribute,
    constant,
    entries,
    met,
)
from pulsify_onnx.lowering.batch.placement import Placement
from pulsify_onnx.lowering.writer import Emitter, Writer

Values = Sequence[ir.Value]


class _Shared(Exception):
    """The operator takes no values per row here."""


class BatchWriter(Writer):
    """Writes operators on values per row by the writer `plain`. ``shared``: nodes that rows share; `node` tells the
    one at hand.
    """

    def __init__(self, plain: Emitter, batch: str, node: Callable[[], str]):
        self.plain, self.opset = plain, plain.opset
        self.rows = Placement(batch)
        self.layout, self.place = self.rows.layout, self.rows.place
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
        if op_type in table.RECURRENT:
            inputs = self._timed(*inputs)
        layouts = [None if v is None else self.layout(v) for v in inputs]
        if any(x is not None and x.lifted for x in layouts):
            try:
                if op_type in BATCH_FIRST and outputs == 1:
                    return (
                        self._rows_first(op_type, inputs, layouts, domain=domain, node_name=node_name, **attributes),
                    )
                if domain or outputs > 1:
                    raise _Shared
                return (self._lifted(op_type, inputs, layouts, attributes, node_name),)
            except _Shared:
                inputs = tuple(None if v is None else self.whole(v) for v in inputs)
                layouts = [None if v is None else self.layout(v) for v in inputs]
        if (
            op_type in ("Resize", "Upsample")
            and (apart := self._resized(op_type, inputs, layouts, attributes, node_name)) is not None
        ):
            return (apart,)
        made = self.plain.op(
            op_type, *inputs, domain=domain, outputs=outputs, node_name=node_name, rewire=rewire, **attributes
        )
        shape, target = (self.rows.shape(v) for v in (*inputs, None)[:2])
        if op_type == "Reshape" and layouts[0] is not None and shape is not None and target is not None:
            found = [table.regrouped(layouts[0], shape, target)]
        else:
            found = table.moved(op_type, inputs, layouts, attributes)
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
            self.place(self._repeated(each, 1, 0, x.within), Layout(1, 0, within=x.within)),
            *inputs[5:],
        )

    # operators on lifted tensors

    def _lifted(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        layouts: Sequence[Layout | None],
        attributes: Mapping[str, Any],
        name: str,
    ) -> ir.Value:
        if op_type in ELEMENTWISE:
            return self._broadcast(op_type, inputs, layouts, attributes, name)
        x, first = inputs[0], layouts[0]
        if x is None or first is None or first.rank is None:
            raise _Shared
        if op_type == "Gather":
            return self._gathered(x, inputs[1], int(attribute(attributes, "axis", 0)))
        if any(x is not None and x.merged for x in layouts):
            raise _Shared
        if op_type == "Expand":
            return self._expanded(x, first, inputs[1])
        if op_type == "MatMul":
            return self._product(inputs, layouts)
        if op_type == "Concat":
            return self._concat(inputs, layouts, int(attribute(attributes, "axis", 0)))
        if not first.lifted or any(y is not None and y.lifted for y in layouts[1:]):
            raise _Shared
        if op_type == "Reshape":
            return self._reshaped(x, inputs[1])
        if op_type in ("Squeeze", "Unsqueeze"):
            axes = attribute(attributes, "axes")
            found = constant(inputs[1]) if axes is None and len(inputs) > 1 else None
            given = list(axes) if axes is not None else None if found is None else [int(a) for a in found.reshape(-1)]
            if given is None:
                raise _Shared
            return self._unsqueezed(x, given) if op_type == "Unsqueeze" else self._squeezed(x, given)
        if op_type == "Slice" and len(inputs) > 3 and constant(inputs[3]) is not None:
            axes = [int(a) % first.rank for a in np.asarray(constant(inputs[3])).reshape(-1)]
            made = self.plain.one("Slice", x, inputs[1], inputs[2], self.ints(*(a + 1 for a in axes)), *inputs[4:])
            return self.place(made, replace(first, ones=tuple(o and k not in axes for k, o in enumerate(first.ones))))
        if op_type == "Transpose":
            perm = list(attribute(attributes, "perm") or range(first.rank)[::-1])
            made = self.plain.one("Transpose", x, perm=[0, *(p + 1 for p in perm)])
            return self.place(made, replace(first, ones=tuple(first.ones[p] for p in perm)))
        if op_type in ("AveragePool", "Conv") and first.ones[0]:
            made = self.plain.one(op_type, self._to(x, first.rank, 0), *inputs[1:], **attributes)
            return self.place(made, Layout(first.rank, 0))
        raise _Shared

    def _rows_first(
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
            raise _Shared
        brought = [
            v if v is None or x is None or not x.lifted else self._to(v, max(x.rank or 0, BATCH_FIRST[op_type]), 0)
            for v, x in zip(inputs, layouts)
        ]
        return self.place(self.plain.one(op_type, *brought, **more), first)

    def _resized(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        layouts: Sequence[Layout | None],
        attributes: Mapping[str, Any],
        name: str,
    ) -> ir.Value | None:
        """A Resize between whose rows onnxruntime would interpolate, or to sizes that are computed; None for others."""
        x, sizes, scales = layouts[0], inputs[3] if len(inputs) > 3 else None, table.scales_of(inputs, attributes)
        if x is None or inputs[0] is None or x.rank is None or x.rows < 0 or x.lifted:
            return None
        if (
            self.rows.sizes.get(id(sizes)) != x.rows
            if sizes is not None
            else scales is None or scales.size != x.rank or scales[x.rows] != 1
        ):
            return None
        rows, rank, wanted = x.rows, x.rank, None if sizes is not None or scales is None else [float(f) for f in scales]
        if not table.interpolated(attribute(attributes, "mode", "nearest"), rank, rows):
            if (
                rank > 3
                and attribute(attributes, "mode", "nearest") not in ("nearest", b"nearest")
                and table.transposed(inputs[0])
            ):
                # onnxruntime moves a Transpose to behind a Resize that can't do what it is left with
                return self.place(
                    self.plain.one(op_type, self.plain.fenced(inputs[0]), *inputs[1:], node_name=name, **attributes), x
                )
            return (
                None if sizes is None else self.place(self.plain.one(op_type, *inputs, node_name=name, **attributes), x)
            )
        return self.place(
            self.plain.resized_apart(op_type, inputs, wanted, rows, rank, node_name=name, **attributes), x
        )

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
            raise _Shared
        rank = max(r or 0 for r in ranks)
        axes = {(x.rows + rank - (x.rank or 0), x.within) for x in plain}
        if len(axes) > 1:
            raise _Shared
        axis, within = axes.pop() if axes else (None, ALONE)
        aligned = [
            v
            if v is None or x is None or not x.lifted
            else self._padded(v, rank)
            if axis is None
            else self._repeated(self._to(v, rank, axis), rank, axis, within)
            for v, x in zip(inputs, layouts)
        ]
        made = self.plain.one(op_type, *aligned, node_name=name, **attributes)
        if axis is not None:
            return self.place(made, Layout(rank, axis, within=within))
        ones = [self._ones(v, rank) for v in inputs if v is not None]
        return self.place(made, Layout(rank, SHARED, True, tuple(all(o[k] for o in ones) for k in range(rank))))

    def _ones(self, value: ir.Value, rank: int) -> tuple[bool, ...]:
        """Which dimensions of a tensor brought to `rank` have one element."""
        found = self.layout(value)
        own = (
            found.ones
            if found.lifted
            else tuple(d == 1 for d in value.const_value.shape)
            if value.const_value is not None
            else (False,) * (found.rank or 0)
        )
        return (True,) * (rank - len(own)) + own

    def _padded(self, value: ir.Value, rank: int) -> ir.Value:
        """A lifted tensor brought to `rank`."""
        missing = rank - (self.layout(value).rank or 0)
        return self._unsqueezed(value, list(range(missing))) if missing else value

    def _to(self, value: ir.Value, rank: int, axis: int) -> ir.Value:
        """A lifted tensor as one of `rank` dimensions with its rows on `axis`, where it has one element itself."""
        x = self.layout(value)
        missing = rank - len(x.ones)
        if axis < missing:
            if missing == 1:
                return value
            return self.plain.unsqueeze(value, [*range(axis), *range(axis + 1, missing)])
        at = axis - missing
        if not x.ones[at]:
            raise _Shared
        value = self.plain.squeeze(value, [at + 1])
        if at:
            value = self.plain.one("Transpose", value, perm=[*range(1, at + 1), 0, *range(at + 1, len(x.ones))])
        return self.plain.unsqueeze(value, list(range(missing))) if missing else value

    def _repeated(self, value: ir.Value, rank: int, axis: int, within: tuple[Length, Length]) -> ir.Value:
        """A tensor with its rows on `axis`, every row as often as the axes merged with the rows of another one ask
        for.
        """
        if within == ALONE:
            return value
        slower, faster = (d.constant for d in within)
        if slower is None or faster is None:
            raise _Shared
        perm = [*(k for k in range(rank) if k != axis), axis]
        value = self.plain.one("Transpose", value, perm=perm) if axis < rank - 1 else value
        value = self.plain.one(
            "Tile", self.plain.unsqueeze(value, [rank - 1, rank + 1]), self.ints(*[1] * (rank - 1), slower, 1, faster)
        )
        value = self.plain.one("Reshape", value, self.ints(*[0] * (rank - 1), -1))
        return (
            self.plain.one("Transpose", value, perm=[perm.index(k) for k in range(rank)]) if axis < rank - 1 else value
        )

    def _unsqueezed(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        x = self.layout(value)
        full = len(x.ones) + len(axes)
        at = {a % full for a in axes}
        old = iter(x.ones)
        ones = tuple(k in at or next(old) for k in range(full))
        return self.place(self.plain.unsqueeze(value, sorted(a + 1 for a in at)), Layout(full, SHARED, True, ones))

    def _squeezed(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        x = self.layout(value)
        at = {a % len(x.ones) for a in axes}
        ones = tuple(o for k, o in enumerate(x.ones) if k not in at)
        return self.place(self.plain.squeeze(value, sorted(a + 1 for a in at)), Layout(len(ones), SHARED, True, ones))

    def _reshaped(self, value: ir.Value, shape: ir.Value | None) -> ir.Value:
        rank, target = entries(shape), constant(shape)
        if shape is None or rank is None or self.layout(shape).rows != SHARED:
            raise _Shared
        if target is not None:
            # a 0 copies a dimension, which stands one further now, as does the 0 itself
            made = self.plain.one("Reshape", value, self.ints(0, *(int(d) for d in target)))
        else:
            made = self.plain.one("Reshape", value, self.plain.one("Concat", self.ints(0), shape, axis=0))
        ones = tuple(bool(d == 1) for d in target) if target is not None else self.layout(shape).ones or (False,) * rank
        return self.place(made, Layout(rank, SHARED, True, ones))

    def _concat(self, inputs: Sequence[ir.Value | None], layouts: Sequence[Layout | None], axis: int) -> ir.Value:
        found = [x for x in layouts if x is not None]
        rank = found[0].rank
        if rank is None or any(not x.lifted or x.rank != rank for x in found):
            raise _Shared
        axis %= rank
        ones = tuple(k != axis and any(x.ones[k] for x in found) for k in range(rank))
        return self.place(self.plain.one("Concat", *inputs, axis=axis + 1), Layout(rank, SHARED, True, ones))

    def _expanded(self, value: ir.Value, x: Layout, shape: ir.Value | None) -> ir.Value:
        rank = entries(shape)
        if not x.lifted or shape is None or rank is None:
            raise _Shared
        batch = self.rows.sizes.get(id(shape))
        full = max(rank, x.rank or 0)
        if batch is not None and full == rank:
            return self.place(self.plain.one("Expand", self._to(value, rank, batch), shape), Layout(rank, batch))
        if batch is not None or rank != full:
            raise _Shared
        target = constant(shape)
        made = self.plain.one(
            "Expand", self._padded(value, full), self.plain.one("Concat", self.ints(1), shape, axis=0)
        )
        ones = self._ones(value, full)
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
            raise _Shared
        rank = max(x.rank or 0, y.rank or 0)
        plain = (
            met([Layout(v.rank, v.rows) for v in (x, y) if not v.lifted])
            if not (x.lifted and y.lifted)
            else Layout(rank, SHARED)
        )
        if plain.rows == MIXED:
            raise _Shared
        if plain.rows == SHARED:
            made = self.plain.one("MatMul", *(self._padded(v, rank) if w.lifted else v for v, w in ((a, x), (b, y))))
            ones = [self._ones(a, rank), self._ones(b, rank)]
            joined = [*[p and q for p, q in zip(*ones)][: rank - 2], ones[0][rank - 2], ones[1][rank - 1]]
            return self.place(made, Layout(rank, SHARED, True, tuple(joined)))
        axis = plain.rows + rank - (plain.rank or 0)
        if axis >= rank - 2:
            raise _Shared
        made = self.plain.one("MatMul", *(self._to(v, rank, axis) if w.lifted else v for v, w in ((a, x), (b, y))))
        return self.place(made, Layout(rank, axis))

    def _gathered(self, value: ir.Value, index: ir.Value | None, axis: int) -> ir.Value:
        assert index is not None
        x, i = self.layout(value), self.layout(index)
        if x.rank is None or i.rank is None:
            raise _Shared
        axis %= x.rank
        full = x.rank + i.rank - 1
        if not i.lifted:  # so the data is
            if i.rows != SHARED:
                raise _Shared
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
            own = self._ones(value, x.rank)
            return self.place(made, Layout(full, SHARED, True, own[:axis] + i.ones + own[axis + 1 :]))
        if x.rows == MIXED or i.rank > 1 or (not x.lifted and x.rows == axis):
            raise _Shared
        rank, rows, at = (x.rank + 1, 0, axis + 1) if x.lifted else (x.rank, x.rows, axis)
        perm = [rows, at, *(k for k in range(rank) if k not in (rows, at))]
        order = perm if i.rank else [p for p in perm if p != at]
        back = [order.index(k) for k in sorted(order)]
        ordered = self.plain.one("Transpose", value, perm=perm) if perm != sorted(perm) else value
        index, count = self._repeated(index, i.rank + 1, 0, x.within), i.rank
        made = self.plain.picked(ordered, index, count)
        made = self.plain.one("Transpose", made, perm=back) if back != sorted(back) else made
        if x.lifted:
            return self.place(made, Layout(full, SHARED, True, x.ones[:axis] + i.ones + x.ones[axis + 1 :]))
        return self.place(made, Layout(full, rows if i.rank or rows < axis else rows - 1, within=x.within))
