"""The order of the stages: a batch model is prepared, planned, and made into a pulsed one."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from pulsify_onnx.algebra.delay import Timing
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.algebra.plan_checks import check_plan
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.analysis.walker import require
from pulsify_onnx.convert.batch import batched_graph
from pulsify_onnx.convert.options import ConvertOptions
from pulsify_onnx.convert.pulsed_model import PulsedModel
from pulsify_onnx.convert.window_head import attach_head, pulsed
from pulsify_onnx.errors import Blocker, PulseDoesNotFit, UsageError
from pulsify_onnx.model.load import Source
from pulsify_onnx.passes.placement import place
from pulsify_onnx.prepare.fixed_length import MakeLengthDynamic
from pulsify_onnx.prepare.interpolation import InterpolationAsResize
from pulsify_onnx.prepare.left_context import CutPast
from pulsify_onnx.prepare.passes import Pass, Prepared, run_passes
from pulsify_onnx.prepare.split_head import SplitHead
from pulsify_onnx.report.sidecar import flat
from pulsify_onnx.runtime.sidecar import KEY


@dataclass(frozen=True)
class Analysis:
    """How a batch model streams, whatever the pulse: everything that is made for one pulse follows from it.

    ``model`` is the batch model as it was prepared, ``plan`` its plan with delays that are not known yet.
    """

    model: Prepared
    plan: Plan
    end_of_stream: bool = False
    _timed: dict[int, Plan] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def pulse_multiple(self) -> int:
        """The smallest pulse, of which every pulse is a multiple."""
        return self.plan.pulse_multiple

    @property
    def blockers(self) -> tuple[Blocker, ...]:
        """What cannot stream, even at the smallest pulse; empty where the model streams."""
        return self.at().blockers

    def at(self, pulse: int | None = None) -> Plan:
        """The plan for pulses of so many base frames (None: the smallest), with the least delays; what cannot stream is
        in its ``blockers``.

        Raises `PulseDoesNotFit` where the model streams at other pulses.
        """
        if pulse is not None and pulse < 1:
            raise UsageError(f"--pulse {pulse}: a pulse has one frame at least")
        fits = pulse is None or pulse % self.pulse_multiple == 0
        step = self.pulse_multiple if pulse is None or not fits else pulse
        if step not in self._timed:
            self._timed[step] = place(self.plan, Timing(step, self.end_of_stream))
            check_plan(self._timed[step], "placement")
        plan = self._timed[step]
        if pulse is not None and not fits and not plan.blockers:
            raise PulseDoesNotFit(pulse, step, f"some tensors have one frame for every {step} base frames")
        return plan

    def pulsed(self, pulse: int | None, batch: int | str | None = None) -> PulsedModel:
        """The pulsed model (None: for pulses of any size), for a `batch` of streams. Raises `CannotStream` with
        every blocker, and `PulseDoesNotFit`.
        """
        plan, source = require(self.at(pulse)), self.model.source
        cut, head = self.model.head, None
        if cut is not None:
            plan, source, head = attach_head(source, cut, plan, pulse)
            check_plan(require(plan), "joining")
        rows = None if batch == 1 else batch
        made = batched_graph(source, plan, pulse, rows) if cut is None else pulsed(cut, source, plan, pulse)
        sidecar = replace(
            made.sidecar(pulse),
            head=head,
            source_batch=1 if rows is not None and made.source is not source else None,
            fixed_length=self.model.notes.fixed_length,
            approximation=self.model.notes.approximation,
        )
        found = PulsedModel(made.lowered.model, sidecar, made.plan, made.source)
        found.model.metadata_props.update({**flat(sidecar), KEY: json.dumps(found.spec, ensure_ascii=False)})
        return found


def passes(source: Source, options: ConvertOptions) -> list[Pass]:
    """What comes before the analysis."""
    if options.head is not None:
        return [SplitHead(options.window)]
    states = state_pairs(source, options.states)
    found: list[Pass] = [MakeLengthDynamic(states, options.readings, options.end_of_stream), InterpolationAsResize()]
    return found if options.left_context is None else [*found, CutPast(options.left_context)]


def prepared(source: Source, options: ConvertOptions) -> Prepared:
    """The batch model that is streamed. Raises `UsageError`, `AmbiguousAxis`, `CannotStream`."""
    return run_passes(Prepared(source, options.axes), *passes(source, options))


def analyzed(source: Source, options: ConvertOptions) -> Analysis:
    """How a batch model streams. Raises as `prepared` does; what cannot stream is in its ``blockers``."""
    model = prepared(source, options)
    asked = Options(states=state_pairs(model.source, options.states), advance=options.allow_advance)
    _, plan = (
        model.read
        if model.read is not None and model.read[1].options == asked
        else choose(model.source, model.axes, asked)
    )
    check_plan(plan, "analysis")
    return Analysis(model, plan, options.end_of_stream)


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
    """No garbage collection: nearly all that is made lives on, and the collector would walk it again and again as it
    grows.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
