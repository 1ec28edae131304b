"""Streams on the rows of a batch that start and end at times of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from pulsify_onnx.arrays import Array
from pulsify_onnx.runtime.runner import PulseRunner, filled, take
from pulsify_onnx.runtime.sidecar import Input, Output, Sidecar, StaticInput, StreamOutput
from pulsify_onnx.verification.inputs import fits


class RowByRow:
    """A batch model for one stream, run for each row of its inputs."""

    def __init__(self, session: ort.InferenceSession, sidecar: Sidecar):
        self.session, own = session, sidecar.source_states
        self._inputs = {e.name: e.row_axis for e in sidecar.inputs} | {s.input: s.row_axis for s in own}
        self._outputs = {e.name: e.row_axis for e in sidecar.outputs} | {s.output: s.row_axis for s in own}

    def get_outputs(self) -> list[Any]:
        """As an onnxruntime session has them."""
        return list(self.session.get_outputs())

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """As an onnxruntime session does."""
        wanted = list(names) if names is not None else [o.name for o in self.session.get_outputs()]
        rows = max(x.shape[axis] for name, x in feeds.items() if (axis := self._inputs[name]) is not None)
        found = []
        for row in range(rows):
            mine = {
                name: x if (axis := self._inputs[name]) is None else take(x, axis, row, row + 1)
                for name, x in feeds.items()
            }
            found.append(self.session.run(wanted, mine))
        return [
            parts[0] if (axis := self._outputs.get(name)) is None else np.concatenate(parts, axis)
            for name, parts in zip(wanted, zip(*found))
        ]


@dataclass(frozen=True)
class LaneRun:
    """A stream on a row: from pulse `begin` on, before pulse `end`, of `length` base frames."""

    row: int
    begin: int
    end: int
    length: int


def rows_apart(
    runner: PulseRunner,
    batch: Any,
    arrays: Mapping[str, Array],
    want: Mapping[str, Array],
    total: int,
    pulse: int,
    margin: int,
    seed: int,
) -> Iterator[tuple[Output, Array, Array]]:
    """What streams give that start, are cut off, start again and end on their rows while others are under way, and what
    the batch model gives: (output, got, wanted).

    Nothing where the rows of the model share something, or where there is but one. The last `margin` frames are not
    fed.
    """
    sidecar = runner.sidecar
    axes = sidecar.row_axes
    first = next(iter(sidecar.stream_inputs), None)
    axis = first.row_axis if first is not None else None
    if first is None or axis is None or not sidecar.independent_rows:
        return
    rows = arrays[first.name].shape[axis]
    if rows < 2:
        return
    rng, ends = np.random.default_rng([seed, total, 3]), sidecar.ends
    shorter, less = _shorter(batch, sidecar, arrays, want, total, rng) if ends else (total, want)
    whole = {
        n: math.ceil(n / pulse) + sidecar.flush_pulses if ends else max(1, (n - margin) // pulse)
        for n in (total, shorter)
    }
    lives = []
    for row in range(rows):
        begin, cut, pause = (int(rng.integers(low, low + 3)) for low in (0, 1, 0))
        length = shorter if row % 2 else total
        lives += [
            LaneRun(row, begin, begin + cut, total),
            LaneRun(row, begin + cut + pause, begin + cut + pause + whole[length], length),
        ]
    for life, got in zip(lives, _streamed(runner, axes, arrays, pulse, lives)):
        for o in sidecar.outputs:
            axis = axes[o.name]
            complete = ends and life.end - life.begin >= whole[life.length]
            if axis is None or not (complete or isinstance(o, StreamOutput)):
                continue
            flow, wanted = (
                got[o.name],
                take((want if life.length == total else less)[o.name], axis, life.row, life.row + 1),
            )
            if isinstance(o, StreamOutput):
                early = max(0, -o.delay)  # frames that never come
                flow, wanted = take(flow, o.axis, max(0, o.delay), None), take(wanted, o.axis, early, None)
                n = min(flow.shape[o.axis], wanted.shape[o.axis])
                flow, wanted = take(flow, o.axis, 0, n), take(wanted, o.axis, 0, n)
            if wanted.size:
                yield o, flow, wanted


def _shorter(
    batch: Any,
    sidecar: Sidecar,
    arrays: Mapping[str, Array],
    want: Mapping[str, Array],
    total: int,
    rng: np.random.Generator,
) -> tuple[int, Mapping[str, Array]]:
    """A length below `total` and what the batch model gives for it; `total` itself where it takes no such length."""
    unit = sidecar.pulse_multiple
    length = total - unit * int(rng.integers(1, max(2, min(total // unit, 16))))
    part = {i.name: take(arrays[i.name], i.axis, 0, i.count(length)) for i in sidecar.stream_inputs}
    if length < max(8 * unit, sidecar.least_frames) or not fits(sidecar, length):
        return total, want
    try:
        found = dict(zip((o.name for o in batch.get_outputs()), batch.run(None, {**arrays, **part})))
    except Exception:  # not every length suits every model
        return total, want
    finite = all(v.dtype.kind != "f" or np.isfinite(v).all() for v in found.values())
    return (length, found) if finite else (total, want)


def _streamed(
    runner: PulseRunner,
    axes: Mapping[str, int | None],
    arrays: Mapping[str, Array],
    pulse: int,
    lives: Sequence[LaneRun],
) -> Iterator[dict[str, Array]]:
    """Outputs of every life, from its first pulse on."""
    sidecar = runner.sidecar
    ends = sidecar.ends
    collected: list[dict[str, list[Array]]] = [{o.name: [] for o in sidecar.outputs} for _ in lives]
    own = {s.input: arrays[s.input] for s in sidecar.states if s.input in arrays}
    rows = 1 + max(life.row for life in lives)
    runner.reset()
    for k in range(max(life.end for life in lives)):
        now = {life.row: life for life in lives if life.begin <= k < life.end}
        for row, life in now.items():
            if k == life.begin and k:
                runner.restart(row, own)
        feeds = {i.name: _pulse(i, arrays[i.name], axes[i.name], k, pulse, now, ends) for i in sidecar.inputs}
        valid = [min(max(now[r].length - (k - now[r].begin) * pulse, 0), pulse) if r in now else 0 for r in range(rows)]
        outs = runner.step({**feeds, **own} if not k else feeds, np.asarray(valid, np.int64))
        for life, found in zip(lives, collected):
            if now.get(life.row) is life:
                for name, value in outs.items():
                    axis = axes[name]
                    found[name].append(value if axis is None else take(value, axis, life.row, life.row + 1))
    along = {o.name: o.axis for o in sidecar.stream_outputs}
    for found in collected:
        yield {
            name: np.concatenate(parts, along[name]) if name in along else parts[-1] for name, parts in found.items()
        }


def _pulse(
    entry: Input, x: Array, rows: int | None, k: int, pulse: int, now: Mapping[int, LaneRun], ends: bool
) -> Array:
    """An input at pulse `k`: rows without a stream get their frames backwards, or, as frames past the end, what is
    no number.
    """
    if isinstance(entry, StaticInput) or rows is None:
        return x
    axis, count = entry.axis, entry.count(pulse)
    parts = []
    for row in range(x.shape[rows]):
        mine = take(x, rows, row, row + 1)
        life = now.get(row)
        if life is not None:
            mine = take(mine, axis, 0, entry.count(life.length))
            chunk = take(mine, axis, (k - life.begin) * count, (k - life.begin + 1) * count)
        else:
            chunk = take(np.flip(mine, axis), axis, 0, 0 if ends else count)
        parts.append(filled(chunk, axis, count, np.nan if x.dtype.kind == "f" else 0))
    return np.ascontiguousarray(np.concatenate(parts, rows))
