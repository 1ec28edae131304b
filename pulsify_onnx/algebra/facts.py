"""Facts: what the analysis knows of a wire (a tensor of the source graph).

    Static    does not depend on the stream
    Sizes     small integers computed from shapes, as `Length` expressions; gone from the pulsed graph
    Stream    has the stream on one axis
    Pair      two streams meet on two axes (query × key), not yet computed
    Skew      queries meet offsets (key minus query), on the way to a Pair
    Prefix    the stream axis was reduced away: after each pulse, the value over all frames so far
    Pending   a value per frame that needs the whole stream, not computed until a reduction closes it
    Clip      a value over the last window of frames
    Blocked   behind a node that cannot stream

All are frozen, comparable data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Union

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.delay import Delay
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import Blocker

Shape = tuple[Length, ...]


@dataclass(frozen=True)
class Mirror:
    """A border made of the stream's own frames: with ``edge`` the outermost one again and again, else those inwards
    of it.
    """

    edge: bool


@dataclass(frozen=True)
class PaddingFrames:
    """A border at the start whose frames differ: those of the ``pad_before``, one by one; before the first of them
    it goes on as that one.
    """

    frames: Const

    def upto(self, axis: int, start: int, count: int) -> Padding:
        """`count` of its frames from `start` on, as a border."""
        rows = np.take(self.frames.array, np.arange(start, start + count), axis)
        first = np.take(rows, [0], axis)
        return Const(first) if count and (rows == first).all() else PaddingFrames(Const(rows))


Padding = Union[Const, Mirror, PaddingFrames]


@dataclass(frozen=True)
class Static:
    """Does not depend on the stream. ``value`` is known where the tensor is constant and small enough to fold.

    ``own``: it is computed from a state of the source, which the caller carries from pulse to pulse.
    """

    wire: str
    dtype: ir.DataType
    shape: Shape
    value: Const | None = None
    own: bool = False


@dataclass(frozen=True)
class ShapeTensor:
    """A small tensor of lengths: ``values`` in row-major order, ``shape`` its own (static) shape."""

    wire: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    values: tuple[Length, ...]

    def array(self) -> Array:
        """As a numpy array of `Length` objects."""
        out = np.empty(len(self.values), dtype=object)
        out[:] = self.values
        return out.reshape(self.shape)


@dataclass(frozen=True)
class ReceptiveField:
    """Base frames that a frame depends on, relative to its own time; ``past`` is None when unbounded.

    Frame `t` of a stream of `n` base frames is the same however the stream goes on where ``t + ending < n``: `ending`
    is ``future``, or more where what pads the end was read. Some frames may reach back further by ``between``: those
    that lie between two frames of what they were made from. Where frames are parts of one, from frame 0 on so many
    each, ``parts`` is their number and what all of them together depend on.
    """

    past: Fraction | None = Fraction(0)
    future: Fraction = Fraction(0)
    ending: Fraction = Fraction(0)
    between: Fraction = Fraction(0)
    parts: tuple[int, ReceptiveField] | None = None

    def shifted(self, by: Fraction) -> ReceptiveField:
        """Seen from an index that is `by` base frames later."""
        past = None if self.past is None else self.past + by
        return replace(self, past=past, future=self.future + by, ending=self.ending + by, parts=None)

    def carried(self) -> ReceptiveField:
        """With everything before."""
        return replace(self, past=None, parts=None)

    def apart(self, by: Fraction) -> ReceptiveField:
        """Where some frames reach back further by that."""
        return replace(self, between=self.between + by, parts=None)

    def in_parts(self, count: int, duration: Fraction) -> ReceptiveField:
        """Of the `count` parts of frames, each of which lasts that long."""
        return replace(self.apart(duration - duration / count), parts=(count, replace(self, parts=None)))

    def together(self, count: int, duration: Fraction) -> ReceptiveField | None:
        """Of `count` frames that last that long each as one; None where they are no parts of frames that it holds, or
        that hold it, wholly.
        """
        parts, whole = self.parts or (0, self)
        if not parts or (count % parts and parts % count):
            return None
        if parts > count:
            return whole.in_parts(parts // count, parts * duration)
        return whole.joined(whole.shifted((count - parts) * duration))

    def padded(self, ending: Fraction) -> ReceptiveField:
        """With frames at the end that are there only once the stream is over, from `ending` on."""
        return replace(self, ending=max(self.ending, ending), parts=None)

    def joined(self, other: ReceptiveField) -> ReceptiveField:
        """The hull of both."""
        if self == other:
            return self
        future, ending = max(self.future, other.future), max(self.ending, other.ending)
        if self.past is None or other.past is None:
            return ReceptiveField(None, future, ending)
        past = min(self.past, other.past)
        return ReceptiveField(past, future, ending, past - min(self.past - self.between, other.past - other.between))


ALONE = (Length.of(1), Length.of(1))
"""Sizes of the axes merged with time where there are none."""


@dataclass(frozen=True)
class Stream:
    """The stream runs along ``axis``: ``S[delay + i] == batch[i]`` for the frames that are real.

    ``wire`` names the tensor whose pulses carry the values. ``shape`` is the batch shape; ``shape[axis]`` is the extent
    as data. The first ``pad_before`` and the last ``pad_after`` frames equal ``border`` (a constant frame, or mirrored
    ones) and need not have come over the wire: a padded tensor is the tensor itself with a border. Hence ``delay`` may
    go down to ``-pad_before``. A ``positional`` wire is computed from frame indices alone and can be had at any delay
    without a state. With an ``origin`` it is no stream of frames but a table of relative positions: entry ``origin +
    e`` holds what belongs to keys `e` frames after their query. The first ``cached`` frames are those of a cache that
    the caller carries: they come before the first pulse. ``around`` are the sizes of the axes that are merged with
    time, a slower one and a faster one ([B, T, n] as B*T*n): ``shape`` is then that of one of their rows, a pulse is
    laid out as the batch tensor is, and only operators that treat all frames alike may see it.
    """

    wire: str
    dtype: ir.DataType
    shape: Shape
    axis: int
    rate: Fraction
    delay: Delay = Delay()
    pad_before: int = 0
    pad_after: Length = Length(())
    border: Padding | None = None
    positional: bool = False
    reach: ReceptiveField = field(default=ReceptiveField())
    source: str = ""
    origin: Length | None = None
    cached: int = 0
    around: tuple[Length, Length] = ALONE

    @property
    def extent(self) -> Length:
        """Number of frames of the batch tensor, as data."""
        return self.shape[self.axis]

    @property
    def merged(self) -> bool:
        """Whether other axes are merged with time."""
        return self.around != ALONE

    @property
    def whole(self) -> Shape:
        """Shape of the batch tensor, with what is merged with time."""
        slower, faster = self.around
        return (
            (*self.shape[: self.axis], slower * self.extent * faster, *self.shape[self.axis + 1 :])
            if self.merged
            else self.shape
        )

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def placed(self, wire: str, dtype: ir.DataType, shape: tuple[Length | None, ...], axis: int) -> Stream:
        """This stream as `wire` along `axis` of `shape`, whose dimension there becomes the extent."""
        full = [Length.symbol(f"{wire}.{k}") if d is None else d for k, d in enumerate(shape)]
        full[axis] = self.extent
        return replace(self, wire=wire, dtype=dtype, axis=axis, shape=tuple(full))


@dataclass(frozen=True)
class QueryKey:
    """Every frame of one stream meets every frame of another (query × key): ``axes`` are the two stream axes.

    Never computed as a whole: it is evaluated on a window of either stream, where a reader closes it. ``delays`` are
    those of its two sides; ``positional`` where it follows from frame indices alone. ``alive`` is None, or says that
    all entries are zero but for keys from ``q - alive.left`` to ``q + alive.right`` (a softmax behind a closed mask).
    With ``behind``, only entries whose key is not after the query are those of the batch model.
    """

    wire: str
    dtype: ir.DataType
    shape: Shape
    axes: tuple[int, int]
    rate: Fraction
    delays: tuple[Delay, Delay] = (Delay(), Delay())
    positional: bool = False
    alive: Band | None = None
    reach: ReceptiveField = field(default=ReceptiveField())
    source: str = ""
    behind: bool = False


@dataclass(frozen=True)
class RelativeScores:
    """Every query meets every offset (key minus query) of a table of relative positions, on the way to query × key.

    ``axis`` is that of the queries, the next one that of the offsets: `width` entries, of which entry ``origin`` is
    offset 0. The wire is evaluated on a window of either stream, for the offsets that occur there. ``form`` says how
    far the batch model has come in skewing it: "rows" as computed, with `padded` entries before the first offset;
    "folded" to rows of as many entries as there are queries; "dropped" without the first of these rows; "skewed" back
    to a row per query.
    """

    wire: str
    dtype: ir.DataType
    shape: Shape
    axis: int
    rate: Fraction
    queries: Length
    width: Length
    origin: Length
    delay: Delay = Delay()
    form: str = "rows"
    padded: int = 0
    reach: ReceptiveField = field(default=ReceptiveField())
    source: str = ""

    @property
    def axes(self) -> tuple[int, int]:
        """Those of queries and offsets."""
        return self.axis, self.axis + 1


@dataclass(frozen=True)
class Band:
    """Keys that a query sees, relative to it; with a `chunk`, the right edge is that of the chunk ``ahead`` of its own.

    ``side``: which axis of the pair the keys run along. ``right`` is the most over all queries.
    """

    left: int
    right: int
    side: int
    chunk: int = 1
    ahead: int = 0

    def last(self, query: int) -> int:
        """The last key that `query` sees."""
        return query + self.right if self.chunk == 1 else (query // self.chunk + 1 + self.ahead) * self.chunk - 1


@dataclass(frozen=True)
class Wait:
    """The frames of a stream that a running value waits for; ``ending`` is that of its `Reach`."""

    extent: Length
    rate: Fraction
    delay: Delay
    ending: Fraction

    @staticmethod
    def of(x: Stream) -> Wait:
        """For all frames of `x`."""
        return Wait(x.extent, x.rate, x.delay, x.reach.ending)


@dataclass(frozen=True)
class Running:
    """A running value: after each pulse, that of the batch model over all frames so far.

    ``waits`` are the streams it was reduced from: it is complete when all of their frames have come. ``exact`` is false
    where that is only after the flush, and is known once the plan is scheduled. ``mean`` (``maximum``): the stream
    whose mean (maximum) over some axes it is, element by element in this order, and these axes. ``last``: the stream
    whose last frame it is, once or again and again along the stream's axis, or without that axis.
    """

    wire: str
    dtype: ir.DataType
    shape: Shape
    waits: tuple[Wait, ...] = ()
    exact: bool = False
    mean: tuple[Stream, tuple[int, ...]] | None = None
    last: Stream | None = None
    maximum: tuple[Stream, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Deferred:
    """One value per frame that needs the whole stream; only a reduction over the stream can close it.

    ``form`` says what it is: "mean" of ``x`` over ``axes`` spread over its frames, "deviation" of ``x`` from that, its
    "square"; "weights", the softmax of ``x`` over the stream, or these "weighted" by ``values``; "first", the only
    frame of ``x`` without its axis; "last", that of ``x`` as often as the length tells; ``x`` "below its maximum" over
    ``axes``, the "powers" (exponentials) of that, their "sums" so far, the "logarithms" of these; ``x`` "limited" to
    the length ``limit``, which a comparison with what is never more closes. ``blame`` is the blocker where a reader
    needs it frame by frame.
    """

    wire: str
    dtype: ir.DataType
    shape: Shape
    form: str
    x: Stream
    axes: tuple[int, ...]
    blame: Blocker
    values: Stream | None = None
    limit: Length | None = None


@dataclass(frozen=True)
class Nothing:
    """A tensor without a single element, however long the stream is; ``blame`` is the blocker where it is needed."""

    wire: str
    dtype: ir.DataType
    shape: Shape
    blame: Blocker


@dataclass(frozen=True)
class WindowValue:
    """After each pulse, the value over the last window of a fixed number of frames; ``shape`` is as for a clip of
    that length.
    """

    wire: str
    dtype: ir.DataType
    shape: Shape


@dataclass(frozen=True)
class Blocked:
    """Behind a node that cannot stream; only that node is reported."""

    wire: str
    by: str


Fact = Union[Static, ShapeTensor, Stream, QueryKey, RelativeScores, Running, Deferred, Nothing, WindowValue, Blocked]
