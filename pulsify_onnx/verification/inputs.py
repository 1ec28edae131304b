"""Data to try a model on: lengths that it may take, random values, and a bound on the time that a stream of them may
need.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import UsageError
from pulsify_onnx.runtime.sidecar import Input, Output, Sidecar, StreamInput, StreamOutput

MOST_VALUES = 1 << 28
"""Largest size of an input or an output that is tried."""

PATIENCE = 30.0
"""Seconds of computing that one stream may take, and again for every MEGABYTES of weights."""

MEGABYTES = 16

NEAR_FRAMES = 32
"""The last of `lengths` that is no more than rounder than what was asked for."""


def lengths(target: int, step: int) -> Iterator[int]:
    """Lengths near `target`, then rounder and longer ones."""
    for k in range(24):
        yield target + k
    for unit in (8, 16, 32, 64, 128, 256, 480, 512, 1024):
        yield unit * math.ceil(target / unit)
    for factor in (2, 4, 8, 16):
        for unit in (1, step, 64, 1024):
            yield unit * math.ceil(factor * target / unit)


def fits(sidecar: Sidecar, frames: int) -> bool:
    """Whether a stream may have so many base frames."""
    return frames % sidecar.length_multiple == 0 and all(i.fits(frames) for i in sidecar.stream_inputs)


def values(rng: np.random.Generator, dtype: np.dtype[Any], shape: list[int], positive: bool) -> Array:
    """Random values of a type; integers are 0 or 1, which suits most uses of them."""
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        return rng.integers(0, 2, shape).astype(dtype)
    found = rng.random(shape) if positive else rng.standard_normal(shape)
    return found.astype(dtype)


def run_shape(entry: Input | Output, total: int, rows: int) -> list[int]:
    """Shape of an input or output of the batch model for `total` base frames; raises MemoryError where it is too
    much to try.
    """
    shape = [rows if isinstance(d, str) else d or 0 for d in entry.shape]
    if isinstance(entry, (StreamInput, StreamOutput)):
        shape[entry.axis] = entry.count(total)
    if math.prod(shape) > MOST_VALUES:
        raise MemoryError(f"{entry.name} would have {math.prod(shape)} values, which is too much to try")
    return shape


class TimeBudget:
    """Steps of a stream that is to end in time."""

    def __init__(self, steps: int, megabytes: float):
        self.steps, self.done, self.begun = steps, 0, time.process_time()
        self.seconds = PATIENCE * (1 + megabytes / MEGABYTES)

    def step(self) -> None:
        """Count one; raises `UsageError` as soon as it is plain that all of them would take too long."""
        self.done += 1
        spent = time.process_time() - self.begun
        if spent > self.seconds / 50 and spent / self.done * self.steps > self.seconds:
            raise UsageError(
                f"verifying would take about {spent / self.done * self.steps:.0f} s for {self.steps} pulses; "
                "try a larger pulse, or convert with --no-verify and verify with --frames"
            )
