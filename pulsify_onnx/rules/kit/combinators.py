"""Combinators: the boring part of most rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.attributes import attributes
from pulsify_onnx.algebra.facts import Band, Fact, QueryKey, RelativeScores, Running, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Count, Expr, Op, Outcome, Ref, State, StateLink, Step
from pulsify_onnx.algebra.query_key import Side, meet, meet_offsets, meets, placed, relative
from pulsify_onnx.algebra.windows import align, wait_until_known
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.infer import infer, overstated
from pulsify_onnx.rules.kit.node import Node

BACK = "it brings a value over the whole stream back to the frames, so the first frame needs the last"
BACK_HINT = "use a running value over the frames so far, or cut the model there"
LENGTH = "it uses the length of the whole stream as a number, which is not known while the stream runs"
LENGTH_HINT = "count the frames so far instead, for example by CumSum of ones"
UNKNOWN_SHAPE = "run onnx.shape_inference on the model, or export it with fixed channel sizes"


def static(node: Node, index: int) -> Expr | None:
    """Expression of input `index`, which must not depend on the stream (None where it is left out)."""
    fact = node.fact(index)
    return None if fact is None else static_value(fact)


def static_value(fact: Fact) -> Expr:
    """Expression of a value that must not depend on the stream; refuses all others."""
    if isinstance(fact, Static):
        return Ref(fact.wire)
    if isinstance(fact, ShapeTensor):
        refuse(LENGTH, LENGTH_HINT)
    if isinstance(fact, Running):
        refuse(BACK, BACK_HINT)
    refuse(
        "an input that must be the same for all frames changes with the stream",
        hint="make it a constant, or an input without time",
    )


def the_stream(node: Node, index: int = 0) -> Stream:
    """Input `index` as the only stream of the node; refuses streams on other inputs."""
    fact = node.fact(index)
    for k, other in enumerate(node.facts):
        if k != index and isinstance(other, Stream):
            refuse(
                f"its input {k} changes with the stream, where a value for all frames is needed",
                hint="make that input a constant, or an input without time",
            )
    if any(isinstance(f, QueryKey) for f in node.facts):
        refuse(
            "it works on pairs of frames (query × key), which only attention behind a mask may do",
            hint="attend by MatMul, mask, Softmax, MatMul",
        )
    if not isinstance(fact, Stream):
        refuse("its first input does not stream", hint="make it the input with time")
    return fact


def paired(
    node: Node,
    axes: Sequence[Side],
    make: Callable[[list[Expr | None]], Expr] | None = None,
    shape: Sequence[Length | None] | None = None,
    dtype: ir.DataType | None = None,
) -> Outcome:
    """Keep an operator whose result has two stream axes: it is evaluated where a reader closes the pair."""
    before: list[Step] = []
    pair: QueryKey | RelativeScores
    exprs, pair = (meet_offsets if any(map(relative, node.facts)) else meet)(node.facts, axes, node.options, before)
    inputs = [
        e if e is not None or f is None or (make is not None and isinstance(f, ShapeTensor)) else static_value(f)
        for e, f in zip(exprs, node.facts)
    ]
    if shape is None or dtype is None:
        (found, inferred), *_ = infer(node)
        dtype, shape = dtype or found, shape or inferred
    if shape is None or any(d is None for k, d in enumerate(shape) if k not in pair.axes):
        refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
    expr = make(inputs) if make is not None else same_op(node, inputs)
    fact = placed(pair, node.outputs[0], dtype, shape)
    return as_outcome(
        node, [expr], [replace(fact, alive=_alive(node)) if isinstance(fact, QueryKey) else fact], before=before
    )


def _alive(node: Node) -> Band | None:
    """The band outside which the result is still zero: operators that keep zeros, on one pair."""
    pairs = [f for f in node.facts if isinstance(f, QueryKey)]
    if (len(pairs) != 1 or pairs[0].alive is None) and (node.op_type != "Where" or not pairs):
        return None
    band = next((f.alive for f in pairs if f.alive is not None), None)
    if node.op_type == "Where":
        keeps = all(
            (isinstance(f, QueryKey) and f.alive == band)
            or (isinstance(f, Static) and f.value is not None and not f.value.array.any())
            for f in node.facts[1:3]
        )
        return band if keeps else None
    static_rest = not any(isinstance(f, Stream) for f in node.facts)
    return (
        band if static_rest and node.op_type in ("Cast", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Mul") else None
    )


def aligned_inputs(
    node: Node, axes: Sequence[int | None], leads: bool = True, late: bool = False
) -> tuple[list[Expr | None], Stream, int]:
    """Align all streams among the inputs; ``axes[k]`` is the output axis that input k streams along.

    Returns an expression per input, the joined stream and its output axis. With `late`, frames that may turn out to
    be past the end are waited for. Refuses two stream axes.
    """
    reads, y = align(node.streams, node.options, leads)
    if late:
        reads, y = wait_until_known(reads, y)
    windows = iter(reads)
    exprs: list[Expr | None] = []
    found: set[int] = set()
    for k, fact in enumerate(node.facts):
        if isinstance(fact, Stream):
            exprs.append(next(windows))
            axis = axes[k]
            if axis is None:
                refuse(
                    f"its input {k} changes with the stream, where a value for all frames is needed",
                    hint="make that input a constant, or an input without time",
                )
            found.add(axis)
        else:
            exprs.append(None if fact is None else static_value(fact))
    if len(found) > 1:
        refuse(
            "two of its inputs stream along different axes of its result, so every frame meets every other frame",
            hint="bring time to the same axis of both; attention needs a window",
        )
    return exprs, y, found.pop()


def same_op(node: Node, inputs: Sequence[Expr | None], index: int = 0, **changes: Any) -> Op:
    """Output `index` of the node's operator on `inputs`, attributes changed or (None) left out."""
    return Op(node.op_type, tuple(inputs), node.replaced(**changes), node.domain, len(node.outputs), index)


