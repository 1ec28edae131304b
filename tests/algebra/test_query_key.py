"""Where two streams meet: pairs made by hand, the delay of a reader that closes a band, and the keys it sees."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.border import zero
from pulsify_onnx.algebra.bounds import Known
from pulsify_onnx.algebra.delay import AtLeast, Delay, Solution, Timing, time
from pulsify_onnx.algebra.facts import Band, QueryKey, Static, Stream
from pulsify_onnx.algebra.hidden import Mask
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.padding import pad
from pulsify_onnx.algebra.plan import Options, QueryKeyRead, Window
from pulsify_onnx.algebra.query_key import (
    aligned_values,
    chunk_pulse,
    closing_delay,
    key_window,
    latest,
    meet,
    meet_offsets,
    meets,
    reduce_over_keys,
    visible,
)
from pulsify_onnx.algebra.windows import RateMismatch
from pulsify_onnx.errors import Refusal

T = Length.symbol(TIME)
ONE = Fraction(1)
PLAIN = Options()
STATIC = Static("w", ir.DataType.FLOAT, (Length.of(3),))


def stream(wire: str, **more: Any) -> Stream:
    """[1, 2, T] of floats."""
    shape = (Length.of(1), Length.of(2), more.pop("extent", T))
    return Stream(wire, ir.DataType.FLOAT, shape, 2, more.pop("rate", ONE), source=wire, **more)


def pair(band: Band | None = None, query: int = 0, key: int = 0, **more: Any) -> QueryKey:
    """[1, T, T], queries along axis 1 and keys along axis 2."""
    return QueryKey(
        "p", ir.DataType.FLOAT, (Length.of(1), T, T), (1, 2), ONE, (Delay.of(query), Delay.of(key)), alive=band, **more
    )


def at(delay: Any, *steps: int, ends: bool = False) -> list[int]:
    """A delay at pulses of so many base frames."""
    return [Solution(Timing(step, ends))(delay) for step in steps]


def test_what_meets() -> None:
    q, k = stream("q"), stream("k")
    assert (
        meets([q, k], [1, 2])
        and meets([pair(), STATIC], [(1, 2), None])
        and not meets([q, k], [2, 2])
        and not meets([q, STATIC], [2, None])
    )


def test_sides_wait_for_themselves_only() -> None:
    q, k, late = stream("q", delay=Delay.of(2)), stream("k"), stream("l", delay=Delay.of(5))
    exprs, found = meet([q, k, late, STATIC], [1, 2, 2, None], PLAIN, [])
    assert found.axes == (1, 2) and found.delays == (Delay.of(2), Delay.of(5)) and found.shape == (Length.of(1), T, T)
    assert [(e.wire, e.back, e.role) for e in exprs if isinstance(e, Window)] == [("q", 0, 0), ("k", 5, 1), ("l", 0, 1)]
    assert exprs[3] is None


def test_pairs_meet_streams_and_turned_pairs() -> None:
    exprs, found = meet([pair(query=1, key=4), stream("k", delay=Delay.of(6))], [(2, 1), 1], PLAIN, [])
    grid = exprs[0]
    assert isinstance(grid, QueryKeyRead) and grid.swapped and found.delays == (Delay.of(6), Delay.of(1))
    assert grid.a == (Delay.of(2), 0) and grid.b == (Delay(), 0)


def test_borders_are_made_solid_where_sides_meet() -> None:
    steps: list[Any] = []
    x = pad(stream("q"), 2, 0, zero(stream("q")), PLAIN, [])
    exprs, found = meet([x, stream("k")], [1, 2], PLAIN, steps)
    assert (
        len(steps) == 1
        and isinstance(exprs[0], Window)
        and exprs[0].wire == steps[0].wires[0]
        and found.shape[1] == T + 2
    )


def test_what_cannot_meet() -> None:
    q, k = stream("q"), stream("k")
    with pytest.raises(Refusal, match="three of its axes"):
        meet([q, k, stream("r")], [0, 1, 2], PLAIN, [])
    with pytest.raises(RateMismatch):
        meet([q, stream("k", rate=Fraction(1, 2))], [1, 2], PLAIN, [])
    with pytest.raises(Refusal, match="different rates"):
        meet([pair(), stream("k", rate=Fraction(1, 2))], [(1, 2), 2], PLAIN, [])
    with pytest.raises(Refusal, match="different lengths"):
        meet([q, k, stream("l", extent=T - 1)], [1, 2, 2], PLAIN, [])


def test_latest() -> None:
    late = time(Known(T.floordiv(4) * 4, ONE), AtLeast(Delay()))
    assert (
        latest([]) == Delay()
        and latest([late + 1, late + 1]) == late + 1
        and latest([Delay.of(1), Delay.of(3)]) == Delay.of(3)
    )
    assert at(latest([late + 1, Delay.of(3)]), 1, 4, ends=True) == [4, 3]


@pytest.mark.parametrize(
    "band, query, key, endless, ending",
    [
        (Band(4, 0, 1), 0, 0, 0, 0),
        (Band(4, 2, 1), 0, 0, 2, 2),
        (Band(4, 2, 1), 5, 0, 5, 5),
        (Band(4, 2, 1), 0, 5, 7, 7),
        (Band(4, -2, 1), 0, 1, 0, 0),
        (Band(4, 3, 1), -3, -3, 0, 3),
    ],
)
def test_a_band_closes_with_its_last_key(band: Band, query: int, key: int, endless: int, ending: int) -> None:
    delay = closing_delay(band, ONE, Delay.of(query), Delay.of(key), T)
    assert at(delay, 1, 4) == [endless] * 2 and at(delay, 1, 4, ends=True) == [ending] * 2


def test_keys_past_the_end_are_not_seen() -> None:
    """Two keys fewer than frames: with an end, the last that may be seen has to be known as one."""
    delay = closing_delay(Band(4, 0, 1), ONE, Delay(), Delay(), T - 2)
    assert at(delay, 1) == [0] and at(delay, 1, ends=True) == [2]


def test_chunks_close_with_pulses() -> None:
    band = Band(4, 3, 1, chunk=4)
    assert (
        chunk_pulse(band, ONE) == 4 and chunk_pulse(band, Fraction(1, 2)) == 8 and chunk_pulse(Band(4, 3, 1), ONE) == 1
    )
    assert at(closing_delay(band, ONE, Delay(), Delay(), T), 4, 8) == [0, 0], "a pulse ends with a chunk"
    assert at(closing_delay(band, ONE, Delay(), Delay.of(1), T), 4, 8) == [4, 4], (
        "its last key comes with the next chunk"
    )
    ahead = Band(4, 7, 1, chunk=4, ahead=1)
    assert at(closing_delay(ahead, ONE, Delay(), Delay(), T), 4, 8) == [4, 4]


def test_what_is_there_of_a_band() -> None:
    band = visible(Band(4, 2, 1), Delay.of(2), Delay())
    assert (band.left, band.right, band.frames) == (4, Delay.of(2), Delay.of(6))
    chunks = visible(Band(4, 3, 1, chunk=4), Delay(), Delay())
    assert chunks.right == Delay() and chunks.frames == Delay.of(4), (
        "a pulse ends with a chunk: nothing after it is read"
    )
    assert visible(Band(4, 3, 1, chunk=4), Delay.of(4), Delay.of(1)).right == Delay.of(3)


def test_keys_of_a_window() -> None:
    band = visible(Band(4, 2, 1), Delay.of(3), Delay.of(1))
    window = key_window(stream("k", delay=Delay.of(1)), Delay.of(3), band)
    assert (window.back, window.frames.extra) == (6, 6) and isinstance(window.mask, Mask)
    assert (window.mask.first, window.mask.end, window.mask.before, window.mask.after) == (0, T, True, True)


@pytest.mark.parametrize("side", (0, 1))
def test_closed_pairs_are_read_on_their_queries_and_keys(side: int) -> None:
    a, b = (3, 1) if side == 0 else (1, 3)
    grid, delay, seen = reduce_over_keys(pair(Band(4, 2, side), a, b), stream("v", delay=Delay.of(4)))
    queries, keys = (grid.b, grid.a) if side == 0 else (grid.a, grid.b)
    assert at(delay, 1, 4) == [6, 6] == at(queries[0] + 1, 1, 4), "the values come later than the keys: 4, and 2 more"
    assert at(keys[0], 1) == [6 - 3 + 4] and keys[1] == Delay.of(6) and seen.left == 4
    other = aligned_values(pair(positional=True), side, delay, seen)
    along, across = (other.b, other.a) if side else (other.a, other.b)
    assert across == (delay, 0) and along == (delay + 4, Delay.of(6))
    alone, delay, _ = reduce_over_keys(pair(Band(4, 2, side), a, b), None)
    assert at(delay, 1) == [5] and alone.wire == "p"


def test_relative_positions_meet_queries() -> None:
    queries, table = stream("q", delay=Delay.of(2)), stream("r", rate=Fraction(2), extent=T * 2 - 1, origin=T - 1)
    exprs, skew = meet_offsets([queries, table, STATIC], [1, 2, None], PLAIN, [])
    assert (skew.axis, skew.queries, skew.width, skew.origin, skew.delay, skew.form) == (
        1,
        T,
        T * 2 - 1,
        T - 1,
        Delay.of(2),
        "rows",
    )
    assert isinstance(exprs[1], Window) and exprs[1].role == 2 and exprs[1].back == 2 and exprs[2] is None
    with pytest.raises(Refusal, match="along the last axis"):
        meet_offsets([queries, table], [0, 2], PLAIN, [])
    with pytest.raises(Refusal, match="more than the queries"):
        meet_offsets([queries, stream("k"), table], [1, 1, 2], PLAIN, [])
    with pytest.raises(Refusal, match="pairs of frames"):
        meet_offsets([pair(), table], [(1, 2), 2], PLAIN, [])
