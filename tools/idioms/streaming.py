"""Streams by plain onnxruntime from the sidecar alone, and the batch model's answer to compare with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from .grammar import Input, Network

Array = npt.NDArray[Any]
ROWS = 3
"""Rows of a batch that is symbolic."""

ort.set_default_logger_severity(4)


def session(model: onnx.ModelProto | bytes, optimised: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    raw = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])


def sidecar(model: onnx.ModelProto) -> dict[str, Any]:
    """The sidecar, as a runtime finds it in the model's metadata."""
    return dict(json.loads(next(p.value for p in model.metadata_props if p.key == "pulsify.spec")))


@dataclass
class Stream:
    """One stream on one lane: its frames (more than `length`, for streams without an end), and what came out."""

    data: Mapping[str, Array]
    length: int
    fed: int = 0
    flushed: int = 0
    chunks: dict[str, list[Array]] = field(default_factory=dict)
    values: dict[str, list[tuple[int, Array]]] = field(default_factory=dict)

    def output(self, name: str, axis: int) -> Array:
        return np.concatenate(self.chunks[name], axis)


@dataclass(frozen=True)
class Lane:
    """Rows of the batch that start and end together."""

    first: int
    count: int


def lanes_of(network: Network, spec: Mapping[str, Any]) -> list[Lane]:
    """One lane a row, or one for all rows where the sidecar says that they are shared."""
    batch = network.sentence.batch
    rows = batch if isinstance(batch, int) else ROWS
    if spec.get("independent_rows", True):
        return [Lane(i, 1) for i in range(rows)]
    return [Lane(0, rows)]


def draw(inputs: list[Input], rows: int, frames: int, rng: np.random.Generator) -> dict[str, Array]:
    """Random data for all inputs, `frames` base frames of it."""
    out = {}
    for i in inputs:
        shape = [frames * i.rate if d == "T" else rows if axis == i.row else int(d) for axis, d in enumerate(i.shape)]
        drawn = rng.standard_normal(shape) if i.high == 0 else rng.integers(i.low, i.high, shape)
        out[i.name] = drawn.astype(i.dtype)
    return out


