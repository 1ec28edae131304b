"""What a comparison of batch and stream is tried on: lengths that suit both models, and the data for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import UsageError
from pulsify_onnx.runtime.sidecar import PrefixOutput, Sidecar
from pulsify_onnx.verification.differences import as_float
from pulsify_onnx.verification.inputs import NEAR_FRAMES, fits, lengths, run_shape, values
from pulsify_onnx.verification.recordings import fitting


class Trials:
    """Data for a `batch` model and its stream, random but for what was `recorded`; `error` is the last one of the
    batch model.
    """

    def __init__(self, batch: Any, sidecar: Sidecar, seed: int, recorded: Mapping[str, Array]):
        self.batch, self.sidecar, self.seed = batch, sidecar, seed
        self.ends, self.pulse = sidecar.ends, sidecar.step
        self.streams = self.sidecar.stream_inputs
        outs = self.sidecar.stream_outputs
        self.delay = max([0, *(math.ceil(o.delay / o.rate) for o in outs)])
        self.field = max([64, *(o.receptive_field or 64 for o in outs)])
        # without an end the stream goes on: the batch model must not end where the fed frames do
        self.least = self.sidecar.least_frames
        self.margin = 0 if self.ends else self.delay + 2 * self.pulse + max(64, self.field)
        self.full = self.sidecar.head.full if self.sidecar.head is not None else 0
        self.error = ""
        self.recorded = fitting(recorded, self.sidecar)

    def targets(self, frames: int | None) -> list[int]:
        """Base frames to try, of which `frames` are asked for."""
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

    def first_valid(
        self, target: int, rows: int, used: list[int]
    ) -> tuple[int, dict[str, Array], dict[str, Array]] | None:
        """The first length from `target` on that the batch model takes: not every length suits every model."""
        errors: set[str] = set()
        for k, total in enumerate([target] if self.recorded else lengths(target, self.pulse)):
            if (
                k > NEAR_FRAMES and len(errors) == 1 and total > 2 * target + self.pulse
            ):  # it has nothing to do with the length
                break
            if total in used or not fits(self.sidecar, total):
                continue
            for positive in (False, True):
                try:
                    arrays = self._draw(total, rows, positive)
                    want = dict(zip((o.name for o in self.batch.get_outputs()), self.batch.run(None, arrays)))
                except Exception as problem:
                    self.error = " ".join(str(problem).split())[:300]
                    errors.add(self.error)
                    break
                finite = positive or all(np.isfinite(as_float(v)).all() for v in want.values())
                if finite and all(v.size for v in want.values()) and self._has_frames(total):
                    return total, arrays, want
        return None

    def statics(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Those of `arrays` that were drawn for inputs which are the same for all frames."""
        streams = {i.name for i in self.streams}
        known = {i.name for i in self.sidecar.inputs} - streams - self.recorded.keys()
        return {name: value for name, value in arrays.items() if name in known}

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
        for s in self.sidecar.source_states:
            arrays[s.input] = values(
                rng, np.dtype(s.dtype), [rows if isinstance(d, str) else d for d in s.shape], positive
            )
        return arrays
