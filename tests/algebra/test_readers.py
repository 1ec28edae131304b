"""Readers that are more than one window: several frames of each, a cache in front, clips of a fixed length; and what
a plan promises of lengths.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.border import zero
from pulsify_onnx.algebra.cached import behind_cache, with_cache, without_first
from pulsify_onnx.algebra.clips import clipped, frames_back
from pulsify_onnx.algebra.delay import Delay, Solution, Timing
from pulsify_onnx.algebra.facts import Fact, Mirror, Running, Stream, Wait
from pulsify_onnx.algebra.hidden import Mask, only_read_by, only_real
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.padding import pad
from pulsify_onnx.algebra.plan import Frames, Op, Options, Plan, Position, Step, Window
from pulsify_onnx.algebra.promises import flush_pulses, least_frames
from pulsify_onnx.algebra.upsampling import Upsampled, upsampled
from pulsify_onnx.algebra.windows import fewer, indices, indices_read, kept_real, undelayed, windowed
from pulsify_onnx.arrays import Const

T = Length.symbol(TIME)
PLAIN = Options()


def stream(extent: Length = T, wire: str = "x", delay: int = 0, rate: Fraction = Fraction(1)) -> Stream:
    """[1, 2, extent] of floats."""
    return Stream(wire, ir.DataType.FLOAT, (Length.of(1), Length.of(2), extent), 2, rate, Delay.of(delay), source=wire)


def made(
    taps: list[tuple[int, int] | None], after: int = 0, delay: int = 0, edge: bool = False
) -> tuple[Window, Upsampled]:
    x, steps = stream(delay=delay), list[Step]()
    window, up = upsampled(x, taps, after, Mirror(edge=True) if edge else zero(x), PLAIN, steps)
    assert not steps and up.y.rate == len(taps)
    return window, up


def at(delay: Delay, *steps: int) -> list[int]:
    return [Solution(Timing(step))(delay) for step in steps]


# several frames in the place of each


def test_frames_that_are_repeated_come_with_their_own() -> None:
    window, up = made([(0, 0)] * 3, delay=2)
    assert (at(up.y.delay, 1, 4), at(up.start, 1, 4), up.more, window.frames) == (
        [6, 6],
        [0, 0],
        0,
        Frames(Fraction(1)),
    )
    assert up.y.reach.between == Fraction(2, 3) and up.y.pad_before == 0


def test_frames_that_add_up_wait_for_none_and_begin_behind_those_before() -> None:
    window, up = made([(-2, 0), (-1, 0)], after=2)
    assert (at(up.y.delay, 1), at(up.start, 1), window.frames.extra, Solution(Timing())(window.back)) == (
        [0],
        [4],
        2,
        2,
    )
    assert isinstance(window.mask, Mask) and window.mask.before and window.mask.after
    assert up.y.reach.between == 0 and up.y.reach.past == -2


def test_frames_that_nothing_is_read_for_reach_nowhere() -> None:
    assert made([(0, 0), None, None])[1].y.reach.between == 0
    assert made([(0, 0), (0, 0), None])[1].y.reach.between == Fraction(1, 3)


def test_frames_between_two_come_as_soon_as_the_second_and_no_sooner() -> None:
    """Twice as many, linear at half pixels: frame 2t lies between t - 1 and t, frame 2t + 1 between t and t + 1."""
    window, up = made([(-1, 0), (0, 1)], after=1, edge=True)
    assert at(up.y.delay, 1, 2, 8) == [1, 1, 1], (
        "frame 2t + 1 needs frame t + 1, with which two come: one of them is late"
    )
    assert at(up.start, 1) == [3] and window.frames.extra == 2 and up.more == 0
    _, late = made([(-1, 0), (0, 1)], after=1, delay=3, edge=True)
    assert at(late.y.delay, 1, 2, 8) == [7, 7, 7] and at(late.start, 1) == [3]


def test_an_operator_is_given_copies_of_the_last_frame_where_it_places_more_than_it_is_to_read() -> None:
    window, up = made([(-1, -1), (-1, -1)])
    assert up.more == 1 and window.frames.extra == 1


# a cache in front


def test_a_cache_comes_before_the_first_pulse() -> None:
    window, y = behind_cache(stream(), 3)
    assert window == Window("x", Delay(), Frames(Fraction(1))) and (y.delay, y.cached, y.extent, y.pad_before) == (
        Delay.of(-3),
        3,
        T + 3,
        0,
    )
    assert y.reach.past == -3 and with_cache(y) == Window("x", 3, Frames(Fraction(1), 3))
    rest = without_first(y, 3)
    assert (rest.delay, rest.cached, rest.extent) == (Delay(), 0, T) and without_first(rest, -3) == y


def test_positions_of_frames() -> None:
    x = stream(delay=4)
    assert indices(x) == Position(Fraction(1), Delay.of(4)) and undelayed(x, 1) == Window(
        "x", -4, Frames(Fraction(1), role=1), role=1
    )
    window, y = windowed(pad(stream(delay=2), 1, 1, zero(x), PLAIN, []), 3, 2, PLAIN)
    assert Solution(Timing())(y.delay) == 1 and indices_read(window, y, 2, 1) == Position(
        Fraction(1), y.delay * 2 + 1, 1
    )


def test_fewer_frames_than_there_are_windows() -> None:
    x = stream()
    low = Const(np.full([1, 1, 1], -np.inf, np.float32))
    window, y = windowed(pad(x, 1, 3, low, PLAIN, []), 3, 2, PLAIN)
    less, z = fewer(window, y, (T + 2).floordiv(2), 3, 2)
    assert [z.extent.at(n) for n in (7, 8)] == [4, 5] and [y.extent.at(n) for n in (7, 8)] == [5, 5]
    assert isinstance(window.mask, Mask) and window.mask.infinite == T + 4
    assert (
        isinstance(less.mask, Mask)
        and less.mask.infinite is not None
        and [less.mask.infinite.at(n) for n in (7, 8)] == [9, 11]
    )


def test_streams_that_are_kept_real_share_the_delay_at_which_they_are() -> None:
    xs = [stream(T - 3), stream(T - 3, "y", delay=1)]
    windows, found = kept_real(xs, PLAIN)
    assert [at(x.delay, 1, 4) for x in found] == [[3, 3]] * 2 and [at(Delay.of(w.back), 1) for w in windows] == [
        [3],
        [2],
    ]


def test_what_is_shown_of_a_stream() -> None:
    x = replace(stream(delay=3), pad_before=2, pad_after=Length.of(1))
    mask = only_real(x, zero(x), guard=True)
    assert (mask.delay, mask.first, mask.end, mask.before, mask.after, mask.guard, mask.computed) == (
        Delay.of(3),
        2,
        T - 1,
        True,
        True,
        True,
        False,
    )
    ones = replace(x, positional=True)
    assert only_real(ones, zero(x), guard=True).computed and not only_real(ones, zero(x), sealed=True).computed
    read = only_read_by(x, 2, zero(x))
    assert (read.delay, read.reader, read.after, read.computed) == (Delay.of(1), Delay.of(3), True, False)
    assert not only_read_by(ones, 0, zero(x)).after


# clips


def test_a_clip_ends_with_a_pulse_at_which_all_of_it_has_come() -> None:
    x, half = stream(delay=3), stream((T - 2).floordiv(2), "h", delay=2, rate=Fraction(1, 2))
    assert frames_back(10, [x], 1) == 13 and frames_back(10, [half], 1) == 12 and frames_back(10, [x, half], 8) == 16
    assert clipped(x, 10, 13, 4, 1) == Window("x", 6, Frames(Fraction(1), 6))
    anyhow = clipped(half, 10, 12, None, 2)
    assert isinstance(anyhow, Op) and anyhow.inputs[0] == Window("h", 3, Frames(Fraction(1, 2), 3)), (
        "pulses of two frames at least: one of them"
    )
    assert [int(c.array[0]) for c in anyhow.inputs[1:] if isinstance(c, Const)] == [-4, 2**63 - 1, 2]


# what a plan promises


def plan(ends: bool = True, least: int = 1, **facts: Fact) -> Plan:
    return Plan(("x",), tuple(facts), facts, facts, (), (), 1, PLAIN, least, Timing(1, ends))


@pytest.mark.parametrize(
    "delay, pulse, pulses", [(0, 1, 0), (3, 1, 3), (3, 2, 2), (3, 16, 1), (16, 16, 1), (17, 16, 2)]
)
def test_pulses_that_bring_out_the_end(delay: int, pulse: int, pulses: int) -> None:
    y = stream(delay=delay)
    assert flush_pulses(plan(y=y), pulse) == pulses and flush_pulses(plan(ends=False, y=y), pulse) == 0
    running = Running("m", y.dtype, y.shape[:2], (Wait.of(y),))
    assert flush_pulses(plan(m=running), pulse) == pulses


def test_frames_that_a_stream_must_have() -> None:
    assert (
        least_frames(plan(y=stream(T)), []) == 1
        and least_frames(plan(y=stream(T - 4)), []) == 5
        and least_frames(plan(y=stream(T), least=7), []) == 7
    )
    both = plan(y=stream(T.floordiv(2)), z=stream((T + 1).floordiv(2), "z"))
    assert least_frames(both, []) == 2 and least_frames(both, [["y", "z"]]) == 4, (
        "of 3 frames one would be repeated for two"
    )
