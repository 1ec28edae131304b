"""Frames that are not real, kept away from what a recurrence carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Fact, Static, Stream
from pulsify_onnx.algebra.plan import Count, Expr, Op, Options, Position, Start, Step, Test, When, Window
from pulsify_onnx.algebra.windows import align, sealed, solid, timely
from pulsify_onnx.arrays import Const
from pulsify_onnx.ort import carrier
from pulsify_onnx.rules.kit.combinators import call, const
from pulsify_onnx.rules.kit.node import Node


def fed(xs: Sequence[Stream], options: Options, finals: bool, frames: bool, steps: list[Step]) -> tuple[list[Window], Stream]:
    """Streams a recurrence reads, aligned and without borders; the second is what a carried value makes of their time.

    `finals` and `frames` say whether its final values and its values at every frame are read. Final values are of real
    frames only: a frame may then not come before it is known to stay real (without an end, where that delays no frames).
    Whole numbers may be used as indices, so theirs read as zeros where they are not real.
    """
    indices = [not x.dtype.is_floating_point() and not x.positional for x in xs]
    xs = [solid(x, options, steps) if index else x for x, index in zip(xs, indices)]
    windows, y = align(xs, options, leads=False)
    if finals or any(indices):
        windows, y = timely(windows, y, always=finals and not frames)
    windows = [replace(w, mask=sealed(x)) if index else w for w, x, index in zip(windows, xs, indices)]
    return windows, replace(y, reach=replace(y.reach, past=None), positional=False)


def seen_before(x: Stream) -> Expr:
    """bool scalar: frame 0 of `x` came before this pulse, so what is carried is its own and not the initial value."""
    return call("Less", const(0), Start(x.rate, x.delay))


def starts_as_zeros(node: Node, fact: Fact | None) -> bool:
    """Whether an initial state is left out or nothing but zeros, as every state is at first."""
    if not isinstance(fact, Static):
        return fact is None
    if fact.value is not None:
        return not fact.value.array.any()
    made = node.world.step_of(fact.wire)
    expr = made.exprs[made.wires.index(fact.wire)] if made is not None else None
    return isinstance(expr, Op) and expr.op_type == "Expand" and isinstance(expr.inputs[0], Const) and not expr.inputs[0].array.any()


def timed(x: Stream, ends: bool, make: Callable[[bool, bool], Sequence[Expr]]) -> list[Expr]:
    """What `make` (late, ended) gives, for the case that the schedule finds: `x` comes late, and (where that matters, `ends`) the stream may end."""
    late = Test(late=x.delay)
    endless = [When(late, yes, no) for yes, no in zip(make(True, False), make(False, False))]
    if not ends:
        return list(endless)
    ended = (When(late, yes, no) for yes, no in zip(make(True, True), make(False, True)))
    return [When(Test.past(x.extent), yes, no) for yes, no in zip(ended, endless)]


def real(x: Stream, late: bool, ended: bool) -> Expr | None:
    """bool [frames]: which frames of this pulse of `x` are real, where it comes `late` and may have `ended`; None where all are."""
    index = Position(x.rate, x.delay)
    tests = ([call("Less", const(-1), index)] if late else []) + ([call("Less", index, Count(x.extent))] if ended else [])
    return call("And", *tests) if len(tests) == 2 else tests[0] if tests else None


def real_frames(x: Stream, ends: bool, make: Callable[[Expr], Expr], otherwise: Expr) -> Expr:
    """What `make` gives for a bool [frames] that says which frames of this pulse of `x` are real; `otherwise` where nothing but real ones can be seen."""

    def case(late: bool, ended: bool) -> list[Expr]:
        flags = real(x, late, ended)
        return [otherwise if flags is None else make(flags)]

    return timed(x, ends, case)[0]


def along(flags: Expr, x: Stream) -> Expr:
    """A vector of one value per frame, shaped to broadcast against `x`."""
    shape = [1] * x.rank
    shape[x.axis] = -1
    return call("Reshape", flags, const(shape))


def select(flag: Expr, yes: Expr, no: Expr, dtype: ir.DataType) -> Expr:
    """``Where`` for any dtype."""
    wide = carrier(dtype)
    if wide == dtype:
        return call("Where", flag, yes, no)
    return call("Cast", call("Where", flag, call("Cast", yes, to=int(wide)), call("Cast", no, to=int(wide))), to=int(dtype))
