"""The order of the stages: a batch model is prepared, planned, and made into a pulsed one."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pulsify_onnx.algebra.delay import Timing
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.analysis.walker import require
from pulsify_onnx.convert.batch import rowed
from pulsify_onnx.convert.options import ConvertOptions
from pulsify_onnx.convert.pulsed_model import PulsedModel
from pulsify_onnx.convert.window_head import Halves, halve, joined, pulsed
from pulsify_onnx.errors import PulseDoesNotFit, UsageError
from pulsify_onnx.model.load import Source
from pulsify_onnx.passes.placement import place
from pulsify_onnx.prepare.fixed_length import MakeLengthDynamic
from pulsify_onnx.prepare.left_context import CutPast
from pulsify_onnx.prepare.passes import Pass, Prepared, run
from pulsify_onnx.report import sidecar


@dataclass(frozen=True)
class Planned:
    """A prepared model and its plan, scheduled for the pulse of the options where that fits, else for the smallest that does."""

    model: Prepared
    plan: Plan
    halves: Halves | None = None


def prepared(source: Source, options: ConvertOptions) -> tuple[Prepared, Halves | None]:
    """The batch model that is streamed; and what it was cut from, where a head is left. Raises `UsageError`, `AmbiguousAxis`, `CannotStream`."""
    if options.head is not None:
        halves = halve(source, options.axes, options.window)
        body = Prepared(halves.body.source, halves.body.axes)
        return body.noted(fixed_length=halves.body.as_json()) if halves.body.changes else body, halves
    passes: list[Pass] = [MakeLengthDynamic(state_pairs(source, options.states), options.readings, options.end_of_stream)]
    if options.left_context is not None:
        passes.append(CutPast(options.left_context))
    return run(Prepared(source, options.axes), *passes), None


def planned(source: Source, options: ConvertOptions) -> Planned:
    """The plan of a batch model; what cannot stream is in its ``blockers``. Raises as `prepared` does."""
    model, halves = prepared(source, options)
    asked = Options(states=state_pairs(model.source, options.states), advance=options.allow_advance)
    _, plan = model.read if model.read is not None and model.read[1].options == asked else choose(model.source, model.axes, asked)
    fits = options.pulse is not None and options.pulse % plan.pulse_multiple == 0
    pulse = options.pulse if fits and options.pulse is not None else plan.pulse_multiple
    return Planned(model, place(plan, Timing(pulse, options.end_of_stream)), halves)


def finished(found: Planned, pulse: int | None, batch: int | str | None) -> PulsedModel:
    """The pulsed model. Raises `CannotStream` with every blocker, and `PulseDoesNotFit`."""
    plan, source = require(found.plan), found.model.source
    if pulse is not None and pulse % plan.pulse_multiple:
        raise PulseDoesNotFit(pulse, plan.pulse_multiple, f"some tensors have one frame for every {plan.pulse_multiple} base frames")
    notes = dict(found.model.notes)
    if found.halves is not None:
        plan, source, head = joined(found.halves, plan, pulse)
        notes = {"head": head, **notes}
        require(plan)
    plan.check()
    rows = None if batch == 1 else batch
    made = rowed(source, plan, pulse, rows) if found.halves is None else pulsed(found.halves, source, plan, pulse)
    if rows is not None and made.source is not source:
        notes = {"source_batch": 1, **notes}
    document = made.document(pulse) | notes
    made.lowered.model.metadata_props.update(sidecar.flat(document))
    made.lowered.model.metadata_props["pulsify.spec"] = json.dumps(document, ensure_ascii=False)
    return PulsedModel(made.lowered.model, document, made.plan, made.source)


def state_pairs(source: Source, states: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """States of the source's own in the order of its inputs; raises `UsageError` for names that are none."""
    inputs, outputs = [v.name or "" for v in source.inputs], [v.name or "" for v in source.model.graph.outputs]
    for name, output in states.items():
        if name not in inputs or output not in outputs:
            kind, known = ("output", outputs) if name in inputs else ("input", inputs)
            raise UsageError(f"--state {name}={output}: the model has no such {kind}; it has {', '.join(known)}")
    return tuple((name, states[name]) for name in inputs if name in states)


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection: nearly all that is made lives on, and the collector would walk it again and again as it grows."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
