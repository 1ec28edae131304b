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
from pulsify_onnx.model.precision import float_types, nodes
from pulsify_onnx.model.schema import QUANTISED
from pulsify_onnx.ort import session, unsound
from pulsify_onnx.runtime.runner import HasProto, PulseRunner, filled, take
from pulsify_onnx.runtime.sidecar import Output, PrefixOutput, StaticOutput, StreamInput, StreamOutput
from pulsify_onnx.verification.clips import clips_apart
from pulsify_onnx.verification.differences import Differences, undefined
from pulsify_onnx.verification.inputs import TimeBudget
from pulsify_onnx.verification.lanes import RowByRow, rows_apart
from pulsify_onnx.verification.receptive_field import ReceptiveFieldProbe
from pulsify_onnx.verification.result import Case, Verification
from pulsify_onnx.verification.trials import Trials


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
    instead of random ones. `batch`: what runs in the place of `model`. `measure` how far the batch model looks: the
    receptive field must be wide enough, and what comes later than it need is ``late``. Raises `UsageError` where the
    files do not belong together.
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
        self.seed = seed
        self.ends, self.pulse = self.sidecar.ends, self.sidecar.step
        self.own = {s.input: s for s in self.sidecar.source_states}
        own_outputs = {s.output for s in self.own.values()}
        wanted = [o.name for o in self.sidecar.outputs]
        if not traced and wanted != [o.name for o in self.batch.get_outputs() if o.name not in own_outputs]:
            raise UsageError(
                f"the pulsed model has outputs {', '.join(wanted)}, the batch model "
                f"{', '.join(o.name for o in self.batch.get_outputs())}"
            )
        self.least = self.sidecar.least_frames
        self.megabytes = sum(math.prod(t.dims) for t in proto.graph.initializer) * 4e-6
        self.patient = False
        self.differences = Differences(float_types(proto.graph), self.quantised, rtol, atol)
        self.tally = self.differences.tally
        self.trials = Trials(self.batch, self.sidecar, seed, recorded or {})

    def run(self, frames: int | None, measure: bool = False) -> Verification:
        """Compare. Who asks for a number of `frames`, or brings data, waits for the end of it."""
        used: list[int] = []
        late: Mapping[str, int] = {}
        self.patient = bool(frames or self.trials.recorded)
        for target in self.trials.targets(frames):
            for rows in (2, 1) if any(isinstance(d, str) for i in self.sidecar.inputs for d in i.shape) else (1,):
                found = self.trials.first_valid(target, rows, used)
                if found is not None:
                    break
            if found is None:
                continue
            total, arrays, want = found
            self.differences.statics = self.trials.statics(arrays)
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

        reach = ReceptiveFieldProbe(run, self.sidecar, arrays, want, total, self.differences.allowed)
        self.tally.problem = reach.outside()
        return reach.late()

    def _verdict(self, used: list[int]) -> Verification:
        t = self.tally
        missing = [o.name for o in self.sidecar.outputs if o.name not in t.seen and self._checkable(o)]
        if t.problem:
            ok, message = False, t.problem
        elif not used:
            ok, message = False, f"the batch model runs at none of the lengths tried: {self.trials.error}"
        elif t.worst > 1 and t.undefined:
            statics = self.trials.statics(t.case.inputs) if t.case is not None else {}
            ok, message = False, undefined(str(t.output), statics)
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
            self.differences.declared(o, got[name][0])
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
                    self.differences.add(name, take(flow, axis, 0, n), take(expected, axis, 0, n), axis)
            elif self.ends or isinstance(o, StaticOutput):
                self.differences.add(name, got[name][-1], want[name], None)
            elif isinstance(o, PrefixOutput) and o.exact_every_pulse:
                self._prefix(name, got[name], fed, arrays)
        for name, mine, theirs in clips_apart(self.batch, self.sidecar, got, fed, arrays):
            self.differences.add(name, mine, theirs, None)
        for s in self.own.values():
            if self.ends:
                self.differences.add(s.output, got[s.output][-1], want[s.output], None)
            elif s.exact_every_pulse:
                self._prefix(s.output, got[s.output], fed, arrays)

    def _rows_apart(self, total: int, arrays: Mapping[str, Array], want: Mapping[str, Array]) -> None:
        if not self.tally.problem and self.tally.worst <= 1:
            for output, got, wanted in rows_apart(
                self.runner, self.batch, arrays, want, total, self.pulse, self.trials.margin, self.seed
            ):
                self.differences.add(
                    output.name, got, wanted, output.axis if isinstance(output, StreamOutput) else None
                )
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
            self.differences.add(name, got[k], want, None)

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
        whole = total if self.ends else (total - self.trials.margin) // step * step
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


__all__ = ["Case", "Verification", "opened", "verify"]
