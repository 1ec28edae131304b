"""Tables of frames × frames whose values follow from how far a column lies from its row: bands, chunks, biases by
distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pulsify_onnx.arrays import Array

LEAST = 4
"""Distances from fewer rows than this would fit anything."""


@dataclass(frozen=True)
class BandMask:
    """`inside` where ``after < column // chunk - row // chunk <= upto`` (None: without bound), else `outside`."""

    chunk: int
    after: int | None
    upto: int | None
    inside: Array
    outside: Array


def band_of_table(table: Array) -> BandMask | None:
    """The band that a square table shows; None where it shows none."""
    n = len(table)
    if table.shape != (n, n) or n < LEAST:
        return None
    chunks = [
        1,
        *(
            c
            for c in range(2, n // LEAST + 1)
            if (table[0] == table[c - 1]).all() and (table[:, 0] == table[:, c - 1]).all()
        ),
    ]
    return next((found for found in (_fitted(table, c) for c in chunks) if found is not None), None)


def _fitted(table: Array, chunk: int) -> BandMask | None:
    n = len(table)
    index = np.arange(n) // chunk
    last = int(index[-1])
    if last + 1 < LEAST:
        return None
    by_distance = np.concatenate([table[::chunk, 0][:0:-1], table[0, ::chunk]])  # distances -last ... last
    if not (table == by_distance[index[None, :] - index[:, None] + last]).all():
        return None
    edges = [int(k) for k in np.flatnonzero(by_distance[1:] != by_distance[:-1])]
    outside = by_distance[-1]
    if len(edges) == 1:
        return BandMask(chunk, None, edges[0] - last, by_distance[0], outside)
    if len(edges) == 2 and by_distance[0] == outside:
        return BandMask(chunk, edges[0] - last, edges[1] - last, by_distance[edges[1]], outside)
    return None


@dataclass(frozen=True)
class ByDistance:
    """Values by ``column - row``: `near` ([..., distances]) from `low` on; beyond it they go on by `steps` ([...,
    2]) per frame, down and up.
    """

    low: int
    near: Array
    steps: Array

    @property
    def high(self) -> int:
        """The last distance of `near`."""
        return self.low + int(self.near.shape[-1]) - 1


def distances_of(table: Array) -> ByDistance | None:
    """The values by distance that a table [..., n, n] shows; None where it has others, or where they change till its
    corners.

    Beyond a quarter of the table they must be equal, or grow by the same amount from each distance to the next.
    """
    n = table.shape[-1]
    index = np.arange(n)
    line = np.concatenate([table[..., :0:-1, 0], table[..., 0, :]], -1)  # distances 1 - n ... n - 1
    if n < 2 * LEAST or not (table == line[..., index[None, :] - index[:, None] + n - 1]).all():
        return None
    sides = [_going_on(line[..., n - 1 :: -1]), _going_on(line[..., n - 1 :])]
    if any(side is None or 4 * side[0] > n for side in sides):
        return None
    (down, before), (up, after) = (side for side in sides if side is not None)
    return ByDistance(-down, line[..., n - 1 - down : n + up], np.stack([before, after], -1))


def _going_on(line: Array) -> tuple[int, Array] | None:
    """From where on the entries are equal, or a steady line, and how much they grow there."""
    n = line.shape[-1]
    last = line[..., -1:]
    same = (line == last).reshape(-1, n).all(0)
    start = 0 if same.all() else n - int(np.argmin(same[::-1]))
    if 4 * start <= n or line.dtype.kind not in "f":
        return start, np.zeros(line.shape[:-1], line.dtype)
    if not np.isfinite(line[..., n // 4 :]).all():
        return None
    step = (last - line[..., n // 2 : n // 2 + 1]) / (n - 1 - n // 2)
    drawn = last - step * np.arange(n - 1, -1, -1).astype(line.dtype)
    fits = (
        np.isclose(line, drawn, rtol=1e-5, atol=1e-5 * float(np.abs(line[..., n // 4 :]).max())).reshape(-1, n).all(0)
    )
    start = 0 if fits.all() else n - int(np.argmin(fits[::-1]))
    return start, step[..., 0]
