"""Rows as streams: a batch in which every row starts, ends and starts again on its own is compared with a batch run
of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from pulsify_onnx.api import PulsedModel, pulsify
from testing.oracle import close, draw, session, take, whole_numbers


@dataclass
class Life:
    """One stream on one row: from pulse `begin` to before `end`, `length` base frames of `data`."""

    row: int
    begin: int
    end: int
    length: int
    data: dict[str, np.ndarray]
    outputs: dict[str, list[np.ndarray]] = field(default_factory=dict)


def batched(model: onnx.ModelProto, inputs: Sequence[str] | None = None, rows: int | None = None) -> onnx.ModelProto:
    """A copy whose inputs have a symbolic first dimension (or one of `rows`) where it was 1."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) > 1 and dims[0].dim_value == 1 and (inputs is None or value.name in inputs):
            dims[0].CopyFrom(
                onnx.TensorShapeProto.Dimension(dim_param="B")
                if rows is None
                else onnx.TensorShapeProto.Dimension(dim_value=rows)
            )
    for value in [*copy.graph.output, *copy.graph.value_info]:
        value.type.tensor_type.ClearField("shape")
    del copy.graph.value_info[:]
    return copy


def of_a_row(entry: Mapping[str, Any]) -> list[int]:
    """Dimensions of an input or output of one row."""
    return [1 if k == entry.get("row_axis") else d for k, d in enumerate(entry["shape"])]


def lives(
    rng: np.random.Generator,
    spec: Mapping[str, Any],
    rows: int,
    pulses: int,
    pulse: int,
    unit: int,
    shortest: int,
    margin: int,
    make: Mapping[str, Any],
) -> list[Life]:
    """What happens on every row: streams one after the other, some cut off as they warm up, pauses between."""
    found = []
    step = math.lcm(unit, spec["pulse_multiple"])
    for row in range(rows):
        at = int(rng.integers(0, 3))
        while at < pulses:
            lasts = int(rng.integers(1, 9))
            if spec["valid_frames_input"]:
                length = step * math.ceil(int(rng.integers(shortest, shortest + 8 * pulse)) / step)
                whole = math.ceil(length / pulse) + spec["flush_pulses"]
                end = at + (whole if rng.random() < 0.7 else min(whole, lasts))
                total = length
            else:
                end, length = at + lasts, 1 << 40
                total = step * math.ceil((lasts * pulse + margin) / step)
            data = {}
            for i in spec["inputs"]:
                if i["kind"] == "stream":
                    shape = of_a_row(i)
                    shape[i["axis"]] = total * i["rate"][0] // i["rate"][1]
                    data[i["name"]] = (
                        make[i["name"]](rng, shape) if i["name"] in make else draw(rng, np.dtype(i["dtype"]), shape)
                    )
            found.append(Life(row, at, end, length, data))
            at = end + int(rng.integers(0, 3))
    return found


def check_rows(
    model: onnx.ModelProto,
    *,
    pulses: Sequence[int] = (1, 3, 8),
    rows: int = 7,
    axes: Mapping[str, int | str] | None = None,
    statics: Mapping[str, np.ndarray] | None = None,
    inputs: Mapping[str, Any] | None = None,
    unit: int = 1,
    shortest: int = 1,
    rtol: float = 1e-4,
    independent: bool = True,
    ends: Sequence[bool] = (False, True),
    rounds: int = 24,
    alone: onnx.ModelProto | None = None,
    batch: int | str | None = None,
) -> PulsedModel:
    """Stream `rows` rows that start, end and start again at random; each must equal its own batch run.

    `alone` is the model for one row, where `model` is for `rows` of them; `batch` as for `pulsify`.
    """
    from pulsify_onnx.api import analyze

    multiple = analyze(model, axes=axes).pulse_multiple
    exact = whole_numbers(model)
    single, rtol = session((alone or model).SerializeToString(), plain=not exact), 0.0 if exact else rtol
    pulsed = None
    for pulse in sorted({multiple * math.ceil(p / multiple) for p in pulses}):
        for end in ends:
            pulsed = pulsify(model, pulse=pulse, axes=axes, end_of_stream=end, batch=batch)
            assert pulsed.spec.get("independent_rows", True) == independent, pulsed.spec.get("shared_by")
            if independent:
                assert pulsed.spec["valid_frames_shape"][0] in (
                    rows,
                    *(v for v in pulsed.spec["valid_frames_shape"] if isinstance(v, str)),
                )
                _run(pulsed, single, pulse, rows, rounds, statics or {}, inputs or {}, unit, shortest, rtol)
    assert pulsed is not None
    return pulsed


