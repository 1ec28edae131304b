"""The sidecar, typed: what a caller must know to run a pulsed model. Of the standard library alone, but for lengths.

Fields stand in the order of the JSON document. One with a default may be missing there, and is left out where it has
that value unless it is `ALWAYS` written. Keys that are not known here are passed over: a later version may say more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, TypeAlias, TypeVar

from pulsify_onnx.algebra.length import Length
from pulsify_onnx.errors import UsageError
from pulsify_onnx.runtime.json_form import ALWAYS, Json, decoded, encoded, schema_of

FORMAT = "pulsify-onnx/1"
KEY = "pulsify.spec"
"""Where the document is in the metadata of a model."""

Shape: TypeAlias = tuple[int | str | None, ...]
"""Numbers and names of dimensions; None for the pulsed one of a dynamic pulse."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """What wrote the model."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """The batch model."""

    file: str | None
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class StreamInput:
    """An input of which every pulse has its frames; ``rate`` of them for a base frame."""

    name: str
    kind: Literal["stream"] = field(default="stream", metadata=ALWAYS)
    axis: int
    dtype: str
    shape: Shape
    frames_per_pulse: int | None
    rate: Fraction
    row_axis: int | None = None

    def count(self, base: int) -> int:
        """Whole frames of the first `base` base frames."""
        return base * self.rate.numerator // self.rate.denominator

    def fits(self, base: int) -> bool:
        """Whether `base` base frames are a whole number of its own."""
        return base * self.rate.numerator % self.rate.denominator == 0


@dataclass(frozen=True, kw_only=True)
class StaticInput:
    """An input that is the same in every pulse."""

    name: str
    kind: Literal["static"] = field(default="static", metadata=ALWAYS)
    dtype: str
    shape: Shape
    row_axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class StreamOutput:
    """An output of frames: those of the batch model, ``delay`` later.

    ``frames``: how many the batch model has, where that follows from the base frames. ``first_frames``: those that come
    before their time, in no pulse.
    """

    name: str
    kind: Literal["stream"] = field(default="stream", metadata=ALWAYS)
    axis: int
    dtype: str
    shape: Shape
    frames_per_pulse: int | None
    rate: Fraction
    delay: int
    receptive_field: int | None
    frames: Length | None = field(default=None, metadata=ALWAYS)
    first_frames: Any = None
    row_axis: int | None = None

    def count(self, base: int) -> int:
        """Whole frames of the first `base` base frames."""
        return base * self.rate.numerator // self.rate.denominator

    def total(self, base: int) -> int | None:
        """Frames of the batch output for `base` base frames; None where these do not tell."""
        return None if self.frames is None else max(0, self.frames.at(base))


@dataclass(frozen=True, kw_only=True)
class PrefixOutput:
    """An output that is, after every pulse, the batch result over all frames so far; exact then, or only after the flush."""

    name: str
    kind: Literal["prefix"] = field(default="prefix", metadata=ALWAYS)
    dtype: str
    shape: Shape
    exact_every_pulse: bool
    row_axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class StaticOutput:
    """An output that does not depend on the stream."""

    name: str
    kind: Literal["static"] = field(default="static", metadata=ALWAYS)
    dtype: str
    shape: Shape
    row_axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class WindowOutput:
    """An output over the last window of frames, of which ``head`` of the sidecar tells."""

    name: str
    kind: Literal["window"] = field(default="window", metadata=ALWAYS)
    dtype: str
    shape: Shape
    row_axis: int | None = None


Input: TypeAlias = StreamInput | StaticInput
Output: TypeAlias = StreamOutput | PrefixOutput | StaticOutput | WindowOutput


@dataclass(frozen=True, kw_only=True)
class State:
    """What goes out as ``output`` must come back as ``input``; zeros at first, but for those with the ``role`` "source"."""

    input: str
    output: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: int
    node: str
    role: str
    exact_every_pulse: bool | None = None
    row_axis: int | None = None


@dataclass(frozen=True, kw_only=True)
class HeadWindow:
    """A wire that the head reads a window of; ``edges``: frames at its start and end that padding would change in a clip."""

    wire: str
    axis: int
    frames: int
    rate: Fraction
    edges: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Head:
    """What runs on the last ``frames`` base frames once a pulse, which end ``delay`` before the pulse does."""

    kind: Literal["window"] = field(default="window", metadata=ALWAYS)
    frames: int
    delay: int
    full_after: int | None
    exact: bool
    padding: tuple[str, ...]
    windows: tuple[HeadWindow, ...]
    nodes: tuple[str, ...]

    @property
    def full(self) -> int:
        """Base frames after which the window is full."""
        return self.frames + self.delay


@dataclass(frozen=True, kw_only=True)
class ReadAnew:
    """A constant of an export of one length that follows the length now."""

    node: str
    constant: str
    was: str
    now: str


@dataclass(frozen=True, kw_only=True)
class KeptNumber:
    """A number of an export of one length that stayed a number, though it may have followed the length."""

    node: str
    op_type: str
    what: str
    value: int | float
    why: str


@dataclass(frozen=True, kw_only=True)
class FixedLength:
    """How a model that was exported for one length became one for any."""

    frames: int
    length: Mapping[str, int]
    constants: tuple[ReadAnew, ...]
    kept: tuple[KeptNumber, ...] = field(default=(), metadata=ALWAYS)
    readings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LeftContext:
    """Attention over the whole past that was cut to its last frames: the stream is exact to that network."""

    left_context: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The whole document."""

    format: str
    tool: Tool
    source: SourceFile
    pulse: int | None
    pulse_multiple: int
    inputs: tuple[Input, ...]
    valid_frames_input: str | None
    valid_frames_shape: tuple[int | str, ...]
    outputs: tuple[Output, ...]
    states: tuple[State, ...]
    state_bytes: int
    flush_pulses: int
    least_frames: int = field(default=1, metadata=ALWAYS)
    independent_rows: bool = True
    shared_by: tuple[str, ...] = ()
    head: Head | None = None
    source_batch: int | None = None
    fixed_length: FixedLength | None = None
    approximation: LeftContext | None = None

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Sidecar:
        """The sidecar of a JSON document. Raises `UsageError` where it is none."""
        return read(Sidecar, document)

    @staticmethod
    def of(metadata: Mapping[str, str], model: object) -> Sidecar:
        """The sidecar in the `metadata` of a `model`. Raises `UsageError` where it has none."""
        text = metadata.get(KEY)
        if text is None:
            raise UsageError(f"{model}: not a pulsed model (it has no {KEY} in its metadata)")
        return Sidecar.from_json(json.loads(text))

    def to_json(self) -> Json:
        """The document, its keys in order."""
        found: Json = encoded(self)
        return found

    @property
    def step(self) -> int:
        """Base frames of a pulse, the smallest of a dynamic one."""
        return self.pulse or self.pulse_multiple

    @property
    def ends(self) -> bool:
        """Whether the stream may end."""
        return bool(self.valid_frames_input)

    @property
    def stream_inputs(self) -> tuple[StreamInput, ...]:
        """The inputs that stream."""
        return tuple(i for i in self.inputs if isinstance(i, StreamInput))

    @property
    def stream_outputs(self) -> tuple[StreamOutput, ...]:
        """The outputs that stream."""
        return tuple(o for o in self.outputs if isinstance(o, StreamOutput))

    @property
    def source_states(self) -> tuple[State, ...]:
        """The states that the source itself has."""
        return tuple(s for s in self.states if s.role == "source")

    @property
    def row_axes(self) -> dict[str, int | None]:
        """Which axis of inputs and outputs has the rows of the batch."""
        return {e.name: e.row_axis for e in (*self.inputs, *self.outputs)}


T = TypeVar("T")


def read(kind: type[T], document: Any) -> T:
    """One of these classes from its JSON. Raises `UsageError`."""
    try:
        found: T = decoded(kind, document, "")
        return found
    except ValueError as problem:
        raise UsageError(f"the sidecar cannot be read: {problem}") from problem


def schema() -> Json:
    """The JSON schema of the document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FORMAT, **schema_of(Sidecar)}
