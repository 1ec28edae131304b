"""The sidecar: what a caller must know to run a pulsed model, as one JSON document."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Clip, Onset, Prefix, Reach, Static, Stream
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.algebra.promises import flush_pulses, least_frames
from pulsify_onnx.arrays import Const
from pulsify_onnx.lowering.states import SOURCE, Lowered, LoweredState
from pulsify_onnx.model.load import Source
from pulsify_onnx.version import __version__

FORMAT = "pulsify-onnx/1"

Json = dict[str, Any]


def dtype_name(dtype: ir.DataType) -> str:
    """numpy's name of a dtype."""
    return str(dtype.numpy())


def frames_per_pulse(pulse: int | None, rate: Any) -> int | None:
    """Whole frames that a wire of `rate` has in a pulse."""
    return None if pulse is None else int(rate * pulse)


def receptive_field(reach: Reach) -> int | None:
    """Base frames from the first to the last that an output frame depends on; None when unbounded.

    An output frame may lie between base frames, so that the reach from it need not begin or end on one.
    """
    return None if reach.past is None else math.floor(reach.future - reach.past + reach.between) + 1


def _shape(shape: tuple[Length, ...], axis: int | None = None, frames: int | None = None) -> list[Any]:
    return [frames if k == axis else d.constant if d.constant is not None else str(d) for k, d in enumerate(shape)]


def inputs(plan: Plan, pulse: int | None) -> list[Json]:
    """The ``inputs`` of the document."""
    out = []
    for name in plan.inputs:
        fact = plan.facts[name]
        if not isinstance(fact, (Static, Stream)) or name in dict(plan.options.states):  # its shape is not known, as a blocker says; or a state
            continue
        if isinstance(fact, Stream):
            frames = frames_per_pulse(pulse, fact.rate)
            out.append({"name": name, "kind": "stream", "axis": fact.axis, "dtype": dtype_name(fact.dtype),
                        "shape": _shape(fact.shape, fact.axis, frames), "frames_per_pulse": frames,
                        "rate": [fact.rate.numerator, fact.rate.denominator]})
        else:
            out.append({"name": name, "kind": "static", "dtype": dtype_name(fact.dtype), "shape": _shape(fact.shape)})
    return out


def _expression(extent: Length) -> str | None:
    """How many frames the batch output has for ``T`` base frames; None where it depends on more than T."""
    return str(extent) if extent.symbols() <= {TIME} else None


def _never(fact: Stream) -> Json:
    """The first frames of an output that comes before its time, which no pulse gives: the same in every stream."""
    delay = int(fact.delay)
    if delay >= 0:
        return {}
    rows = fact.border.frames if isinstance(fact.border, Onset) else fact.border
    assert isinstance(rows, Const)
    shape = [-delay if k == fact.axis else d.constant or own for k, (d, own) in enumerate(zip(fact.shape, rows.array.shape))]
    return {"first_frames": np.broadcast_to(rows.array, shape).tolist()}


def outputs(plan: Plan, pulse: int | None) -> list[Json]:
    """The ``outputs`` of the document."""
    out = []
    carried = {output for _, output in plan.options.states}
    for name in plan.outputs:
        fact = plan.facts.get(name)  # a blocker says what nothing computes
        if name in carried:
            continue
        if isinstance(fact, Stream):
            frames = frames_per_pulse(pulse, fact.rate)
            out.append({"name": name, "kind": "stream", "axis": fact.axis, "dtype": dtype_name(fact.dtype),
                        "shape": _shape(fact.shape, fact.axis, frames), "frames_per_pulse": frames,
                        "rate": [fact.rate.numerator, fact.rate.denominator], "delay": int(fact.delay),
                        "receptive_field": receptive_field(fact.reach), "frames": _expression(fact.extent), **_never(fact)})
        elif isinstance(fact, Prefix):
            out.append({"name": name, "kind": "prefix", "dtype": dtype_name(fact.dtype), "shape": _shape(fact.shape),
                        "exact_every_pulse": fact.exact})
        elif isinstance(fact, (Static, Clip)):
            kind = "static" if isinstance(fact, Static) else "window"
            out.append({"name": name, "kind": kind, "dtype": dtype_name(fact.dtype), "shape": _shape(fact.shape)})
    return out


def state_bytes(dtype: ir.DataType, shape: tuple[int | str, ...]) -> int:
    """Bytes of a state for one stream (a symbolic batch counts as 1)."""
    return math.prod(d for d in shape if isinstance(d, int)) * int(dtype.numpy().itemsize)


def states(found: tuple[LoweredState, ...]) -> list[Json]:
    """The ``states`` of the document, in the order of the graph."""
    return [{"input": s.input.name, "output": s.output.name, "dtype": dtype_name(s.dtype), "shape": list(s.shape),
             "bytes": state_bytes(s.dtype, s.shape), "node": s.node, "role": s.role, **({"exact_every_pulse": s.exact} if s.role == SOURCE else {})} for s in found]


def _meetings(source: Source) -> Iterator[list[str]]:
    """Tensors that meet in a node."""
    for node in source.model.graph:
        yield [value.name for value in node.inputs if value is not None and value.name]


def document(plan: Plan, lowered: Lowered, source: Source, pulse: int | None) -> Json:
    """The whole sidecar."""
    batch = lowered.batch
    found = states(lowered.states)
    spec: Json = {
        "format": FORMAT,
        "tool": {"name": "pulsify-onnx", "version": __version__},
        "source": {"file": source.file, "sha256": source.sha256},
        "pulse": pulse,
        "pulse_multiple": plan.pulse_multiple,
        "inputs": inputs(plan, pulse),
        "valid_frames_input": lowered.valid_frames,
        "valid_frames_shape": [batch],
        "outputs": outputs(plan, pulse),
        "states": found,
        "state_bytes": sum(s["bytes"] for s in found),
        "flush_pulses": flush_pulses(plan, pulse),
        "least_frames": least_frames(plan, _meetings(source)),
    }
    if lowered.shared:
        spec["independent_rows"] = False
        spec["shared_by"] = list(lowered.shared)
    return spec


def flat(spec: Json) -> dict[str, str]:
    """The copies of the document's keys that a runtime reads without parsing JSON."""
    delays = ",".join(str(o["delay"]) if "delay" in o else "" for o in spec["outputs"])
    return {"pulsify.version": spec["tool"]["version"], "pulsify.pulse": "dynamic" if spec["pulse"] is None else str(spec["pulse"]),
            "pulsify.delay": delays, "pulsify.flush_pulses": str(spec["flush_pulses"])}
