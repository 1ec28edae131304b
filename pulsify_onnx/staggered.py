"""Streams on the rows of a batch that start and end at times of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from pulsify_onnx.runtime import Array, PulseRunner, Spec, filled, take


class RowByRow:
    """A batch model for one stream, run for each row of its inputs."""

    def __init__(self, session: ort.InferenceSession, spec: Spec):
        self.session, self.spec = session, spec
        own = [s for s in spec["states"] if s["role"] == "source"]
        self._inputs = {e.get("name") or e["input"]: e.get("row_axis") for e in (*spec["inputs"], *own)}
        self._outputs = {e.get("name") or e["output"]: e.get("row_axis") for e in (*spec["outputs"], *own)}

    def get_outputs(self) -> list[Any]:
        """As an onnxruntime session has them."""
        return list(self.session.get_outputs())

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """As an onnxruntime session does."""
        wanted = list(names) if names is not None else [o.name for o in self.session.get_outputs()]
        rows = max(x.shape[axis] for name, x in feeds.items() if (axis := self._inputs[name]) is not None)
        found = []
        for row in range(rows):
            mine = {name: x if (axis := self._inputs[name]) is None else take(x, axis, row, row + 1) for name, x in feeds.items()}
            found.append(self.session.run(wanted, mine))
        return [parts[0] if (axis := self._outputs.get(name)) is None else np.concatenate(parts, axis) for name, parts in zip(wanted, zip(*found))]


def rows_apart(runner: PulseRunner, arrays: Mapping[str, Array], want: Mapping[str, Array], total: int, pulse: int,
               margin: int) -> Iterator[tuple[Spec, Array, Array]]:
    """What every row gives that starts while the others are under way, and what the batch model gives: (output, got, wanted).

    Nothing where the rows of the model share something, or where there is but one. The last `margin` frames are not fed.
    """
    spec = runner.spec
    axes = {e["name"]: e.get("row_axis") for e in (*spec["inputs"], *spec["outputs"])}
    first = next((i for i in spec["inputs"] if i["kind"] == "stream"), None)
    axis = axes[first["name"]] if first is not None else None
    if first is None or axis is None or not spec.get("independent_rows", True):
        return
    rows = arrays[first["name"]].shape[axis]
    if rows < 2:
        return
    ends = bool(spec["valid_frames_input"])
    pulses = math.ceil(total / pulse) + int(spec["flush_pulses"]) if ends else max(1, (total - margin) // pulse)
    starts = [(2 * row) % 3 for row in range(rows)]
    for row, got in enumerate(_staggered(runner, axes, arrays, total, pulse, pulses, starts)):
        for o in spec["outputs"]:
            axis = axes[o["name"]]
            if axis is None or not (ends or o["kind"] == "stream"):
                continue
            flow, wanted = got[o["name"]], take(want[o["name"]], axis, row, row + 1)
            if o["kind"] == "stream":
                flow = take(flow, o["axis"], o["delay"], None)
                n = min(flow.shape[o["axis"]], wanted.shape[o["axis"]])
                flow, wanted = take(flow, o["axis"], 0, n), take(wanted, o["axis"], 0, n)
            if wanted.size:
                yield o, flow, wanted


def _staggered(runner: PulseRunner, axes: Mapping[str, int | None], arrays: Mapping[str, Array], total: int, pulse: int, pulses: int,
               starts: Sequence[int]) -> Iterator[dict[str, Array]]:
    """Outputs of `pulses` pulses from the start of each row on: row `r` starts before pulse ``starts[r]``, others stream before."""
    spec = runner.spec
    collected: list[dict[str, list[Array]]] = [{o["name"]: [] for o in spec["outputs"]} for _ in starts]
    own = {s["input"]: arrays[s["input"]] for s in spec["states"] if s["input"] in arrays}
    runner.reset()
    for k in range(max(starts) + pulses):
        for row, start in enumerate(starts):
            if k == start and k:
                runner.restart(row, own)
        feeds = {i["name"]: _pulse(i, arrays[i["name"]], axes[i["name"]], k, pulse, starts) for i in spec["inputs"]}
        valid = np.asarray([min(max(total - (k - s) * pulse, 0), pulse) if k >= s else pulse for s in starts], np.int64)
        outs = runner.step({**feeds, **own} if not k else feeds, valid)
        for row, start in enumerate(starts):
            if start <= k < start + pulses:
                for name, value in outs.items():
                    axis = axes[name]
                    collected[row][name].append(value if axis is None else take(value, axis, row, row + 1))
    along = {o["name"]: o["axis"] for o in spec["outputs"] if o["kind"] == "stream"}
    for found in collected:
        yield {name: np.concatenate(parts, along[name]) if name in along else parts[-1] for name, parts in found.items()}


def _pulse(entry: Spec, x: Array, rows: int | None, k: int, pulse: int, starts: Sequence[int]) -> Array:
    """An input at pulse `k`: rows that have not started stream their frames backwards, those that have ended what is no number."""
    if entry["kind"] == "static" or rows is None:
        return x
    axis, rate = entry["axis"], entry["rate"]
    count = pulse * rate[0] // rate[1]
    parts = []
    for row, start in enumerate(starts):
        mine = take(x, rows, row, row + 1)
        at = (k - start if k >= start else k) * count
        chunk = take(mine if k >= start else np.flip(mine, axis), axis, at, at + count)
        parts.append(filled(chunk, axis, count, np.nan if x.dtype.kind == "f" else 0))
    return np.ascontiguousarray(np.concatenate(parts, rows))
