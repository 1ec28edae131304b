"""The sidecar: what a caller must know to run a pulsed model, as one JSON document."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Clip, Onset, Prefix, Reach, Static, Stream
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.periods import long_streams
from pulsify_onnx.algebra.plan import Plan
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


def flush_pulses(plan: Plan, pulse: int | None) -> int:
    """Pulses without data after the last one with data that bring out the last frame of every output, for any length."""
    if not plan.ends:
        return 0
    step = pulse or plan.pulse_multiple
    waits = set()
    for name in plan.outputs:
        fact = plan.facts[name]
        if isinstance(fact, Stream):
            waits.add((fact.extent, fact.rate, int(fact.delay)))
        elif isinstance(fact, Prefix):
            waits |= {(w.extent, w.rate, int(w.delay)) for w in fact.waits}
    worst = 0
    for extent, rate, delay in waits:
        frames = rate * step
        for n in _lengths(extent, step):
            needed = math.ceil((max(0, extent.at(n)) + delay) / frames) if extent.at(n) > 0 else 0
            worst = max(worst, needed - math.ceil(n / step))
    return worst


def least_frames(plan: Plan, source: Source) -> int:
    """The fewest base frames for which every stream within the model has a frame, and as many as the streams that it meets.

    Of fewer, the batch model does not run or gives what its formulas do not tell: a crop of more frames than there are leaves none, a
    pool makes one of none, and a single frame is repeated for a longer stream. What the analysis decided by the length is not true of fewer, too.
    """
    extents = {name: f.extent for name, f in plan.facts.items() if isinstance(f, Stream) and f.extent.symbols() <= {TIME}}
    meeting = {frozenset(extents[v.name] for v in node.inputs if v is not None and v.name in extents) for node in source.model.graph}
    least = plan.least
    for group in {frozenset((e,)) for e in extents.values() if e.at(1) < 1} | {g for g in meeting if len(g) > 1}:
        for n in range(max((_beyond(e) for e in group), default=0), 0, -1):
            counts = {e.at(n) for e in group}
            if min(counts) < 1 or (min(counts) == 1 and len(counts) > 1):
                least = max(least, n + 1)
                break
    return least


def _beyond(extent: Length) -> int:
    """Base frames of which `extent` has more than one frame, and of all more."""
    period = math.lcm(*extent.divisors())
    first = extent.exact({TIME: period})
    slope = (extent.exact({TIME: 2 * period}) - first) / period
    return 0 if slope <= 0 else max(0, math.ceil((2 - first) / slope)) + 2 * period


def _lengths(extent: Length, step: int) -> Iterator[int]:
    """Short streams, and long ones, at whose end a length and the pulses may be in any phase."""
    far = long_streams(extent, step)
    stride = max(1, len(far) // 20000)
    yield from range(1, 2 * len(far) + 1, stride)
    yield from far[::stride]


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
        "least_frames": least_frames(plan, source),
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
