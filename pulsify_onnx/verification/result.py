"""What a comparison of batch and stream finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pulsify_onnx.arrays import Array


@dataclass(frozen=True)
class Case:
    """Data that shows a difference: base frames, inputs, what the batch model gave and what the stream did (delays
    included).
    """

    frames: int
    inputs: Mapping[str, Array]
    batch: Mapping[str, Array]
    stream: Mapping[str, Array]


@dataclass(frozen=True)
class Verification:
    """What the comparison found. ``frame`` of ``output`` has the largest error; ``lengths`` in base frames.

    ``late``: frames by which an output comes later than the data that it needs, where that was measured.
    """

    ok: bool
    max_error: float
    output: str | None
    frame: int | None
    lengths: tuple[int, ...]
    compared: int
    ties: int
    message: str
    case: Case | None = field(default=None, repr=False, compare=False)
    late: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, 1 for a difference, or 2 where there was nothing to compare with: the batch model itself does not run."""
        return 0 if self.ok else 1 if self.lengths else 2

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "ok": self.ok,
            "max_error": self.max_error if math.isfinite(self.max_error) else str(self.max_error),
            "output": self.output,
            "frame": self.frame,
            "lengths": list(self.lengths),
            "compared": self.compared,
            "ties": self.ties,
            "late": dict(self.late),
            "message": self.message,
        }


@dataclass
class ErrorTally:
    """Errors seen so far; the worst one is measured against what its output allows."""

    worst: float = -1.0
    error: float = 0.0
    output: str | None = None
    frame: int | None = None
    ties: int = 0
    compared: int = 0
    seen: set[str] = field(default_factory=set)
    undefined: bool = False
    problem: str = ""
    case: Case | None = None

    def add(self, output: str, error: float, allowed: float, frame: int | None, undefined: bool) -> None:
        """Take down an error of `output` where it is the largest yet, relative to what is `allowed`."""
        relative = error / allowed if allowed else (math.inf if error else 0.0)
        if relative > self.worst:
            self.worst, self.error, self.output, self.frame, self.undefined = relative, error, output, frame, undefined
