"""What a writer of a graph is told and asked, and the forms that it writes operators in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.model.schema import axes_are_input

TO_END = 2**63 - 1


class Writer(ABC):
    """Writes the operators of a graph, and is told what is known of the rows of its tensors.

    What it is told matters to a writer for a batch only, whose rows are streams of their own; ``shared``: nodes for
    which they are not.
    """

    opset: int
    shared: dict[str, None]

    def name(self, wanted: str) -> str:
        """`wanted`, or a free name like it, for a tensor: those of the source keep theirs, which `trace` finds them
        by.
        """
        return self.names(wanted)[0]

    @abstractmethod
    def names(self, *wanted: str) -> list[str]:
        """`wanted`, or free names like them that end alike."""

    @abstractmethod
    def constant(self, array: Array | Const) -> ir.Value:
        """An initializer for `array`."""

    @abstractmethod
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

    @abstractmethod
    def number(self, rows: ir.Value) -> ir.Value:
        """A vector with an entry per row as a number."""

    @abstractmethod
    def whole(self, value: ir.Value) -> ir.Value:
        """A tensor for what takes no number per row."""

    @abstractmethod
    def regrouped(
        self, value: ir.Value, shape: ir.Value, rank: int, axis: int, within: tuple[Length, Length]
    ) -> ir.Value:
        """`value` reshaped to a `shape` of `rank` dimensions, in which it has the batch on `axis`, merged with the
        axes `within`.
        """

    # rows

    @abstractmethod
    def settle(self, value: ir.Value, shape: Shape, static: bool) -> ir.Value:
        """Say what the shape of a wire's tensor is in a pulse; a `static` one without the batch in it is the same
        for all rows.
        """

    @abstractmethod
    def measure(self, value: ir.Value, shape: Shape) -> ir.Value:
        """Say what the shape of `value` is in a pulse."""

    @abstractmethod
    def sized(self, shape: ir.Value, sizes: Shape) -> ir.Value:
        """Say what the entries of a computed shape are."""

    @abstractmethod
    def order(self, value: ir.Value, size: Length) -> tuple[Length, Length] | None:
        """Sizes of the slower and the faster axis merged with the batch in a dimension of `size`, where that is
        known.
        """

    @abstractmethod
    def state(self, past: ir.Value, shape: Sequence[int | str], rank: int) -> ir.Value:
        """Say that `past` is a state of `shape`, which begins with the batch; one of fewer dimensions than it has is
        a value per row.
        """

    @abstractmethod
    def per_row(self, value: ir.Value) -> bool:
        """Whether a tensor that has no batch itself has a value per row."""

    @abstractmethod
    def remembered(self, value: ir.Value, shape: Sequence[int | str]) -> ir.Value:
        """`value` as a state of `shape`."""

    @abstractmethod
    def note(self) -> None:
        """The node at hand does something that rows share."""

    # forms of operators

    def ints(self, *values: int) -> ir.Value:
        """An int64 vector."""
        return self.constant(np.asarray(values, np.int64))

    def one(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The only output of an operator."""
        return self.op(op_type, *inputs, **attributes)[0]

    def unsqueeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`x` with dimensions of 1 at `axes`."""
        return self._along("Unsqueeze", x, axes)

    def squeeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`x` without its dimensions of 1 at `axes`."""
        return self._along("Squeeze", x, axes)

    def _along(self, op_type: str, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        if axes_are_input(op_type, self.opset):
            return self.one(op_type, x, self.ints(*axes))
        return self.one(op_type, x, axes=list(axes))

    def picked(self, x: ir.Value, index: ir.Value, rank: int) -> ir.Value:
        """``x[row, index[row]]`` for every row; of `index`, `rank` dimensions are no rows (0 or 1)."""
        if self.opset >= 12:
            return self.one("GatherND", x, self.unsqueeze(index, [rank + 1]), batch_dims=1)
        shape = self.one("Shape", x)
        zero, one = (self.constant(np.asarray(k, np.int64)) for k in (0, 1))
        rows, count = (self.one("Gather", shape, k, axis=0) for k in (zero, one))
        first = self.one("Mul", self.one("Range", zero, rows, one), count)
        at = self.one("Add", index, self.unsqueeze(first, [1]) if rank else first)
        flat = self.one("Concat", self.ints(-1), self.slice(shape, 0, 2, TO_END), axis=0)
        return self.one("Gather", self.one("Reshape", x, flat), at, axis=0)

    def resized_apart(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        scales: Sequence[float] | None,
        rows: int,
        rank: int,
        **attributes: Any,
    ) -> ir.Value:
        """A Resize or Upsample by `scales` (None: to the sizes of its input 3) that keeps what axis `rows` of its
        `rank` has apart:
        as the second of four dimensions, or as the first of more.
        """
        assert inputs[0] is not None
        perm = [rows, *(k for k in range(rank) if k != rows)]
        more = [0, 2][: max(0, 4 - rank)]
        order: list[int | None] = [None, perm[0], None, *perm[1:]] if rank == 2 else [None, *perm] if more else [*perm]
        data = self.one("Transpose", inputs[0], perm=perm) if rows else inputs[0]
        data = self.unsqueeze(data, more) if more else data
        wide = [self.fenced(data) if rows else data, *inputs[1:]]
        if scales is None:
            wide[3] = self.one(
                "Gather",
                self.one("Concat", inputs[3], self.ints(1), axis=0),
                self.ints(*(rank if k is None else k for k in order)),
                axis=0,
            )
        elif len(inputs) > 1:
            wide[min(2, len(inputs) - 1)] = self.constant(
                np.asarray([1 if k is None else scales[k] for k in order], np.float32)
            )
        else:
            attributes["scales"] = [1.0 if k is None else scales[k] for k in order]
        made = self.one(op_type, *wide, **attributes)
        made = self.squeeze(made, more) if more else made
        return self.one("Transpose", made, perm=[perm.index(k) for k in range(rank)]) if rows else made

    def fenced(self, x: ir.Value) -> ir.Value:
        """`x` as it is, by two operators that onnxruntime moves no Transpose through."""
        return self.one("Reshape", self.one("Flatten", x, axis=1), self.one("Shape", x))

    def slice(self, x: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        """``x[start:end]`` along `axis`; negative bounds count from the end."""
        if start == 0 and end == TO_END:
            return x
        return self.one("Slice", x, self.ints(start), self.ints(end), self.ints(axis))
