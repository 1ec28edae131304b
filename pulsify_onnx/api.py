"""The Python API: convert, analyse, verify. Thin: the order of stages is that of ``convert/pipeline.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.analysis.state_candidates import possible_states
from pulsify_onnx.analysis.walker import require
from pulsify_onnx.arrays import Array
from pulsify_onnx.convert import pipeline
from pulsify_onnx.convert.batch import rowed
from pulsify_onnx.convert.options import ConvertOptions
from pulsify_onnx.convert.pulsed_model import PulsedModel
from pulsify_onnx.convert.reference import compared, reread, stream_axes
from pulsify_onnx.convert.window_head import SlidingBatch, halve
from pulsify_onnx.errors import Blocker, CannotStream, UsageError
from pulsify_onnx.model.load import Source, load
from pulsify_onnx.prepare.fixed_length import NoReading
from pulsify_onnx.report import tables
from pulsify_onnx.verification.check import Verification
from pulsify_onnx.verification.check import verify as verify_stream
from pulsify_onnx.verification.trace import Difference, first_difference

Model = str | Path | ir.Model | onnx.ModelProto


def _options(options: ConvertOptions | None, given: Mapping[str, Any]) -> ConvertOptions:
    return ConvertOptions(**given) if options is None else replace(options, **given)


def _source(model: Model | Source) -> Source:
    return model if isinstance(model, Source) else load(model)


def analyze(model: Model | Source, options: ConvertOptions | None = None, **given: Any) -> Plan:
    """The plan of a batch model: facts, delays, blockers. Builds no graph.

    Options are those of `ConvertOptions`, as an object or by keyword, but for ``batch`` and ``head``, which are no matter of the plan.
    Raises `UsageError` and `AmbiguousAxis`; what cannot stream is in ``plan.blockers``.
    """
    wanted = _options(options, given)
    if wanted.batch is not None or wanted.head is not None:
        raise UsageError("a plan is that of one stream, without --batch and --head")
    return pipeline.planned(_source(model), wanted).plan


@pipeline.uncollected()
def pulsify(model: Model | Source, options: ConvertOptions | None = None, **given: Any) -> PulsedModel:
    """Turn a batch model into a streaming one that takes ``pulse`` base frames a step.

    Options are those of `ConvertOptions`, as an object or by keyword; a pulse (None: any) must be named. Raises `CannotStream` with every
    blocker, `PulseDoesNotFit` with the smallest pulse that does, `UsageError`.
    """
    if options is None and "pulse" not in given:
        raise TypeError("pulsify() needs a pulse (None: any multiple of the pulse multiple)")
    wanted = _options(options, given)
    return pipeline.finished(pipeline.planned(_source(model), wanted), wanted.pulse, wanted.batch)


@dataclass(frozen=True)
class Report:
    """What `inspect` found: ``document`` is plain data for JSON, ``blockers`` says why the model does not stream."""

    document: dict[str, Any]
    blockers: tuple[Blocker, ...] = ()


@pipeline.uncollected()
def inspect(model: Model | Source, options: ConvertOptions | None = None, **given: Any) -> Report:
    """The delay report of a batch model at ``pulse`` (None: the smallest that fits), or the sidecar of a pulsed one. Options are those of `pulsify`."""
    source, wanted = _source(model), _options(options, given)
    known = source.model.metadata_props.get("pulsify.spec")
    if known is not None:
        return Report(json.loads(known))
    try:
        found = pipeline.planned(source, wanted)
    except CannotStream as problem:
        return Report(tables.blocked(problem.plan if isinstance(problem, NoReading) else None, problem.blockers), problem.blockers)
    plan = found.plan
    alone = wanted.head is None
    possible = {"possible_states": [list(pair) for pair in possible_states(found.model.source, plan)]} if alone and not wanted.states else {}
    try:
        made = pipeline.finished(found, wanted.pulse or plan.pulse_multiple, wanted.batch)
    except CannotStream as problem:
        blocked = replace(plan, blockers=problem.blockers) if alone else None
        return Report({**tables.blocked(blocked, problem.blockers), **possible}, problem.blockers)
    return Report({**made.report(), **possible, "blockers": []})


def _spec_of(pulsed: str | Path | PulsedModel) -> dict[str, Any]:
    if isinstance(pulsed, PulsedModel):
        return pulsed.spec
    known = load(pulsed).model.metadata_props.get("pulsify.spec")
    if known is None:
        raise UsageError(f"{pulsed}: not a pulsed model (it has no pulsify.spec in its metadata)")
    spec: dict[str, Any] = json.loads(known)
    return spec


def verify(model: str | Path | onnx.ModelProto, pulsed: str | Path | PulsedModel, *, frames: int | None = None, seed: int = 0,
           rtol: float | None = None, atol: float | None = None, recorded: Mapping[str, Array] | None = None, measure: bool = False) -> Verification:
    """Stream random data (or `recorded` inputs) through `pulsed` and compare every frame with the batch `model`.

    `measure`, by running the batch model some more times, how far it looks: that the receptive field is wide enough, and in ``late``
    of the result which outputs come later than the data they need.
    """
    spec = _spec_of(pulsed)
    batch = SlidingBatch(model, halve(load(model), stream_axes(spec), spec["head"]["frames"]), spec) if "head" in spec else None
    return verify_stream(compared(model, spec), pulsed, frames=frames, seed=seed, rtol=rtol, atol=atol, recorded=recorded, batch=batch,
                         measure=measure)


def trace(model: Model, pulsed: str | Path | PulsedModel, found: Verification, *, rtol: float | None = None,
          atol: float | None = None) -> Difference | None:
    """The first node whose stream differs from the batch `model` in the case that `verify` found; None where none can be told."""
    if found.case is None:
        return None
    spec = _spec_of(pulsed)
    if "head" in spec:
        return None
    states = {s["input"]: s["output"] for s in spec["states"] if s["role"] == "source"}
    source = reread(model, spec)
    plan = require(analyze(source, axes=stream_axes(spec), pulse=spec["pulse"], end_of_stream=bool(spec["valid_frames_input"]), states=states))
    made = rowed(source, plan, spec["pulse"], "dynamic" if "source_batch" in spec else None)
    graph = pulsed.model if isinstance(pulsed, PulsedModel) else ir.load(pulsed)
    return first_difference(made.source, made.plan, graph, found.case, rtol, atol)


__all__ = ["ConvertOptions", "PulsedModel", "Report", "analyze", "inspect", "pulsify", "trace", "verify"]
