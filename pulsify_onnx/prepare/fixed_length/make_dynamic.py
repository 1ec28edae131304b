"""The pass that makes a model of one length one of any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pulsify_onnx.algebra.plan import Options
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.errors import Blocker, UsageError
from pulsify_onnx.prepare.fixed_length.dynamic_length import NoReading
from pulsify_onnx.prepare.fixed_length.export import READINGS
from pulsify_onnx.prepare.fixed_length.fixed_axes import implied, settle
from pulsify_onnx.prepare.passes import ANY_LENGTH, NAMED, ORDERED, Contract, Prepared


@dataclass(frozen=True)
class MakeLengthDynamic:
    """A model that was exported for one length becomes one for any; others stay as they are, and it is known how they
    were read.

    ``states``: pairs of the source's own. ``readings``: of numbers by node. ``end_of_stream``: whether the streams will
    have an end.
    """

    states: tuple[tuple[str, str], ...] = ()
    readings: Mapping[str, str] = field(default_factory=dict)
    end_of_stream: bool = False

    requires: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED)
    ensures: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED, ANY_LENGTH)

    def __call__(self, model: Prepared) -> Prepared:
        """Raises `UsageError`, `AmbiguousAxis`, and `CannotStream` where there is no reading."""
        source, options, read = model.source, Options(states=self.states), None
        self._check_readings({node.name for node in source.model.graph})
        try:
            found = settle(source, model.axes, options, self.readings)
        except NoReading as problem:
            raise NoReading(tuple(map(_hinted, problem.blockers)), problem.plan) from None
        if found is None:
            read = choose(source, model.axes, options)
            found = implied(source, *read, self.readings) if read[1].blockers else None
        if found is None:
            if self.readings:
                raise UsageError(
                    "--reading: this model was not exported for one length, so no number of it has two readings"
                )
            return replace(model, read=read)
        found.require_answers()
        found.require_ends(self.end_of_stream)
        return Prepared(found.source, found.axes, replace(model.notes, fixed_length=found.told()))

    def _check_readings(self, nodes: set[str | None]) -> None:
        for name, said in self.readings.items():
            if said not in READINGS:
                raise UsageError(f"--reading {name}={said}: a reading is one of {', '.join(READINGS)}")
            if name not in nodes:
                raise UsageError(f"--reading {name}={said}: the model has no such node")


def _hinted(blocker: Blocker) -> Blocker:
    """What else may be done about a node of a model of one length that can't stream."""
    if blocker.op_type in ("input", "output"):
        return blocker
    return replace(
        blocker,
        hint=f"{blocker.hint}; or --head window: a result a pulse, over the last frames, as many as the export has",
    )
