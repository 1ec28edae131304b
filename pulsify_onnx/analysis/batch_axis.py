"""The batch read as if it were time: whether its rows are apart is what the rules say of frames that are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pulsify_onnx.algebra.facts import Blocked, Fact, Nothing, Running, Shape, Static, Stream, WindowValue
from pulsify_onnx.algebra.frame_by_frame import frames_apart, in_place
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.plan import Options, Outcome, Plan
from pulsify_onnx.analysis.readings import READINGS, Next, Reading
from pulsify_onnx.analysis.walker import analyze
from pulsify_onnx.errors import Refusal
from pulsify_onnx.model.load import Source
from pulsify_onnx.rules.kit.node import Node

FRAMES = (997, 89)
"""Numbers of frames that time is taken for: primes, which stand for nothing else; a shorter one where a table has no
more.
"""


def batch_of(plan: Plan) -> str | None:
    """The symbol of the batch of the stream inputs; None where it has one row, or a fixed number of them."""
    for name in plan.inputs:
        fact = plan.wires[name]
        if isinstance(fact, Stream):
            for k, d in enumerate(fact.shape):
                if k != fact.axis and d.constant is None:
                    return str(d)
    return None


def mixing(source: Source, plan: Plan, constants: bool = True) -> tuple[str, ...]:
    """Nodes of `source`, all of a model that `plan` streams or a part of it, that do not keep the rows of its batch
    apart; none where it has no batch.

    `constants` may have an entry for every row; else nodes that read such ones are among the result.
    """
    batch = batch_of(plan)
    if batch is None:
        return ()
    rows = Length.symbol(batch)
    names = [v.name or "" for v in source.inputs]
    shapes = {name: fact.shape for name in names if isinstance(fact := plan.wires[name], (WindowValue, Static, Stream))}
    axes = {name: shape.index(rows) for name, shape in shapes.items() if rows in shape}
    twice = tuple(name for name in axes if shapes[name].count(rows) > 1)
    if twice:
        return twice
    found: tuple[str, ...] = ()
    for frames in FRAMES:
        number = plan.pulse_multiple * max(frames, -(-plan.least // plan.pulse_multiple))
        along = analyze(
            source,
            axes,
            Options(),
            _numbered(shapes, rows, number, plan.pulse_multiple),
            WITH_ROWS if constants else READINGS,
        )
        mixed = tuple(dict.fromkeys(_not_apart(source, plan, along)))
        if not mixed:
            return ()
        found = found or mixed
    return found


def _with_an_entry_for_each_row(node: Node, then: Next) -> Outcome:
    """A node as it is; where a constant that it reads does not fit the rows, it has an entry for each of them, or
    one for all.
    """
    try:
        return then(node)
    except Refusal:
        for own in _with_rows(node):
            try:
                return then(own)
            except Refusal:
                continue
        raise


def _with_rows(node: Node) -> Iterator[Node]:
    """The node with a constant that it reads beside the batch as a tensor with as many rows, whichever axis has
    them.
    """
    batch = next((f for f in node.facts if isinstance(f, Stream)), None)
    for k, fact in enumerate(node.facts):
        if batch is not None and isinstance(fact, Static) and fact.value is not None:
            for axis in range(len(fact.shape)):
                shape = (*fact.shape[:axis], batch.extent, *fact.shape[axis + 1 :])
                own = Stream(fact.wire, fact.dtype, shape, axis, batch.rate, source=batch.source)
                yield replace(node, facts=(*node.facts[:k], own, *node.facts[k + 1 :]))


WITH_ROWS = (Reading("an entry for each row", lambda node: True, _with_an_entry_for_each_row), *READINGS)
"""Readings along the batch, of which constants may have an entry for every row."""


def _numbered(shapes: Mapping[str, Shape], rows: Length, frames: int, multiple: int) -> dict[str, Shape]:
    """Shapes in which all that is of any size but the batch is a number; equal symbols are equal numbers."""
    others = {name for shape in shapes.values() for d in shape if d != rows for name in d.symbols()} - {TIME}
    numbers = {name: frames + multiple * k for k, name in enumerate(sorted(others), 1)}
    return {
        name: tuple(
            d if d == rows or d.constant is not None else Length.of(numbers.get(str(d)) or d.at(frames)) for d in shape
        )
        for name, shape in shapes.items()
    }


def _not_apart(source: Source, plan: Plan, along: Plan) -> Iterator[str]:
    """Nodes whose results are no rows in their places, or are made of other rows, where what they read is apart.

    `plan` is that of the stream, whose shapes must have no number where it is `along` the batch.
    """
    extent = Length.symbol(TIME)
    mixed = {step.node for step in along.steps if not frames_apart(step)}
    blocked = {b.node for b in along.blockers}
    moved = {
        name
        for name, fact in along.facts.items()
        if not isinstance(fact, (Blocked, Nothing))
        and not (in_place(fact, extent) and _agree(fact, plan.facts.get(name)))
    }
    for node in source.model.graph:
        causes = node.name in mixed or node.name in blocked or any(out.name in moved for out in node.outputs)
        if causes and not any(v is not None and v.name in moved for v in node.inputs):
            yield node.name or ""
    yield from blocked - {node.name for node in source.model.graph}
    yield from (
        output
        for name, output in plan.options.states
        if name in along.facts and _axis(along.facts[name]) != _axis(along.facts.get(output))
    )


def _agree(row: Fact, frame: Fact | None) -> bool:
    """Whether the shape that a tensor has beside the stream may have any number of rows where they are."""
    if not isinstance(row, Stream) or not isinstance(frame, (WindowValue, Running, Static, Stream)):
        return True
    shape = frame.whole if isinstance(frame, Stream) else frame.shape
    return row.axis < len(shape) and shape[row.axis].constant is None


def _axis(fact: Fact | None) -> int | None:
    return fact.axis if isinstance(fact, Stream) else None
