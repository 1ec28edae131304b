"""The Python API: convert, analyse, verify."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from pulsify_onnx.algebra.delay import Timing
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.algebra.plan_checks import check
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.analysis.state_candidates import possible_states
from pulsify_onnx.analysis.walker import require
from pulsify_onnx.arrays import Array
from pulsify_onnx.convert.batch import rowed
from pulsify_onnx.convert.window_head import SlidingBatch, halve, joined, pulsed
from pulsify_onnx.errors import Blocker, CannotStream, PulseDoesNotFit, UsageError
from pulsify_onnx.model.load import Source, load
from pulsify_onnx.output import write
from pulsify_onnx.passes import plan_text
from pulsify_onnx.passes.schedule import schedule
from pulsify_onnx.prepare.fixed_length import READINGS, NoReading, Relaxed, implied, relax, runnable, settle
from pulsify_onnx.prepare.left_context import cut_past
from pulsify_onnx.report import tables
from pulsify_onnx.report.sidecar import flat
from pulsify_onnx.runtime.sidecar import KEY, Head, LeftContext, Sidecar
from pulsify_onnx.verification.check import Verification, opened
from pulsify_onnx.verification.check import verify as verify_stream
from pulsify_onnx.verification.trace import Difference, first_difference

Model = str | Path | ir.Model | onnx.ModelProto


@dataclass(frozen=True)
class PulsedModel:
    """A pulsed model and its ``sidecar``; ``spec`` is the document of it."""

    model: ir.Model
    sidecar: Sidecar
    plan: Plan
    source: Source

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The sidecar as plain data."""
        return self.sidecar.to_json()

    def proto(self) -> onnx.ModelProto:
        """The model as protobuf, metadata and weights included."""
        return ir.to_proto(write.inside(self.model))

    def save(self, path: str | Path) -> None:
        """Write the model to `path` and its sidecar beside it, both or none."""
        write.save(self.model, self.spec, Path(path))

    def report(self) -> dict[str, Any]:
        """The sidecar, and where the delay of each output comes from."""
        return tables.describe(self.plan, self.source, self.spec)


def analyze(model: Model | Source, *, axes: Mapping[str, int | str] | None = None, pulse: int | None = None, end_of_stream: bool = False,
            states: Mapping[str, str] | None = None, allow_advance: bool = False, readings: Mapping[str, str] | None = None) -> Plan:
    """The plan of a batch model: facts, delays, blockers. Builds no graph.

    `pulse` is in base frames (None: the smallest that fits). `states`: outputs by input that the caller feeds back, as states of
    the model's own. `allow_advance`: outputs may have a delay below 0. `readings`: by node, what a number of an export of one length
    means, where a refusal asks: "number", "share" (it follows the length) or "fill" (it fills up to a multiple). Raises `UsageError` and `AmbiguousAxis`; what cannot stream
    is in ``plan.blockers``.
    """
    source, axes, _, read = _any_length(model if isinstance(model, Source) else load(model), axes, states, end_of_stream, readings)
    return _planned(source, axes, pulse, end_of_stream, Options(states=_pairs(source, states or {}), advance=allow_advance), read)


Reading = tuple[dict[str, int], Plan]


def _planned(source: Source, axes: Mapping[str, int | str], pulse: int | None, end: bool, options: Options, read: Reading | None) -> Plan:
    """The plan, scheduled for `pulse`; `read` is what is known of `source` from before, maybe with other options."""
    if pulse is not None and pulse < 1:
        raise UsageError(f"--pulse {pulse}: a pulse has one frame at least")
    _, plan = read if read is not None and read[1].options == options else choose(source, axes, options)
    check(plan, "analysis")
    fits = pulse is not None and pulse % plan.pulse_multiple == 0
    timed = schedule(plan, Timing(pulse if fits and pulse is not None else plan.pulse_multiple, end))
    check(timed, "schedule")
    return timed


def _any_length(source: Source, axes: Mapping[str, int | str] | None, states: Mapping[str, str] | None,
                end: bool, readings: Mapping[str, str] | None) -> tuple[Source, Mapping[str, int | str], Relaxed | None, Reading | None]:
    """A model that was exported for one length as one for any, and its axes; others as they are, with how they were read."""
    options = Options(states=_pairs(source, states or {}))
    nodes = {node.name for node in source.model.graph}
    for name, said in (readings or {}).items():
        if said not in READINGS:
            raise UsageError(f"--reading {name}={said}: a reading is one of {', '.join(READINGS)}")
        if name not in nodes:
            raise UsageError(f"--reading {name}={said}: the model has no such node")
    try:
        found, read = settle(source, axes or {}, options, readings), None
    except NoReading as problem:
        raise NoReading(tuple(map(_hinted, problem.blockers)), problem.plan) from None
    if found is None:
        read = choose(source, axes or {}, options)
        found = implied(source, *read, readings) if read[1].blockers else None
    if found is not None:
        found.require_answers()
        found.require_ends(end)
    elif readings:
        raise UsageError("--reading: this model was not exported for one length, so no number of it has two readings")
    return (source, axes or {}, None, read) if found is None else (found.source, found.axes, found, None)


