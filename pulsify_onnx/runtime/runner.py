"""Runs a pulsed model in onnxruntime, knowing nothing but its sidecar."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pulsify_onnx.errors import UsageError
from pulsify_onnx.ort import session

Array = npt.NDArray[Any]
Spec = dict[str, Any]

ENDLESS = "the model was converted without --end-of-stream: its last frames need frames that will never come"


class HasProto(Protocol):
    """A model in memory, with its sidecar document."""

    @property
    def spec(self) -> Spec:
        """The sidecar document."""

    def proto(self) -> Any:
        """The model as protobuf."""




class PulseRunner:
    """One pulse in, one pulse out; keeps the states."""

    def __init__(self, model: str | Path | HasProto, plain: bool = False):
        self.session = session(model if isinstance(model, (str, Path)) else model.proto().SerializeToString(), plain=plain)
        text = self.session.get_modelmeta().custom_metadata_map.get("pulsify.spec")
        if text is None:
            raise UsageError(f"{model}: not a pulsed model (it has no pulsify.spec in its metadata)")
        self.spec: Spec = json.loads(text)
        self._states: dict[str, Array] = {}
        self.known_sizes: dict[str, int] = {}
        self._names = [o.name for o in self.session.get_outputs()]
        self._present = {s["output"] for s in self.spec["states"]}

    def reset(self) -> None:
        """Start a new stream: every state is zeros again."""
        self._states, self.known_sizes = {}, {}

    def restart(self, row: int, starts: Mapping[str, Array] | None = None) -> None:
        """Start a new stream on one row of the batch, from zeros or (states of the source) from `starts`; the others go on."""
        for state in self.spec["states"] if self._states else ():
            name, axis = state["input"], state.get("row_axis", 0)
            np.moveaxis(self._states[name], axis, 0)[row] = np.moveaxis(starts[name], axis, 0)[row] if starts and name in starts else 0

    def step(self, feeds: Mapping[str, Array], valid_frames: int | Array | None = None, live: Sequence[int] | None = None) -> dict[str, Array]:
        """Run one pulse. `feeds` has every data input; `valid_frames` only matters with an end of stream.

        With the first pulse of a stream, `feeds` may have states that do not begin as zeros. With `live`, only these rows of the batch
        go on: the states of the others stay as they are.
        """
        if not self._states:
            self.known_sizes = self.sizes(feeds)
            self._states = {s["input"]: feeds.get(s["input"], np.zeros(self._shape(s["shape"]), s["dtype"])) for s in self.spec["states"]}
        feed: dict[str, Any] = {**feeds, **self._states}
        control = self.spec["valid_frames_input"]
        if control:
            feed[control] = np.broadcast_to(np.asarray(valid_frames, np.int64), self._shape(self.spec["valid_frames_shape"])).copy()
        outs = self.session.run(None, feed)
        for state, value in zip(self.spec["states"], outs[len(self.spec["outputs"]):]):
            if value.shape != self._states[state["input"]].shape:
                raise AssertionError(f"state {state['input']} {self._states[state['input']].shape} came back as {value.shape}")
            if live is not None:
                axis, kept = state.get("row_axis", 0), self._states[state["input"]].copy()
                np.moveaxis(kept, axis, 0)[list(live)] = np.moveaxis(value, axis, 0)[list(live)]
                value = kept
            self._states[state["input"]] = value
        return {name: value for name, value in zip(self._names, outs) if name not in self._present}

    def state(self, name: str) -> Array:
        """What the state that goes in as `name` is now."""
        return self._states[name]

    def sizes(self, feeds: Mapping[str, Array]) -> dict[str, int]:
        """Symbolic dimensions as the inputs have them."""
        found: dict[str, int] = {}
        for i in self.spec["inputs"]:
            for label, size in zip(i["shape"], np.shape(feeds[i["name"]])):
                if isinstance(label, str):
                    found[label] = size
        return found

    def _shape(self, shape: list[int | str]) -> list[int]:
        return [d if isinstance(d, int) else self.known_sizes.get(d, 1) for d in shape]


class Flow:
    """One stream: frames that wait for their pulse, and how far its outputs have come. ``static`` has the inputs that do not stream."""

    def __init__(self, spec: Spec, static: dict[str, Array]):
        self.spec, self.static = spec, static
        self._inputs = [i for i in spec["inputs"] if i["kind"] == "stream"]
        self._buffers: dict[str, Array] = {}
        delays = {o["name"]: o["delay"] for o in spec["outputs"] if o["kind"] == "stream"}
        self._skip = {name: max(0, delay) for name, delay in delays.items()}
        self._given = {name: max(0, -delay) for name, delay in delays.items()}
        self._come: dict[str, list[Array]] = {name: [] for name in delays}
        self._latest: dict[str, Array | None] = {o["name"]: None for o in spec["outputs"] if o["kind"] != "stream"}
        head = spec.get("head")
        self._full = head["frames"] + head["delay"] if head else 0
        self._frames = 0
        self.ended = False

    @property
    def begun(self) -> bool:
        """Whether any frames have come in."""
        return bool(self._buffers)

    def take(self, frames: Array | Mapping[str, Array], row: bool = False) -> None:
        """Take frames in; those of one `row` of the batch have one there. Raises `UsageError` where they don't fit the model."""
        if self.ended:
            raise UsageError("the stream has ended: call reset() to start another" if not row else "the stream of this row has ended: call restart() to start another")
        if not isinstance(frames, Mapping):
            if len(self._inputs) != 1:
                raise UsageError(f"the model has {len(self._inputs)} stream inputs: push a dict of {', '.join(i['name'] for i in self._inputs)}")
            frames = {self._inputs[0]["name"]: frames}
        known = {i["name"]: i for i in self.spec["inputs"]}
        for name, value in frames.items():
            if name not in known:
                raise UsageError(f"the model has no input {name}; it has {', '.join(known)}")
            value = np.asarray(value)
            if known[name]["kind"] == "static":
                self.static[name] = value
                continue
            axis = known[name]["axis"]
            want = [1 if row and k == known[name]["row_axis"] else d for k, d in enumerate(known[name]["shape"])]
            if value.ndim != len(want) or any(k != axis and isinstance(d, int) and d != n for k, (d, n) in enumerate(zip(want, value.shape))):
                raise UsageError(f"{name}: frames have shape {list(value.shape)}, the model takes {want} with the stream on axis {axis}")
            before = self._buffers.get(name)
            self._buffers[name] = value if before is None else np.concatenate([before, value], axis)

    @property
    def waiting(self) -> int:
        """Base frames in the buffers, begun ones included."""
        counts = [math.ceil(Fraction(self._buffers[i["name"]].shape[i["axis"]]) * i["rate"][1] / i["rate"][0]) for i in self._inputs]
        return max(counts, default=0)

    @property
    def available(self) -> int:
        """Base frames that can be run now: a pulse, or all there are for a dynamic one."""
        if any(i["name"] not in self._buffers for i in self._inputs):
            return 0
        step = self.spec["pulse"] or self.spec["pulse_multiple"]
        whole = min(self._buffers[i["name"]].shape[i["axis"]] * i["rate"][1] // (i["rate"][0] * step) for i in self._inputs)
        return 0 if not whole else step if self.spec["pulse"] else step * whole

    def next(self, pulse: int) -> dict[str, Array]:
        """The frames of the next pulse of every stream input, zeros after the last one."""
        feeds: dict[str, Array] = {}
        for i in self._inputs:
            name = i["name"]
            count, buffer = pulse * i["rate"][0] // i["rate"][1], self._buffers[name]
            chunk, self._buffers[name] = take(buffer, i["axis"], 0, count), take(buffer, i["axis"], count, None)
            feeds[name] = np.ascontiguousarray(filled(chunk, i["axis"], count, 0))
        return feeds

    def came(self, outs: Mapping[str, Array], valid: int) -> None:
        """Outputs of a pulse of which `valid` base frames were real."""
        self._frames += valid
        for o in self.spec["outputs"]:
            name, value = o["name"], outs[o["name"]]
            if o["kind"] != "stream":
                self._latest[name] = value if o["kind"] != "window" or self._frames >= self._full else None
                continue
            drop = min(self._skip[name], value.shape[o["axis"]])
            self._skip[name] -= drop
            self._come[name].append(take(value, o["axis"], drop, None))

    def result(self, sizes: Mapping[str, int], row: bool = False) -> Any:
        """What has come out since the last time, of those frames that are real for sure. `sizes`: what symbolic dimensions are."""
        result: dict[str, Array | None] = {}
        for o in self.spec["outputs"]:
            name = o["name"]
            if o["kind"] != "stream":
                result[name] = self._latest[name]
                continue
            shape = [0 if k == o["axis"] else 1 if row and k == o.get("row_axis") else d if isinstance(d, int) else sizes.get(d, 1)
                     for k, d in enumerate(o["shape"])]
            value = np.concatenate(self._come[name] or [np.zeros(shape, o["dtype"])], o["axis"])
            self._come[name] = []
            if self.spec["valid_frames_input"] and o.get("frames") is not None:
                sure = max(0, length(o["frames"], self._frames) - self._given[name])
                value, held = take(value, o["axis"], 0, sure), take(value, o["axis"], sure, None)
                self._come[name] = [held]
            self._given[name] += value.shape[o["axis"]]
            result[name] = value
        return next(iter(result.values())) if len(result) == 1 else result


def inputs_of(spec: Spec, static: Mapping[str, Array]) -> dict[str, Array]:
    """The static inputs of a model. Raises `UsageError` where one was not given."""
    for i in spec["inputs"]:
        if i["kind"] == "static" and i["name"] not in static:
            raise UsageError(f"the static input {i['name']} was not given")
    return dict(static)


class StreamSession:
    """Chunks of any size in, the batch model's frames out, without its delay.

    `model` is the path of a pulsed model, or a `PulsedModel`. ``static`` has the inputs that do not stream.
    A model with one stream input takes plain arrays, else a dict by name; one with one output gives plain arrays.
    A prefix output is its newest value (None before the first pulse), one over a window too (None before the window is full).
    Rows of a batch start and end together here; `BatchSession` has a stream of its own on each.
    """

    def __init__(self, model: str | Path | HasProto, static: Mapping[str, Array] | None = None):
        self._runner = PulseRunner(model)
        self.spec = self._runner.spec
        self._static = {k: np.asarray(v) for k, v in (static or {}).items()}
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next frame is the first of a new stream."""
        self._runner.reset()
        self._flow = Flow(self.spec, self._static)

    def push(self, frames: Array | Mapping[str, Array]) -> Any:
        """Take frames, give the output frames that they complete (often none, sometimes many)."""
        self._flow.take(frames)
        while pulse := self._flow.available:
            self._run(pulse, pulse)
        return self._flow.result(self._runner.known_sizes)

    def flush(self) -> Any:
        """End the stream: give all frames that are still missing, exactly as the batch model has them."""
        if not self.spec["valid_frames_input"]:
            raise UsageError(ENDLESS)
        if not self._flow.ended and self._flow.begun:
            pulse = self.spec["pulse"] or self.spec["pulse_multiple"]
            left = self._flow.waiting
            for valid in [left] * (left > 0) + [0] * self.spec["flush_pulses"]:
                self._run(pulse, valid)
        self._flow.ended = True
        return self._flow.result(self._runner.known_sizes)

    def _run(self, pulse: int, valid: int) -> None:
        self._flow.came(self._runner.step({**inputs_of(self.spec, self._static), **self._flow.next(pulse)}, valid), valid)


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


def length(expression: str, frames: int) -> int:
    """The value of a sidecar's ``frames`` of an output for a stream of `frames` base frames."""
    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return Fraction(node.value)
        if isinstance(node, ast.Name) and node.id == "T":
            return Fraction(frames)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp):
            a, b = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add):
                return a + b
            if isinstance(node.op, ast.Sub):
                return a - b
            if isinstance(node.op, ast.Mult):
                return a * b
            if isinstance(node.op, ast.Div):
                return a / b
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            arguments = [value(a) for a in node.args]
            if node.func.id == "floor":
                return Fraction(math.floor(arguments[0]))
            if node.func.id in ("min", "max"):
                return min(arguments) if node.func.id == "min" else max(arguments)
        raise UsageError(f"the sidecar has a length that cannot be read: {expression}")

    return max(0, math.floor(value(ast.parse(expression, mode="eval").body)))
