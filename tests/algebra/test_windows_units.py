"""Padding, cropping, windows and joins of streams made by hand: the facts they give, and when their delays are at
several timings.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.border import mask_padding, zero
from pulsify_onnx.algebra.bounds import Known
from pulsify_onnx.algebra.delay import AtLeast, Delay, Solution, Timing, time
from pulsify_onnx.algebra.facts import Mirror, PaddingFrames, ReceptiveField, Stream
from pulsify_onnx.algebra.hidden import Mask
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.padding import as_output, crop, materialise_padding, pad
from pulsify_onnx.algebra.plan import Frames, Options, Step, Window
from pulsify_onnx.algebra.windows import RateMismatch, align, at_higher_rate, wait_until_known, windowed
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Refusal

T = Length.symbol(TIME)
PLAIN = Options()
REFLECT, EDGE = Mirror(edge=False), Mirror(edge=True)


def stream(extent: Length = T, **more: Any) -> Stream:
    """[1, 2, extent] of floats."""
    return Stream(
        **{
            "wire": "x",
            "dtype": ir.DataType.FLOAT,
            "shape": (Length.of(1), Length.of(2), extent),
            "axis": 2,
            "rate": Fraction(1),
            "source": "x",
            **more,
        }
    )


def padded(x: Stream, before: int, after: int, border: Any = None) -> Stream:
    steps: list[Step] = []
    y = pad(x, before, after, border or zero(x), PLAIN, steps)
    assert not steps
    return y


def at(delay: Any, *steps: int, ends: bool = False) -> list[int]:
    """A delay at pulses of so many base frames."""
    return [Solution(Timing(step, ends))(delay) for step in steps]


# padding and cropping


def test_padding_moves_indices() -> None:
    x = stream()
    y = padded(x, 2, 3)
    assert (y.wire, y.extent, y.delay, y.pad_before, y.pad_after, y.border) == (
        "x",
        T + 5,
        Delay.of(-2),
        2,
        Length.of(3),
        zero(x),
    )
    again = padded(y, 1, 0)
    assert (again.delay, again.pad_before, again.pad_after, again.extent) == (Delay.of(-3), 3, Length.of(3), T + 6)
    assert padded(x, 0, 0) is x


def test_cropping_is_the_way_back() -> None:
    x = stream()
    y = padded(x, 2, 3)
    assert (
        crop(y, 2, 3).delay == x.delay
        and crop(y, 2, 3).extent == T
        and not crop(y, 2, 3).pad_before
        and crop(y, 2, 3).pad_after == Length(())
    )
    assert crop(y, 1, 1).pad_before == 1 and crop(y, 1, 1).pad_after == Length.of(2)
    assert (crop(x, 4).delay, crop(x, 4).pad_before, crop(x, 4).extent) == (Delay.of(4), 0, T - 4)
    cached = crop(stream(cached=3), 2)
    assert cached.cached == 1 and crop(cached, 5).cached == 0
    assert pad(x, -4, -1, zero(x), PLAIN, []) == crop(x, 4, 1)


def test_the_time_of_a_frame_goes_along() -> None:
    assert padded(stream(), 2, 0).reach == ReceptiveField(Fraction(-2), Fraction(-2), Fraction(-2))
    assert crop(stream(), 2).reach == ReceptiveField(Fraction(2), Fraction(2), Fraction(2))
    assert padded(stream(), 0, 2).reach.ending == 0 and padded(crop(stream(), 0, 3), 0, 1).reach.ending == 3


def test_a_mirror_around_a_border_makes_it_solid() -> None:
    steps: list[Step] = []
    y = pad(padded(stream(), 2, 1), 1, 0, REFLECT, PLAIN, steps)
    (made,) = steps
    assert made.op_type == "Pad" and made.wires == (y.wire,) != ("x",)
    (window,) = made.exprs
    assert (
        isinstance(window, Window)
        and isinstance(window.mask, Mask)
        and window.mask.before
        and window.mask.after
        and window.mask.first == 2
    )
    assert y.border == REFLECT and y.pad_before == 1 and y.pad_after == Length(()) and y.extent == T + 4


def test_a_border_inside_another_one_at_the_start_is_one_of_frames_that_differ() -> None:
    steps: list[Step] = []
    ones = Const(np.ones([1, 1, 1], np.float32))
    y = pad(padded(stream(), 2, 0), 1, 0, ones, PLAIN, steps)
    assert not steps and isinstance(y.border, PaddingFrames) and y.border.frames.array.reshape(-1).tolist() == [1, 0, 0]
    assert (y.wire, y.delay, y.pad_before, y.extent) == ("x", Delay.of(-3), 3, T + 3)


@pytest.mark.parametrize("inner, outer", [(1, 0), (0, 1), (2, 1)])
def test_a_border_inside_another_one_at_the_end_is_made_solid_there(inner: int, outer: int) -> None:
    steps: list[Step] = []
    ones = Const(np.ones([1, 1, 1], np.float32))
    y = pad(padded(stream(), 2, inner), 1, outer, ones, PLAIN, steps)
    assert (
        len(steps) == (inner > 0) + (outer > 0)
        and isinstance(y.border, PaddingFrames)
        and y.pad_before == 3
        and y.pad_after == Length(())
    )
    for made in steps:
        (window,) = made.exprs
        assert (
            isinstance(window, Window)
            and isinstance(window.mask, Mask)
            and window.mask.after
            and not window.mask.before
        )
    assert y.wire == steps[-1].wires[0] and y.extent == T + 3 + inner + outer


def test_an_earlier_output_keeps_two_borders_apart() -> None:
    ones = Const(np.ones([1, 1, 1], np.float32))
    y = pad(padded(stream(), 2, 0), 1, 0, ones, Options(advance=True), [])
    assert (
        isinstance(y.border, PaddingFrames)
        and y.border.frames.array.reshape(-1).tolist() == [1, 0, 0]
        and y.pad_before == 3
    )
    assert crop(y, 1).border == zero(stream()), "what is left is the same frame twice"


def test_padding_of_either_sign_is_refused() -> None:
    with pytest.raises(Refusal, match="crops some streams and pads others"):
        pad(stream(), 0, (T.floordiv(2) * 2 - T) * 2 + 1, zero(stream()), PLAIN, [])


def test_padding_of_a_prefix_is_refused() -> None:
    with pytest.raises(Refusal, match="before the end of the stream"):
        pad(stream(Length.of(5)), 0, 1, zero(stream()), PLAIN, [])


# windows


@pytest.mark.parametrize(
    "span, stride, delay, extra", [(1, 1, 0, 0), (5, 1, 4, 4), (3, 2, 1, 1), (2, 2, 0, 0), (1, 3, 0, -2), (5, 3, 1, 2)]
)
def test_windows(span: int, stride: int, delay: int, extra: int) -> None:
    x = stream()
    window, y = windowed(x, span, stride, PLAIN)
    assert (y.delay, y.rate, y.extent) == (Delay.of(delay), Fraction(1, stride), (T - span).floordiv(stride) + 1)
    assert window == Window("x", Delay.of(stride * delay), Frames(Fraction(1), extra), None, None)
    assert y.reach.future - y.reach.past == span - 1 and not y.positional


def test_a_late_stream_is_read_late() -> None:
    window, y = windowed(stream(delay=Delay.of(3)), 4, 2, PLAIN)
    assert y.delay == Delay.of(3) and window.back == 3


def test_causal_padding_costs_nothing_and_same_padding_half() -> None:
    causal, y = windowed(padded(stream(), 4, 0), 5, 1, PLAIN)
    assert y.delay == Delay.of(0) and causal.back == 4 and y.extent == T
    assert (
        isinstance(causal.mask, Mask)
        and causal.mask.before
        and not causal.mask.after
        and (causal.mask.delay, causal.mask.first) == (Delay.of(-4), 4)
    )
    same, y = windowed(padded(stream(), 2, 2), 5, 1, PLAIN)
    assert at(y.delay, 1, 2, 16) == at(y.delay, 1, 2, 16, ends=True) == [2, 2, 2]
    assert isinstance(same.mask, Mask) and same.mask.after and same.mask.end == T + 2
    assert at(same.back, 1, 16) == [4, 4]


def test_a_border_that_a_window_does_not_cross_stays_one() -> None:
    _, y = windowed(padded(stream(), 4, 0), 2, 1, PLAIN)
    assert y.pad_before == 3 and y.border == zero(y) and at(y.delay, 1) == [-3]
    _, strided = windowed(padded(stream(), 4, 0), 2, 2, PLAIN)
    assert strided.pad_before == 2 and at(strided.delay, 1) == [-2]


def test_what_may_be_padding_waits_where_the_stream_may_end() -> None:
    """The last frame was cut off and one of padding put there: which is the last is known one frame later."""
    _, y = windowed(padded(crop(stream(), 0, 1), 1, 1), 3, 1, PLAIN)
    assert at(y.delay, 1, 4) == [1, 1] and at(y.delay, 1, 4, ends=True) == [2, 2]


def test_a_delay_that_depends_on_the_pulse_goes_on() -> None:
    """Frames come by fours: how late the last are depends on how often a pulse ends between them."""
    _, y = windowed(padded(stream(T.floordiv(4) * 4), 0, 2), 3, 1, PLAIN)
    _, z = windowed(y, 3, 2, PLAIN)
    assert at(y.delay, 1, 2, 4) == [2, 2, 2] and at(y.delay, 1, 2, 4, ends=True) == [5, 4, 2]
    assert at(z.delay, 1, 2, 4) == [2, 2, 2] and at(z.delay, 1, 2, 4, ends=True) == [3, 3, 2]
    window, z = windowed(y, 3, 2, PLAIN)
    assert at(window.back, 1, 2, 4, ends=True) == [1, 2, 2]


def test_mirrored_frames_come_with_those_they_mirror() -> None:
    x = padded(stream(), 2, 0, REFLECT)
    window, y = windowed(x, 3, 1, PLAIN)
    assert at(y.delay, 1, 2, 3, 4) == [2, 2, 0, 0], (
        "frame 0 sees frame 2 of the wire, which is there at once in pulses of 3"
    )
    assert isinstance(window.mask, Mask) and window.mask.sealed and y.pad_before == 0 and y.border is None
    _, edge = windowed(padded(stream(), 2, 0, EDGE), 3, 1, PLAIN)
    assert at(edge.delay, 1, 2, 3) == [0, 0, 0], "the frame at the edge is the first"
    _, strided = windowed(padded(stream(), 2, 0, REFLECT), 2, 2, PLAIN)
    assert at(strided.delay, 2, 4) == [1, 0]


def test_single_frames_read_through_a_mirror() -> None:
    x = padded(stream(), 2, 1, REFLECT)
    window, y = windowed(x, 1, 1, PLAIN, through=True)
    assert window.mask is None and (y.pad_before, y.pad_after, y.border) == (2, Length.of(1), REFLECT)
    _, y = windowed(x, 1, 1, PLAIN)
    assert y.pad_before == 0 and y.border is None


def test_mirrored_frames_at_the_end_are_looked_up_behind() -> None:
    window, _ = windowed(padded(stream(), 0, 3, REFLECT), 2, 1, PLAIN)
    edge, _ = windowed(padded(stream(), 0, 3, EDGE), 2, 1, PLAIN)
    assert (
        isinstance(window.mask, Mask) and isinstance(edge.mask, Mask) and (window.mask.reach, edge.mask.reach) == (6, 3)
    )


# joins


def test_joined_streams_wait_for_the_latest() -> None:
    a, b = stream(), stream(wire="b", delay=Delay.of(3))
    windows, y = align([a, b], PLAIN)
    assert y.delay == Delay.of(3) and [w.back for w in windows] == [3, 0] and [w.wire for w in windows] == ["x", "b"]


def test_positions_wait_for_nobody() -> None:
    a, b = stream(), stream(wire="b", positional=True, delay=Delay.of(9))
    windows, y = align([b, a], PLAIN)
    assert y.wire == "x" and y.delay == Delay.of(0) and windows[0].back == -9 and not y.positional
    assert align([b, replace(b, wire="c")], PLAIN)[1].positional


def test_equal_borders_pass_and_wider_ones_are_masked() -> None:
    a, b = padded(stream(), 2, 2), padded(stream(wire="b"), 2, 2)
    windows, y = align([a, b], PLAIN)
    assert (
        (y.pad_before, y.pad_after) == (2, Length.of(2)) and at(y.delay, 1) == [-2] and not any(w.mask for w in windows)
    )
    c = padded(stream(wire="c"), 1, 3)
    windows, y = align([a, c], PLAIN)
    assert (y.pad_before, y.pad_after) == (1, Length.of(2)) and at(y.delay, 1) == [-1]
    masks = [w.mask for w in windows]
    assert isinstance(masks[0], Mask) and (masks[0].before, masks[0].after) == (True, False)
    assert isinstance(masks[1], Mask) and (masks[1].before, masks[1].after) == (False, True)
    solid_windows, y = align([a, b], PLAIN, leads=False)
    assert (
        y.pad_before == 0
        and not y.pad_after.terms
        and all(isinstance(w.mask, Mask) for w in solid_windows)
        and at(y.delay, 1) == [0]
    )


def test_unknown_delays_are_joined_once() -> None:
    late = time(Known(T.floordiv(4) * 4, Fraction(1)), AtLeast(Delay()))
    a, b = stream(delay=late + 1), stream(wire="b", delay=late + 1)
    windows, y = align([a, b], PLAIN)
    assert y.delay == late + 1 and all(not w.back for w in windows), "nothing new to find out"
    windows, y = align([a, stream(wire="c", delay=Delay.of(3))], PLAIN)
    assert at(y.delay, 1, 2, 4, ends=True) == [4, 3, 3] and at(windows[0].back, 1, 2, 4, ends=True) == [0, 0, 2]


def test_joins_that_do_not_fit() -> None:
    with pytest.raises(RateMismatch) as caught:
        align([stream(), stream(wire="b", rate=Fraction(1, 2))], PLAIN)
    assert (caught.value.a.wire, caught.value.b.wire) == ("x", "b")
    with pytest.raises(Refusal, match="different lengths"):
        align([stream(), stream(T - 1, wire="b")], PLAIN)
    with pytest.raises(Refusal, match="relative positions"):
        align([stream(), stream(wire="b", origin=T)], PLAIN)
    assert align([stream(), stream(T.floordiv(2) * 2, wire="b")], PLAIN)[1].extent == T, (
        "the batch model runs for even T only"
    )


# more


def test_more_frames_in_the_place_of_each() -> None:
    y = at_higher_rate(stream(delay=Delay.of(2)), 3)
    assert (y.rate, y.delay, y.reach.between) == (Fraction(3), Delay.of(6), Fraction(2, 3))
    assert at_higher_rate(stream(), 2, between=Fraction(0)).reach.between == 0


def test_frames_that_stay_real() -> None:
    windows, y = align([stream(T.floordiv(4) * 4)], PLAIN)
    waiting, z = wait_until_known(windows, y)
    assert at(z.delay, 1, 2, 4) == [0, 0, 0] and at(z.delay, 1, 2, 4, ends=True) == [3, 2, 0]
    assert at(waiting[0].back, 1, ends=True) == [3]
    assert at(wait_until_known(windows, y, always=True)[1].delay, 1, 2, 4) == [3, 2, 0]


def test_solid_streams() -> None:
    steps: list[Step] = []
    assert materialise_padding(stream(), PLAIN, steps) == stream() and not steps
    y = materialise_padding(padded(stream(), 2, 1), PLAIN, steps)
    assert len(steps) == 1 and steps[0].facts == (y,) and y.wire == steps[0].wires[0] and y.wire.startswith("x#")
    assert (y.pad_before, y.pad_after.terms, y.border) == (0, (), None) and y.extent == T + 3 and at(y.delay, 1) == [0]
    assert materialise_padding(padded(stream(), 3, 1), PLAIN, []).wire != y.wire, "other frames, another name"
    cached: list[Step] = []
    assert materialise_padding(stream(cached=2, delay=Delay.of(-2)), PLAIN, cached).cached == 0 and cached


def test_a_stream_leaves_as_early_as_it_may() -> None:
    x = padded(stream(), 3, 0)
    assert at(as_output(x, PLAIN, []).delay, 1) == [0]
    steps: list[Step] = []
    assert as_output(x, Options(advance=True), steps) == x and not steps
    late = replace(x, delay=Delay.of(-1))
    y = as_output(late, Options(advance=True), steps)
    assert y.pad_before == 1 and y.delay == Delay.of(-1) and len(steps) == 1
    assert as_output(replace(x, delay=Delay.of(1)), Options(advance=True), []).pad_before == 0


def test_sealed_streams() -> None:
    mask = mask_padding(padded(stream(), 2, 1))
    assert (mask.delay, mask.first, mask.end, mask.before, mask.after, mask.sealed) == (
        Delay.of(-2),
        2,
        T + 2,
        True,
        True,
        True,
    )
