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
from pulsify_onnx.runtime.json_form import Json, decoded, encoded, says, schema_of

FORMAT = "pulsify-onnx/1"
KEY = "pulsify.spec"
"""Where the document is in the metadata of a model."""

NAME, DTYPE, AXIS = "as in the source", "numpy's name", "of a stream: where time is"
SHAPE = "of one pulse; null for frames of a pulse of any size, a name for a dimension of any size"
RATE = "of a stream: frames per base frame, numerator and denominator"
PER_PULSE = "of a stream: null for a pulse of any size"
ROWS = "with a batch: which axis has the rows"

Shape: TypeAlias = tuple[int | str | None, ...]
"""Numbers and names of dimensions; None for the pulsed one of a dynamic pulse."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """What wrote the model."""

    name: str = field(metadata=says("what wrote it"))
    version: str = field(metadata=says("and its version"))


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """The batch model."""

    file: str | None = field(metadata=says("the batch model; empty where it was not read from a file"))
    sha256: str | None = field(metadata=says("of that file"))


@dataclass(frozen=True, kw_only=True)
class StreamInput:
    """Every pulse has frames of it."""

    name: str = field(metadata=says(NAME))
    kind: Literal["stream"] = field(default="stream", metadata=says(always=True))
    axis: int = field(metadata=says(AXIS))
    dtype: str = field(metadata=says(DTYPE))
    shape: Shape = field(metadata=says(SHAPE))
    frames_per_pulse: int | None = field(metadata=says(PER_PULSE))
    rate: Fraction = field(metadata=says(RATE))
    row_axis: int | None = field(default=None, metadata=says(ROWS))

    def count(self, base: int) -> int:
        """Whole frames of the first `base` base frames."""
        return base * self.rate.numerator // self.rate.denominator

    def fits(self, base: int) -> bool:
        """Whether `base` base frames are a whole number of its own."""
        return base * self.rate.numerator % self.rate.denominator == 0


@dataclass(frozen=True, kw_only=True)
class StaticInput:
    """No time, fed unchanged with every pulse."""

    name: str = field(metadata=says(NAME))
    kind: Literal["static"] = field(default="static", metadata=says(always=True))
    dtype: str = field(metadata=says(DTYPE))
    shape: Shape = field(metadata=says(SHAPE))
    row_axis: int | None = field(default=None, metadata=says(ROWS))


@dataclass(frozen=True, kw_only=True)
class StreamOutput:
    """Frames: those of the batch model, ``delay`` later.

    ``frames``: how many the batch model has, where that follows from the base frames. ``first_frames``: those that come
    before their time, in no pulse.
    """

    name: str = field(metadata=says(NAME))
    kind: Literal["stream"] = field(default="stream", metadata=says(always=True))
    axis: int = field(metadata=says(AXIS))
    dtype: str = field(metadata=says(DTYPE))
    shape: Shape = field(metadata=says(SHAPE))
    frames_per_pulse: int | None = field(metadata=says(PER_PULSE))
    rate: Fraction = field(metadata=says(RATE))
    delay: int = field(
        metadata=says(
            "of a stream: its frames that come before the first one of the batch output, the least that the "
            "network and the pulse "
            "allow. Negative only with `--allow-advance`"
        )
    )
    receptive_field: int | None = field(
        metadata=says("base frames that one frame depends on; null: all that came before")
    )
    frames: Length | None = field(
        default=None,
        metadata=says(
            "how many frames the batch output has, as an expression in the number `T` of base frames (`+`, `-`, `*`, "
            "`/`, `floor`, `max`, `min`); null where it depends on more",
            always=True,
        ),
    )
    first_frames: Any = field(
        default=None,
        metadata=says("with a negative delay: the first frames, which never come and are the same in every stream"),
    )
    row_axis: int | None = field(default=None, metadata=says(ROWS))

    def count(self, base: int) -> int:
        """Whole frames of the first `base` base frames."""
        return base * self.rate.numerator // self.rate.denominator

    def total(self, base: int) -> int | None:
        """Frames of the batch output for `base` base frames; None where these do not tell."""
        return None if self.frames is None else max(0, self.frames.at(base))


@dataclass(frozen=True, kw_only=True)
class PrefixOutput:
    """A value over all frames fed so far, after every pulse."""

    name: str = field(metadata=says(NAME))
    kind: Literal["prefix"] = field(default="prefix", metadata=says(always=True))
    dtype: str = field(metadata=says(DTYPE))
    shape: Shape = field(metadata=says(SHAPE))
    exact_every_pulse: bool = field(
        metadata=says("of a `prefix`: whether it is exact after every pulse; else after the flush")
    )
    row_axis: int | None = field(default=None, metadata=says(ROWS))


@dataclass(frozen=True, kw_only=True)
class StaticOutput:
    """It does not depend on the stream."""

    name: str = field(metadata=says(NAME))
    kind: Literal["static"] = field(default="static", metadata=says(always=True))
    dtype: str = field(metadata=says(DTYPE))
    shape: Shape = field(metadata=says(SHAPE))
    row_axis: int | None = field(default=None, metadata=says(ROWS))


@dataclass(frozen=True, kw_only=True)
class WindowOutput:
    """One result a pulse, over the last window of frames (``--head window``)."""

    name: str = field(metadata=says(NAME))
    kind: Literal["window"] = field(default="window", metadata=says(always=True))
    dtype: str = field(metadata=says(DTYPE))
    shape: Shape = field(metadata=says(SHAPE))
    row_axis: int | None = field(default=None, metadata=says(ROWS))


Input: TypeAlias = StreamInput | StaticInput
Output: TypeAlias = StreamOutput | PrefixOutput | StaticOutput | WindowOutput


@dataclass(frozen=True, kw_only=True)
class State:
    """What goes out as ``output`` must come back as ``input``; zeros at first, those of the source's own too."""

    input: str = field(
        metadata=says("the past, which is fed: `past_000_…`, but for states of the source, which keep their names")
    )
    output: str = field(metadata=says("the present, which comes out and is fed back: `present_000_…`"))
    dtype: str = field(metadata=says("numpy's name"))
    shape: tuple[int | str, ...] = field(
        metadata=says("no dimension is 0; all are numbers but for a batch of any size, which is axis 0")
    )
    bytes: int = field(metadata=says("of one stream"))
    node: str = field(metadata=says("the node, or the tensor, that it belongs to"))
    role: str = field(
        metadata=says(
            "`history` (frames of a tensor), `clock` and `seen` (base frames so far), `recurrent`, `scan` and "
            "`cumulative` (what an operator carries), `add`, `mul`, `max`, `min`, `mean`, `squares`, `weight`, "
            "`best`, `index` and `last` (running values), `lost` (what rounding took from a sum), `source` (a state "
            "of the source's own, `--state`)"
        )
    )
    exact_every_pulse: bool | None = field(
        default=None, metadata=says("of a state of the source: whether it is exact after every pulse")
    )
    row_axis: int | None = field(
        default=None, metadata=says("of a state of the source, with a batch: which axis has the rows")
    )