def _hinted(blocker: Blocker) -> Blocker:
    """What else may be done about a node of a model of one length that can't stream."""
    if blocker.op_type in ("input", "output"):
        return blocker
    return replace(blocker, hint=f"{blocker.hint}; or --head window: a result a pulse, over the last frames, as many as the export has")


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: nearly all that is made lives on, and the collector would walk it again and again as it grows."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_uncollected()
def pulsify(model: Model | Source, *, pulse: int | None, axes: Mapping[str, int | str] | None = None, end_of_stream: bool = False,
            left_context: int | None = None, states: Mapping[str, str] | None = None, allow_advance: bool = False,
            batch: int | str | None = None, head: str | None = None, readings: Mapping[str, str] | None = None) -> PulsedModel:
    """Turn a batch model into a streaming one that takes `pulse` base frames a step (None: any multiple of ``pulse_multiple``).

    `left_context`: attention over the whole past sees that many frames of it, which is another network; the sidecar says so.
    `states`, `allow_advance` and `readings` are as for `analyze`. `batch`: so many rows, or any number ("dynamic"), each a stream of its own, for a
    model that was exported with a batch of 1. `head`: "window" (or "window=FRAMES", for a model of any length) runs what needs a whole
    clip on the last window of frames, once a pulse. Raises `CannotStream` with every blocker, `PulseDoesNotFit` with the smallest pulse
    that does, `UsageError`.
    """
    source = model if isinstance(model, Source) else load(model)
    if head is not None:
        _alone(head, {"--end-of-stream": end_of_stream, "--left-context": left_context, "--state": states, "--allow-advance": allow_advance, "--batch": batch,
                      "--reading": readings})
        halves = halve(source, axes or {}, _window(head))
        source, axes, relaxed, read = halves.body.source, halves.body.axes, halves.body if halves.body.changes else None, None
    else:
        halves = None
        source, axes, relaxed, read = _any_length(source, axes, states, end_of_stream, readings)
    source, approximation = _cut(source, axes, left_context)
    batch = None if batch == 1 else batch
    read = read if approximation is None else None
    plan = require(_planned(source, axes, pulse, end_of_stream, Options(states=_pairs(source, states or {}), advance=allow_advance), read))
    if pulse is not None and pulse % plan.pulse_multiple:
        raise PulseDoesNotFit(pulse, plan.pulse_multiple, f"some tensors have one frame for every {plan.pulse_multiple} base frames")
    slid: Head | None = None
    if halves is not None:
        plan, source, slid = joined(halves, plan, pulse)
        require(plan)
        check(plan, "joining")
    made = rowed(source, plan, pulse, batch) if halves is None else pulsed(halves, source, plan, pulse)
    told = replace(made.sidecar(pulse), head=slid, source_batch=1 if batch is not None and made.source is not source else None,
                   fixed_length=None if relaxed is None else relaxed.told(), approximation=approximation)
    pulsed_model = PulsedModel(made.lowered.model, told, made.plan, made.source)
    pulsed_model.model.metadata_props.update({**flat(told), KEY: json.dumps(pulsed_model.spec, ensure_ascii=False)})
    return pulsed_model


def _window(head: str) -> int | None:
    """The frames that `head` asks for: "window", or "window=FRAMES"."""
    kind, equals, frames = head.partition("=")
    if kind != "window" or equals and (not frames.isdecimal() or not int(frames)):
        raise UsageError(f"--head {head}: write it as window, or as window=FRAMES with one frame at least")
    return int(frames) if equals else None


def _alone(head: str, others: Mapping[str, object]) -> None:
    """Raise `UsageError` for options that a sliding window has no use for."""
    if given := [name for name, value in others.items() if value]:
        why = ": a window slides on, it has no last frame to be exact to" if "--end-of-stream" in given else ""
        raise UsageError(f"--head {head} does not go together with {', '.join(given)}{why}")


