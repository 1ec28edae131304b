"""A batch of streams in one session, each starting and ending when it likes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import UsageError
from pulsify_onnx.runtime.runner import ENDLESS, Flow, HasProto, PulseRunner, inputs_of, take


class BatchSession:
    """A stream on every row of a batch: chunks of any size in, the batch model's frames out, row by row.

    `model` is a pulsed model whose rows are streams of their own. ``rows``: how many, where the model takes any number.
    ``static`` has the inputs that do not stream, for all rows. Frames of a row, in and out, are those of a batch of
    one. A row that has no frames for a pulse waits while others go on.
    """

    def __init__(
        self, model: str | Path | HasProto, rows: int | None = None, static: Mapping[str, Array] | None = None
    ):
        self._runner = PulseRunner(model)
        self.spec, self._sidecar = self._runner.spec, self._runner.sidecar
        batch = self._sidecar.valid_frames_shape[0]
        if not self._sidecar.independent_rows:
            raise UsageError(
                f"rows of this model start and end together, because of {', '.join(self._sidecar.shared_by)}"
            )
        if batch == 1:
            raise UsageError("the model has no batch: convert it with --batch")
        if (isinstance(batch, int) and rows not in (None, batch)) or (isinstance(batch, str) and (rows or 0) < 1):
            raise UsageError(
                f"the model takes {batch if isinstance(batch, int) else 'any number of'} rows: say how many"
                + f", not {rows}" * (rows is not None)
            )
        self.rows = batch if isinstance(batch, int) else int(rows or 0)
        self._static = {k: np.asarray(v) for k, v in (static or {}).items()}
        self._flows = [Flow(self._sidecar, self._static) for _ in range(self.rows)]

    def restart(self, row: int) -> None:
        """Start another stream on a row: its next frame is the first one."""
        self._flows[self._known(row)] = Flow(self._sidecar, self._static)
        self._runner.restart(row)

    def push(self, frames: Mapping[int, Array | Mapping[str, Array]]) -> dict[int, Any]:
        """Take frames of some rows, give the output frames that they complete, by row."""
        for row, chunk in frames.items():
            self._flows[self._known(row)].take(chunk, row=True)
        while ready := {row: n for row, flow in enumerate(self._flows) if (n := flow.available)}:
            pulse = min(ready.values())
            self._run(pulse, dict.fromkeys(ready, pulse))
        return {row: self._result(row) for row in frames}

    def flush(self, row: int) -> Any:
        """End the stream of a row: give all of its frames that are still missing."""
        if not self._sidecar.ends:
            raise UsageError(ENDLESS)
        flow = self._flows[self._known(row)]
        if not flow.ended and flow.begun:
            left = flow.waiting
            for valid in [left] * (left > 0) + [0] * self._sidecar.flush_pulses:
                self._run(self._sidecar.step, {row: valid})
        flow.ended = True
        return self._result(row)

    def _known(self, row: int) -> int:
        if not 0 <= row < self.rows:
            raise UsageError(f"there is no row {row}: the session has {self.rows}, counted from 0")
        return row

    def _result(self, row: int) -> Any:
        return self._flows[row].result(self._runner.known_sizes, row=True)

    def _run(self, pulse: int, valid: Mapping[int, int]) -> None:
        """Run a pulse, of which these rows have so many real frames; the others wait."""
        axes = self._sidecar.row_axes
        mine = {row: self._flows[row].next(pulse) for row in valid}
        idle = {name: np.zeros_like(x) for name, x in next(iter(mine.values())).items()}
        feeds = {
            name: np.concatenate([mine.get(row, idle)[name] for row in range(self.rows)], axes[name]) for name in idle
        }
        counts = np.asarray([valid.get(row, 0) for row in range(self.rows)], np.int64)
        outs = self._runner.step({**inputs_of(self._sidecar, self._static), **feeds}, counts, live=list(valid))
        for row, count in valid.items():
            self._flows[row].came(
                {name: x if (axis := axes[name]) is None else take(x, axis, row, row + 1) for name, x in outs.items()},
                count,
            )