def own(fact: Fact | None) -> bool:
    """Whether a value comes from a state of the source, which the caller carries."""
    return isinstance(fact, Static) and fact.own


def carried(node: Node, fact: Fact | None, output: int) -> StateLink:
    """The carry of a recurrence that begins with `fact` and ends with output `output` of the node."""
    assert fact is not None
    final = node.outputs[output] if output < len(node.outputs) else ""
    if not final:
        refuse(
            "it begins with a state of the source, and its last state is not among its outputs",
            hint="export the last state as an output, or leave the state out of --state",
        )
    return StateLink(fact.wire, final, final)


def as_outcome(
    node: Node,
    exprs: Sequence[Expr],
    facts: Sequence[Fact],
    states: Sequence[State] = (),
    before: Sequence[Step] = (),
    carries: Sequence[StateLink] = (),
) -> Outcome:
    """One step that computes the node's outputs (those that somebody reads) by `exprs`; `before` come first."""
    rows = [(w, e, f) for w, e, f in zip(node.outputs, exprs, facts) if w]
    made = Step(
        node.name,
        node.op_type,
        tuple(w for w, _, _ in rows),
        tuple(e for _, e, _ in rows),
        tuple(f for _, _, f in rows),
        tuple(states),
        tuple(carries),
    )
    return Outcome(tuple(facts), (*before, made))


def passthrough(
    node: Node,
    axes: Sequence[Side],
    out_axes: Sequence[int] | None = None,
    leads: bool = True,
    before: Sequence[Step] = (),
    late: bool = False,
    **changes: Any,
) -> Outcome:
    """Keep the operator: its streams meet in one axis, which it leaves alone.

    ``axes[k]``: the axis of the first output that input k streams along; `out_axes`: that axis in every output,
    where it is not the same in all. `late`: as `joined` has it.
    """
    if meets(node.facts, axes):
        return paired(node, axes)
    exprs, y, axis = aligned_inputs(node, [a if isinstance(a, int) else None for a in axes], leads, late)
    facts: list[Fact] = []
    inferred = infer(node)
    for k, (wire, (dtype, shape)) in enumerate(zip(node.outputs, inferred)):
        at = out_axes[k] if out_axes else axis
        if not wire:
            facts.append(y)
            continue
        if shape is None or any(d is None for i, d in enumerate(shape) if i != at):
            refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
        facts.append(y.placed(wire, dtype, shape, at))
    made: list[Expr] = [same_op(node, exprs, k, **changes) for k in range(len(node.outputs))]
    return as_outcome(node, [sized(node, made[0], inferred[0][1]), *made[1:]], facts, before=before)


