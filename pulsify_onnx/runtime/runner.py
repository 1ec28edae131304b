"""Runs a pulsed model in onnxruntime, knowing nothing but its sidecar."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pulsify_onnx.errors import UsageError
from pulsify_onnx.ort import session
from pulsify_onnx.runtime.sidecar import KEY, Input, Sidecar, StaticInput, StreamInput, StreamOutput, WindowOutput

Array = npt.NDArray[Any]

ENDLESS = "the model was converted without --end-of-stream: its last frames need frames that will never come"


class HasProto(Protocol):
    """A model in memory."""

    def proto(self) -> Any:
        """The model as protobuf, its sidecar among the metadata."""


class PulseRunner:
    """One pulse in, one pulse out; keeps the states. ``spec`` is the sidecar as it is written, ``sidecar`` the typed
    one.
    """

    def __init__(self, model: str | Path | HasProto, plain: bool = False):
        self.session = session(
            model if isinstance(model, (str, Path)) else model.proto().SerializeToString(), plain=plain
        )
        self.model, self.plain = model, plain
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.sidecar = Sidecar.of(metadata, model)
        self.spec: dict[str, Any] = json.loads(metadata[KEY])
        self._states: dict[str, Array] = {}
        self.known_sizes: dict[str, int] = {}
        self._names = [o.name for o in self.session.get_outputs()]
        self._present = {s.output for s in self.sidecar.states}

    def reset(self) -> None:
        """Start a new stream: every state is zeros again."""
        self._states, self.known_sizes = {}, {}

    def restart(self, row: int, starts: Mapping[str, Array] | None = None) -> None:
        """Start a new stream on one row of the batch, from zeros or (states of the source) from `starts`; the others
        go on.
        """
        for state in self.sidecar.states if self._states else ():
            name, axis = state.input, state.row_axis or 0
            np.moveaxis(self._states[name], axis, 0)[row] = (
                np.moveaxis(starts[name], axis, 0)[row] if starts and name in starts else 0
            )

    def step(
        self, feeds: Mapping[str, Array], valid_frames: int | Array | None = None, live: Sequence[int] | None = None
    ) -> dict[str, Array]:
        """Run one pulse. `feeds` has every data input; `valid_frames` only matters with an end of stream.

        With the first pulse of a stream, `feeds` may have states that do not begin as zeros. With `live`, only these
        rows of the batch go on: the states of the others stay as they are.
        """
        if not self._states:
            self.known_sizes = self.sizes(feeds)
            self._states = {
                s.input: feeds.get(s.input, np.zeros(self._shape(s.shape), s.dtype)) for s in self.sidecar.states
            }
        feed: dict[str, Any] = {**feeds, **self._states}
        control = self.sidecar.valid_frames_input
        if control:
            feed[control] = np.broadcast_to(
                np.asarray(valid_frames, np.int64), self._shape(self.sidecar.valid_frames_shape)
            ).copy()
        outs = self.session.run(None, feed)
        for state, value in zip(self.sidecar.states, outs[len(self.sidecar.outputs) :]):
            if value.shape != self._states[state.input].shape:
                raise AssertionError(
                    f"state {state.input} {self._states[state.input].shape} came back as {value.shape}"
                )
            if live is not None:
                axis, kept = state.row_axis or 0, self._states[state.input].copy()
                np.moveaxis(kept, axis, 0)[list(live)] = np.moveaxis(value, axis, 0)[list(live)]
                value = kept
            self._states[state.input] = value
        return {name: value for name, value in zip(self._names, outs) if name not in self._present}

    def state(self, name: str) -> Array:
        """What the state that goes in as `name` is now."""
        return self._states[name]

    def sizes(self, feeds: Mapping[str, Array]) -> dict[str, int]:
        """Symbolic dimensions as the inputs have them."""
        found: dict[str, int] = {}
        for i in self.sidecar.inputs:
            for label, size in zip(i.shape, np.shape(feeds[i.name])):
                if isinstance(label, str):
                    found[label] = size
        return found

    def _shape(self, shape: Sequence[int | str]) -> list[int]:
        return [d if isinstance(d, int) else self.known_sizes.get(d, 1) for d in shape]


class Flow:
    """One stream: frames that wait for their pulse, and how far its outputs have come. ``static`` has the inputs
    that do not stream.
    """

    def __init__(self, sidecar: Sidecar, static: dict[str, Array]):
        self.sidecar, self.static = sidecar, static
        self._inputs = sidecar.stream_inputs
        self._buffers: dict[str, Array] = {}
        delays = {o.name: o.delay for o in sidecar.stream_outputs}
        self._skip = {name: max(0, delay) for name, delay in delays.items()}
        self._given = {name: max(0, -delay) for name, delay in delays.items()}
        self._come: dict[str, list[Array]] = {name: [] for name in delays}
        self._latest: dict[str, Array | None] = {o.name: None for o in sidecar.outputs if o.name not in delays}
        self._full = sidecar.head.full if sidecar.head else 0
        self._frames = 0
        self.ended = False

    @property
    def begun(self) -> bool:
        """Whether any frames have come in."""
        return bool(self._buffers)

    def take(self, frames: Array | Mapping[str, Array], row: bool = False) -> None:
        """Take frames in; those of one `row` of the batch have one there. Raises `UsageError` where they don't fit
        the model.
        """
        if self.ended:
            raise UsageError(
                "the stream has ended: call reset() to start another"
                if not row
                else "the stream of this row has ended: call restart() to start another"
            )
        if not isinstance(frames, Mapping):
            if len(self._inputs) != 1:
                raise UsageError(
                    f"the model has {len(self._inputs)} stream inputs: push a dict of "
                    f"{', '.join(i.name for i in self._inputs)}"
                )
            frames = {self._inputs[0].name: frames}
        known: dict[str, Input] = {i.name: i for i in self.sidecar.inputs}
        for name, value in frames.items():
            if name not in known:
                raise UsageError(f"the model has no input {name}; it has {', '.join(known)}")
            value = np.asarray(value)
            entry = known[name]
            if isinstance(entry, StaticInput):
                self.static[name] = value
                continue
            axis = entry.axis
            want = [1 if row and k == entry.row_axis else d for k, d in enumerate(entry.shape)]
            if value.ndim != len(want) or any(
                k != axis and isinstance(d, int) and d != n for k, (d, n) in enumerate(zip(want, value.shape))
            ):
                raise UsageError(
                    f"{name}: frames have shape {list(value.shape)}, the model takes {want} with the stream on "
                    f"axis {axis}"
                )
            before = self._buffers.get(name)
            self._buffers[name] = value if before is None else np.concatenate([before, value], axis)

    @property
    def waiting(self) -> int:
        """Base frames in the buffers, begun ones included."""
        counts = [math.ceil(self._held(i) / i.rate) for i in self._inputs]
        return max(counts, default=0)

    @property
    def available(self) -> int:
        """Base frames that can be run now: a pulse, or all there are for a dynamic one."""
        if any(i.name not in self._buffers for i in self._inputs):
            return 0
        step = self.sidecar.step
        whole = min(math.floor(self._held(i) / (i.rate * step)) for i in self._inputs)
        return 0 if not whole else step if self.sidecar.pulse else step * whole

    def _held(self, i: StreamInput) -> int:
        return int(self._buffers[i.name].shape[i.axis])

    def next(self, pulse: int) -> dict[str, Array]:
        """The frames of the next pulse of every stream input, zeros after the last one."""
        feeds: dict[str, Array] = {}
        for i in self._inputs:
            count, buffer = i.count(pulse), self._buffers[i.name]
            chunk, self._buffers[i.name] = take(buffer, i.axis, 0, count), take(buffer, i.axis, count, None)
            feeds[i.name] = np.ascontiguousarray(filled(chunk, i.axis, count, 0))
        return feeds

    def came(self, outs: Mapping[str, Array], valid: int) -> None:
        """Outputs of a pulse of which `valid` base frames were real."""
        self._frames += valid
        for o in self.sidecar.outputs:
            name, value = o.name, outs[o.name]
            if not isinstance(o, StreamOutput):
                self._latest[name] = value if not isinstance(o, WindowOutput) or self._frames >= self._full else None
                continue
            drop = min(self._skip[name], value.shape[o.axis])
            self._skip[name] -= drop
            self._come[name].append(take(value, o.axis, drop, None))

    def result(self, sizes: Mapping[str, int], row: bool = False) -> Any:
        """What has come out since the last time, of those frames that are real for sure. `sizes`: what symbolic
        dimensions are.
        """
        result: dict[str, Array | None] = {}
        for o in self.sidecar.outputs:
            name = o.name
            if not isinstance(o, StreamOutput):
                result[name] = self._latest[name]
                continue
            shape = [
                0
                if k == o.axis
                else 1
                if row and k == o.row_axis
                else sizes.get(d, 1)
                if isinstance(d, str)
                else d or 0
                for k, d in enumerate(o.shape)
            ]
            value = np.concatenate(self._come[name] or [np.zeros(shape, o.dtype)], o.axis)
            self._come[name] = []
            total = o.total(self._frames) if self.sidecar.ends else None
            if total is not None:
                sure = max(0, total - self._given[name])
                value, held = take(value, o.axis, 0, sure), take(value, o.axis, sure, None)
                self._come[name] = [held]
            self._given[name] += value.shape[o.axis]
            result[name] = value
        return next(iter(result.values())) if len(result) == 1 else result


def inputs_of(sidecar: Sidecar, static: Mapping[str, Array]) -> dict[str, Array]:
    """The static inputs of a model. Raises `UsageError` where one was not given."""
    for i in sidecar.inputs:
        if isinstance(i, StaticInput) and i.name not in static:
            raise UsageError(f"the static input {i.name} was not given")
    return dict(static)


class StreamSession:
    """Chunks of any size in, the batch model's frames out, without its delay.

    `model` is the path of a pulsed model, or a `PulsedModel`. ``static`` has the inputs that do not stream.
    A model with one stream input takes plain arrays, else a dict by name; one with one output gives plain arrays.
    A prefix output is its newest value (None before the first pulse), one over a window too (None before the window is
    full).
    Rows of a batch start and end together here; `BatchSession` has a stream of its own on each.
    """

    def __init__(self, model: str | Path | HasProto, static: Mapping[str, Array] | None = None):
        self._runner = PulseRunner(model)
        self.spec, self._sidecar = self._runner.spec, self._runner.sidecar
        self._static = {k: np.asarray(v) for k, v in (static or {}).items()}
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next frame is the first of a new stream."""
        self._runner.reset()
        self._flow = Flow(self._sidecar, self._static)

    def push(self, frames: Array | Mapping[str, Array]) -> Any:
        """Take frames, give the output frames that they complete (often none, sometimes many)."""
        self._flow.take(frames)
        while pulse := self._flow.available:
            self._run(pulse, pulse)
        return self._flow.result(self._runner.known_sizes)

    def flush(self) -> Any:
        """End the stream: give all frames that are still missing, exactly as the batch model has them."""
        if not self._sidecar.ends:
            raise UsageError(ENDLESS)
        if not self._flow.ended and self._flow.begun:
            left = self._flow.waiting
            for valid in [left] * (left > 0) + [0] * self._sidecar.flush_pulses:
                self._run(self._sidecar.step, valid)
        self._flow.ended = True
        return self._flow.result(self._runner.known_sizes)

    def _run(self, pulse: int, valid: int) -> None:
        self._flow.came(
            self._runner.step({**inputs_of(self._sidecar, self._static), **self._flow.next(pulse)}, valid), valid
        )


def take(x: Array, axis: int, start: int, stop: int | None) -> Array:
    """``x[start:stop]`` along `axis`."""
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop)
    part: Array = x[tuple(index)]
    return part


def filled(x: Array, axis: int, count: int, fill: Any) -> Array:
    """`x` brought to `count` frames along `axis`."""
    short = count - x.shape[axis]
    if short <= 0:
        return x
    shape = list(x.shape)
    shape[axis] = short
    return np.concatenate([x, np.full(shape, fill, x.dtype)], axis)
