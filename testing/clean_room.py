"""A second, independent check of pulsed models: the sidecar, numpy and a runtime, and no code of the package.

    python -m testing.clean_room MODEL.onnx PULSED.onnx [--engine onnxruntime|reference|openvino]

The batch model always runs in onnxruntime; the pulsed one in the engine asked for, so that none of its quirks is relied
on.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

Arrays = dict[str, np.ndarray]


class OnnxRuntime:
    """Microsoft's."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        if any(n.op_type == "QuantizeLinear" for n in onnx.load(path, load_external_data=False).graph.node):
            # it would quantise weights and move roundings, in another way in each of two graphs
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [o.name for o in self.session.get_outputs()]

    def __call__(self, feeds: Arrays) -> Arrays:
        return dict(zip(self.names, self.session.run(None, feeds)))


class Reference:
    """onnx's own evaluator, in plain numpy."""

    def __init__(self, path: Path):
        from onnx.reference import ReferenceEvaluator

        self.evaluator = ReferenceEvaluator(str(path))
        self.names = [str(name) for name in self.evaluator.output_names]

    def __call__(self, feeds: Arrays) -> Arrays:
        return {name: np.asarray(value) for name, value in zip(self.names, self.evaluator.run(None, feeds))}


class OpenVino:
    """Intel's."""

    def __init__(self, path: Path):
        import openvino

        self.model = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )
        self.names = [o.name for o in onnx.load(path, load_external_data=False).graph.output]

    def __call__(self, feeds: Arrays) -> Arrays:
        results = self.model(feeds)
        return {name: np.array(results[name]) for name in self.names}


ENGINES = {"onnxruntime": OnnxRuntime, "reference": Reference, "openvino": OpenVino}


class Wrong(Exception):
    """The pulsed model does not keep what the sidecar promises."""


def demand(condition: bool, message: str) -> None:
    """Raise `Wrong` where `condition` does not hold."""
    if not condition:
        raise Wrong(message)


def described(path: Path) -> dict:
    """The sidecar, which must agree with the file it describes."""
    spec = json.loads(path.with_suffix(".pulse.json").read_text(encoding="utf-8"))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {p.key: p.value for p in model.metadata_props}
    demand(json.loads(metadata["pulsify.spec"]) == spec, "the metadata is not the sidecar")
    demand(
        metadata["pulsify.flush_pulses"] == str(spec["flush_pulses"]), "pulsify.flush_pulses is not that of the sidecar"
    )
    demand(
        metadata["pulsify.delay"].split(",") == [str(o.get("delay", "")) for o in spec["outputs"]],
        "pulsify.delay is not that of the sidecar",
    )
    control = [spec["valid_frames_input"]] if spec["valid_frames_input"] else []
    demand(
        [i.name for i in model.graph.input]
        == [i["name"] for i in spec["inputs"]] + control + [s["input"] for s in spec["states"]],
        "order of inputs",
    )
    demand(
        [o.name for o in model.graph.output]
        == [o["name"] for o in spec["outputs"]] + [s["output"] for s in spec["states"]],
        "order of outputs",
    )
    for k, state in enumerate(spec["states"]):
        tag = re.fullmatch(rf"past_{k:03d}_([A-Za-z0-9_]+)", state["input"])
        demand(
            tag is not None and state["output"] == f"present_{k:03d}_{tag[1]}",
            f"names of state {k}: {state['input']}, {state['output']}",
        )
        demand(0 not in state["shape"], f"{state['input']} has no elements")
    demand(
        sorted(s["input"] for s in spec["states"]) == [s["input"] for s in spec["states"]],
        "sorting changes the order of the states",
    )
    demand(spec["state_bytes"] == sum(s["bytes"] for s in spec["states"]), "state_bytes is not the sum of the states")
    demand(all(o["delay"] >= 0 for o in spec["outputs"] if o["kind"] == "stream"), "a negative delay")
    demand(control != [] or spec["flush_pulses"] == 0, "flush pulses without an end of stream")
    return spec