@dataclass(frozen=True, kw_only=True)
class HeadWindow:
    """A wire that the head reads a window of."""

    wire: str = field(metadata=says("a stream that the head reads"))
    axis: int = field(metadata=says("where time is in it"))
    frames: int = field(metadata=says("its frames in a window"))
    rate: Fraction = field(metadata=says("frames per base frame"))
    edges: tuple[int, int] = field(metadata=says("how many of them padding changes at its start and end"))


@dataclass(frozen=True, kw_only=True)
class Head:
    """What runs on the last ``frames`` base frames once a pulse, which end ``delay`` before the pulse does."""

    kind: Literal["window"] = field(default="window", metadata=says("`window`", always=True))
    frames: int = field(metadata=says("base frames of a window"))
    delay: int = field(metadata=says("base frames from the end of a window to that of the pulse that gives its result"))
    full_after: int | None = field(
        metadata=says("pulses until the first result is valid; null for a pulse of any size")
    )
    exact: bool = field(metadata=says("whether a result is the batch model's of these frames alone"))
    padding: tuple[str, ...] = field(metadata=says("else the nodes before the head that pad"))
    windows: tuple[HeadWindow, ...] = field(metadata=says("the streams that the head reads"))
    nodes: tuple[str, ...] = field(metadata=says("the nodes of the head"))

    @property
    def full(self) -> int:
        """Base frames after which the window is full."""
        return self.frames + self.delay


@dataclass(frozen=True, kw_only=True)
class ReadAnew:
    """A constant of an export of one length that follows the length now."""

    node: str = field(metadata=says("its node"))
    constant: str = field(metadata=says("which constant it is"))
    was: str = field(metadata=says("as it was"))
    now: str = field(metadata=says("as it is now"))


