"""Reshapes at one length: which dimensions of the target follow the length, by matching runs with the same number of
elements.
"""

from __future__ import annotations

import math

import numpy as np

from pulsify_onnx.algebra.length import TIME, Length, Symbol
from pulsify_onnx.arrays import Array

OTHER_LENGTH = 10007
"""Stands for dimensions that are known by name only: a prime that no export has."""


def regrouped(shape: list[Length], sizes: list[int], wanted: list[int]) -> tuple[list[Length], list[list[int]]]:
    """`wanted` as lengths, by matching runs of dimensions with the same number of elements.

    Also, for each run in which several dimensions might have grown, their indices; the outermost is taken.
    """
    target = [Length.of(n) for n in wanted]
    doubtful: list[list[int]] = []
    i = j = 0
    while i < len(shape) or j < len(wanted):
        ins, outs = [i] if i < len(shape) else [], [j] if j < len(wanted) else []
        i, j = i + len(ins), j + len(outs)
        a, b = (sizes[ins[0]] if ins else 1), (wanted[outs[0]] if outs else 1)
        while a != b:
            if a < b:
                ins.append(i)
                a, i = a * sizes[i], i + 1
            else:
                outs.append(j)
                b, j = b * wanted[j], j + 1
        moving = [k for k in ins if shape[k].constant is None]
        if not moving:
            continue
        if len(ins) == len(outs) == 1:
            target[outs[0]] = shape[ins[0]]
            places = _ones(sizes, ins[0], wanted, outs[0])
            if len(places) > 1:
                doubtful.append(places)
            continue
        inner = math.prod(sizes[k] for k in ins if k > moving[-1])
        outer = math.prod(sizes[k] for k in ins if k < moving[0])
        whole, stride, places = math.prod((shape[k] for k in ins), start=Length.of(1)), a, []
        for k in outs:
            top, stride = stride, stride // wanted[k]
            if wanted[k] > 1 and stride < a // outer and top > inner:
                places.append(k)
        if len(outs) > 1:
            whole, places = _rows_apart(whole, wanted, places, target)
        rest = math.prod(target[k].constant or 1 for k in outs if k != places[0])
        target[places[0]] = whole.floordiv(rest)
        if len(places) > 1:
            doubtful.append(places)
    return target, doubtful


def _ones(sizes: list[int], at: int, wanted: list[int], out: int) -> list[int]:
    """Where a dimension that was 1 may have gone, `out` first: to any 1 beside that one, if there are not as many of
    them as there were.
    """
    if sizes[at] != 1 or wanted[out] != 1:
        return [out]
    before, after = _run(sizes, at), _run(wanted, out)
    return [out, *(k for k in after if k != out)] if len(before) != len(after) else [out]


def _run(sizes: list[int], at: int) -> range:
    """The dimensions of 1 around `at`."""
    first = last = at
    while first > 0 and sizes[first - 1] == 1:
        first -= 1
    while last + 1 < len(sizes) and sizes[last + 1] == 1:
        last += 1
    return range(first, last + 1)


def _rows_apart(whole: Length, wanted: list[int], places: list[int], target: list[Length]) -> tuple[Length, list[int]]:
    """Gives the rows of a batch known by name to the dimension that has them; what is left, and for whom."""
    names = sorted(whole.symbols() - {TIME})
    rows = next((k for k in places if wanted[k] % OTHER_LENGTH == 0), None)
    if len(names) != 1 or rows is None or len(places) < 2:
        return whole, places
    symbol = Symbol(names[0])
    if not all(monomial.count(symbol) == 1 for monomial, _ in whole.terms):
        return whole, places
    target[rows] = Length.symbol(names[0]) * (wanted[rows] // OTHER_LENGTH)
    left = Length(
        tuple(
            (tuple(a for a in monomial if a != symbol), c / (wanted[rows] // OTHER_LENGTH))
            for monomial, c in whole.terms
        )
    )
    return left, [k for k in places if k != rows]


def steady(array: Array, axis: int) -> float | int | None:
    """How much the entries along `axis` grow from one to the next, if always the same; 0 where all are equal, None
    if neither.
    """
    first = np.take(array, [0], axis)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        return 0 if (array == first).all() else None
    second = np.take(array, [1], axis)
    steps = np.unique(second - first)
    if len(steps) != 1:
        return None
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    ramp = np.arange(array.shape[axis]).astype(array.dtype).reshape(shape) * steps[0]
    return steps[0].item() if (array == (ramp + first).astype(array.dtype)).all() else None
