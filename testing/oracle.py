"""The oracle of all rule tests: a model is streamed at many pulses and compared with its own batch run.

Everything unspecified is filled with NaN, so that leaks shout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """A session on one thread; a `plain` one leaves the graph as it is."""
    options = ort.SessionOptions()
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # onnxruntime fuses Pad into MaxPool, whatever the value
    without = ["Pad_Fusion"] if b"MaxPool" in model else []
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=without)


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


TIES = 0.02
"""Share of the values of a quantised stream that may be rounded the other way where convolutions sum in floats, in
an order of their own.
"""


def close(got: np.ndarray, want: np.ndarray, what: str, rtol: float, ties: float = 0.0) -> None:
    assert got.shape == want.shape, f"{what}: {got.shape} is not {want.shape}"
    if want.dtype.kind == "f":
        scale = max(1.0, float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0)))
        bad = ~np.isclose(got.astype(np.float64), want.astype(np.float64), rtol=0, atol=rtol * scale, equal_nan=True)
    else:
        bad = got != want
    assert bad.sum() <= ties * bad.size, (
        f"{what}: differs at {np.argwhere(bad)[:5].tolist()}: {got[bad][:5]} is not {want[bad][:5]}"
    )


def quantised(model: onnx.ModelProto) -> bool:
    """Whether values are rounded to integers on the way."""
    return any(n.op_type == "QuantizeLinear" for n in model.graph.node)


def whole_numbers(model: onnx.ModelProto) -> bool:
    """Whether what leaves a quantised model is integers, or comes straight from them: then the stream has every bit
    of the batch.
    """
    makers = {o: n for n in model.graph.node for o in n.output}
    last = [makers.get(o.name) for o in model.graph.output]
    last = [makers.get(n.input[0]) if n is not None and n.op_type == "Identity" else n for n in last]
    return quantised(model) and all(n is not None and n.op_type.startswith(("Q", "DequantizeLinear")) for n in last)


def run_stream(
    pulsed: PulsedModel,
    arrays: Mapping[str, np.ndarray],
    statics: Mapping[str, np.ndarray],
    base: int,
    extra: int,
    rows: int = 1,
    sess: ort.InferenceSession | None = None,
    past: float = math.nan,
) -> dict[str, list[np.ndarray]]:
    """Outputs and states pulse by pulse; `extra` pulses without data follow the last one with data.

    Dimensions of any size have `rows` entries; floats past the end are `past`. `sess`: a session of the pulsed model,
    where one is made already.
    """
    spec = pulsed.spec
    sess = sess or session(pulsed.proto().SerializeToString())
    outputs = [o.name for o in sess.get_outputs()]
    assert [i.name for i in sess.get_inputs()] == [i["name"] for i in spec["inputs"]] + (
        [spec["valid_frames_input"]] if spec["valid_frames_input"] else []
    ) + [s["input"] for s in spec["states"]]
    assert outputs == [o["name"] for o in spec["outputs"]] + [s["output"] for s in spec["states"]]
    states = {s["input"]: np.zeros(sized(s["shape"], rows), s["dtype"]) for s in spec["states"]}
    pulse = spec["pulse"]
    collected: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    for k in range(math.ceil(base / pulse) + extra):
        feeds = {
            **statics,
            **{i["name"]: _pulse(arrays[i["name"]], i, k, past) for i in spec["inputs"] if i["kind"] == "stream"},
        }
        if spec["valid_frames_input"]:
            feeds[spec["valid_frames_input"]] = np.full(
                sized(spec["valid_frames_shape"], rows), min(max(base - k * pulse, 0), pulse), np.int64
            )
        outs = dict(zip(outputs, sess.run(None, {**feeds, **states})))
        for s in spec["states"]:
            assert outs[s["output"]].shape == states[s["input"]].shape and 0 not in outs[s["output"]].shape, s
            states[s["input"]] = outs[s["output"]]
        for name, value in outs.items():
            collected[name].append(value)
    return collected


def sized(shape: Sequence[int | str], rows: int = 1) -> list[int]:
    """`shape` with `rows` entries where its size is not known."""
    return [d if isinstance(d, int) else rows for d in shape]


def _pulse(x: np.ndarray, i: Mapping[str, Any], k: int, past: float) -> np.ndarray:
    """Pulse `k` of an input, filled up past the end."""
    chunk = take(x, i["axis"], k * i["frames_per_pulse"], (k + 1) * i["frames_per_pulse"])
    shape = list(chunk.shape)
    shape[i["axis"]] = i["frames_per_pulse"] - chunk.shape[i["axis"]]
    fill = past if x.dtype.kind == "f" else 99 if x.dtype.kind in "iu" else True
    return np.ascontiguousarray(np.concatenate([chunk, np.full(shape, fill, x.dtype)], i["axis"]))


def presentable(
    pulsed: PulsedModel, model: onnx.ModelProto, seen: Mapping[str, Sequence[np.ndarray]], what: str
) -> None:
    """Nothing that the pulsed model gave is NaN or infinite, before the first frame either, and its recurrences have no
    lengths of their own.

    Of running values the last one only: for fewer frames the batch model itself may give a number that is not finite.
    """
    running = {o["name"] for o in pulsed.spec["outputs"] if o["kind"] == "prefix"}
    for name, values in seen.items():
        for k, value in list(enumerate(values))[-1 if name in running else 0 :]:
            if value.dtype.kind == "f":
                assert np.isfinite(value).all(), (
                    f"{what}: {name} is not finite after pulse {k}: {value[~np.isfinite(value)][:3]}"
                )
    if not _lengths(model):
        assert not _lengths(pulsed.proto()), f"{what}: sequence_lens of {_lengths(pulsed.proto())}"


def _lengths(model: onnx.ModelProto) -> list[str]:
    """Recurrences with an input sequence_lens."""
    return [n.name for n in model.graph.node if n.op_type in ("RNN", "GRU", "LSTM") and len(n.input) > 4 and n.input[4]]


@dataclass(frozen=True)
class Mode:
    """A way to run both models: as they are written (`plain`), or as onnxruntime optimises them; how near they must
    be, and how many may be ties.
    """

    batch: ort.InferenceSession
    plain: bool
    rtol: float
    ties: float = 0.0

    def reference(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the batch model gives."""
        return dict(zip([o.name for o in self.batch.get_outputs()], self.batch.run(None, dict(feeds))))

    def close(self, got: np.ndarray, want: np.ndarray, what: str) -> None:
        """Both are the same, up to rounding."""
        close(got, want, what, self.rtol, self.ties)


