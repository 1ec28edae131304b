"""Where two streams meet on two axes: alignment of either side, and the delay of a reader that closes a band."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce

import onnx_ir as ir

from pulsify_onnx.algebra.border import ending, has_border, zero
from pulsify_onnx.algebra.delay import AtLeast, Bound, Delay, Timing, time
from pulsify_onnx.algebra.facts import Band, Fact, QueryKey, ReceptiveField, RelativeScores, Stream
from pulsify_onnx.algebra.hidden import only_real
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.periods import common_unit, long_streams, run_ahead
from pulsify_onnx.algebra.plan import Expr, Frames, Options, Position, QueryKeyRead, Step, Window
from pulsify_onnx.algebra.windows import RateMismatch
from pulsify_onnx.errors import refuse

Side = int | tuple[int, int] | None
"""Output axes of an input: one for a stream, two for a pair, None for a static value."""


def meets(facts: Sequence[Fact | None], axes: Sequence[Side]) -> bool:
    """Whether a result has two stream axes."""
    found = {a for f, a in zip(facts, axes) if isinstance(f, Stream)}
    return len(found) > 1 or any(isinstance(f, QueryKey) for f in facts)


def meet(
    facts: Sequence[Fact | None], axes: Sequence[Side], options: Options, steps: list[Step]
) -> tuple[list[Expr | None], QueryKey]:
    """Align both sides of a result with two stream axes: an expression per input (None: not a stream), and the pair.

    Wire, dtype and shape of the pair are to be replaced. Refuses three stream axes and sides of different rates.
    """
    flat = {i for a in axes if a is not None for i in ((a,) if isinstance(a, int) else a)}
    if len(flat) != 2:
        refuse("three of its axes would follow the stream", hint="attention over pairs of pairs can't stream")
    low, high = sorted(flat)
    inputs = [materialise_padding(f, options, steps) if isinstance(f, Stream) and has_border(f) else f for f in facts]
    sides: tuple[list[tuple[Delay, bool, Length, ReceptiveField]], ...] = ([], [])
    rates: list[Stream | QueryKey] = []
    for fact, at in zip(inputs, axes):
        if isinstance(fact, Stream):
            sides[int(at == high)].append((fact.delay, fact.positional, fact.extent, timed(fact)))
            rates.append(fact)
        elif isinstance(fact, QueryKey):
            assert isinstance(at, tuple)
            for k in (0, 1):
                sides[int(at[k] == high)].append(
                    (fact.delays[k], fact.positional, fact.shape[fact.axes[k]], fact.reach)
                )
            rates.append(fact)
    for other in rates[1:]:
        if other.rate != rates[0].rate:
            if isinstance(other, Stream) and isinstance(rates[0], Stream):
                raise RateMismatch(rates[0], other)
            refuse(
                f"its two sides run at different rates ({rates[0].rate} and {other.rate})",
                hint="attend between streams of one rate",
            )
    for side in sides:
        if any(common_unit(side[0][2], entry[2]) is None for entry in side):
            refuse("it joins streams of different lengths", hint="pad or crop one of them")
    delays = tuple(latest(d for d, positional, _, _ in side if not positional) for side in sides)
    exprs: list[Expr | None] = []
    for fact, at in zip(inputs, axes):
        if isinstance(fact, Stream):
            role = int(at == high)
            exprs.append(Window(fact.wire, delays[role] - fact.delay, Frames(fact.rate, role=role), role=role))
        elif isinstance(fact, QueryKey):
            assert isinstance(at, tuple)
            swapped = at[0] == high
            mine = fact.delays[::-1] if swapped else fact.delays
            exprs.append(QueryKeyRead(fact.wire, (delays[0] - mine[0], 0), (delays[1] - mine[1], 0), swapped))
        else:
            exprs.append(None)
    first = rates[0]
    reach = reduce(ReceptiveField.joined, [entry[3] for side in sides for entry in side])
    shape = tuple(Length.of(1) for _ in range(high + 1))
    shape = (*shape[:low], sides[0][0][2], *shape[low + 1 : high], sides[1][0][2])
    pair = QueryKey(
        "",
        first.dtype,
        shape,
        (low, high),
        first.rate,
        (delays[0], delays[1]),
        all(isinstance(f, (Stream, QueryKey)) and f.positional for f in rates),
        None,
        reach,
        first.source,
        any(isinstance(f, QueryKey) and f.behind for f in rates),
    )
    return exprs, pair


def latest(delays: Iterable[Delay]) -> Delay:
    """The largest of `delays`, 0 where there is none."""
    found = list(dict.fromkeys(delays))
    return found[0] if len(found) == 1 else time(*map(AtLeast, found)) if found else Delay()


def relative(fact: Fact | None) -> bool:
    """Whether a wire is a table of relative positions."""
    return isinstance(fact, Stream) and fact.origin is not None


def meet_offsets(
    facts: Sequence[Fact | None], axes: Sequence[Side], options: Options, steps: list[Step]
) -> tuple[list[Expr | None], RelativeScores]:
    """Queries that meet a table of relative positions: an expression per input (None: static), and the result.

    Wire, dtype and shape of the result are to be replaced.
    """
    queries, table, at = None, None, -1
    for fact, axis in zip(facts, axes):
        if not isinstance(fact, Stream) or not isinstance(axis, int):
            if axis is not None:
                refuse(
                    "it joins relative positions with pairs of frames", hint="skew the product with the queries first"
                )
        elif fact.origin is not None and table is None:
            table, at = fact, axis - 1
        elif fact.origin is None and queries is None:
            queries = materialise_padding(fact, options, steps)
        else:
            refuse("it joins relative positions with more than the queries", hint="multiply them one after another")
    assert queries is not None and table is not None and table.origin is not None
    if queries.rate * 2 != table.rate or [
        a for f, a in zip(facts, axes) if isinstance(f, Stream) and f.origin is None
    ] != [at]:
        refuse(
            "its relative positions do not run along the last axis, one for every key before and after a query",
            hint="multiply queries by the table so that it gives [.., query, position]",
        )
    exprs: list[Expr | None] = []
    for fact in facts:
        if not isinstance(fact, Stream):
            exprs.append(None)
        elif fact.origin is not None:
            exprs.append(Window(fact.wire, queries.delay, Frames(fact.rate), role=2))
        else:
            exprs.append(Window(queries.wire, 0, Frames(queries.rate)))
    shape = (*(Length.of(1) for _ in range(at)), queries.extent, table.extent)
    return exprs, RelativeScores(
        "",
        queries.dtype,
        shape,
        at,
        queries.rate,
        queries.extent,
        table.extent,
        table.origin,
        queries.delay,
        reach=queries.reach,
        source=queries.source,
    )


def indices_of(pair: QueryKey, side: int) -> Position:
    """Batch indices of the frames of one side of a pair."""
    return Position(pair.rate, pair.delays[side], role=side)


def unskewed(x: RelativeScores, wire: str, behind: bool) -> QueryKey:
    """Queries × keys, as `wire`, of what every query has for every offset; `behind`: of keys that are not after it."""
    a, b = x.axes
    return QueryKey(
        wire,
        x.dtype,
        (*x.shape[:b], x.queries, *x.shape[b + 1 :]),
        (a, b),
        x.rate,
        (x.delay, Delay()),
        reach=x.reach,
        source=x.source,
        behind=behind,
    )


def placed(
    pair: QueryKey | RelativeScores, wire: str, dtype: ir.DataType, shape: Sequence[Length | None]
) -> QueryKey | RelativeScores:
    """`pair` as output `wire`; the dimensions of `shape` at its axes become the extents."""
    a, b = pair.axes
    full = [Length.symbol(f"{wire}.{k}") if d is None else d for k, d in enumerate(shape)]
    full[a], full[b] = pair.shape[a], pair.shape[b]
    return replace(pair, wire=wire, dtype=dtype, shape=tuple(full))


def chunk_pulse(band: Band, rate: Fraction) -> int:
    """Base frames that a pulse must be a multiple of, so that no chunk is cut."""
    return 1 if band.chunk == 1 else (Fraction(band.chunk) / rate).numerator


@dataclass(frozen=True)
class Closes(Bound):
    """A reader whose frame q reads keys up to ``band.last(q)``: `query` and `key` are the delays of the two sides,
    `extent` the number of keys.

    With an end of stream no key is read before it is known to be one.
    """

    band: Band
    rate: Fraction
    query: Delay
    key: Delay
    extent: Length

    def delays(self) -> tuple[Delay, ...]:
        """Those of both sides."""
        return self.query, self.key

    def least(self, at: Timing, values: tuple[int, ...], first: int) -> int | None:
        """The least delay of the reader."""
        query, key = values
        unit = math.lcm(at.step, chunk_pulse(self.band, self.rate), self.rate.denominator)
        if self.band.chunk == 1:
            delay = max(query, key + self.band.right, 0)
            known = at.end_of_stream and self.band.right >= 0
            return max(delay, run_ahead(self.extent - self.band.right, self.rate, at.step)) if known else delay
        delay = max(query, 0)
        while not all(self._in_time(n, delay, key, at) for n in long_streams(self.extent, step=unit, periods=2)):
            delay += 1
        return delay

    def _in_time(self, n: int, delay: int, key: int, at: Timing) -> bool:
        come = int(self.rate * n)
        last = self.band.last(come - 1 - delay)
        return last <= come - 1 - key and (not at.end_of_stream or last < self.extent.at(n))


def closing_delay(band: Band, rate: Fraction, query: Delay, key: Delay, extent: Length) -> Delay:
    """Least delay of a reader whose frame q reads keys up to ``band.last(q)``; see `Closes`."""
    return time(Closes(band, rate, query, key, extent))


@dataclass(frozen=True)
class Visible:
    """The part of a band that is there when the result is: `left` frames back and `right` ahead of a query, and so
    many `frames` more than a pulse.
    """

    left: int
    right: Delay

    @property
    def frames(self) -> Delay:
        """Frames more than a pulse."""
        return self.right + self.left


def visible(band: Band, delay: Delay, key: Delay) -> Visible:
    """The part of a band that is there when the result has `delay`: the pulses end with whole chunks."""
    return Visible(
        band.left,
        Delay.of(band.right) if band.chunk == 1 else -time(AtLeast(Delay.of(-band.right)), AtLeast(key - delay)),
    )


def key_window(x: Stream, delay: Delay, band: Visible) -> Window:
    """The window of keys that the queries of a pulse see, zeros where no frame is real."""
    back = delay - x.delay + band.left
    frames = Frames(x.rate, band.frames)
    return Window(x.wire, back, frames, only_real(x, zero(x)))


def reduce_over_keys(pair: QueryKey, values: Stream | None) -> tuple[QueryKeyRead, Delay, Visible]:
    """The pair on this pulse's queries and the keys they see, the delay of the result, and the keys of its window.

    `values` are what the keys carry (None: nothing but the pair itself is read).
    """
    band = pair.alive
    assert band is not None
    b = band.side
    query, key = pair.delays[1 - b], pair.delays[b]
    if values is not None:
        key = latest((key, values.delay))
    delay = closing_delay(band, pair.rate, query, key, pair.shape[pair.axes[b]])
    seen = visible(band, delay, key)
    queries = (delay - query, 0)
    keys = (delay - pair.delays[b] + seen.left, seen.frames)
    return QueryKeyRead(pair.wire, keys if b == 0 else queries, queries if b == 0 else keys), delay, seen


def aligned_values(values: QueryKey, side: int, delay: Delay, keys: Visible) -> QueryKeyRead:
    """Pair `values`, keys along `side`, on the queries and keys on which `closed` evaluates the weights."""
    along, queries = (delay + keys.left - values.delays[side], keys.frames), (delay - values.delays[1 - side], 0)
    return QueryKeyRead(values.wire, queries if side else along, along if side else queries)


@dataclass(frozen=True)
class Attended:
    """Attention of queries to keys that have values: windows of the three, the part of its mask, the batch indices
    of queries and keys, and what comes of them.
    """

    query: Window
    key: Window
    value: Window
    mask: QueryKeyRead
    queries: Position
    keys: Position
    delay: Delay
    reach: ReceptiveField


def attended(q: Stream, k: Stream, v: Stream, mask: QueryKey, band: Band) -> Attended:
    """Attention of `q` to `k` and `v`, which have no border, behind a `mask` whose keys are its second side, which
    leaves `band` open.
    """
    key = latest((k.delay, v.delay))
    delay = closing_delay(band, q.rate, q.delay, key, k.extent)
    seen = visible(band, delay, key)
    reach = reached(q.reach.joined(k.reach).joined(v.reach), k.extent, band, q.rate, k.delay)
    return Attended(
        Window(q.wire, delay - q.delay, Frames(q.rate)),
        key_window(k, delay, seen),
        key_window(v, delay, seen),
        aligned_values(mask, 1, delay, seen),
        Position(q.rate, delay),
        Position(k.rate, delay + seen.left, seen.frames),
        delay,
        reach,
    )


def timed(x: Stream) -> ReceptiveField:
    """What a frame of `x` depends on, seen from when it comes: frames of a cache come before frame 0 of the stream."""
    return x.reach.shifted(x.cached / x.rate)


def reached(reach: ReceptiveField, keys: Length, band: Band, rate: Fraction, key: Delay) -> ReceptiveField:
    """What a result of attention over `band` of so many `keys` depends on, which have delay `key` (below 0: they
    begin with a cache).
    """
    keyed, early = reach.padded(ending(keys, rate)), 0 if key.terms else min(key.constant, 0)
    return reach.joined(keyed.shifted((early - band.left) / rate)).joined(keyed.shifted((early + band.right) / rate))
