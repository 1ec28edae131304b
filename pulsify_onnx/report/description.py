"""What ``inspect`` and ``convert`` tell of a model, as data and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.errors import Blocker
from pulsify_onnx.model.load import Source
from pulsify_onnx.report import sidecar as sidecars
from pulsify_onnx.report.critical_path import chain
from pulsify_onnx.runtime.json_form import Json, encoded
from pulsify_onnx.runtime.sidecar import FixedLength, Input, Output, Sidecar, StreamOutput


@dataclass(frozen=True, kw_only=True)
class PathLink:
    """A node that changes the delay of what comes after it, by so many base frames."""

    node: str
    op_type: str
    base_frames: int | float


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Base frames after its own that a frame of an output depends on, and where its delay comes from."""

    lookahead: int
    critical_path: tuple[PathLink, ...]


@dataclass(frozen=True)
class Description:
    """A pulsed model.

    ``document``: its sidecar as it is in the file; ``explained``: its stream outputs, by name, where the plan is known.
    """

    sidecar: Sidecar
    document: Mapping[str, Any]
    explained: Mapping[str, Explained] = field(default_factory=dict)

    @property
    def fixed_length(self) -> FixedLength | None:
        """How the model was read that was exported for one length."""
        return self.sidecar.fixed_length

    def to_json(self, frame_rate: float | None = None) -> Json:
        """The sidecar and more of its outputs; delays in milliseconds too, of `frame_rate` base frames in a second."""
        return _timed({**self.document}, self.sidecar.outputs, self.explained, frame_rate)


@dataclass(frozen=True)
class BlockedModel:
    """What can be said of a model that does not stream."""

    blockers: tuple[Blocker, ...]
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    pulse_multiple: int = 1

    @property
    def fixed_length(self) -> FixedLength | None:
        """As of a `Description`: nothing is known of it."""
        return None

    def to_json(self, frame_rate: float | None = None) -> Json:
        """The keys that the sidecar would have, and the blockers; delays as of a `Description`."""
        found = {
            "inputs": encoded(self.inputs),
            "outputs": encoded(self.outputs),
            "pulse_multiple": self.pulse_multiple,
            "states": [],
            "state_bytes": 0,
            "blockers": [b.as_json() for b in self.blockers],
        }
        return _timed(found, self.outputs, {}, frame_rate)


def described(plan: Plan, source: Source, sidecar: Sidecar, document: Mapping[str, Any]) -> Description:
    """A model that was made of `plan`, and why its delays are what they are."""
    return Description(sidecar, document, {o.name: _explained(plan, source, o.name) for o in sidecar.stream_outputs})


def blocked(plan: Plan | None, blockers: tuple[Blocker, ...]) -> BlockedModel:
    """A model that does not stream; None: nothing is known of it."""
    if plan is None:
        return BlockedModel(blockers)
    return BlockedModel(blockers, sidecars.inputs(plan, None), sidecars.outputs(plan, None), plan.pulse_multiple)


def milliseconds(output: StreamOutput, frame_rate: float) -> float:
    """The delay of an output."""
    return round(float(output.delay / output.rate / Fraction(frame_rate) * 1000), 3)


def _explained(plan: Plan, source: Source, name: str) -> Explained:
    fact = plan.facts[name]
    assert isinstance(fact, Stream)
    links = chain(plan, source, name)
    path = tuple(PathLink(node=k.node, op_type=k.op_type, base_frames=_number(k.frames)) for k in links)
    return Explained(lookahead=max(0, math.floor(fact.reach.future)), critical_path=path)


def _number(x: Fraction) -> int | float:
    return int(x) if x.denominator == 1 else float(x)


def _timed(
    found: Json,
    outputs: Sequence[Output],
    explained: Mapping[str, Explained],
    frame_rate: float | None,
) -> Json:
    """A document with more of its `outputs`."""
    for output, entry in zip(outputs, entries := [{**entry} for entry in found["outputs"]]):
        if output.name in explained:
            entry.update(encoded(explained[output.name]))
        if frame_rate and isinstance(output, StreamOutput):
            entry["delay_ms"] = milliseconds(output, frame_rate)
    found["outputs"] = entries
    return {**found, "frame_rate": frame_rate} if frame_rate else found
