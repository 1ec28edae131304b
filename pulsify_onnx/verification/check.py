"""Batch against stream: runs both models in onnxruntime on random data and compares every frame.

Nothing is taken from the plan: what is compared, and where, comes from the pulsed model's own sidecar.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import InvalidModel, UnusableStream, UsageError
from pulsify_onnx.model.precision import TOLERANCES, float_types, nodes
from pulsify_onnx.model.schema import QUANTISED
from pulsify_onnx.ort import session, unsound
from pulsify_onnx.runtime.runner import HasProto, PulseRunner, filled, take
from pulsify_onnx.runtime.sidecar import Output, PrefixOutput, StaticOutput, StreamInput, StreamOutput
from pulsify_onnx.verification.clips import clips_apart
from pulsify_onnx.verification.inputs import NEAR_FRAMES, TimeBudget, lengths, run_shape, values
from pulsify_onnx.verification.lanes import RowByRow, rows_apart
from pulsify_onnx.verification.receptive_field import ReceptiveFieldProbe
from pulsify_onnx.verification.recordings import fitting
from pulsify_onnx.verification.result import Case, ErrorTally, Verification

TIES = 0.005
"""Share of the values of a quantised graph that may be rounded the other way."""
UNDEFINED = "output {} of the batch model itself has values that are no numbers; are all weights finite?"


def opened(pulsed: str | Path | HasProto, plain: bool = False) -> PulseRunner:
    """A pulsed model that is ready to run. Raises `UnusableStream` where onnxruntime does not take it."""
    try:
        return PulseRunner(pulsed, plain)
    except InvalidModel as problem:
        raise UnusableStream(str(problem)) from problem


def verify(
    model: str | Path | onnx.ModelProto,
    pulsed: str | Path | HasProto | PulseRunner,
    *,
    frames: int | None = None,
    seed: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
    recorded: Mapping[str, Array] | None = None,
    batch: Any = None,
    measure: bool = False,
) -> Verification:
    """Stream random data through `pulsed` and compare every frame with the batch `model`.

    `frames`: base frames to try first (default: enough for delay and receptive field). `recorded`: inputs to stream
    instead of
    random ones. `batch`: what runs in the place of `model`. `measure` how far the batch model looks: the receptive
    field must be wide
    enough, and what comes later than it need is ``late``. Raises `UsageError` where the files do not belong together.
    """
    runner = pulsed if isinstance(pulsed, PulseRunner) else opened(pulsed)
    check = Check(model, runner, seed, rtol, atol, recorded, batch=batch)
    found = check.run(frames, measure)
    if check.quantised and not found.lengths:  # onnxruntime makes integer kernels of operators that these do not take
        found = Check(model, opened(runner.model, plain=True), seed, rtol, atol, recorded, batch=batch).run(
            frames, measure
        )
    return found


class Check:
    """A comparison of two models. The batch model is run as it is written where the pulsed one is; `traced` ones
    have more outputs.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        pulsed: PulseRunner,
        seed: int = 0,
        rtol: float | None = None,
        atol: float | None = None,
        recorded: Mapping[str, Array] | None = None,
        traced: bool = False,
        batch: Any = None,
    ):
        proto = _proto(model)
        self.types = float_types(proto.graph)
        self.quantised = any(n.op_type in QUANTISED for n in nodes(proto.graph))
        # as it is written, but for quantised graphs: they round in other places once onnxruntime has put them together,
        # as its users have them
        self.batch = batch or session(
            proto.SerializeToString() if isinstance(model, onnx.ModelProto) else model,
            severity=4,
            plain=not self.quantised or pulsed.plain,
            without=unsound(n.op_type for n in nodes(proto.graph)),
        )
        self.runner = pulsed
        self.sidecar = self.runner.sidecar
        if self.sidecar.source_batch and not traced:
            self.batch = RowByRow(self.batch, self.sidecar)
        self.seed, self.rtol, self.atol = seed, rtol, atol
        self.ends, self.pulse = self.sidecar.ends, self.sidecar.step
        self.own = {s.input: s for s in self.sidecar.source_states}
        own_outputs = {s.output for s in self.own.values()}
        wanted = [o.name for o in self.sidecar.outputs]
        if not traced and wanted != [o.name for o in self.batch.get_outputs() if o.name not in own_outputs]:
            raise UsageError(
                f"the pulsed model has outputs {', '.join(wanted)}, the batch model "
                f"{', '.join(o.name for o in self.batch.get_outputs())}"
            )
        self.streams = self.sidecar.stream_inputs
        outs = self.sidecar.stream_outputs
        self.delay = max([0, *(math.ceil(o.delay / o.rate) for o in outs)])
        self.field = max([64, *(o.receptive_field or 64 for o in outs)])
        # without an end the stream goes on: the batch model must not end where the fed frames do
        self.least = self.sidecar.least_frames
        self.margin = 0 if self.ends else self.delay + 2 * self.pulse + max(64, self.field)
        self.full = self.sidecar.head.full if self.sidecar.head is not None else 0
        self.megabytes = sum(math.prod(t.dims) for t in proto.graph.initializer) * 4e-6
        self.patient = False
        self.tally = ErrorTally()
        self.error = ""
        self.recorded = fitting(recorded or {}, self.sidecar)

    def run(self, frames: int | None, measure: bool = False) -> Verification:
        """Compare. Who asks for a number of `frames`, or brings data, waits for the end of it."""
        used: list[int] = []
        late: Mapping[str, int] = {}
        self.patient = bool(frames or self.recorded)
        for target in self._targets(frames):
            for rows in (2, 1) if any(isinstance(d, str) for i in self.sidecar.inputs for d in i.shape) else (1,):
                found = self._first_valid(target, rows, used)
                if found is not None:
                    break
            if found is None:
                continue
            total, arrays, want = found
            used.append(total)
            try:
                self._compare(total, arrays, want)
                self._rows_apart(total, arrays, want)
                if measure and len(used) == 1 and not self.tally.problem and self.tally.worst <= 1:
                    late = self._measured(total, arrays, want)
            except (UsageError, MemoryError):
                raise
            except Exception as problem:
                self.tally.problem = f"the pulsed model fails: {' '.join(str(problem).split())[:300]}"
            if self.tally.problem:
                break
        return replace(self._verdict(used), late=late)

    def _measured(self, total: int, arrays: Mapping[str, Array], want: Mapping[str, Array]) -> Mapping[str, int]:
        """What comes later than it need; a receptive field that is too small is a problem."""

        def run(given: Mapping[str, Array]) -> Mapping[str, Array]:
            return dict(zip((o.name for o in self.batch.get_outputs()), self.batch.run(None, given)))

        reach = ReceptiveFieldProbe(run, self.sidecar, arrays, want, total, self.allowed)
        self.tally.problem = reach.outside()
        return reach.late()

    def _verdict(self, used: list[int]) -> Verification:
        t = self.tally
        missing = [o.name for o in self.sidecar.outputs if o.name not in t.seen and self._checkable(o)]
        if t.problem:
            ok, message = False, t.problem
        elif not used:
            ok, message = False, f"the batch model runs at none of the lengths tried: {self.error}"
        elif t.worst > 1 and t.undefined:
            ok, message = False, UNDEFINED.format(t.output)
        elif t.worst > 1:
            where = f" at frame {t.frame}" if t.frame is not None else ""
            ok, message = False, f"output {t.output} differs from the batch model{where}: largest error {t.error:.3g}"
        elif missing:
            ok, message = False, f"no frame of output {', '.join(missing)} could be compared; try more with --frames"
        elif not t.compared:
            ok, message = True, "nothing to compare: without --end-of-stream no output is exact after any pulse"
        else:
            ok, message = (
                True,
                f"{t.compared} frames agree, largest error {t.error:.3g}"
                + (f", {t.ties} rounding ties" if t.ties else ""),
            )
        return Verification(
            ok, t.error, t.output, t.frame, tuple(used), t.compared, t.ties, message, None if ok else t.case
        )

    def _checkable(self, output: Output) -> bool:
        return not isinstance(output, PrefixOutput) or self.ends or output.exact_every_pulse

    # data

    def _targets(self, frames: int | None) -> list[int]:
        recorded = self._recorded_frames()
        if recorded is not None:
            return [recorded]
        long = frames or max(self.delay, self.full) + self.pulse * 3 + min(self.field, 300 * self.pulse)
        long = self.pulse * math.ceil(max(long, self.least) / self.pulse) + self.margin
        if not self.ends:
            return [long, long + self.pulse * 4]
        ragged = max(1, self.pulse // 2)
        # what is reduced over the stream has no value while no frame of it is there
        least = 8 * self.sidecar.pulse_multiple if any(isinstance(o, PrefixOutput) for o in self.sidecar.outputs) else 1
        least = max(least, self.least)
        return [long + ragged, long, max(least, self.pulse // 3), max(least, self.pulse + ragged), least]

    def _first_valid(
        self, target: int, rows: int, used: list[int]
    ) -> tuple[int, dict[str, Array], dict[str, Array]] | None:
        """The first length from `target` on that the batch model takes: not every length suits every model."""
        errors: set[str] = set()
        for k, total in enumerate([target] if self.recorded else lengths(target, self.pulse)):
            if (
                k > NEAR_FRAMES and len(errors) == 1 and total > 2 * target + self.pulse
            ):  # it has nothing to do with the length
                break
            if total in used or not all(i.fits(total) for i in self.streams):
                continue
            for positive in (False, True):
                try:
                    arrays = self._draw(total, rows, positive)
                    want = dict(zip((o.name for o in self.batch.get_outputs()), self.batch.run(None, arrays)))
                except Exception as problem:
                    self.error = " ".join(str(problem).split())[:300]
                    errors.add(self.error)
                    break
                finite = positive or all(np.isfinite(_float(v)).all() for v in want.values())
                if finite and all(v.size for v in want.values()) and self._has_frames(total):
                    return total, arrays, want
        return None

    def _has_frames(self, total: int) -> bool:
        """Whether every output has frames for `total` base frames: onnxruntime's pools give one even where there
        should be none.
        """
        return all(o.total(total) != 0 for o in self.sidecar.stream_outputs)

    def _recorded_frames(self) -> int | None:
        """Base frames of the recorded inputs, None without them."""
        lengths = {
            math.floor(self.recorded[i.name].shape[i.axis] / i.rate) for i in self.streams if i.name in self.recorded
        }
        if len(lengths) > 1:
            raise UsageError(
                f"the recorded inputs are of different lengths: {', '.join(map(str, sorted(lengths)))} base frames"
            )
        found = next(iter(lengths), None)
        if found is not None and found <= self.margin:
            raise UsageError(
                f"the recording has {found} base frames; a stream without an end needs more than {self.margin} to "
                "be compared"
            )
        return found

    def _draw(self, total: int, rows: int, positive: bool) -> dict[str, Array]:
        rng = np.random.default_rng([self.seed, total])
        arrays = {}
        for i in self.sidecar.inputs:
            if i.name in self.recorded:
                arrays[i.name] = self.recorded[i.name]
                continue
            arrays[i.name] = values(rng, np.dtype(i.dtype), run_shape(i, total, rows), positive)
        for o in self.sidecar.outputs:
            run_shape(o, total, rows)
        for name, s in self.own.items():
            arrays[name] = values(
                rng, np.dtype(s.dtype), [rows if isinstance(d, str) else d for d in s.shape], positive
            )
        return arrays

    # comparison

    def _compare(self, total: int, arrays: Mapping[str, Array], want: Mapping[str, Array]) -> None:
        if self.tally.worst <= 1:
            self.tally.case = Case(total, arrays, want, {})
        got, fed = self.stream(total, arrays)
        if self.tally.worst <= 1:
            streams = {o.name: o.axis for o in self.sidecar.stream_outputs}
            self.tally.case = Case(
                total,
                arrays,
                want,
                {n: np.concatenate(v, streams[n]) if n in streams else v[-1] for n, v in got.items()},
            )
        for o in self.sidecar.outputs:
            name = o.name
            self._declared(o, got[name][0])
            if isinstance(o, StreamOutput):
                axis = o.axis
                early = max(0, -o.delay)  # frames that never come
                flow = take(np.concatenate(got[name], axis), axis, max(0, o.delay), None)
                expected = take(want[name], axis, early, None)
                n = expected.shape[axis]
                if self.ends and flow.shape[axis] < n:
                    self.tally.problem = (
                        f"output {name}: {flow.shape[axis]} of {n} frames have come out after "
                        f"{self.sidecar.flush_pulses} flushing pulses"
                    )
                    return
                n = min(n, flow.shape[axis])
                if n > 0:
                    self._difference(name, take(flow, axis, 0, n), take(expected, axis, 0, n), axis)
            elif self.ends or isinstance(o, StaticOutput):
                self._difference(name, got[name][-1], want[name], None)
            elif isinstance(o, PrefixOutput) and o.exact_every_pulse:
                self._prefix(name, got[name], fed, arrays)
        for name, mine, theirs in clips_apart(self.batch, self.sidecar, got, fed, arrays):
            self._difference(name, mine, theirs, None)
        for s in self.own.values():
            if self.ends:
                self._difference(s.output, got[s.output][-1], want[s.output], None)
            elif s.exact_every_pulse:
                self._prefix(s.output, got[s.output], fed, arrays)

    def _rows_apart(self, total: int, arrays: Mapping[str, Array], want: Mapping[str, Array]) -> None:
        if not self.tally.problem and self.tally.worst <= 1:
            for output, got, wanted in rows_apart(
                self.runner, self.batch, arrays, want, total, self.pulse, self.margin, self.seed
            ):
                self._difference(output.name, got, wanted, output.axis if isinstance(output, StreamOutput) else None)
            if self.tally.worst > 1:
                self.tally.problem = (
                    f"output {self.tally.output}: a row that starts while others are under way "
                    "differs from the batch model"
                )

    def _prefix(self, name: str, got: list[Array], fed: list[int], arrays: Mapping[str, Array]) -> None:
        """A running value after the first pulses and some others, against the batch model on the frames up to there."""
        soon = sum(n < self.least for n in fed)
        for k in sorted({soon, soon + 1, soon + 3, len(got) // 2, len(got) - 1}):
            if not soon <= k < len(got):
                continue
            part = {
                i.name: take(arrays[i.name], i.axis, 0, i.count(fed[k]))
                if isinstance(i, StreamInput)
                else arrays[i.name]
                for i in self.sidecar.inputs
            } | {own: arrays[own] for own in self.own}
            try:
                want = self.batch.run([name], part)[0]
            except Exception:  # not every length suits every model
                continue
            self._difference(name, got[k], want, None)

    def stream(self, total: int, arrays: Mapping[str, Array]) -> tuple[dict[str, list[Array]], list[int]]:
        """Outputs pulse by pulse, and the base frames fed after each."""
        collected: dict[str, list[Array]] = {}
        self.runner.reset()
        rng = np.random.default_rng([self.seed, total, 1])
        start, fed, pulses = 0, [], list(self._pulses(total))
        pace = TimeBudget(len(pulses), math.inf if self.patient else self.megabytes)
        for pulse in pulses:
            pace.step()
            feeds = {name: arrays[name] for name in self.own}
            for i in self.sidecar.inputs:
                x = arrays[i.name]
                if isinstance(i, StreamInput):
                    begin, count = i.count(start), i.count(pulse)
                    chunk = take(x, i.axis, begin, begin + count)
                    past_end = np.nan if x.dtype.kind == "f" else rng.integers(0, 2)
                    x = np.ascontiguousarray(filled(chunk, i.axis, count, past_end))
                feeds[i.name] = x
            for name, value in self.runner.step(feeds, min(max(total - start, 0), pulse)).items():
                collected.setdefault(name, []).append(value)
            for name, s in self.own.items():
                collected.setdefault(s.output, []).append(self.runner.state(name))
            start += pulse
            fed.append(min(start, total))
        return collected, fed

    def _pulses(self, total: int) -> Iterator[int]:
        """Sizes of the pulses; of a dynamic model, another one each time."""
        rng = np.random.default_rng([self.seed, total, 2])
        step, done = self.pulse, 0
        whole = total if self.ends else (total - self.margin) // step * step
        while done < whole:
            size = (
                step
                if self.sidecar.pulse
                else step * int(min(rng.choice([1, 2, 3, 5, 8, 13]), math.ceil((whole - done) / step)))
            )
            done += size
            yield size
        for _ in range(self.sidecar.flush_pulses):
            yield step

    def _declared(self, output: Output, value: Array) -> None:
        """A wrong declared shape misleads whoever plans memory by it."""
        for label, size in zip(output.shape, value.shape):
            if isinstance(label, int) and label != size:
                self.tally.problem = (
                    f"output {output.name} has shape {list(value.shape)}, the sidecar says {list(output.shape)}"
                )
        if len(output.shape) != value.ndim:
            self.tally.problem = (
                f"output {output.name} has {value.ndim} dimensions, the sidecar says {len(output.shape)}"
            )

    def _difference(self, name: str, got: Array, want: Array, axis: int | None) -> None:
        t = self.tally
        if got.shape != want.shape or got.dtype != want.dtype:
            t.problem = (
                f"output {name} is {got.dtype}{list(got.shape)}, the batch model gives {want.dtype}{list(want.shape)}"
            )
            return
        t.seen.add(name)
        t.compared += want.shape[axis] if axis is not None else 1
        if not want.size:
            return
        a, b = _float(got), _float(want)
        if b.dtype.kind == "f" and np.isnan(b).all():
            t.problem = UNDEFINED.format(name)
            return
        with np.errstate(invalid="ignore"):
            errors = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        errors = np.where(np.isnan(errors), np.inf, errors)
        allowed = self.allowed(want)
        beyond = int((errors > allowed).sum())
        if self.quantised and 0 < beyond <= TIES * errors.size and np.isfinite(errors).all():
            t.ties += beyond
            errors = np.minimum(errors, allowed)
        worst = int(np.argmax(errors))
        where = np.unravel_index(worst, errors.shape)
        t.add(
            name,
            float(errors.reshape(-1)[worst]),
            allowed,
            int(where[axis]) if axis is not None else None,
            bool(np.isnan(b).any()),
        )

    def allowed(self, want: Array) -> float:
        """Largest error that a value may have where the batch model gives `want`."""
        values = _float(want)
        if want.dtype.kind not in "fV":
            return self.atol or 0.0
        loose = max(TOLERANCES.get(t, 2e-4) for t in {*self.types, str(want.dtype)})
        scale = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
        return max(loose if self.atol is None else self.atol, (loose if self.rtol is None else self.rtol) * scale)


def _proto(model: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    path = Path(model)
    if not path.is_file():
        raise InvalidModel(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as problem:
        raise InvalidModel(f"{path}: not a valid ONNX model") from problem


def _float(x: Array) -> Array:
    return x.astype(np.float64) if x.dtype.kind in "fiubV" else x


__all__ = ["Case", "Verification", "opened", "verify"]
