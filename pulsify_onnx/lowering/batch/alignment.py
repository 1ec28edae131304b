"""Brings lifted tensors to the dimensions of what they meet: their rows go to the axis where that one has them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from pulsify_onnx.algebra.facts import ALONE
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.lowering.batch.layouts import SHARED, Layout
from pulsify_onnx.lowering.batch.placement import Placement
from pulsify_onnx.lowering.emitter import Emitter


class NotPerRow(Exception):
    """The operator takes no values per row here."""


class Alignment:
    """Aligns tensors that have their rows where `rows` says, by operators that `plain` writes."""

    def __init__(self, plain: Emitter, rows: Placement):
        self.plain = plain
        self.layout, self.place = rows.layout, rows.place

    def ones(self, value: ir.Value, rank: int) -> tuple[bool, ...]:
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

    def padded(self, value: ir.Value, rank: int) -> ir.Value:
        """A lifted tensor brought to `rank`."""
        missing = rank - (self.layout(value).rank or 0)
        return self.unsqueezed(value, list(range(missing))) if missing else value

    def to(self, value: ir.Value, rank: int, axis: int) -> ir.Value:
        """A lifted tensor as one of `rank` dimensions with its rows on `axis`, where it has one element itself."""
        x = self.layout(value)
        missing = rank - len(x.ones)
        if axis < missing:
            if missing == 1:
                return value
            return self.plain.unsqueeze(value, [*range(axis), *range(axis + 1, missing)])
        at = axis - missing
        if not x.ones[at]:
            raise NotPerRow
        value = self.plain.squeeze(value, [at + 1])
        if at:
            value = self.plain.one("Transpose", value, perm=[*range(1, at + 1), 0, *range(at + 1, len(x.ones))])
        return self.plain.unsqueeze(value, list(range(missing))) if missing else value

    def repeated(self, value: ir.Value, rank: int, axis: int, within: tuple[Length, Length]) -> ir.Value:
        """A tensor with its rows on `axis`, every row as often as the axes merged with the rows of another one ask
        for.
        """
        if within == ALONE:
            return value
        slower, faster = (d.constant for d in within)
        if slower is None or faster is None:
            raise NotPerRow
        perm = [*(k for k in range(rank) if k != axis), axis]
        value = self.plain.one("Transpose", value, perm=perm) if axis < rank - 1 else value
        value = self.plain.one(
            "Tile",
            self.plain.unsqueeze(value, [rank - 1, rank + 1]),
            self.plain.ints(*[1] * (rank - 1), slower, 1, faster),
        )
        value = self.plain.one("Reshape", value, self.plain.ints(*[0] * (rank - 1), -1))
        return (
            self.plain.one("Transpose", value, perm=[perm.index(k) for k in range(rank)]) if axis < rank - 1 else value
        )

    def unsqueezed(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """A lifted tensor with dimensions of 1 at `axes` of its own."""
        x = self.layout(value)
        full = len(x.ones) + len(axes)
        at = {a % full for a in axes}
        old = iter(x.ones)
        ones = tuple(k in at or next(old) for k in range(full))
        return self.place(self.plain.unsqueeze(value, sorted(a + 1 for a in at)), Layout(full, SHARED, True, ones))

    def squeezed(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """A lifted tensor without its dimensions of 1 at `axes` of its own."""
        x = self.layout(value)
        at = {a % len(x.ones) for a in axes}
        ones = tuple(o for k, o in enumerate(x.ones) if k not in at)
        return self.place(self.plain.squeeze(value, sorted(a + 1 for a in at)), Layout(len(ones), SHARED, True, ones))
