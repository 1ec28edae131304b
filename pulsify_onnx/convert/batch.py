"""Rows of a batch as streams of their own, for models that were exported with a batch of so many rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.errors import Blocker, CannotStream
from pulsify_onnx.lowering.lower import lower
from pulsify_onnx.lowering.states import SOURCE, Lowered
from pulsify_onnx.model.load import Source
from pulsify_onnx.passes.placement import place
from pulsify_onnx.prepare.dynamic_batch import Widening, batch_axis
from pulsify_onnx.report import sidecar

MOST_READINGS = 64


@dataclass(frozen=True)
class Rowed:
    """A pulsed graph and what it was made from. ``rows``: exactly so many, each a stream of its own; None for as many as the graph says."""

    source: Source
    plan: Plan
    lowered: Lowered
    rows: int | None = None

    def document(self, pulse: int | None) -> dict[str, Any]:
        """The sidecar."""
        found = sidecar.document(self.plan, self.lowered, self.source, pulse)
        for entry in (*found["inputs"], *found["outputs"], *(s for s in found["states"] if s["role"] == SOURCE)):
            if self.lowered.batch in entry["shape"] and self.lowered.batch != 1:
                entry["row_axis"] = entry["shape"].index(self.lowered.batch)
        return found if self.rows is None else _told(found, str(self.lowered.batch), self.rows)


def rowed(source: Source, plan: Plan, pulse: int | None, batch: int | str | None) -> Rowed:
    """The pulsed graph of `source` as `plan` reads it.

    With a `batch` (a number of rows or "dynamic"), of a model that was exported with a batch of 1: raises `CannotStream` where rows can't
    be kept apart. Without one, rows that the source has a fixed number of are streams of their own where they can be; else the
    nodes that they share are noted.
    """
    rows = batch if isinstance(batch, int) else static_batch(plan)
    if batch is None and rows is None:
        return Rowed(source, plan, lower(plan, source, pulse))
    try:
        found = _dynamic(source, plan, pulse) if batch is not None else None
        found = found or _by_rows(source, plan, pulse, 1 if batch is not None else rows or 1)
    except CannotStream as problem:
        if batch is not None:
            raise
        lowered = lower(plan, source, pulse)
        return Rowed(source, plan, replace(lowered, shared=tuple(dict.fromkeys(b.node for b in problem.blockers))))
    if rows is not None:
        _size(found.lowered, rows)
    return replace(found, rows=rows)


def _dynamic(source: Source, plan: Plan, pulse: int | None) -> Rowed | None:
    """A model that takes any number of rows as it is; None for others. Raises `CannotStream` where its rows can't be kept apart."""
    if all(d.constant is not None for name in plan.inputs if isinstance(f := plan.facts[name], Stream) for k, d in enumerate(f.shape) if k != f.axis):
        return None
    lowered = lower(plan, source, pulse)
    _apart(lowered)
    return Rowed(source, plan, lowered)


def static_batch(plan: Plan) -> int | None:
    """How many rows all stream inputs have where a batch would be; None for a single one, or where that is not fixed."""
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


def _by_rows(source: Source, plan: Plan, pulse: int | None, rows: int) -> Rowed:
    """`source`, which `plan` streams for `rows` rows, for any number of rows that are streams of their own.

    Raises `CannotStream` where the rows can't be kept apart.
    """
    problem: CannotStream | None = None
    for own, statics in _readings(source, plan, rows):
        try:
            return _widened(Widening(source, plan, rows, own, statics), plan, pulse)
        except CannotStream as found:
            problem = problem or found
    assert problem is not None
    raise problem


def _readings(source: Source, plan: Plan, rows: int) -> Iterator[tuple[dict[str, int], bool]]:
    """Which axis of the states of the source's own is the batch (the same for those of one shape), and whether static inputs have it."""
    names = [name for name, _ in plan.options.states]
    shapes = {v.name or "": tuple(v.shape or ()) for v in source.inputs}
    kinds = list(dict.fromkeys(shapes[name] for name in names))
    choices = [[k for k, d in enumerate(kind) if not isinstance(d, int)] or [k for k, d in enumerate(kind) if d == rows] or [0] for kind in kinds]
    statics = [True, False] if rows > 1 else [True]
    for found in itertools.islice(itertools.product(*choices), MOST_READINGS):
        for static in statics:
            yield {name: found[kinds.index(shapes[name])] for name in names}, static


def _widened(widening: Widening, plan: Plan, pulse: int | None) -> Rowed:
    while True:
        wide = widening.analysed(plan.options)
        if plan.timing is not None:
            wide = place(wide, plan.timing)
        wide.check()
        lowered = lower(wide, widening.source, pulse)
        if not lowered.shared or not widening.repair(lowered.shared, wide):
            _apart(lowered)
            return Rowed(widening.source, wide, lowered)


def _apart(lowered: Lowered) -> None:
    """Raise `CannotStream` where the rows of the batch are no streams of their own."""
    if lowered.shared:
        raise CannotStream(tuple(Blocker(name, "batch", "it does not keep the rows of a batch apart, or cannot count the frames of each",
                                         "run a stream in a session of its own, without --batch") for name in lowered.shared))


def _size(lowered: Lowered, rows: int) -> None:
    """Declare the graph for exactly so many rows."""
    for value in (*lowered.model.graph.inputs, *lowered.model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([rows if not isinstance(d, int) and d.value == lowered.batch else d for d in value.shape])


def _told(document: dict[str, Any], label: str, rows: int) -> dict[str, Any]:
    """The sidecar for exactly so many rows."""
    entries = {key: [{**e, "shape": [rows if d == label else d for d in e["shape"]]} for e in document[key]] for key in ("inputs", "outputs", "states")}
    for state, old in zip(entries["states"], document["states"]):
        state["bytes"] *= rows if label in old["shape"] else 1
    return {**document, **entries, "state_bytes": sum(s["bytes"] for s in entries["states"]), "valid_frames_shape": [rows]}
