"""How a tensor is kept as a state: its batch comes first, apart from the axes that are merged with it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from pulsify_onnx.algebra.facts import ALONE, Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.lowering.writer import Writer


@dataclass(frozen=True)
class Packing:
    """``shape``: that of the tensor, ``split``: with the batch on an axis of its own, the `front` one; ``axis``: where it is merged."""

    shape: tuple[int | str, ...]
    split: tuple[int | str, ...]
    front: int
    axis: int
    within: tuple[Length, Length]

    @property
    def state(self) -> tuple[int | str, ...]:
        """The shape of the state."""
        return tuple(self.split[k] for k in self._order)

    @property
    def _order(self) -> list[int]:
        return [self.front, *(k for k in range(len(self.split)) if k != self.front)]

    def pack(self, emit: Writer, value: ir.Value) -> ir.Value:
        """A tensor as a state."""
        if len(self.split) > len(self.shape):
            value = self._regrouped(emit, value, self.split, self.front, ALONE)
        return emit.one("Transpose", value, perm=self._order) if self.front else value

    def unpack(self, emit: Writer, past: ir.Value) -> ir.Value:
        """A state as the tensor that it was."""
        order = self._order
        value = emit.one("Transpose", past, perm=[order.index(k) for k in range(len(order))]) if self.front else past
        if len(self.split) > len(self.shape):
            value = self._regrouped(emit, value, self.shape, self.axis, self.within)
        return value

    def _regrouped(self, emit: Writer, value: ir.Value, shape: tuple[int | str, ...], axis: int, within: tuple[Length, Length]) -> ir.Value:
        target = emit.ints(*(d if isinstance(d, int) else -1 for d in shape))
        return emit.regrouped(value, target, len(shape), axis, within)


def packing(shape: Shape, batch: str | int, within: tuple[Length, Length] | None) -> Packing | None:
    """How a tensor of `shape` is kept; `within` are the slower and the faster axis merged with the batch, the latter where that is not known.

    None where another dimension is of unknown size.
    """
    moving = [k for k, d in enumerate(shape) if d.constant is None]
    plain = tuple(d.constant if d.constant is not None else str(d) for d in shape)
    if not moving:
        return Packing(plain, plain, 0, 0, ALONE)
    axis = moving[0]
    rest = shape[axis].over(Length.symbol(str(batch)))
    if len(moving) > 1 or rest is None or not rest.constant:
        return None
    slower, faster = within if within is not None and within[0] * within[1] == rest else (Length.of(1), rest)
    parts = [d for d in (slower.constant, str(batch), faster.constant) if d is not None and d != 1]
    split = (*plain[:axis], *parts, *plain[axis + 1:])
    return Packing(plain, split, axis + parts.index(str(batch)), axis, (slower, faster))
