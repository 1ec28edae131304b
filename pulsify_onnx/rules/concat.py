"""Concat: beside each other along another axis, or one after the other along the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.border import zero
from pulsify_onnx.algebra.facts import Fact, PaddingFrames, QueryKey, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import border_of_copies, materialise_padding, pad
from pulsify_onnx.algebra.plan import Op, Outcome, Position, Ref, Step
from pulsify_onnx.algebra.windows import align
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import aligned_inputs, as_outcome, const, onnx_op, own, paired
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.resumed import resumed


@declares(Trait.JOINS)
@declares(Trait.BEGINS, (0,))
@rule("Concat", versions=(4, 11, 13))
def concat(node: Node) -> Outcome:
    """Any axis but the stream's; along the stream, constants and parts of a fixed number of frames before it, a
    constant after it.

    Refuses: one whole stream after another.
    """
    rank = len(shape_of(next(f for f in node.facts if f is not None)))
    axis = node.axis(rank)
    streams = node.streams
    if any(isinstance(f, QueryKey) for f in node.facts):
        if not all(isinstance(f, QueryKey) and axis not in f.axes for f in node.facts):
            refuse(
                "it puts pairs of frames (query × key) beside something else",
                hint="concatenate scores or masks of heads only",
            )
        return paired(node, [f.axes for f in node.facts if isinstance(f, QueryKey)])
    if all(x.axis != axis for x in streams):
        return _beside(node, axis)
    if own(node.facts[0]):
        return resumed(node, axis)
    at = max(k for k, f in enumerate(node.facts) if isinstance(f, Stream))
    x = node.facts[at]
    assert isinstance(x, Stream)
    steps: list[Step] = []
    for run in reversed(_runs(node.facts[:at])):
        x = (
            _led(node, run, x, axis, steps)
            if isinstance(run, Stream)
            else _prepended(node, x, _block(node, run, axis), steps)
        )
    after = _block(node, node.facts[at + 1 :], axis)
    if after is not None:
        border = _frame(after, axis)
        if border is None:
            refuse("what it appends after the last frame differs from frame to frame", hint="append a constant, or pad")
        x = pad(x, 0, after.shape[axis], border, node.options, steps)
    return Outcome((x,), tuple(steps))


def _runs(facts: Sequence[Fact | None]) -> list[Stream | list[Fact | None]]:
    """What comes before the stream: parts that stream themselves, and runs of constants between them."""
    runs: list[Stream | list[Fact | None]] = []
    for fact in facts:
        if isinstance(fact, Stream):
            runs.append(fact)
        elif runs and isinstance(runs[-1], list):
            runs[-1].append(fact)
        else:
            runs.append([fact])
    return runs


def _beside(node: Node, axis: int) -> Outcome:
    """Concat along another axis: every input must stream along the same one."""
    facts = list(node.facts)
    streams = node.streams
    for k, fact in enumerate(facts):
        if not isinstance(fact, Stream):
            refuse(
                f"its input {k} has a fixed number of frames beside a stream",
                hint="expand it to the length of the stream",
            )
    exprs, y, at = aligned_inputs(node, [f.axis if isinstance(f, Stream) else None for f in facts])
    total = Length.of(0)
    for x in streams:
        total = total + x.shape[axis]
    shape = (*streams[0].shape[:axis], total, *streams[0].shape[axis + 1 :])
    y = y.placed(node.outputs[0], streams[0].dtype, shape, at)
    return as_outcome(node, [onnx_op("Concat", *exprs, axis=axis)], [y])


def _block(node: Node, facts: Sequence[Fact | None], axis: int) -> Array | None:
    """Constants that follow each other as one array; None where there are none."""
    parts = []
    for fact in facts:
        array = _constant(node, fact)
        if array is None:
            refuse(
                "what it puts before or after the stream is not a constant",
                hint="a cache that the caller feeds back is told with --state INPUT=OUTPUT; else start from a constant",
            )
        if array.shape[axis]:
            parts.append(array)
    return np.concatenate(parts, axis) if parts else None


def _constant(node: Node, fact: Fact | None) -> Array | None:
    """The value of a constant; of one that is expanded to dimensions of any size, without these."""
    if not isinstance(fact, Static) or fact.value is not None:
        return fact.value.array if isinstance(fact, Static) and fact.value is not None else None
    made = node.world.step_of(fact.wire)
    expr = made.exprs[made.wires.index(fact.wire)] if made is not None else None
    if not isinstance(expr, Op) or expr.op_type != "Expand":
        return None
    source = expr.inputs[0]
    known = node.world.value_of(source.wire) if isinstance(source, Ref) else source
    if not isinstance(known, Const):
        return None
    shape = [1 if d.constant is None else d.constant for d in fact.shape]
    try:
        return np.broadcast_to(known.array, shape)
    except ValueError:  # the constant itself has as many as that dimension of any size stands for
        return None


def _frame(block: Array, axis: int) -> Const | None:
    """The frame that `block` repeats; None where its frames differ."""
    first = np.take(block, [0], axis)
    if not (block == first).all():
        return None
    if (first == first.flat[0]).all():
        return Const(np.full([1] * block.ndim, first.flat[0], block.dtype))
    return Const(first)


def _prepended(node: Node, x: Stream, block: Array | None, steps: list[Step]) -> Stream:
    """`x` after constant frames, which are a border."""
    if block is None:
        return x
    return pad(x, block.shape[x.axis], 0, _frame(block, x.axis) or PaddingFrames(Const(block)), node.options, steps)


def _led(node: Node, first: Stream, x: Stream, axis: int, steps: list[Step]) -> Stream:
    """`x` after a part of another stream that has a fixed number of frames."""
    count = first.extent.constant
    if count is None or first.axis != axis or first.pad_after.terms:
        refuse(
            "it puts one stream after another, so the second begins when the first has ended",
            hint="concatenate along the channels",
        )
    border = border_of_copies(first, x, count)
    if border is not None:
        return pad(x, count, 0, border, node.options, steps)
    first = materialise_padding(first, node.options, steps)
    shifted = pad(x, count, 0, zero(x), node.options, steps)
    whole = replace(first, shape=(*first.shape[: first.axis], shifted.extent, *first.shape[first.axis + 1 :]))
    (rest, start), y = align([shifted, whole], node.options, leads=False)
    index = Position(x.rate, y.delay)
    flags: list[int] = [1] * x.rank
    flags[x.axis] = -1
    early = onnx_op("Reshape", onnx_op("Less", index, const(count)), const(flags))
    wire = f"{node.outputs[0]}#from{len(steps)}"
    y = replace(y, wire=wire)
    steps.append(Step(node.name, node.op_type, (wire,), (onnx_op("Where", early, start, rest),), (y,)))
    return y
