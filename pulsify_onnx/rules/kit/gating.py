"""Frames that are not real, kept away from what a recurrence carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from pulsify_onnx.algebra.border import mask_padding
from pulsify_onnx.algebra.facts import Fact, Static, Stream
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Expr, Op, Options, Step, Window
from pulsify_onnx.algebra.windows import align, wait_until_known
from pulsify_onnx.arrays import Const
from pulsify_onnx.ort import carrier
from pulsify_onnx.rules.kit.combinators import const, onnx_op
from pulsify_onnx.rules.kit.node import Node


def recurrence_inputs(
    xs: Sequence[Stream], options: Options, finals: bool, frames: bool, steps: list[Step]
) -> tuple[list[Window], Stream]:
    """Streams a recurrence reads, aligned and without borders; the second is what a carried value makes of their time.

    `finals` and `frames` say whether its final values and its values at every frame are read. Final values are of real
    frames only: a frame may then not come before it is known to stay real (without an end, where that delays no
    frames).
    Whole numbers may be used as indices, so theirs read as zeros where they are not real.
    """
    indices = [not x.dtype.is_floating_point() and not x.positional for x in xs]
    xs = [materialise_padding(x, options, steps) if index else x for x, index in zip(xs, indices)]
    windows, y = align(xs, options, leads=False)
    if finals or any(indices):
        windows, y = wait_until_known(windows, y, always=finals and not frames)
    windows = [replace(w, mask=mask_padding(x)) if index else w for w, x, index in zip(windows, xs, indices)]
    return windows, replace(y, reach=y.reach.carried(), positional=False)


def starts_as_zeros(node: Node, fact: Fact | None) -> bool:
    """Whether an initial state is left out or nothing but zeros, as every state is at first."""
    if not isinstance(fact, Static):
        return fact is None
    if fact.value is not None:
        return not fact.value.array.any()
    made = node.world.step_of(fact.wire)
    expr = made.exprs[made.wires.index(fact.wire)] if made is not None else None
    return (
        isinstance(expr, Op)
        and expr.op_type == "Expand"
        and isinstance(expr.inputs[0], Const)
        and not expr.inputs[0].array.any()
    )


def along(flags: Expr, x: Stream) -> Expr:
    """A vector of one value per frame, shaped to broadcast against `x`."""
    shape = [1] * x.rank
    shape[x.axis] = -1
    return onnx_op("Reshape", flags, const(shape))


def select(flag: Expr, yes: Expr, no: Expr, dtype: ir.DataType) -> Expr:
    """``Where`` for any dtype."""
    wide = carrier(dtype)
    if wide == dtype:
        return onnx_op("Where", flag, yes, no)
    return onnx_op(
        "Cast",
        onnx_op("Where", flag, onnx_op("Cast", yes, to=int(wide)), onnx_op("Cast", no, to=int(wide))),
        to=int(dtype),
    )