def modes_of(model: onnx.ModelProto, rtol: float, bits: bool) -> list[Mode]:
    """A quantised model is compared both ways, bit by bit where `bits` and it gives whole numbers; others as they
    are written.
    """
    data = model.SerializeToString()
    written = session(data, plain=True)
    if not quantised(model):
        return [Mode(written, False, rtol)]
    exact = bits and whole_numbers(model)
    return [Mode(session(data), False, 0.0 if exact else rtol, 0.0 if exact else TIES), Mode(written, True, rtol, TIES)]


def drawn(
    spec: Mapping[str, Any],
    frames: int,
    rng: np.random.Generator,
    statics: Mapping[str, np.ndarray],
    inputs: Mapping[str, Any],
    rows: int = 1,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random streams of `frames` base frames, and static inputs (those of `statics`, where they are given)."""
    arrays, fixed = {}, dict(statics)
    for i in spec["inputs"]:
        shape = sized(i["shape"] if i["kind"] == "static" else [1 if d is None else d for d in i["shape"]], rows)
        if i["kind"] == "stream":
            shape[i["axis"]] = frames * i["rate"][0] // i["rate"][1]
        if i["name"] not in fixed:
            make = inputs.get(i["name"])
            (arrays if i["kind"] == "stream" else fixed)[i["name"]] = (
                make(rng, shape) if make else draw(rng, np.dtype(i["dtype"]), shape)
            )
    return arrays, fixed


def longest_delay(spec: Mapping[str, Any]) -> int:
    """In base frames."""
    return max(
        [0, *(math.ceil(o["delay"] * o["rate"][1] / o["rate"][0]) for o in spec["outputs"] if o["kind"] == "stream")]
    )


def agree(
    pulsed: PulsedModel, mode: Mode, got: Mapping[str, list[np.ndarray]], want: Mapping[str, np.ndarray], what: str
) -> int:
    """Whatever came out is what the batch model gives; so many frames and values were compared."""
    spec, compared = pulsed.spec, 0
    end = spec["valid_frames_input"] is not None
    for o in spec["outputs"]:
        name = o["name"]
        if o["kind"] == "stream":
            assert all(g.shape[o["axis"]] == o["frames_per_pulse"] for g in got[name]), (
                f"{what}: {name} frames per pulse"
            )
            flow = take(np.concatenate(got[name], o["axis"]), o["axis"], o["delay"], None)
            frames = want[name].shape[o["axis"]]
            n = frames if end else min(flow.shape[o["axis"]], frames)
            mode.close(take(flow, o["axis"], 0, n), take(want[name], o["axis"], 0, n), f"{what}: {name}")
            compared += n
        elif end:
            mode.close(got[name][-1], want[name], f"{what}: {name}")
            compared += 1
    return compared


def check(
    model: onnx.ModelProto,
    *,
    axes: Mapping[str, int | str] | None = None,
    pulses: Sequence[int] = PULSES,
    length: int = LENGTH,
    delays: Mapping[str, int] | None = None,
    state_bytes: int | None = None,
    rtol: float = 1e-4,
    both: bool = True,
    statics: Mapping[str, np.ndarray] | None = None,
    unit: int = 1,
    shortest: int = 1,
    limit: int | None = None,
    beyond: int = 40,
    absorbed: bool = False,
    bits: bool = True,
    inputs: Mapping[str, Any] | None = None,
    rows: int = 1,
    finite: bool = True,
) -> PulsedModel:
    """Stream `model` at `pulses` (rounded up to its multiple), without and with an end, and compare with batch.

    `length` base frames, rounded up to `unit` (what the batch model takes, from `shortest` on), `limit` at most;
    without an end, the batch model hears `beyond` pulses more than the stream. `absorbed`: larger pulses than the
    smallest may have less delay than told. `delays`: expected by output, without an end of stream. A quantised stream
    is compared as it is written, and at onnxruntime's optimisation, with `bits` bit by bit. `inputs`: functions (rng,
    shape) -> array for inputs that are not plain random. `rows`: entries of dimensions of any size, streams that start
    and end together. `finite`: whether the batch model has finite values for every length. Returns the last model.
    """
    from pulsify_onnx.api import analyze

    rng, modes = np.random.default_rng(1), modes_of(model, rtol, bits)
    multiple = analyze(model, axes=axes).pulse_multiple
    pulsed: PulsedModel | None = None
    for pulse in sorted({multiple * math.ceil(p / multiple) for p in pulses}):
        for end in (False, True) if both else (False,):
            pulsed = pulsify(model, pulse=pulse, axes=axes, end_of_stream=end)
            spec, what = pulsed.spec, f"pulse {pulse}{' with end' if end else ''}"
            unit = math.lcm(unit, spec.get("length_multiple", 1))
            base = unit * math.ceil(length / unit)
            ahead = 0 if end else pulse * beyond + longest_delay(spec)
            total = base if end else unit * multiple * math.ceil((base + ahead) / (unit * multiple))
            total = total if limit is None else min(total, limit)
            arrays, fixed = drawn(spec, total, rng, statics or {}, inputs or {}, rows)
            heard = base if end else base // pulse * pulse or pulse
            for mode in modes:
                told = f"{what}{' as it is' if mode.plain else ''}"
                sess, want = (
                    session(pulsed.proto().SerializeToString(), plain=mode.plain),
                    mode.reference({**arrays, **fixed}),
                )
                got = run_stream(pulsed, arrays, fixed, heard, spec["flush_pulses"], rows, sess)
                compared = agree(pulsed, mode, got, want, told)
                if finite and all(
                    np.isfinite(v).all() for v in [*arrays.values(), *want.values()] if v.dtype.kind == "f"
                ):
                    quiet = (
                        run_stream(pulsed, arrays, fixed, base, spec["flush_pulses"], rows, sess, past=0.0)
                        if end
                        else got
                    )
                    presentable(pulsed, model, quiet, told)
                seen = pulse * (max(1, base // pulse // 2) if end else math.ceil(heard / pulse))
                if seen % unit == 0 and max(shortest, spec["least_frames"]) <= seen <= total:
                    compared += so_far(
                        pulsed,
                        mode,
                        got,
                        {k: cut(spec, k, v, seen, total) for k, v in arrays.items()},
                        fixed,
                        seen,
                        told,
                    )
                assert compared or not end, f"{told}: nothing was compared"
            if not end:
                least_delay(spec, delays or {}, absorbed and pulse > multiple, what)
                assert state_bytes in (None, spec["state_bytes"]), (
                    f"{what}: {spec['state_bytes']} bytes of state, not {state_bytes}"
                )
    assert pulsed is not None
    return pulsed


def cut(spec: Mapping[str, Any], name: str, x: np.ndarray, seen: int, total: int) -> np.ndarray:
    """The first `seen` of `total` base frames of an input."""
    axis = next(i["axis"] for i in spec["inputs"] if i["name"] == name)
    return take(x, axis, 0, seen * x.shape[axis] // total)


def so_far(
    pulsed: PulsedModel,
    mode: Mode,
    got: Mapping[str, list[np.ndarray]],
    part: Mapping[str, np.ndarray],
    fixed: Mapping[str, np.ndarray],
    seen: int,
    what: str,
) -> int:
    """Running values are after `seen` frames what the batch model gives for these; so many were compared."""
    exact = [o["name"] for o in pulsed.spec["outputs"] if o["kind"] == "prefix" and o["exact_every_pulse"]]
    want = mode.reference({**part, **fixed}) if exact else {}
    for name in exact:
        mode.close(got[name][seen // pulsed.spec["pulse"] - 1], want[name], f"{what}: {name} after {seen} frames")
    return len(exact)


def least_delay(spec: Mapping[str, Any], delays: Mapping[str, int], absorbed: bool, what: str) -> None:
    """Outputs have the delay that is told, or less where it may be `absorbed`."""
    for o in spec["outputs"]:
        if o["name"] in delays:
            told = delays[o["name"]]
            assert o["delay"] == told or (absorbed and o["delay"] < told), (
                f"{what}: delay of {o['name']} is {o['delay']}, not {told}"
            )


def every_length(
    model: onnx.ModelProto,
    *,
    axes: Mapping[str, int | str] | None = None,
    pulses: Sequence[int] = (1, 2, 3),
    rtol: float = 1e-4,
) -> None:
    """Stream `model` with an end at each length from the least that is promised to 3 pulses and the delay more, and
    compare all that comes out with batch.
    """
    from pulsify_onnx.api import analyze

    mode = Mode(session(model.SerializeToString(), plain=True), False, rtol)
    multiple = analyze(model, axes=axes).pulse_multiple
    for pulse in sorted({multiple * math.ceil(p / multiple) for p in pulses}):
        pulsed = pulsify(model, pulse=pulse, axes=axes, end_of_stream=True)
        spec, stream = pulsed.spec, session(pulsed.proto().SerializeToString())
        for base in range(spec["least_frames"], spec["least_frames"] + 3 * pulse + longest_delay(spec) + 1):
            if base % spec.get("length_multiple", 1) or any(
                base * i["rate"][0] % i["rate"][1] for i in spec["inputs"] if i["kind"] == "stream"
            ):
                continue
            arrays, fixed = drawn(spec, base, np.random.default_rng(base), {}, {})
            got = run_stream(pulsed, arrays, fixed, base, spec["flush_pulses"], sess=stream)
            agree(pulsed, mode, got, mode.reference({**arrays, **fixed}), f"pulse {pulse}, {base} frames")


def refused(
    model: onnx.ModelProto,
    reason: str,
    *,
    axes: Mapping[str, int | str] | None = None,
    op_type: str | None = None,
    end: bool = False,
) -> None:
    """The model is refused, and a blocker (of `op_type`) says `reason` and has a hint."""
    with pytest.raises(CannotStream) as caught:
        pulsify(model, pulse=None, axes=axes, end_of_stream=end)
    found = [b for b in caught.value.blockers if reason in b.reason]
    assert found, f"no blocker says {reason!r}: {[b.reason for b in caught.value.blockers]}"
    assert all(b.hint and b.node for b in caught.value.blockers)
    if op_type is not None:
        assert any(b.op_type == op_type for b in found)
