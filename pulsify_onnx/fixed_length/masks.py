"""Tables of frames × frames that are a band or chunks: two values, told apart by how far a column lies from its row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pulsify_onnx.facts import Array

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


def band_of(table: Array) -> BandMask | None:
    """The band that a square table shows; None where it shows none."""
    n = len(table)
    if table.shape != (n, n) or n < LEAST:
        return None
    chunks = [1, *(c for c in range(2, n // LEAST + 1) if (table[0] == table[c - 1]).all() and (table[:, 0] == table[:, c - 1]).all())]
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
