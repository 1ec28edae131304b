"""Axes that are merged with time are set apart where a reader wants other frames than those of the pulse, or some of
them hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.facts import ALONE, Fact, Mirror, Padding, PaddingFrames, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Frames, Merged, Op, Plan, Step, Window, rebuilt
from pulsify_onnx.arrays import Const


def _apart(step: Step, facts: Mapping[str, Fact]) -> tuple[Step, ...]:
    """`step`, after what it needs to read merged streams elsewhere than in this pulse, or with some of their frames
    hidden.
    """
    before: dict[str, Step] = {}

    def read(expr: Expr) -> Expr:
        x = (
            facts.get(expr.wire)
            if isinstance(expr, Window) and (expr.mask is not None or expr.back or expr.frames.extra)
            else None
        )
        if not isinstance(expr, Window) or not isinstance(x, Stream) or not x.merged or x.positional:
            return rebuilt(expr, read)
        row = _row_of(x)
        sizes = tuple(Frames(x.rate) if k == row.axis else _dim(d) for k, d in enumerate(row.shape))
        before[row.wire] = Step(
            step.node, "Reshape", (row.wire,), (_reshaped(Window(x.wire, 0, Frames(x.rate)), Dims(sizes)),), (row,)
        )
        mask = None if expr.mask is None else replace(expr.mask, border=_spread(expr.mask.border, x))
        merged_again = tuple(
            Merged(x.around[0], expr.frames, x.around[1]) if k == x.axis else _dim(d) for k, d in enumerate(x.shape)
        )
        return _reshaped(replace(expr, wire=row.wire, mask=mask, border=row.border), Dims(merged_again))

    exprs = tuple(map(read, step.exprs))
    return (*before.values(), replace(step, exprs=exprs))


def _row_of(x: Stream) -> Stream:
    """A merged stream with the merged axes on their own."""
    slower, faster = x.around
    parts = [d for d in (slower, x.extent, faster) if d != Length.of(1) or d is x.extent]
    return replace(
        x,
        wire=f"{x.wire}#apart",
        around=ALONE,
        axis=x.axis + (slower != Length.of(1)),
        border=None if x.border is None else _spread(x.border, x),
        shape=(*x.shape[: x.axis], *parts, *x.shape[x.axis + 1 :]),
    )


def _spread(border: Padding, x: Stream) -> Padding:
    """The border of a merged stream where the merged axes are on their own."""
    if isinstance(border, Mirror):
        return border
    slower, faster = (size != Length.of(1) for size in x.around)
    array = border.array if isinstance(border, Const) else border.frames.array
    array = np.expand_dims(array, x.axis + 1) if faster else array
    found = Const(np.expand_dims(array, x.axis) if slower else array)
    return found if isinstance(border, Const) else PaddingFrames(found)


def _dim(d: Length) -> Dim:
    return d.constant if d.constant is not None else d


def _reshaped(value: Expr, shape: Dims) -> Expr:
    return Op("Reshape", (value, shape))


def set_apart(plan: Plan) -> Plan:
    """`plan`, in which steps read merged streams as they are in the pulse only, and others by way of their rows."""
    if not any(isinstance(f, Stream) and f.merged for f in plan.wires.values()):
        return plan
    steps: list[Step] = []
    wires = dict(plan.wires)
    for step in plan.steps:
        for made in _apart(step, wires):
            if not set(made.wires) <= wires.keys() or made.wires == step.wires:
                steps.append(made)
                wires.update(zip(made.wires, made.facts))
    return replace(plan, wires=wires, steps=tuple(steps))
