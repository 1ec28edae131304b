"""The border of a result: its operator, run on one frame of its inputs' borders, which must give the same for any
number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.delay import Delay
from pulsify_onnx.algebra.facts import Fact, Mirror, Padding, PaddingFrames, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Frames, Merged, Number, Op, Ref, Step, When, Window, leaves, walk
from pulsify_onnx.arrays import Array, Const


class _NotConstant(Exception):
    """The border depends on something that is not known before the stream runs."""


SIZES = (2, 33)
"""Sizes of axes of unknown size at which a border must be what it is at size 1. What multiplies n equal rows may agree
at an odd number of them, and a dilated kernel sees a neighbour only along an axis that is longer than its dilation."""

ROUNDING = {ir.DataType.DOUBLE: 1e-13, ir.DataType.FLOAT: 1e-5}
"""How much of the largest value of a border may be rounding, which depends on how many rows there are; one in a
hundred of narrower types.
"""


def fold_border(
    expr: Expr, y: Stream, fact: Callable[[str], Fact], value: Callable[[str], Const | None], opset: int
) -> Padding | None:
    """The border of `y`, which `expr` computes; None where it is not constant, nor its own frames mirrored.

    Along axes of unknown size, rows of a batch among them, it must be the same however long they are: a sum over them
    is not.
    """
    if isinstance(y.border, Mirror):
        return y.border if _by_frame(expr, y) else None
    windows = [w for w in walk(expr) if isinstance(w, Window)]
    slower = any(
        w.frames.rate < y.rate for w in windows
    )  # parts of a frame are no frames: the operator runs on all of them
    single = not slower and (y.pad_after.terms or not any(isinstance(w.border, PaddingFrames) for w in windows))
    wanted = 1 if single else y.pad_before
    border = _folded(expr, y, fact, value, opset, wanted, 1)
    if border is None:
        return None
    for axis in _unknown(y):
        first = border.take([0], axis)
        if not _equal(border, first):
            return None
        border = first
    streams = [y, *(fact(w.wire) for w in windows)]
    for size in (
        SIZES
        if any(isinstance(x, Stream) and (_unknown(x) or None in (d.constant for d in x.around)) for x in streams)
        else ()
    ):
        other = _folded(expr, y, fact, value, opset, wanted, size)
        if other is None or not _equal(other, border):
            return None
    if border.size and (border == border.flat[0]).all():
        return Const(np.full([1] * y.rank, border.flat[0], border.dtype))
    return PaddingFrames(Const(border)).upto(y.axis, 0, wanted) if wanted > 1 else Const(border)


def _folded(
    expr: Expr,
    y: Stream,
    fact: Callable[[str], Fact],
    value: Callable[[str], Const | None],
    opset: int,
    wanted: int,
    size: int,
) -> Array | None:
    """`wanted` frames of the border of `y` where every axis of unknown size has `size` elements; None where they are
    not constant.
    """

    def frames(f: Frames) -> int:
        extra = Delay.of(f.extra)
        if extra.terms:
            raise _NotConstant
        count = Fraction(f.rate) / y.rate * wanted + extra.constant
        if count.denominator != 1 or count < 1:
            raise _NotConstant
        return int(count)

    def long(d: Dim) -> int:
        if isinstance(d, Frames):
            return frames(d)
        if isinstance(d, Merged):
            return frames(d.frames) * _rows((d.slower, d.faster), size)
        return d if isinstance(d, int) else d.at(1, size)

    def run(e: Expr | None) -> Array | None:
        if e is None:
            return None
        if isinstance(e, Const):
            return e.array
        if isinstance(e, Ref):
            found = value(e.wire)
            if found is None:
                raise _NotConstant
            return found.array
        if isinstance(e, Window):
            x = fact(e.wire)
            if not isinstance(e.border, (Const, PaddingFrames)) or not isinstance(x, Stream):
                raise _NotConstant
            return _bordering(e.border, x, frames(e.frames), size)
        if isinstance(e, Dims):
            return np.asarray([long(d) for d in e.dims], np.int64)
        if isinstance(e, When):
            yes, no = run(e.yes), run(e.no)
            if yes is None or no is None or not np.array_equal(yes, no):
                raise _NotConstant
            return no
        if isinstance(e, Number):
            if e.value.terms:
                raise _NotConstant
            return np.asarray([e.value.constant], np.int64)
        if isinstance(e, Op):
            found_all = evaluate.evaluate(
                e.op_type,
                [run(i) for i in e.inputs],
                dict(e.attributes),
                opset=opset,
                domain=e.domain,
                outputs=e.outputs,
            )
            if found_all is None:
                raise _NotConstant
            return found_all[e.index]
        raise _NotConstant

    try:
        border = run(expr)
    except (_NotConstant, IndexError):
        return None
    if border is None or border.ndim != y.rank or border.shape[y.axis] != wanted * _rows(y.around, size):
        return None
    if wanted != border.shape[y.axis]:
        border = border.take([0], y.axis) if wanted == 1 and (border == border.take([0], y.axis)).all() else border
    return border if border.shape[y.axis] == wanted else None


def _bordering(border: Const | PaddingFrames, x: Stream, count: int, size: int) -> Array:
    """`count` frames of the border of `x`."""
    shape = [d.at(1, size) for d in x.shape]
    shape[x.axis] = count * _rows(x.around, size)
    if isinstance(border, PaddingFrames) and shape[x.axis] > count:
        raise _NotConstant
    rows = border.array if isinstance(border, Const) else border.frames.array.take(range(count), x.axis)
    if any(n not in (1, d) for n, d in zip(rows.shape, shape)):
        raise _NotConstant  # it has rows of its own, and so the batch can have this many only
    return np.ascontiguousarray(np.broadcast_to(rows, shape))


def _rows(around: tuple[Length, Length], size: int) -> int:
    """How many rows are merged with time, where axes of unknown size have `size` elements."""
    return math.prod(d.at(1, size) for d in around)


def _unknown(x: Stream) -> list[int]:
    """Axes of unknown size but the stream's."""
    return [k for k, d in enumerate(x.shape) if k != x.axis and d.constant is None]


def _equal(a: Array, b: Array) -> bool:
    """Whether `a` is `b`, which is broadcast, but for rounding."""
    try:
        b = np.broadcast_to(b, a.shape)
    except ValueError:
        return False
    kind = ir.DataType.from_numpy(a.dtype)
    if not kind.is_floating_point():
        return bool((a == b).all())
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0))
    return bool(np.isclose(a, b, rtol=0, atol=ROUNDING.get(kind, 1e-2) * scale, equal_nan=True).all())


def _by_frame(expr: Expr | None, y: Stream) -> bool:
    """Whether every frame of `y` is computed from the same frame of what it reads, wherever that is."""
    return all(
        e.frames == Frames(y.rate) and e.border == y.border
        if isinstance(e, Window)
        else isinstance(e, (Op, When, Const, Ref, Dims))
        for e in walk(expr)
    )


def movable(step: Step, fact: Stream) -> bool:
    """Whether a positional result can be computed at any delay: it reads whole pulses of its own rate and no state."""
    return not step.states and all(
        not isinstance(leaf, Window) or (leaf.mask is None and leaf.frames == Frames(fact.rate, role=leaf.frames.role))
        for leaf in leaves(step)
    )
