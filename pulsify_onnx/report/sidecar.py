"""The sidecar of a plan and its graph: what a caller must know to run a pulsed model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import PaddingFrames, ReceptiveField, Running, Static, Stream, WindowValue
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.algebra.promises import flush_pulses, least_frames
from pulsify_onnx.arrays import Const
from pulsify_onnx.lowering.states import SOURCE, Lowered, LoweredState
from pulsify_onnx.model.load import Source
from pulsify_onnx.runtime.sidecar import (
    FORMAT,
    Input,
    Output,
    PrefixOutput,
    Sidecar,
    SourceFile,
    State,
    StaticInput,
    StaticOutput,
    StreamInput,
    StreamOutput,
    Tool,
    WindowOutput,
)
from pulsify_onnx.runtime.sidecar import Shape as Told
from pulsify_onnx.version import __version__


def dtype_name(dtype: ir.DataType) -> str:
    """Numpy's name of a dtype."""
    return str(dtype.numpy())


def frames_per_pulse(pulse: int | None, rate: Any) -> int | None:
    """Whole frames that a wire of `rate` has in a pulse."""
    return None if pulse is None else int(rate * pulse)


def receptive_field(reach: ReceptiveField) -> int | None:
    """Base frames from the first to the last that an output frame depends on; None when unbounded.

    An output frame may lie between base frames, so that the reach from it need not begin or end on one.
    """
    return None if reach.past is None else math.floor(reach.future - reach.past + reach.between) + 1


def _shape(shape: tuple[Length, ...], axis: int | None = None, frames: int | None = None) -> Told:
    return tuple(frames if k == axis else d.constant if d.constant is not None else str(d) for k, d in enumerate(shape))


def inputs(plan: Plan, pulse: int | None) -> tuple[Input, ...]:
    """The ``inputs`` of the sidecar."""
    out: list[Input] = []
    for name in plan.inputs:
        fact = plan.facts[name]
        if not isinstance(fact, (Static, Stream)) or name in dict(
            plan.options.states
        ):  # its shape is not known, as a blocker says; or a state
            continue
        if isinstance(fact, Stream):
            frames = frames_per_pulse(pulse, fact.rate)
            out.append(
                StreamInput(
                    name=name,
                    axis=fact.axis,
                    dtype=dtype_name(fact.dtype),
                    shape=_shape(fact.shape, fact.axis, frames),
                    frames_per_pulse=frames,
                    rate=fact.rate,
                )
            )
        else:
            out.append(StaticInput(name=name, dtype=dtype_name(fact.dtype), shape=_shape(fact.shape)))
    return tuple(out)


def _never(fact: Stream) -> Any:
    """The first frames of an output that comes before its time, which no pulse gives: the same in every stream. None
    where all come.
    """
    delay = int(fact.delay)
    if delay >= 0:
        return None
    rows = fact.border.frames if isinstance(fact.border, PaddingFrames) else fact.border
    assert isinstance(rows, Const)
    shape = [
        -delay if k == fact.axis else d.constant or own for k, (d, own) in enumerate(zip(fact.shape, rows.array.shape))
    ]
    return np.broadcast_to(rows.array, shape).tolist()


def outputs(plan: Plan, pulse: int | None) -> tuple[Output, ...]:
    """The ``outputs`` of the sidecar."""
    out: list[Output] = []
    carried = {output for _, output in plan.options.states}
    for name in plan.outputs:
        fact = plan.facts.get(name)  # a blocker says what nothing computes
        if name in carried:
            continue
        if isinstance(fact, Stream):
            frames = frames_per_pulse(pulse, fact.rate)
            extent = fact.extent if fact.extent.symbols() <= {TIME} else None
            out.append(
                StreamOutput(
                    name=name,
                    axis=fact.axis,
                    dtype=dtype_name(fact.dtype),
                    shape=_shape(fact.shape, fact.axis, frames),
                    frames_per_pulse=frames,
                    rate=fact.rate,
                    delay=int(fact.delay),
                    receptive_field=receptive_field(fact.reach),
                    frames=extent,
                    first_frames=_never(fact),
                )
            )
        elif isinstance(fact, Running):
            out.append(
                PrefixOutput(
                    name=name, dtype=dtype_name(fact.dtype), shape=_shape(fact.shape), exact_every_pulse=fact.exact
                )
            )
        elif isinstance(fact, (Static, WindowValue)):
            kind = StaticOutput if isinstance(fact, Static) else WindowOutput
            out.append(kind(name=name, dtype=dtype_name(fact.dtype), shape=_shape(fact.shape)))
    return tuple(out)


def state_bytes(dtype: ir.DataType, shape: tuple[int | str, ...]) -> int:
    """Bytes of a state for one stream (a symbolic batch counts as 1)."""
    return math.prod(d for d in shape if isinstance(d, int)) * int(dtype.numpy().itemsize)


def states(found: tuple[LoweredState, ...]) -> tuple[State, ...]:
    """The ``states`` of the sidecar, in the order of the graph."""
    return tuple(
        State(
            input=s.input.name or "",
            output=s.output.name or "",
            dtype=dtype_name(s.dtype),
            shape=s.shape,
            bytes=state_bytes(s.dtype, s.shape),
            node=s.node,
            role=s.role,
            exact_every_pulse=s.exact if s.role == SOURCE else None,
        )
        for s in found
    )


def _meetings(source: Source) -> Iterator[list[str]]:
    """Tensors that meet in a node."""
    for node in source.model.graph:
        yield [value.name for value in node.inputs if value is not None and value.name]


def sidecar(plan: Plan, lowered: Lowered, source: Source, pulse: int | None) -> Sidecar:
    """What a caller must know of a pulsed graph."""
    found = states(lowered.states)
    return Sidecar(
        format=FORMAT,
        tool=Tool(name="pulsify-onnx", version=__version__),
        source=SourceFile(file=source.file, sha256=source.sha256),
        pulse=pulse,
        pulse_multiple=plan.pulse_multiple,
        inputs=inputs(plan, pulse),
        valid_frames_input=lowered.valid_frames,
        valid_frames_shape=(lowered.batch,),
        outputs=outputs(plan, pulse),
        states=found,
        state_bytes=sum(s.bytes for s in found),
        flush_pulses=flush_pulses(plan, pulse),
        least_frames=least_frames(plan, _meetings(source)),
        length_multiple=plan.length_multiple,
        independent_rows=not lowered.shared,
        shared_by=lowered.shared,
    )


def flat(told: Sidecar) -> dict[str, str]:
    """The copies of values that a runtime reads without parsing JSON."""
    delays = ",".join(str(o.delay) if isinstance(o, StreamOutput) else "" for o in told.outputs)
    return {
        "pulsify.version": told.tool.version,
        "pulsify.pulse": "dynamic" if told.pulse is None else str(told.pulse),
        "pulsify.delay": delays,
        "pulsify.flush_pulses": str(told.flush_pulses),
    }