def _run(
    pulsed: PulsedModel,
    batch: Any,
    pulse: int,
    rows: int,
    rounds: int,
    statics: Mapping[str, np.ndarray],
    make: Mapping[str, Any],
    unit: int,
    shortest: int,
    rtol: float,
) -> None:
    spec = pulsed.spec
    what = f"pulse {pulse}{' with end' if spec['valid_frames_input'] else ''}"
    rng = np.random.default_rng([pulse, 5])
    delay = max(
        [0, *(math.ceil(o["delay"] * o["rate"][1] / o["rate"][0]) for o in spec["outputs"] if o["kind"] == "stream")]
    )
    plan = lives(rng, spec, rows, rounds, pulse, unit, shortest, 40 * pulse + delay, make)
    streams = [i for i in spec["inputs"] if i["kind"] == "stream"]
    fixed = {}
    for i in spec["inputs"]:
        if i["kind"] == "static":
            shape = [rows if isinstance(d, str) else d for d in i["shape"]]
            fixed[i["name"]] = statics[i["name"]] if i["name"] in statics else draw(rng, np.dtype(i["dtype"]), shape)
    sess = session(pulsed.proto().SerializeToString())
    names = [o.name for o in sess.get_outputs()]
    states = {
        s["input"]: np.zeros([d if isinstance(d, int) else rows for d in s["shape"]], s["dtype"])
        for s in spec["states"]
    }
    for k in range(rounds):
        now = {life.row: life for life in plan if life.begin <= k < life.end}
        for life in now.values():
            if life.begin == k:
                for value in states.values():
                    value[life.row] = 0
        feeds = dict(fixed)
        for i in streams:
            n, axis, chunks = i["frames_per_pulse"], i["axis"], []
            for row in range(rows):
                shape = of_a_row(i)
                dtype = np.dtype(i["dtype"])
                chunk = (
                    np.full(shape, np.nan, dtype)
                    if spec["valid_frames_input"] and dtype.kind == "f"
                    else draw(rng, dtype, shape)
                )
                if row in now:
                    part = take(now[row].data[i["name"]], axis, (k - now[row].begin) * n, (k - now[row].begin + 1) * n)
                    index = [slice(None)] * chunk.ndim
                    index[axis] = slice(0, part.shape[axis])
                    chunk[tuple(index)] = part
                chunks.append(chunk)
            feeds[i["name"]] = np.concatenate(chunks, i["row_axis"])
        if spec["valid_frames_input"]:
            feeds[spec["valid_frames_input"]] = np.asarray(
                [
                    min(max(now[r].length - (k - now[r].begin) * pulse, 0), pulse) if r in now else 0
                    for r in range(rows)
                ],
                np.int64,
            )
        outs = dict(zip(names, sess.run(None, {**feeds, **states})))
        states = {s["input"]: np.array(outs[s["output"]]) for s in spec["states"]}
        for life in now.values():
            for o in spec["outputs"]:
                life.outputs.setdefault(o["name"], []).append(outs[o["name"]])
    compared = 0
    for life in plan:
        if life.begin >= rounds:
            continue
        own = {
            i["name"]: take(fixed[i["name"]], i["row_axis"], life.row, life.row + 1)
            if "row_axis" in i
            else fixed[i["name"]]
            for i in spec["inputs"]
            if i["kind"] == "static"
        }
        want = dict(zip(names, batch.run(None, {**life.data, **own})))
        finished = spec["valid_frames_input"] and life.begin + math.ceil(life.length / pulse) + spec[
            "flush_pulses"
        ] <= min(life.end, rounds)
        for o in spec["outputs"]:
            got, name = life.outputs[o["name"]], o["name"]
            mine = [take(g, o["row_axis"], life.row, life.row + 1) for g in got] if "row_axis" in o else got
            where = f"{what}: {name} of row {life.row} from pulse {life.begin}"
            if o["kind"] == "stream":
                flow = take(np.concatenate(mine, o["axis"]), o["axis"], o["delay"], None)
                n = min(flow.shape[o["axis"]], want[name].shape[o["axis"]])
                close(take(flow, o["axis"], 0, n), take(want[name], o["axis"], 0, n), where, rtol)
                compared += n
            elif finished:
                close(mine[-1], want[name], where, rtol)
                compared += 1
    assert compared or not spec["valid_frames_input"], f"{what}: nothing was compared"