def sized(node: Node, expr: Expr, shape: Sequence[Length | None] | None) -> Expr:
    """`expr`, whose sizes are those of `shape` when it runs, in a form of which a file that tells them is valid."""
    for axis, size in overstated(node, tuple(shape or ())).items():
        expr = onnx_op("Slice", expr, const([0]), const([size]), const([axis]))
    return expr


def broadcast(node: Node, leads: bool = True, late: bool = False) -> Outcome:
    """Keep an element-wise operator with numpy broadcasting."""
    rank = max(len(f.shape) for f in node.facts if f is not None and not hasattr(f, "by"))
    axes: list[Side] = [
        f.axis + rank - f.rank if isinstance(f, Stream) else _both(f, rank) if isinstance(f, QueryKey) else None
        for f in node.facts
    ]
    targets = sorted({i for a in axes if a is not None for i in ((a,) if isinstance(a, int) else a)})
    target = targets[0] if targets else None
    if target is None:  # lengths and constants whose value has no closed form
        refuse(
            "it computes with the length of the whole stream, which is not known while the stream runs",
            hint="compute lengths from shapes by whole-number arithmetic, or use fixed sizes",
        )
    for k, fact in enumerate(node.facts):
        for target in targets:
            at = target - rank + len(fact.shape) if isinstance(fact, Static) else -1
            if isinstance(fact, Static) and at >= 0 and len(targets) > 1 and fact.shape[at].constant is None:
                refuse(
                    "its mask is given by the caller for the whole stream, so nothing says which keys a query sees",
                    hint="build the mask inside the model from positions (Range), as a band or chunks",
                )
            if isinstance(fact, Static) and at >= 0 and fact.shape[at].constant != 1:
                refuse(
                    f"its input {k} is a constant of {fact.shape[at]} frames along the stream, so it fits one "
                    "length only",
                    hint="compute it from frame positions (Range, or a table sliced to the length), or export with "
                    "a dynamic length",
                )
    return passthrough(node, axes, leads=leads, late=late)


def _both(fact: QueryKey, rank: int) -> tuple[int, int]:
    shift = rank - len(fact.shape)
    return fact.axes[0] + shift, fact.axes[1] + shift


def keep_unless(node: Node, touched: Sequence[int], reason: str, hint: str, index: int = 0, **changes: Any) -> Outcome:
    """Keep an operator that mixes axes `touched` of its input `index`; refuses with `reason` where one is the
    stream's.
    """
    x = the_stream(node, index)
    if x.axis in touched:
        refuse(reason, hint)
    return passthrough(node, [x.axis if k == index else None for k in range(len(node.facts))], **changes)


def const(value: Any, dtype: Any = np.int64) -> Const:
    """A constant expression, int64 unless told."""
    return Const(np.asarray(value, dtype))


def onnx_op(op_type: str, *inputs: Expr | None, domain: str = "", **attrs: Any) -> Op:
    """An operator with one output on expressions."""
    return Op(op_type, tuple(inputs), attributes(attrs.items()), domain)


def running_value(fact: Fact) -> Expr:
    """Expression of a value that is the same for all frames of a pulse: static, or over the frames so far."""
    if isinstance(fact, Running):
        return Ref(fact.wire)
    if isinstance(fact, ShapeTensor):
        return lengths_so_far(fact)
    return static_value(fact)


def lengths_so_far(fact: ShapeTensor) -> Expr:
    """Lengths computed from the number of frames so far."""
    counts = [onnx_op("Reshape", _so_far(v, fact), const([1])) for v in fact.values]
    row = counts[0] if len(counts) == 1 else onnx_op("Concat", *counts, axis=0)
    return onnx_op("Reshape", row, const(list(fact.shape)))


def _so_far(length: Length, fact: ShapeTensor) -> Expr:
    by = math.lcm(*(c.denominator for _, c in length.terms))
    count = onnx_op("Cast", Count(length * by), to=int(fact.dtype))
    return count if by == 1 else onnx_op("Div", count, const(by, fact.dtype.numpy()))