def _pairs(source: Source, states: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """States of the source's own in the order of its inputs; raises `UsageError` for names that are none."""
    inputs, outputs = [v.name or "" for v in source.inputs], [v.name or "" for v in source.model.graph.outputs]
    for name, output in states.items():
        if name not in inputs or output not in outputs:
            kind, known = ("output", outputs) if name in inputs else ("input", inputs)
            raise UsageError(f"--state {name}={output}: the model has no such {kind}; it has {', '.join(known)}")
    if len(set(states.values())) < len(states):
        raise UsageError("--state: an output feeds one input only")
    return tuple((name, states[name]) for name in inputs if name in states)


def _cut(source: Source, axes: Mapping[str, int | str] | None, left_context: int | None) -> tuple[Source, LeftContext | None]:
    if left_context is None:
        return source, None
    chosen, _ = choose(source, axes or {}, Options())
    return cut_past(source, chosen, left_context)


def _compared(model: str | Path | onnx.ModelProto, told: Sidecar) -> str | Path | onnx.ModelProto:
    """The batch model that a stream must equal, by its sidecar: the source, for any length and with the cut that is told of."""
    if told.head is not None or told.fixed_length is None and told.approximation is None:
        return model
    return runnable(_reread(model, told).model)


def _stream_axes(told: Sidecar) -> dict[str, int]:
    return {i.name: i.axis for i in told.stream_inputs}


def _reread(model: Model, told: Sidecar) -> Source:
    axes = _stream_axes(told)
    source = load(model)
    if told.fixed_length is not None:
        source = relax(source, axes, told.fixed_length.frames, None, told.fixed_length.readings).source
    return _cut(source, axes, None if told.approximation is None else told.approximation.left_context)[0]


def verify(model: str | Path | onnx.ModelProto, pulsed: str | Path | PulsedModel, *, frames: int | None = None, seed: int = 0,
           rtol: float | None = None, atol: float | None = None, recorded: Mapping[str, Array] | None = None, measure: bool = False) -> Verification:
    """Stream random data (or `recorded` inputs) through `pulsed` and compare every frame with the batch `model`.

    `measure`, by running the batch model some more times, how far it looks: that the receptive field is wide enough, and in ``late``
    of the result which outputs come later than the data they need.
    """
    runner = opened(pulsed)
    told, head = runner.sidecar, runner.sidecar.head
    batch = None if head is None else SlidingBatch(model, halve(load(model), _stream_axes(told), head.frames), told, head)
    return verify_stream(_compared(model, told), runner, frames=frames, seed=seed, rtol=rtol, atol=atol, recorded=recorded, batch=batch, measure=measure)


def trace(model: Model, pulsed: str | Path | PulsedModel, found: Verification, *, rtol: float | None = None,
          atol: float | None = None) -> Difference | None:
    """The first node whose stream differs from the batch `model` in the case that `verify` found; None where none can be told."""
    if found.case is None:
        return None
    graph = pulsed.model if isinstance(pulsed, PulsedModel) else ir.load(pulsed)
    told = pulsed.sidecar if isinstance(pulsed, PulsedModel) else Sidecar.of(graph.metadata_props, pulsed)
    if told.head is not None:
        return None
    states = {s.input: s.output for s in told.source_states}
    source = _reread(model, told)
    plan = require(analyze(source, axes=_stream_axes(told), pulse=told.pulse, end_of_stream=told.ends, states=states))
    made = rowed(source, plan, told.pulse, "dynamic" if told.source_batch is not None else None)
    return first_difference(made.source, made.plan, graph, found.case, rtol, atol)


@dataclass(frozen=True)
class Report:
    """What `inspect` found: ``document`` is plain data for JSON, ``blockers`` says why the model does not stream, ``plan`` how it does."""

    document: dict[str, Any]
    blockers: tuple[Blocker, ...] = ()
    plan: Plan | None = None

    def plan_lines(self) -> list[str]:
        """The plan, a line a step. Raises `UsageError` for a pulsed model, which has none, and where the analysis did not come to one."""
        if self.plan is None:
            raise UsageError("--plan: there is no plan" + (" of a model that is pulsed already" if not self.blockers else ""))
        return plan_text.lines(self.plan)


def inspect(model: Model | Source, *, axes: Mapping[str, int | str] | None = None, pulse: int | None = None, end_of_stream: bool = False,
            left_context: int | None = None, states: Mapping[str, str] | None = None, allow_advance: bool = False,
            batch: int | str | None = None, head: str | None = None, readings: Mapping[str, str] | None = None) -> Report:
    """The delay report of a batch model at `pulse` (None: the smallest that fits), or the sidecar of a pulsed one. Options are those of `pulsify`."""
    source = model if isinstance(model, Source) else load(model)
    known = source.model.metadata_props.get(KEY)
    if known is not None:
        return Report(json.loads(known))
    if head is not None:
        def sliding(pulse: int | None) -> PulsedModel:
            return pulsify(source, pulse=pulse, axes=axes, end_of_stream=end_of_stream, left_context=left_context, states=states,
                           allow_advance=allow_advance, batch=batch, head=head, readings=readings)
        try:
            made = sliding(pulse or sliding(None).sidecar.pulse_multiple)
        except CannotStream as problem:
            return Report(tables.blocked(None, problem.blockers), problem.blockers)
        return Report({**made.report(), "blockers": []}, plan=made.plan)
    try:
        cut, _ = _cut(source, axes, left_context)
        plan = analyze(cut, axes=axes, pulse=pulse, end_of_stream=end_of_stream, states=states, allow_advance=allow_advance, readings=readings)
    except CannotStream as problem:
        return Report(tables.blocked(problem.plan if isinstance(problem, NoReading) else None, problem.blockers), problem.blockers)
    possible = {} if states else {"possible_states": [list(pair) for pair in possible_states(cut, plan)]}
    if not plan.blockers:
        try:
            pulsed = pulsify(source, pulse=pulse or plan.pulse_multiple, axes=axes, end_of_stream=end_of_stream, left_context=left_context,
                             states=states, allow_advance=allow_advance, batch=batch, readings=readings)
            return Report({**pulsed.report(), **possible, "blockers": []}, plan=pulsed.plan)
        except CannotStream as problem:
            plan = replace(plan, blockers=problem.blockers)
    return Report({**tables.blocked(plan, plan.blockers), **possible}, plan.blockers, plan)