@dataclass(frozen=True, kw_only=True)
class KeptNumber:
    """A number of an export of one length that stayed a number, though it may have followed the length."""

    node: str = field(metadata=says("its node"))
    op_type: str = field(metadata=says("what that is"))
    what: str = field(metadata=says("what holds it"))
    value: int | float = field(metadata=says("the number"))
    why: str = field(metadata=says("what it also is"))


@dataclass(frozen=True, kw_only=True)
class FixedLength:
    """How a model that was exported for one length became one for any."""

    frames: int = field(metadata=says("base frames of the export"))
    length: Mapping[str, int] = field(metadata=says("frames of each input, by name"))
    constants: tuple[ReadAnew, ...] = field(metadata=says("every constant that is read anew"))
    kept: tuple[KeptNumber, ...] = field(
        default=(), metadata=says("numbers that were kept though they may follow the length", always=True)
    )
    readings: Mapping[str, str] = field(
        default_factory=dict, metadata=says("answers that were given by `--reading`, by node")
    )


@dataclass(frozen=True, kw_only=True)
class LeftContext:
    """Attention over the whole past that was cut to its last frames: the stream is exact to that network."""

    left_context: int = field(
        metadata=says(
            "frames of the past that attention sees, its own among them: the stream is exact to the batch model cut so"
        )
    )
    nodes: tuple[str, ...] = field(metadata=says("where it was cut"))


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The whole document."""

    format: str = field(metadata=says("`pulsify-onnx/1`"))
    tool: Tool
    source: SourceFile
    pulse: int | None = field(metadata=says("base frames of a pulse; null for any"))
    pulse_multiple: int = field(metadata=says("every pulse is a multiple of it"))
    inputs: tuple[Input, ...] = field(metadata=says("in the order of the graph, as below"))
    valid_frames_input: str | None = field(
        metadata=says("with an end of stream, the input for the number of real base frames (int64); else null")
    )
    valid_frames_shape: tuple[int | str, ...] = field(
        metadata=says(
            "its shape: rows of the batch, a number or the name of its dimension. It is there without the input too"
        )
    )
    outputs: tuple[Output, ...] = field(metadata=says("the same"))
    states: tuple[State, ...] = field(metadata=says("the same"))
    state_bytes: int = field(metadata=says("bytes of all states of one stream; a batch of any size counts as 1"))
    flush_pulses: int = field(
        metadata=says(
            "how many pulses with `valid_frames` 0 after the last one with data bring out the last frame of every "
            "output, for any length; 0 without an end of stream"
        )
    )
    least_frames: int = field(
        default=1,
        metadata=says(
            "the fewest base frames of a stream; of fewer nothing is promised: the batch model does not run, crops or"
            " picks more frames than there are, or takes another branch",
            always=True,
        ),
    )
    length_multiple: int = field(
        default=1,
        metadata=says("only there where it is more than 1: streams have a multiple of so many base frames"),
    )
    independent_rows: bool = field(
        default=True,
        metadata=says(
            "only there where it is false: rows of the batch are no streams of their own, all start and end together"
        ),
    )
    shared_by: tuple[str, ...] = field(default=(), metadata=says("with it: the nodes that rows share"))
    head: Head | None = None
    source_batch: int | None = field(
        default=None, metadata=says("with `--batch`: 1, the batch model takes one row at a time")
    )
    fixed_length: FixedLength | None = None
    approximation: LeftContext | None = None

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Sidecar:
        """The sidecar of a JSON document. Raises `UsageError` where it is none."""
        return read_sidecar(Sidecar, document)

    @staticmethod
    def of(metadata: Mapping[str, str], model: object) -> Sidecar:
        """The sidecar in the `metadata` of a `model`. Raises `UsageError` where it has none."""
        text = metadata.get(KEY)
        if text is None:
            raise UsageError(f"{model}: not a pulsed model (it has no {KEY} in its metadata)")
        try:
            document = json.loads(text)
        except ValueError as problem:
            raise UsageError(f"{model}: the sidecar in its metadata is no JSON: {problem}") from problem
        return Sidecar.from_json(document)

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


def read_sidecar(kind: type[T], document: Any) -> T:
    """One of these classes from its JSON. Raises `UsageError`."""
    try:
        found: T = decoded(kind, document, "")
        return found
    except ValueError as problem:
        raise UsageError(f"the sidecar cannot be read: {problem}") from problem


def schema() -> Json:
    """The JSON schema of the document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FORMAT, **schema_of(Sidecar)}
