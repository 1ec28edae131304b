"""How a tensor is kept as a state: its batch comes first, apart from the axes that are merged with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import ALONE, Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.lowering.writer import Writer


@dataclass(frozen=True)
class Packing:
    """``shape``: that of the tensor, ``split``: with the batch on an axis of its own; ``axis``: where it is merged.

    ``order``: the axes of `split` as the state has them, the batch first.
    """

    shape: tuple[int | str, ...]
    split: tuple[int | str, ...]
    order: tuple[int, ...]
    axis: int
    within: tuple[Length, Length]

    @property
    def state(self) -> tuple[int | str, ...]:
        """The shape of the state."""
        return tuple(self.split[k] for k in self.order)

    @property
    def _moved(self) -> bool:
        return list(self.order) != sorted(self.order)

    def pack(self, emit: Writer, value: ir.Value) -> ir.Value:
        """A tensor as a state."""
        if not self.shape:
            return emit.one("Reshape", value, emit.ints(1))
        if len(self.split) > len(self.shape):
            value = self._regrouped(emit, value, self.split, self.order[0], ALONE)
        return emit.one("Transpose", value, perm=self.order) if self._moved else value

    def unpack(self, emit: Writer, past: ir.Value) -> ir.Value:
        """A state as the tensor that it was."""
        if not self.shape:
            return emit.one("Gather", past, emit.constant(np.asarray(0, np.int64)), axis=0)
        back = [self.order.index(k) for k in range(len(self.order))]
        value = emit.one("Transpose", past, perm=back) if self._moved else past
        if len(self.split) > len(self.shape):
            value = self._regrouped(emit, value, self.shape, self.axis, self.within)
        return value

    def _regrouped(
        self, emit: Writer, value: ir.Value, shape: tuple[int | str, ...], axis: int, within: tuple[Length, Length]
    ) -> ir.Value:
        target = emit.ints(*(d if isinstance(d, int) else -1 for d in shape))
        return emit.regrouped(value, target, len(shape), axis, within)


def packing(
    shape: Shape, batch: str | int, within: tuple[Length, Length] | None, first: int | None = None
) -> Packing | None:
    """How a tensor of `shape` is kept; a scalar gets an axis.

    `within` are the slower and the faster axis merged with the batch, the latter where that is not known. `first`: an
    axis that comes first with all that is merged with the batch in it, which may be of a fixed size.

    None where another dimension is of unknown size.
    """
    moving = [k for k, d in enumerate(shape) if d.constant is None]
    plain = tuple(d.constant if d.constant is not None else str(d) for d in shape)
    if not moving:
        return Packing(plain, plain or (1,), _first([first or 0], len(plain) or 1), 0, ALONE)
    axis = moving[0]
    rest = shape[axis].over(Length.symbol(str(batch)))
    if len(moving) > 1 or rest is None or not rest.constant:
        return None
    slower, faster = within if within is not None and within[0] * within[1] == rest else (Length.of(1), rest)
    parts = [d for d in (slower.constant, str(batch), faster.constant) if d is not None and d != 1]
    split = (*plain[:axis], *parts, *plain[axis + 1 :])
    at = axis + parts.index(str(batch))
    together = [at, *(k for k in range(axis, axis + len(parts)) if k != at)] if axis == first else [at]
    return Packing(plain, split, _first(together, len(split)), axis, (slower, faster))


def _first(axes: list[int], rank: int) -> tuple[int, ...]:
    """All axes, `axes` first."""
    return (*axes, *(k for k in range(rank) if k not in axes))