def cut(x: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    """Frames of `x` from `start` to `stop`."""
    return np.ascontiguousarray(np.moveaxis(np.moveaxis(x, axis, 0)[start:stop], 0, axis))


def lengthened(x: np.ndarray, axis: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`x` brought to `count` frames with whatever a caller may leave there: NaN, or any number."""
    shape = list(x.shape)
    shape[axis] = count - x.shape[axis]
    rest = np.full(shape, np.nan, x.dtype) if x.dtype.kind == "f" else rng.integers(0, 2, shape).astype(x.dtype)
    return np.concatenate([x, rest], axis)


def drawn(rng: np.random.Generator, entry: dict, frames: int) -> np.ndarray:
    """Random data of an input for so many base frames."""
    shape = [1 if isinstance(d, str) else d for d in entry["shape"]]
    if entry["kind"] == "stream":
        shape[entry["axis"]] = frames * entry["rate"][0] // entry["rate"][1]
    dtype = np.dtype(entry["dtype"])
    return (rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)


def streamed(spec: dict, run, arrays: Arrays, frames: int, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Feed `frames` base frames pulse by pulse, and what flushing asks for; the outputs of every pulse."""
    states = {
        s["input"]: np.zeros([1 if isinstance(d, str) else d for d in s["shape"]], s["dtype"]) for s in spec["states"]
    }
    step = spec["pulse"] or spec["pulse_multiple"]
    sizes, done = [], 0
    while done < frames:
        sizes.append(step if spec["pulse"] else step * int(rng.integers(1, 6)))
        done += sizes[-1]
    start = 0
    collected: dict[str, list[np.ndarray]] = {o["name"]: [] for o in spec["outputs"]}
    for size in [*sizes, *[step] * spec["flush_pulses"]]:
        feeds = dict(states)
        for entry in spec["inputs"]:
            x = arrays[entry["name"]]
            if entry["kind"] == "stream":
                first, count = (n * entry["rate"][0] // entry["rate"][1] for n in (start, size))
                part = cut(x, entry["axis"], first, min(first + count, frames * entry["rate"][0] // entry["rate"][1]))
                x = lengthened(part, entry["axis"], count, rng)
            feeds[entry["name"]] = x
        if spec["valid_frames_input"]:
            feeds[spec["valid_frames_input"]] = np.full([1], min(max(frames - start, 0), size), np.int64)
        given = run(feeds)
        for s in spec["states"]:
            demand(
                given[s["output"]].shape == states[s["input"]].shape,
                f"{s['output']} has changed its shape to {given[s['output']].shape}",
            )
            states[s["input"]] = np.ascontiguousarray(given[s["output"]])
        for name, values in collected.items():
            values.append(given[name])
        start += size
    return collected


def compared(what: str, got: np.ndarray, want: np.ndarray, tolerance: float) -> float:
    """The largest error, which must be small."""
    demand(
        got.shape == want.shape and got.dtype == want.dtype,
        f"{what}: {got.dtype}{got.shape} is not {want.dtype}{want.shape}",
    )
    if not want.size:
        return 0.0
    a, b = got.astype(np.float64), want.astype(np.float64)
    error = float(np.max(np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))))
    allowed = tolerance * max(1.0, float(np.max(np.abs(b[np.isfinite(b)]), initial=0))) if want.dtype.kind == "f" else 0
    demand(error <= allowed, f"{what}: error {error:.3g}, {allowed:.3g} allowed")
    return error


def check(
    batch: Path, pulsed: Path, engine: str = "onnxruntime", seed: int = 0, tolerance: float = 2e-4, longest: int = 10**9
) -> tuple[int, float]:
    """Compare every frame of the stream with the batch model; how many, and the largest error. Raises `Wrong`."""
    spec, run, whole = described(pulsed), ENGINES[engine](pulsed), OnnxRuntime(batch)
    rng = np.random.default_rng(seed)
    step = spec["pulse"] or spec["pulse_multiple"]
    streams = [o for o in spec["outputs"] if o["kind"] == "stream"]
    field = max([24, *(o["receptive_field"] or 24 for o in streams)])
    ends = bool(spec["valid_frames_input"])
    frames, worst = 0, 0.0
    for fed in (field + 3 * step + 1, field + 2 * step) if ends else (field + 3 * step,):
        fed = min(fed, max(longest, step)) if ends else min(-(-fed // step) * step, max(longest // step, 1) * step)
        late = max([0, *(-(-o["delay"] * o["rate"][1] // o["rate"][0]) for o in streams)])
        total = fed if ends else -(-(fed + 13 * step + late + field) // step) * step
        arrays = {entry["name"]: drawn(rng, entry, total) for entry in spec["inputs"]}
        given = (
            arrays
            if ends
            else {
                e["name"]: cut(arrays[e["name"]], e["axis"], 0, (fed + 10 * step) * e["rate"][0] // e["rate"][1])
                if e["kind"] == "stream"
                else arrays[e["name"]]
                for e in spec["inputs"]
            }
        )
        want, got = whole(arrays), streamed(spec, run, given, fed, rng)
        for o in spec["outputs"]:
            name = o["name"]
            if o["kind"] == "stream":
                axis, n = o["axis"], want[name].shape[o["axis"]]
                flow = np.concatenate(got[name], axis)
                demand(
                    o["frames_per_pulse"] is None or all(g.shape[axis] == o["frames_per_pulse"] for g in got[name]),
                    f"{name}: frames of a pulse",
                )
                come = flow.shape[axis] - o["delay"]
                demand(not ends or come >= n, f"{name}: {come} of {n} frames have come out")
                if not ends and not spec["pulse"]:
                    come = min(come, fed * o["rate"][0] // o["rate"][1] - o["delay"])
                n = min(n, come)
                demand(n > 0, f"{name}: nothing has come out")
                worst = max(
                    worst,
                    compared(name, cut(flow, axis, o["delay"], o["delay"] + n), cut(want[name], axis, 0, n), tolerance),
                )
                frames += n
            elif ends or o["kind"] == "static":
                worst = max(worst, compared(name, got[name][-1], want[name], tolerance))
                frames += 1
    return frames, worst


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pulsed", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        frames, worst = check(args.model, args.pulsed, args.engine, args.seed)
    except Wrong as problem:
        print(f"wrong: {problem}", file=sys.stderr)
        return 1
    print(f"{frames} frames agree in {args.engine}, largest error {worst:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
