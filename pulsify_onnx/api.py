"""The Python API: convert, analyse, verify. Thin: the order of stages is that of ``convert/pipeline.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.analysis.state_candidates import possible_states
from pulsify_onnx.analysis.walker import read_axes, require
from pulsify_onnx.arrays import Array
from pulsify_onnx.convert import pipeline
from pulsify_onnx.convert.batch import batched_graph
from pulsify_onnx.convert.options import ConvertOptions
from pulsify_onnx.convert.pipeline import Analysis
from pulsify_onnx.convert.pulsed_model import PulsedModel
from pulsify_onnx.convert.reference import compared, reread, stream_axes
from pulsify_onnx.convert.window_head import SlidingBatch
from pulsify_onnx.errors import Blocker, CannotStream, UsageError
from pulsify_onnx.model.load import Source, load
from pulsify_onnx.passes import plan_text
from pulsify_onnx.prepare.fixed_length import NoReading
from pulsify_onnx.prepare.passes import Prepared, run_passes
from pulsify_onnx.prepare.split_head import SplitHead
from pulsify_onnx.report.description import BlockedModel, Description, blocked
from pulsify_onnx.runtime.sidecar import KEY, Sidecar
from pulsify_onnx.verification.check import Verification, opened
from pulsify_onnx.verification.check import verify as verify_stream
from pulsify_onnx.verification.trace import FirstDifference, first_difference

Model = str | Path | ir.Model | onnx.ModelProto


def _options(options: ConvertOptions | None, given: Mapping[str, Any]) -> ConvertOptions:
    return ConvertOptions(**given) if options is None else replace(options, **given)


def _source(model: Model | Source) -> Source:
    return model if isinstance(model, Source) else load(model)


@pipeline.uncollected()
def analyze(model: Model | Source, options: ConvertOptions | None = None, **given: Any) -> Analysis:
    """How a batch model streams, whatever the pulse: ``blockers``, ``at(pulse=…)`` with its delays,
    ``pulsed(pulse=…)``. Builds no graph.

    Options are those of `ConvertOptions`, as an object or by keyword, but for ``pulse``, which comes later, and
    ``batch`` and ``head``, which are no matter of the plan. Raises `UsageError` and `AmbiguousAxis`; what cannot stream
    is in ``blockers``.
    """
    if "pulse" in given:
        raise TypeError(
            "analyze() takes no pulse: one analysis is that of every pulse, as in analyze(model).at(pulse=16)"
        )
    wanted = _options(options, given)
    if wanted.batch is not None or wanted.head is not None:
        raise UsageError("a plan is that of one stream, without --batch and --head")
    return pipeline.analyzed(_source(model), wanted)


@pipeline.uncollected()
def pulsify(model: Model | Source, options: ConvertOptions | None = None, **given: Any) -> PulsedModel:
    """Turn a batch model into a streaming one that takes ``pulse`` base frames a step.

    Options are those of `ConvertOptions`, as an object or by keyword; a pulse (None: any) must be named. Raises
    `CannotStream` with every blocker, `PulseDoesNotFit` with the smallest pulse that does, `UsageError`.
    """
    if options is None and "pulse" not in given:
        raise TypeError("pulsify() needs a pulse (None: any multiple of the pulse multiple)")
    wanted = _options(options, given)
    return pipeline.analyzed(_source(model), wanted).pulsed(wanted.pulse, wanted.batch)


@dataclass(frozen=True)
class Report:
    """What `inspect` found.

    ``document`` is plain data for JSON, ``blockers`` says why the model does not stream, ``plan`` how it does.
    ``possible_states``: what ``states`` might be given as, where that was asked.
    """

    found: Description | BlockedModel
    blockers: tuple[Blocker, ...] = ()
    plan: Plan | None = None
    possible_states: tuple[tuple[str, str], ...] | None = None

    @cached_property
    def document(self) -> dict[str, Any]:
        """All of it as plain data."""
        return self.to_json()

    def to_json(self, frame_rate: float | None = None) -> dict[str, Any]:
        """The same with delays in milliseconds, where there are `frame_rate` base frames in a second."""
        pairs = self.possible_states
        possible = {} if pairs is None else {"possible_states": [list(pair) for pair in pairs]}
        blockers = {"blockers": [b.as_json() for b in self.blockers]} if self.plan is not None or self.blockers else {}
        return {**self.found.to_json(frame_rate), **possible, **blockers}

    @property
    def axes(self) -> dict[str, int]:
        """The stream axis by input, as it was read; empty where the analysis did not come to a plan."""
        return {} if self.plan is None else read_axes(self.plan)

    def plan_lines(self) -> list[str]:
        """The plan, a line a step. Raises `UsageError` for a pulsed model, which has none, and where the analysis
        did not come to one.
        """
        if self.plan is None:
            raise UsageError(
                "--plan: there is no plan" + ("" if self.blockers else " of a model that is pulsed already")
            )
        return plan_text.lines(self.plan)


@pipeline.uncollected()
def inspect(model: Model | Source, options: ConvertOptions | None = None, **given: Any) -> Report:
    """The delay report of a batch model at ``pulse`` (None: the smallest that fits), or the sidecar of a pulsed one.
    Options are those of `pulsify`.
    """
    source, wanted = _source(model), _options(options, given)
    if KEY in source.model.metadata_props:
        sidecar = Sidecar.of(source.model.metadata_props, source.file)
        return Report(Description(sidecar, json.loads(source.model.metadata_props[KEY])))
    try:
        found = pipeline.analyzed(source, wanted)
    except CannotStream as problem:
        plan = problem.plan if isinstance(problem, NoReading) else None
        return Report(blocked(plan, problem.blockers), problem.blockers, plan)
    plan = found.at(wanted.pulse)
    alone = wanted.head is None
    possible = tuple(possible_states(found.model.source, plan)) if alone and not wanted.states else None
    try:
        made = found.pulsed(wanted.pulse or plan.pulse_multiple, wanted.batch)
    except CannotStream as problem:
        known = replace(plan, blockers=problem.blockers) if alone else None
        return Report(blocked(known, problem.blockers), problem.blockers, known, possible)
    return Report(made.description, plan=made.plan, possible_states=possible)


def verify(
    model: str | Path | onnx.ModelProto,
    pulsed: str | Path | PulsedModel,
    *,
    frames: int | None = None,
    seed: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
    recorded: Mapping[str, Array] | None = None,
    measure: bool = False,
) -> Verification:
    """Stream random data (or `recorded` inputs) through `pulsed` and compare every frame with the batch `model`.

    `measure`, by running the batch model some more times, how far it looks: that the receptive field is wide enough,
    and in ``late`` of the result which outputs come later than the data they need.
    """
    runner = opened(pulsed)
    sidecar, head = runner.sidecar, runner.sidecar.head
    batch = None
    if head is not None:
        batch = SlidingBatch(
            model, run_passes(Prepared(load(model), stream_axes(sidecar)), SplitHead(head.frames)), sidecar, head
        )
    return verify_stream(
        compared(model, sidecar),
        runner,
        frames=frames,
        seed=seed,
        rtol=rtol,
        atol=atol,
        recorded=recorded,
        batch=batch,
        measure=measure,
    )


def trace(
    model: Model,
    pulsed: str | Path | PulsedModel,
    found: Verification,
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> FirstDifference | None:
    """The first node whose stream differs from the batch `model` in the case that `verify` found; None where none
    can be told.
    """
    if found.case is None:
        return None
    graph = pulsed.model if isinstance(pulsed, PulsedModel) else ir.load(pulsed)
    sidecar = pulsed.sidecar if isinstance(pulsed, PulsedModel) else Sidecar.of(graph.metadata_props, pulsed)
    if sidecar.head is not None:
        return None
    states = {s.input: s.output for s in sidecar.source_states}
    source = reread(model, sidecar)
    plan = require(
        analyze(source, axes=stream_axes(sidecar), end_of_stream=sidecar.ends, states=states).at(sidecar.pulse)
    )
    made = batched_graph(source, plan, sidecar.pulse, None if sidecar.source_batch is None else "dynamic")
    return first_difference(made.source, made.plan, graph, found.case, rtol, atol)


__all__ = ["Analysis", "ConvertOptions", "PulsedModel", "Report", "analyze", "inspect", "pulsify", "trace", "verify"]
