"""Rows of a batch as streams of their own, for models that were exported with a batch of so many rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.algebra.plan_checks import check_plan
from pulsify_onnx.analysis.batch_axis import mixing
from pulsify_onnx.errors import Blocker, CannotStream
from pulsify_onnx.lowering.lower import lower
from pulsify_onnx.lowering.states import SOURCE, Lowered
from pulsify_onnx.model.load import Source
from pulsify_onnx.passes.placement import place
from pulsify_onnx.prepare.dynamic_batch import MakeBatchDynamic, batch_axis
from pulsify_onnx.prepare.passes import Prepared, run_passes
from pulsify_onnx.report import sidecar
from pulsify_onnx.runtime.sidecar import Input, Output, Sidecar, State

MOST_READINGS = 64
Wire = TypeVar("Wire", bound=Input | Output)
Entry = TypeVar("Entry", bound=Input | Output | State)


@dataclass(frozen=True)
class BatchedGraph:
    """A pulsed graph and what it was made from. ``rows``: exactly so many, each a stream of its own; None for as
    many as the graph says.
    """

    source: Source
    plan: Plan
    lowered: Lowered
    rows: int | None = None

    def sidecar(self, pulse: int | None) -> Sidecar:
        """What a caller must know of it."""
        found = sidecar.sidecar(self.plan, self.lowered, self.source, pulse)
        found = replace(
            found,
            inputs=tuple(map(self._rowed, found.inputs)),
            outputs=tuple(map(self._rowed, found.outputs)),
            states=tuple(self._rowed(s) if s.role == SOURCE else s for s in found.states),
        )
        return found if self.rows is None else _told(found, str(self.lowered.batch), self.rows)

    def _rowed(self, entry: Entry) -> Entry:
        """An entry that says which axis of it has the rows."""
        batch = self.lowered.batch
        return replace(entry, row_axis=entry.shape.index(batch)) if batch in entry.shape and batch != 1 else entry


def batched_graph(source: Source, plan: Plan, pulse: int | None, batch: int | str | None) -> BatchedGraph:
    """The pulsed graph of `source` as `plan` reads it.

    With a `batch` (a number of rows or "dynamic"), of a model that was exported with a batch of 1: raises
    `CannotStream` where rows can't be kept apart. Without one, rows that the source has a fixed number of are streams
    of their own where they can be; else the nodes that they share are noted.
    """
    rows = batch if isinstance(batch, int) else static_batch(plan)
    if batch is None and rows is None:
        return BatchedGraph(source, plan, _lowered(source, plan, pulse))
    try:
        found = _dynamic(source, plan, pulse) if batch is not None else None
        found = found or _by_rows(source, plan, pulse, 1 if batch is not None else rows or 1)
    except CannotStream as problem:
        if batch is not None:
            raise
        lowered = _lowered(source, plan, pulse)
        return BatchedGraph(
            source, plan, replace(lowered, shared=tuple(dict.fromkeys(b.node for b in problem.blockers)))
        )
    if rows is not None:
        _size(found.lowered, rows)
    return replace(found, rows=rows)


def _lowered(source: Source, plan: Plan, pulse: int | None) -> Lowered:
    """The pulsed graph, with the nodes that do not keep rows apart: those of the source, and those that cannot count
    the frames of each.
    """
    lowered = lower(plan, source, pulse)
    return replace(lowered, shared=tuple(dict.fromkeys([*mixing(source, plan), *lowered.shared])))


def _dynamic(source: Source, plan: Plan, pulse: int | None) -> BatchedGraph | None:
    """A model that takes any number of rows as it is; None for others. Raises `CannotStream` where its rows can't be
    kept apart.
    """
    if all(
        d.constant is not None
        for name in plan.inputs
        if isinstance(f := plan.facts[name], Stream)
        for k, d in enumerate(f.shape)
        if k != f.axis
    ):
        return None
    lowered = _lowered(source, plan, pulse)
    _apart(lowered)
    return BatchedGraph(source, plan, lowered)


def static_batch(plan: Plan) -> int | None:
    """How many rows all stream inputs have where a batch would be; None for a single one, or where that is not
    fixed.
    """
    found = set()
    for name in plan.inputs:
        fact = plan.facts[name]
        if isinstance(fact, Stream):
            if any(d.constant is None for k, d in enumerate(fact.shape) if k != fact.axis):
                return None
            at = batch_axis(fact.axis)
            found.add(fact.shape[at].constant if at < fact.rank - (fact.axis == 0) else 1)
    rows = found.pop() if len(found) == 1 else None
    return rows if rows is not None and rows > 1 else None


def _by_rows(source: Source, plan: Plan, pulse: int | None, rows: int) -> BatchedGraph:
    """`source`, which `plan` streams for `rows` rows, for any number of rows that are streams of their own.

    Raises `CannotStream` where the rows can't be kept apart.
    """
    problem: CannotStream | None = None
    axes = {name: fact.axis for name in plan.inputs if isinstance(fact := plan.facts[name], Stream)}
    model = Prepared(source, axes, read=(axes, plan))
    for own, statics in _readings(source, plan, rows):
        try:
            return _widened(model, MakeBatchDynamic(rows, own, statics), pulse)
        except CannotStream as found:
            problem = problem or found
    assert problem is not None
    raise problem


def _readings(source: Source, plan: Plan, rows: int) -> Iterator[tuple[dict[str, int], bool]]:
    """Which axis of the states of the source's own is the batch (the same for those of one shape), and whether
    static inputs have it.
    """
    names = [name for name, _ in plan.options.states]
    shapes = {v.name or "": tuple(v.shape or ()) for v in source.inputs}
    kinds = list(dict.fromkeys(shapes[name] for name in names))
    choices = [
        [k for k, d in enumerate(kind) if not isinstance(d, int)] or [k for k, d in enumerate(kind) if d == rows] or [0]
        for kind in kinds
    ]
    statics = [True, False] if rows > 1 else [True]
    for found in itertools.islice(itertools.product(*choices), MOST_READINGS):
        for static in statics:
            yield {name: found[kinds.index(shapes[name])] for name in names}, static


def _widened(model: Prepared, each: MakeBatchDynamic, pulse: int | None) -> BatchedGraph:
    """The pulsed graph of a model for any number of rows, in which as few nodes as can be are where rows meet."""
    assert model.read is not None
    timing, made = model.read[1].timing, run_passes(model, each)
    while True:
        assert made.read is not None
        wide = made.read[1] if timing is None else place(made.read[1], timing)
        check_plan(wide, "widening")
        lowered = _lowered(made.source, wide, pulse)
        each = replace(each, meeting=(*each.meeting, (*lowered.shared, *mixing(made.source, wide, constants=False))))
        apart = run_passes(model, each) if lowered.shared else model
        if apart is model:
            _apart(lowered)
            return BatchedGraph(made.source, wide, lowered)
        made = apart


def _apart(lowered: Lowered) -> None:
    """Raise `CannotStream` where the rows of the batch are no streams of their own."""
    if lowered.shared:
        raise CannotStream(
            tuple(
                Blocker(
                    name,
                    "batch",
                    "it does not keep the rows of a batch apart, or cannot count the frames of each",
                    "run a stream in a session of its own, without --batch",
                )
                for name in lowered.shared
            )
        )


def _size(lowered: Lowered, rows: int) -> None:
    """Declare the graph for exactly so many rows."""
    for value in (*lowered.model.graph.inputs, *lowered.model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                [rows if not isinstance(d, int) and d.value == lowered.batch else d for d in value.shape]
            )


def _told(found: Sidecar, label: str, rows: int) -> Sidecar:
    """The sidecar for exactly so many rows."""

    def of(entry: Wire) -> Wire:
        return replace(entry, shape=tuple(rows if d == label else d for d in entry.shape))

    states = tuple(
        replace(
            s,
            shape=tuple(rows if d == label else d for d in s.shape),
            bytes=s.bytes * (rows if label in s.shape else 1),
        )
        for s in found.states
    )
    return replace(
        found,
        inputs=tuple(map(of, found.inputs)),
        outputs=tuple(map(of, found.outputs)),
        states=states,
        state_bytes=sum(s.bytes for s in states),
        valid_frames_shape=(rows,),
    )
