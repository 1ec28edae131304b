"""The oracle of all rule tests: a model is streamed at many pulses and compared with its own batch run.

Everything unspecified is filled with NaN, so that leaks shout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from pulsify_onnx.api import PulsedModel, pulsify
from pulsify_onnx.errors import CannotStream

PULSES = (1, 2, 3, 7, 32)
LENGTH = 45


def parse(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """A model from onnx's text form; `weights` become initializers of the names given."""
    if not text.lstrip().startswith("<"):
        text = '<ir_version: 8, opset_import: ["": 17]>\n' + text
    model = onnx.parser.parse_model(text)
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def rand(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Seeded random weights, never zero on average."""
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5 + 0.1).astype(dtype)


def session(model: bytes, plain: bool = False) -> ort.InferenceSession:
    """A session on one thread; a `plain` one leaves the graph as it is (onnxruntime fuses Pad into MaxPool, whatever the value)."""
    options = ort.SessionOptions()
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def draw(rng: np.random.Generator, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    return rng.integers(0, 3, shape).astype(dtype)


def take(x: np.ndarray, axis: int, start: int, stop: int | None) -> np.ndarray:
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop)
    return x[tuple(index)]


def close(got: np.ndarray, want: np.ndarray, what: str, rtol: float) -> None:
    assert got.shape == want.shape, f"{what}: {got.shape} is not {want.shape}"
    if want.dtype.kind == "f":
        scale = max(1.0, float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0)))
        bad = ~np.isclose(got.astype(np.float64), want.astype(np.float64), rtol=0, atol=rtol * scale, equal_nan=True)
    else:
        bad = got != want
    assert not bad.any(), f"{what}: differs at {np.argwhere(bad)[:5].tolist()}: {got[bad][:5]} is not {want[bad][:5]}"


def run_stream(pulsed: PulsedModel, arrays: Mapping[str, np.ndarray], statics: Mapping[str, np.ndarray], base: int, extra: int,
               past: float = math.nan) -> dict[str, list[np.ndarray]]:
    """Outputs and states pulse by pulse; `extra` pulses without data follow the last one with data; floats past the end are `past`."""
    spec = pulsed.spec
    sess = session(pulsed.proto().SerializeToString())
    assert [i.name for i in sess.get_inputs()] == [i["name"] for i in spec["inputs"]] + (
        [spec["valid_frames_input"]] if spec["valid_frames_input"] else []) + [s["input"] for s in spec["states"]]
    assert [o.name for o in sess.get_outputs()] == [o["name"] for o in spec["outputs"]] + [s["output"] for s in spec["states"]]
    states = {s["input"]: np.zeros([d if isinstance(d, int) else 1 for d in s["shape"]], s["dtype"]) for s in spec["states"]}
    pulse = spec["pulse"]
    collected: dict[str, list[np.ndarray]] = {o["name"]: [] for o in spec["outputs"]}
    for k in range(math.ceil(base / pulse) + extra):
        feeds = dict(statics)
        for i in spec["inputs"]:
            if i["kind"] != "stream":
                continue
            n, axis, x = i["frames_per_pulse"], i["axis"], arrays[i["name"]]
            chunk = take(x, axis, k * n, (k + 1) * n)
            if chunk.shape[axis] < n:
                shape = list(chunk.shape)
                shape[axis] = n - chunk.shape[axis]
                fill = past if x.dtype.kind == "f" else 99 if x.dtype.kind in "iu" else True
                chunk = np.concatenate([chunk, np.full(shape, fill, x.dtype)], axis)
            feeds[i["name"]] = np.ascontiguousarray(chunk)
        if spec["valid_frames_input"]:
            feeds[spec["valid_frames_input"]] = np.full([d if isinstance(d, int) else 1 for d in spec["valid_frames_shape"]], min(max(base - k * pulse, 0), pulse), np.int64)
        outs = dict(zip([o.name for o in sess.get_outputs()], sess.run(None, {**feeds, **states})))
        for s in spec["states"]:
            assert outs[s["output"]].shape == states[s["input"]].shape and 0 not in outs[s["output"]].shape, s
            states[s["input"]] = outs[s["output"]]
        for name, value in outs.items():
            collected.setdefault(name, []).append(value)
    return collected


def presentable(pulsed: PulsedModel, model: onnx.ModelProto, seen: Mapping[str, Sequence[np.ndarray]], what: str) -> None:
    """Nothing that the pulsed model gave is NaN or infinite, before the first frame either, and its recurrences have no lengths of their own."""
    for name, values in seen.items():
        for k, value in enumerate(values):
            if value.dtype.kind == "f":
                assert np.isfinite(value).all(), f"{what}: {name} is not finite after pulse {k}: {value[~np.isfinite(value)][:3]}"
    if not _lengths(model):
        assert not _lengths(pulsed.proto()), f"{what}: sequence_lens of {_lengths(pulsed.proto())}"


def _lengths(model: onnx.ModelProto) -> list[str]:
    """Recurrences with an input sequence_lens."""
    return [n.name for n in model.graph.node if n.op_type in ("RNN", "GRU", "LSTM") and len(n.input) > 4 and n.input[4]]


def check(model: onnx.ModelProto, *, axes: Mapping[str, int | str] | None = None, pulses: Sequence[int] = PULSES, length: int = LENGTH,
          delays: Mapping[str, int] | None = None, state_bytes: int | None = None, rtol: float = 1e-4, both: bool = True,
          statics: Mapping[str, np.ndarray] | None = None, unit: int = 1, shortest: int = 1, limit: int | None = None, beyond: int = 40, absorbed: bool = False,
          inputs: Mapping[str, Any] | None = None, finite: bool = True) -> PulsedModel:
    """Stream `model` at `pulses` (rounded up to its multiple), without and with an end, and compare with batch.

    `length` base frames, rounded up to `unit` (what the batch model takes, from `shortest` on), `limit` at most;
    without an end, the batch model hears `beyond` pulses more than the stream.
    `absorbed`: larger pulses than the smallest may have less delay than told. `delays`: expected by output, without an
    end of stream. `inputs`: functions (rng, shape) -> array for inputs that are not plain random. `finite`: whether the batch
    model has finite values for every length. Returns the last model.
    """
    rng = np.random.default_rng(1)
    batch = session(model.SerializeToString(), plain=True)
    pulsed: PulsedModel | None = None
    from pulsify_onnx.api import analyze
    multiple = analyze(model, axes=axes).pulse_multiple
    for pulse in sorted({multiple * math.ceil(p / multiple) for p in pulses}):
        for end in (False, True) if both else (False,):
            pulsed = pulsify(model, pulse=pulse, axes=axes, end_of_stream=end)
            spec = pulsed.spec
            what = f"pulse {pulse}{' with end' if end else ''}"
            base = unit * math.ceil(length / unit)
            ahead = 0 if end else pulse * beyond + max([0, *(math.ceil(o["delay"] * o["rate"][1] / o["rate"][0]) for o in spec["outputs"] if o["kind"] == "stream")])
            total = base if end else unit * multiple * math.ceil((base + ahead) / (unit * multiple))
            total = total if limit is None else min(total, limit)
            arrays, fixed = {}, dict(statics or {})
            for i in spec["inputs"]:
                shape = [1 if isinstance(d, str) else d for d in i["shape"]]
                if i["kind"] == "stream":
                    shape[i["axis"]] = total * i["rate"][0] // i["rate"][1]
                if i["kind"] == "static" and i["name"] in fixed:
                    continue
                make = (inputs or {}).get(i["name"])
                value = make(rng, shape) if make else draw(rng, np.dtype(i["dtype"]), shape)
                (arrays if i["kind"] == "stream" else fixed)[i["name"]] = value
            want = dict(zip([o.name for o in batch.get_outputs()], batch.run(None, {**arrays, **fixed})))
            got = run_stream(pulsed, {k: take(v, next(i["axis"] for i in spec["inputs"] if i["name"] == k), 0, None) for k, v in arrays.items()},
                             fixed, base if end else base // pulse * pulse or pulse, spec["flush_pulses"])
            if finite and all(np.isfinite(v).all() for v in [*arrays.values(), *want.values()] if v.dtype.kind == "f"):
                if end:
                    got_quiet = run_stream(pulsed, arrays, fixed, base, spec["flush_pulses"], past=0.0)
                presentable(pulsed, model, got_quiet if end else got, what)
            compared = 0
            for o in spec["outputs"]:
                name = o["name"]
                if o["kind"] == "stream":
                    assert all(g.shape[o["axis"]] == o["frames_per_pulse"] for g in got[name]), f"{what}: {name} frames per pulse"
                    flow = take(np.concatenate(got[name], o["axis"]), o["axis"], o["delay"], None)
                    frames = want[name].shape[o["axis"]]
                    n = frames if end else min(flow.shape[o["axis"]], frames)
                    close(take(flow, o["axis"], 0, n), take(want[name], o["axis"], 0, n), f"{what}: {name}", rtol)
                    compared += n
                    if delays is not None and not end and name in delays:
                        least = o["delay"] <= delays[name] if absorbed and pulse > multiple else o["delay"] == delays[name]
                        assert least, f"{what}: delay of {name} is {o['delay']}, not {delays[name]}"
                elif end:
                    close(got[name][-1], want[name], f"{what}: {name}", rtol)
                    compared += 1
                if o["kind"] == "prefix" and o["exact_every_pulse"]:
                    pulses_in = max(1, base // pulse // 2) if end else len(got[name])
                    seen = pulses_in * pulse
                    if seen % unit == 0 and shortest <= seen <= total:
                        part = {k: take(v, next(i["axis"] for i in spec["inputs"] if i["name"] == k), 0, seen * v.shape[
                            next(i["axis"] for i in spec["inputs"] if i["name"] == k)] // total) for k, v in arrays.items()}
                        close(got[name][pulses_in - 1], dict(zip(want, batch.run(None, {**part, **fixed})))[name], f"{what}: {name} after {seen} frames", rtol)
                        compared += 1
            assert compared or not end, f"{what}: nothing was compared"
            if state_bytes is not None and not end:
                assert spec["state_bytes"] == state_bytes, f"{what}: {spec['state_bytes']} bytes of state, not {state_bytes}"
    assert pulsed is not None
    return pulsed


def refused(model: onnx.ModelProto, reason: str, *, axes: Mapping[str, int | str] | None = None, op_type: str | None = None, end: bool = False) -> None:
    """The model is refused, and a blocker (of `op_type`) says `reason` and has a hint."""
    with pytest.raises(CannotStream) as caught:
        pulsify(model, pulse=None, axes=axes, end_of_stream=end)
    found = [b for b in caught.value.blockers if reason in b.reason]
    assert found, f"no blocker says {reason!r}: {[b.reason for b in caught.value.blockers]}"
    assert all(b.hint and b.node for b in caught.value.blockers)
    if op_type is not None:
        assert any(b.op_type == op_type for b in found)