class Batch:
    """The batch model: optimised as onnxruntime does it, and not at all; where these differ nobody knows what is
    right.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        raw = network.model.SerializeToString()
        self.sessions = [session(raw), session(raw, optimised=False)]
        self.names = [o.name for o in self.sessions[0].get_outputs()]
        self.fixed = network.sentence.batch if isinstance(network.sentence.batch, int) else 0

    def __call__(
        self, data: Mapping[str, Array], length: int, lane: Lane, row_axes: Mapping[str, int | None]
    ) -> dict[str, Array] | None:
        """Outputs for the first `length` base frames of a lane; None where the model does not run or is not sure."""
        if length in self.network.empty and any(head == "pooled" for head, _ in self.network.sentence.heads):
            return None  # onnxruntime may abort where it reduces no frames
        feed = {}
        for i in self.network.inputs:
            x = data[i.name]
            if i.axis is not None:
                x = np.take(x, range(length * i.rate), i.axis)
            if self.fixed > lane.count and i.row is not None:
                x = np.repeat(x, self.fixed, i.row)
            feed[i.name] = x
        try:
            runs = [s.run(None, feed) for s in self.sessions]
        except Exception:  # onnxruntime's own exceptions have no common base
            return None
        answers = dict(zip(self.names, runs[0]))
        for name, other in zip(self.names, runs[1]):
            if answers[name].shape != other.shape or difference(answers[name], other, self.network) is not None:
                return None
        if self.fixed > lane.count:
            for name, axis in row_axes.items():
                if axis is not None:
                    answers[name] = np.take(answers[name], range(lane.first, lane.first + lane.count), axis)
        return answers


def difference(got: Array, want: Array, network: Network) -> tuple[float, tuple[int, ...]] | None:
    """The largest difference beyond rounding and where it is, or None. A few ties of quantised values are rounding
    too.
    """
    if got.shape != want.shape:
        return float("inf"), ()
    if not want.size:
        return None
    if want.dtype.kind not in "fc":
        bad = got != want
        if not bad.any() or bad.mean() < (0.05 if network.coarse else 0.01):
            return None
        return float(bad.sum()), _first(bad)
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.abs(b[np.isfinite(b)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    limit = {"float16": 3e-2, "float32": 3e-4, "float64": 1e-7}[str(want.dtype)] * scale
    with np.errstate(invalid="ignore"):
        bad = ~((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= limit))
    if not bad.any():
        return None
    with np.errstate(invalid="ignore"):
        worst = np.abs(a - b)[bad]
    if network.coarse and bad.mean() < 0.5 and np.isfinite(worst).all() and worst.max() < 0.1 * scale:
        return None
    return float(np.nanmax(worst)) if not np.isnan(worst).all() else float("nan"), _first(bad)


def _first(bad: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(bad)[0])


def garbage(x: Array, fill: str) -> Any:
    """What a caller leaves in frames past the end."""
    if x.dtype.kind == "f":
        return {"nan": np.nan, "inf": np.inf, "99": 99.0, "huge": np.finfo(x.dtype).max, "-inf": -np.inf}[fill]
    return {"nan": 99, "inf": np.iinfo(x.dtype).max, "99": 99, "huge": np.iinfo(x.dtype).min, "-inf": -1}[fill]


class Runner:
    """Feeds lanes of streams, one after another on each, and collects what comes out."""

    def __init__(
        self, model: ort.InferenceSession, spec: Mapping[str, Any], inputs: list[Input], lanes: list[Lane]
    ) -> None:
        self.model, self.spec, self.inputs, self.lanes = model, spec, inputs, lanes
        self.rows = sum(lane.count for lane in lanes)
        self.names = [o.name for o in model.get_outputs()]
        self.stream_axes = {i["name"]: i for i in spec["inputs"]}
        self.end = bool(spec["valid_frames_input"])
        self.finite = True
        self.faults: list[str] = []

    def zeros(self) -> dict[str, Array]:
        return {
            s["input"]: np.zeros([d if isinstance(d, int) else self.rows for d in s["shape"]], s["dtype"])
            for s in self.spec["states"]
        }

    def run(self, queues: list[list[Stream]], pulses: Iterator[int], fill: str | None) -> None:
        """Until all streams of all lanes are done. `fill`: what to put past their ends; None without an end of
        stream.
        """
        states = self.zeros()
        places = [0] * len(self.lanes)
        while any(place < len(queue) for place, queue in zip(places, queues)):
            pulse = next(pulses)
            now = [queue[min(place, len(queue) - 1)] for place, queue in zip(places, queues)]
            feed = dict(states) | {i.name: self._chunk(i, now, pulse, fill) for i in self.inputs}
            if fill is not None:
                valid = np.array(
                    [
                        max(0, min(pulse, s.length - s.fed))
                        for s, lane in zip(now, self.lanes)
                        for _ in range(lane.count)
                    ],
                    np.int64,
                )
                feed[self.spec["valid_frames_input"]] = valid if len(valid) == self._valid() else valid[:1]
            out = dict(zip(self.names, self.model.run(None, feed)))
            states = {s["input"]: out[s["output"]] for s in self.spec["states"]}
            self._look(out, pulse)
            for n, (stream, lane) in enumerate(zip(now, self.lanes)):
                if places[n] >= len(queues[n]):
                    continue
                self._collect(stream, lane, out, pulse)
                if stream.fed >= stream.length and (fill is None or stream.flushed == self.spec["flush_pulses"]):
                    places[n] += 1
                    states = {s["input"]: self._restart(states[s["input"]], s, lane) for s in self.spec["states"]}
                elif stream.fed >= stream.length:
                    stream.flushed += 1

    def _valid(self) -> int:
        size = self.spec["valid_frames_shape"][0]
        return size if isinstance(size, int) else self.rows

    def _restart(self, x: Array, state: Mapping[str, Any], lane: Lane) -> Array:
        if lane.count == self.rows:
            return np.zeros_like(x)
        x = x.copy()
        np.moveaxis(x, state.get("row_axis", 0), 0)[lane.first : lane.first + lane.count] = 0
        return x

    def _chunk(self, i: Input, now: list[Stream], pulse: int, fill: str | None) -> Array:
        parts = []
        for s in now:
            x = s.data[i.name]
            if i.axis is None:
                parts.append(x)
                continue
            first, last = s.fed * i.rate, (s.fed + pulse) * i.rate
            shape = list(x.shape)
            shape[i.axis] = last - first
            part = np.full(shape, garbage(x, fill) if fill else 0, x.dtype)
            real = min(last, s.length * i.rate if fill else x.shape[i.axis]) - first
            if real > 0:
                np.moveaxis(part, i.axis, 0)[:real] = np.moveaxis(x, i.axis, 0)[first : first + real]
            parts.append(part)
        return parts[0] if i.row is None or len(parts) == 1 else np.concatenate(parts, i.row)

    def _collect(self, stream: Stream, lane: Lane, out: Mapping[str, Array], pulse: int) -> None:
        stream.fed = stream.fed + pulse if stream.fed < stream.length else stream.fed
        for o in self.spec["outputs"]:
            y = out[o["name"]]
            if lane.count < self.rows and o.get("row_axis", 0) is not None:
                y = np.take(y, range(lane.first, lane.first + lane.count), o.get("row_axis", 0))
            if o["kind"] == "stream":
                stream.chunks.setdefault(o["name"], []).append(y)
            else:
                stream.values.setdefault(o["name"], []).append(
                    (min(stream.fed, stream.length) if self.end else stream.fed, y)
                )

    def _look(self, out: Mapping[str, Array], pulse: int) -> None:
        for o in self.spec["outputs"]:
            y = out[o["name"]]
            if o["kind"] != "stream":
                continue
            if y.shape[o["axis"]] * o["rate"][1] != pulse * o["rate"][0]:
                self.faults.append(
                    f"{o['name']} gave {y.shape[o['axis']]} frames for a pulse of {pulse} at rate {o['rate']}"
                )
            if y.dtype.kind == "f" and not np.isfinite(y).all() and self.finite:
                self.finite = False
                self.faults.append(f"not finite: {o['name']}")
        for s in self.spec["states"]:
            if self.finite and out[s["output"]].dtype.kind == "f" and not np.isfinite(out[s["output"]]).all():
                self.finite = False
                self.faults.append(f"not finite: {s['output']}")
