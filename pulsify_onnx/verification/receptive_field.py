"""How far a batch model looks, measured by changing frames of its input: the sidecar must not promise less, and
should not wait for more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from pulsify_onnx.arrays import Array
from pulsify_onnx.runtime.runner import take
from pulsify_onnx.runtime.sidecar import Sidecar, StreamOutput
from pulsify_onnx.verification.inputs import fits

Arrays = Mapping[str, Array]
Run = Callable[[Arrays], Arrays]

TRIES = 6
"""So often other values are tried where an output seems to be late."""

PHASES = 4
"""So many frames of a pulse are looked at where frames of it differ in what they reach."""


class ReceptiveFieldProbe:
    """Measures a model on one case: `want` is what `run` gives for `arrays` of `total` base frames.

    `allowed` is the error that an output may have by rounding.
    """

    def __init__(
        self, run: Run, sidecar: Sidecar, arrays: Arrays, want: Arrays, total: int, allowed: Callable[[Array], float]
    ):
        self.run, self.sidecar, self.arrays, self.want, self.total, self.allowed = (
            run,
            sidecar,
            arrays,
            want,
            total,
            allowed,
        )
        self.inputs = sidecar.stream_inputs
        self.outputs = sidecar.stream_outputs
        self.pulse = sidecar.step

    def late(self) -> dict[str, int]:
        """By how many of its frames an output comes later than the data it needs; nothing for those that don't.

        A pulse that begins at base frame p is the first that can change what is not out yet: frames before the first
        that changes with the input from p on could all have come. What a change does may be hidden (by a Relu, say), so
        that many are tried; and where rates change, delays are rounded up, so that only outputs of a plain rate are
        looked at.
        """
        looked_at = [
            o
            for o in self.outputs
            if self.sidecar.pulse_multiple == 1 and o.rate == 1 and np.dtype(o.dtype).kind == "f"
        ]
        least: dict[str, int] = {}
        for seed in range(TRIES):
            waiting = [o for o in looked_at if o.delay > least.get(o.name, 0)]
            for p in self._starts() if waiting else []:
                for given, ended in self._continued(p, seed):
                    for o in waiting:
                        first = self._agreeing(o, given[o.name], ended)
                        if first is not None:
                            least[o.name] = max(least.get(o.name, 0), p - first)
        return {o.name: o.delay - least[o.name] for o in looked_at if o.delay > least.get(o.name, o.delay)}

    def outside(self) -> str:
        """Which output depends on frames that lie further apart than its receptive field, in words; nothing where
        none does.
        """
        for field in {o.receptive_field for o in self.outputs if o.receptive_field is not None}:
            for last in range(self.total // 2, self.total // 2 + min(self.sidecar.pulse_multiple, PHASES)):
                if last < field or last >= self.total:
                    continue
                before, after = self.run(self._changed(0, last - field + 1)), self.run(self._changed(last, self.total))
                for o in self.outputs:
                    if o.receptive_field == field:
                        allowed = self.allowed(self.want[o.name])
                        both = self._differing(o, before[o.name], allowed) & self._differing(o, after[o.name], allowed)
                        if both.any():
                            return (
                                f"output {o.name}: frame {int(np.argmax(both))} depends on base frames up to "
                                f"{last - field} and from {last} on, "
                                f"but the sidecar says that its receptive field is {field}"
                            )
        return ""

    def _starts(self) -> list[int]:
        """Beginnings of pulses to look at: where the first frame is due, which may wait for its mirror image, and
        amid the stream.
        """
        due = max((math.ceil(o.delay / (o.rate * self.pulse)) for o in self.outputs), default=0)
        middle = self.total // 2 // self.pulse
        return sorted({k * self.pulse for k in (due, due + 1, middle, middle + 1) if 0 < k * self.pulse < self.total})

    def _continued(self, p: int, seed: int) -> Iterator[tuple[Arrays, bool]]:
        """What the model gives where the stream goes on in another way from base frame `p`, or ends there."""
        yield self.run(self._changed(p, self.total, seed)), False
        if self.sidecar.ends and not seed and fits(self.sidecar, p):
            short = {i.name: take(self.arrays[i.name], i.axis, 0, i.count(p)) for i in self.inputs}
            try:
                yield self.run({**self.arrays, **short}), True
            except Exception:  # not every length suits every model
                return

    def _changed(self, first: int, last: int, seed: int = 0) -> Arrays:
        """The inputs with other values in base frames from `first` to `last`."""
        rng = np.random.default_rng([first, last, seed])
        arrays = dict(self.arrays)
        for i in self.inputs:
            x = np.moveaxis(arrays[i.name].copy(), i.axis, 0)
            part = x[i.count(first) : math.ceil(last * i.rate)]
            if part.dtype.kind == "f":
                part += 3 * rng.standard_normal(part.shape).astype(part.dtype)
            else:
                part[...] = part == 0
            arrays[i.name] = np.ascontiguousarray(np.moveaxis(x, 0, i.axis))
        return arrays

    def _agreeing(self, output: StreamOutput, given: Array, ended: bool) -> int | None:
        """The first frame of an output that is not as it was; None where all are. One that ended is computed in
        another way.
        """
        differing = self._differing(output, given, self.allowed(self.want[output.name]) if ended else 0.0)
        return int(np.argmax(differing)) if differing.any() else given.shape[output.axis] if ended else None

    def _differing(self, output: StreamOutput, given: Array, allowed: float) -> Array:
        """For every frame of an output whether it is another than it was."""
        axis, want = output.axis, self.want[output.name]
        n = min(given.shape[axis], want.shape[axis])
        a, b = (np.moveaxis(take(x, axis, 0, n), axis, 0) for x in (given, want))
        others = tuple(range(1, a.ndim))
        if want.dtype.kind not in "fV":
            return np.asarray((a != b).any(axis=others))
        a, b = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= allowed)
        return np.asarray((~same).any(axis=others))
