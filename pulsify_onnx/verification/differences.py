"""Differences between values of a stream and those of the batch model, and how large they may be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import one_line
from pulsify_onnx.model.precision import TOLERANCES
from pulsify_onnx.runtime.sidecar import Output
from pulsify_onnx.verification.result import ErrorTally

TIES = 0.005
"""Share of the values of a quantised graph that may be rounded the other way."""
MOST_SHOWN = 4
"""Values of an input, and inputs, that are shown."""


def undefined(output: str, statics: Mapping[str, Array]) -> str:
    """What is said of an output that can't be compared: `statics` were drawn for inputs that are the same for all
    frames, and random numbers may make no sense there.
    """
    found = f"output {output} of the batch model itself has values that are no numbers; are all weights finite"
    if not statics:
        return f"{found}?"
    told = []
    for name, value in list(statics.items())[:MOST_SHOWN]:
        shown = [f"{v:.3g}" if value.dtype.kind == "f" else str(v) for v in value.reshape(-1)[:MOST_SHOWN]]
        told.append(f"{one_line(name)} = {', '.join(shown)}{', …' if value.size > MOST_SHOWN else ''}")
    more = f"; {len(statics) - MOST_SHOWN} more" if len(statics) > MOST_SHOWN else ""
    return (
        f"{found}, and do the values suit that were drawn for static inputs ({'; '.join(told)}{more})? "
        f"verify takes others with --input {one_line(next(iter(statics)))}=FILE.npy (convert with --no-verify first)"
    )


class Differences:
    """A `tally` of those of a model through which floats of `types` pass."""

    def __init__(self, types: set[str], quantised: bool, rtol: float | None, atol: float | None):
        self.types, self.quantised, self.rtol, self.atol = types, quantised, rtol, atol
        self.tally = ErrorTally()
        self.statics: Mapping[str, Array] = {}

    def declared(self, output: Output, value: Array) -> None:
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

    def add(self, name: str, got: Array, want: Array, axis: int | None) -> None:
        """Take down how far `got` of output `name` is from what is wanted; `axis` is that of its frames."""
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
        a, b = as_float(got), as_float(want)
        if b.dtype.kind == "f" and np.isnan(b).all():
            t.problem = undefined(name, self.statics)
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
        values = as_float(want)
        if want.dtype.kind not in "fV":
            return self.atol or 0.0
        loose = max(TOLERANCES.get(t, 2e-4) for t in {*self.types, str(want.dtype)})
        scale = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
        return max(loose if self.atol is None else self.atol, (loose if self.rtol is None else self.rtol) * scale)


def as_float(x: Array) -> Array:
    """Numbers as float64; anything else as it is."""
    return x.astype(np.float64) if x.dtype.kind in "fiubV" else x
