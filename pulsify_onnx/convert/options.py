"""What the caller wants of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pulsify_onnx.errors import UsageError


@dataclass(frozen=True)
class ConvertOptions:
    """What the caller wants of a conversion. Raises `UsageError` for what does not go together.

    ``pulse``: base frames of a step; None: any multiple of ``pulse_multiple`` (of a report: the smallest that fits).
    ``axes``: the stream axis by input, an index or the name of a dimension; only needed where it can't be told.
    ``end_of_stream``: exact to the last frame, for streams of any length. ``left_context``: attention over the whole
    past sees that many frames of it, which is another network; the sidecar says so. ``states``: outputs by input that
    the caller feeds back, as states of the model's own. ``allow_advance``: outputs may have a delay below 0. ``batch``:
    so many rows, or any number ("dynamic"), each a stream of its own, for a model that was exported with a batch of 1.
    ``head``: "window" (or "window=FRAMES", for a model of any length) runs what needs a whole clip on the last window
    of frames, once a pulse. ``readings``: by node, what a number of an export of one length means, where a refusal
    asks: "number", "share" (it follows the length) or "fill" (it fills up to a multiple).
    """

    pulse: int | None = None
    axes: Mapping[str, int | str] = field(default_factory=dict)
    end_of_stream: bool = False
    left_context: int | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    allow_advance: bool = False
    batch: int | str | None = None
    head: str | None = None
    readings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("axes", "states", "readings"):  # None is a mapping of nothing; the caller keeps its own
            object.__setattr__(self, name, dict(getattr(self, name) or {}))
        if self.pulse is not None and self.pulse < 1:
            raise UsageError(f"--pulse {self.pulse}: a pulse has one frame at least")
        if len(set(self.states.values())) < len(self.states):
            raise UsageError("--state: an output feeds one input only")
        if self.head is not None:
            self._check_head(self.head)

    def _check_head(self, head: str) -> None:
        kind, equals, frames = head.partition("=")
        if kind != "window" or (equals and (not frames.isdecimal() or not int(frames))):
            raise UsageError(f"--head {head}: write it as window, or as window=FRAMES with one frame at least")
        others = {
            "--end-of-stream": self.end_of_stream,
            "--left-context": self.left_context,
            "--state": self.states,
            "--allow-advance": self.allow_advance,
            "--batch": self.batch,
            "--reading": self.readings,
        }
        if given := [name for name, value in others.items() if value]:
            why = ": a window slides on, it has no last frame to be exact to" if "--end-of-stream" in given else ""
            raise UsageError(f"--head {head} does not go together with {', '.join(given)}{why}")

    @property
    def window(self) -> int | None:
        """The frames of a window that ``head`` asks for; None where the model says how many."""
        _, _, frames = (self.head or "").partition("=")
        return int(frames) if frames else None
