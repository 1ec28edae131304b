"""The border of a result: its operator, run once on one frame of its inputs' borders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

import numpy as np

from pulsify_onnx import fold
from pulsify_onnx.extent import Length
from pulsify_onnx.facts import Array, Border, Const, Fact, Mirror, Onset, Stream
from pulsify_onnx.plan import Dims, Expr, Frames, Merged, Op, Ref, Step, Window, leaves


class _NotConstant(Exception):
    """The border depends on something that is not known before the stream runs."""


def fold_border(expr: Expr, y: Stream, wires: Mapping[str, Fact], value: Callable[[str], Const | None], opset: int) -> Border | None:
    """The border of `y`, which `expr` computes; None where it is not constant, nor its own frames mirrored."""
    if isinstance(y.border, Mirror):
        return y.border if _by_frame(expr, y) else None
    single = y.trail.terms or not any(isinstance(w.border, Onset) for w in _windows(expr))
    wanted = 1 if single else y.lead

    def frames(f: Frames) -> int:
        if wanted > 1 and f.rate < y.rate:
            raise _NotConstant
        count = Fraction(f.rate) / y.rate * wanted + f.extra
        if count.denominator != 1 or count < 1:
            raise _NotConstant
        return int(count)

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
            x = wires[e.wire]
            if not isinstance(e.border, (Const, Onset)) or not isinstance(x, Stream):
                raise _NotConstant
            shape = [d.at(1) for d in x.shape]
            count = frames(e.frames)
            shape[x.axis] = count * _rows(x.around)
            if isinstance(e.border, Onset) and shape[x.axis] > count:
                raise _NotConstant
            rows = e.border.array if isinstance(e.border, Const) else e.border.frames.array.take(range(count), x.axis)
            return np.ascontiguousarray(np.broadcast_to(rows, shape))
        if isinstance(e, Dims):
            return np.asarray([frames(d) if isinstance(d, Frames) else frames(d.frames) * _rows((d.slower, d.faster)) if isinstance(d, Merged) else
                               d if isinstance(d, int) else d.at(1) for d in e.dims], np.int64)
        if isinstance(e, Op):
            found_all = fold.evaluate(e.op_type, [run(i) for i in e.inputs], dict(e.attributes), opset=opset, domain=e.domain, outputs=e.outputs)
            if found_all is None:
                raise _NotConstant
            return found_all[e.index]
        raise _NotConstant

    try:
        border = run(expr)
    except (_NotConstant, IndexError):
        return None
    if border is None or border.ndim != y.rank or border.shape[y.axis] != wanted * _rows(y.around):
        return None
    if wanted != border.shape[y.axis]:
        border = border.take([0], y.axis) if wanted == 1 and (border == border.take([0], y.axis)).all() else border
        if border.shape[y.axis] != wanted:
            return None
    if wanted > 1:
        return Onset(Const(border)).upto(y.axis, 0, wanted)
    if border.size and (border == border.flat[0]).all():
        border = np.full([1] * y.rank, border.flat[0], border.dtype)
    return Const(border)


def _rows(around: tuple[Length, Length]) -> int:
    """How many rows are merged with time; axes of unknown size count as 1, as everywhere here."""
    return math.prod(d.at(1) for d in around)


def _windows(expr: Expr | None) -> Iterator[Window]:
    if isinstance(expr, Window):
        yield expr
    for inner in expr.inputs if isinstance(expr, Op) else ():
        yield from _windows(inner)


def _by_frame(expr: Expr | None, y: Stream) -> bool:
    """Whether every frame of `y` is computed from the same frame of what it reads, wherever that is."""
    if isinstance(expr, Op):
        return all(_by_frame(e, y) for e in expr.inputs)
    if isinstance(expr, Window):
        return expr.frames == Frames(y.rate) and expr.border == y.border
    return expr is None or isinstance(expr, (Const, Ref, Dims))


def movable(step: Step, fact: Stream) -> bool:
    """Whether a positional result can be computed at any delay: it reads whole pulses of its own rate and no state."""
    return not step.states and all(not isinstance(leaf, Window) or leaf.mask is None and leaf.frames == Frames(fact.rate, role=leaf.frames.role)
                                   for leaf in leaves(step))
