"""Which axis of a tensor has the rows of the batch, where a number of each row meets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulsify_onnx.algebra.facts import ALONE
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.quotients import ratio

SHARED, MIXED = -1, -2
"""``rows`` of a tensor that is the same for all rows, and of one whose rows are not known to be apart."""


@dataclass(frozen=True)
class Layout:
    """Where a tensor has its rows. A `lifted` one has them on an axis of their own, before the `rank` others; ``ones``:
    which of these others have one element. ``within``: sizes of a slower and of a faster axis that are merged with the
    rows.
    """

    rank: int | None
    rows: int
    lifted: bool = False
    ones: tuple[bool, ...] = ()
    within: tuple[Length, Length] = ALONE

    @property
    def merged(self) -> bool:
        """Whether other axes are merged with the rows."""
        return self.within != ALONE


UNKNOWN = Layout(None, MIXED)


def regrouped(x: Layout, shape: Sequence[Length], target: Sequence[Length]) -> Layout:
    """Where the rows of a tensor of `shape` are once it is reshaped to `target`."""
    if x.rows < 0 or x.lifted or x.rank != len(shape):
        return Layout(len(target), x.rows) if x.rows == SHARED and not x.lifted else UNKNOWN
    rows = shape[x.rows].over(x.within[0] * x.within[1])
    before, after = [*shape[: x.rows], x.within[0]], [x.within[1], *shape[x.rows + 1 :]]
    for k, size in enumerate(target):
        (slower, left), (faster, right) = ratio(before, target[:k]), ratio(after, target[k + 1 :])
        if rows is not None and left == right == Length.of(1) and size == slower * rows * faster:
            return Layout(len(target), k, within=(slower, faster))
    return UNKNOWN


def met(layouts: Sequence[Layout]) -> Layout:
    """The layout of tensors that broadcast."""
    ranks = [x.rank for x in layouts if x.rank is not None]
    rank = max(ranks) if len(ranks) == len(layouts) else None
    if all(x.rows == SHARED for x in layouts):
        return Layout(rank, SHARED)
    if rank is None or any(x.rows == MIXED for x in layouts):
        return UNKNOWN
    found = {x.rows + rank - (x.rank or 0) for x in layouts if x.rows != SHARED}
    return Layout(rank, found.pop()) if len(found) == 1 else UNKNOWN
