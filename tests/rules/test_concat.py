"""Concat beside and along the stream."""

from __future__ import annotations

import numpy as np
import pytest

from testing.oracle import check, every_length, parse, rand, refused
from testing.rowing import check_rows

PULSES = (1, 3, 7)


def test_beside_with_other_delays() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,6,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        c = Conv<pads=[2,2], dilations=[2]>(a, w, b)
        y = Concat<axis=1>(x, a, c) }""",
            w=rand(2, 2, 3),
            b=rand(2),
        ),
        delays={"y": 3},
        pulses=PULSES,
    )


@pytest.mark.parametrize("value", (0.0, 0.5))
@pytest.mark.parametrize("side", ("before", "after", "both"))
def test_constant_frames(side: str, value: float) -> None:
    inputs = {"before": "z, a", "after": "a, z", "both": "z, a, z"}[side]
    delay = 2 if side == "after" else 0
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] c) {{
        a = Conv<pads=[1,1]>(x, w, b)
        c = Concat<axis=2>({inputs})
        y = Conv<pads=[0,1]>(c, v, b) }}""",
            w=rand(2, 2, 3),
            v=rand(2, 2, 2),
            b=rand(2),
            z=np.full((1, 2, 2), value, np.float32),
        ),
        delays={"y": delay, "c": max(0, delay - 1)},
        pulses=PULSES,
    )


def test_frames_that_differ() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] c) {
        a = Conv<pads=[1,1]>(x, w, b)
        c = Concat<axis=2>(z, a)
        y = Conv<pads=[1,1]>(c, w, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
            z=rand(1, 2, 3),
        ),
        pulses=PULSES,
    )


def test_a_frame_of_other_channels() -> None:
    """One value per channel is one border."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        c = Concat<axis=2>(z, x)
        y = Conv(c, w, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
            z=np.repeat(rand(1, 2, 1), 2, 2),
        ),
        delays={"y": 0},
        pulses=PULSES,
    )


def test_frames_that_differ_at_the_end_are_refused() -> None:
    refused(
        parse("""agraph (float[1,2,T] x) => (float[1,2,U] y) { y = Concat<axis=2>(x, z) }""", z=rand(1, 2, 3)),
        "differs from frame to frame",
        op_type="Concat",
    )


def test_one_stream_after_another_is_refused() -> None:
    refused(
        parse("""agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Relu(x)
        y = Concat<axis=2>(x, a) }"""),
        "one stream after another",
        op_type="Concat",
    )


def test_a_fixed_number_of_frames_beside_a_stream_is_refused() -> None:
    refused(
        parse("""agraph (float[1,2,T] x) => (float[1,4,T] y) { y = Concat<axis=1>(x, z) }""", z=rand(1, 2, 9)),
        "fixed number of frames",
        op_type="Concat",
    )


def test_first_frame_kept_then_differences():
    """Pre-emphasis: the first frame as it is, then each frame less a share of the one before."""
    check(
        parse(
            """agraph (float[1,T,3] x) => (float[1,U,3] y) {
        first = Slice(x, zero, one, one)
        rest = Slice(x, one, far, one)
        last = Slice(x, zero, minus, one)
        less = Mul(last, share)
        d = Sub(rest, less)
        y = Concat<axis=1>(first, d) }""",
            zero=np.asarray([0]),
            one=np.asarray([1]),
            far=np.asarray([2**62]),
            minus=np.asarray([-1]),
            share=np.asarray(0.97, np.float32),
        ),
        delays={"y": 0},
    )


def test_parts_of_other_streams_behind_a_delay():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        c = Conv<pads=[2,2]>(x, w, b)
        first = Slice(c, zero, two, axis)
        y0 = Concat<axis=2>(block, first, x)
        y = Conv<pads=[1,1]>(y0, w3, b) }""",
            zero=np.asarray([0]),
            two=np.asarray([2]),
            axis=np.asarray([2]),
            w=rand(3, 3, 5),
            w3=rand(3, 3, 3),
            b=rand(3),
            block=rand(1, 3, 2),
        ),
        delays={"y": 1},
    )


@pytest.mark.parametrize("zero", [0.0, 0.5])
def test_a_cache_for_a_batch_of_any_size(zero: float):
    """What stands before the stream is as many rows of a constant as there are rows."""
    check_rows(
        parse(
            """agraph (float[B,4,T] x) => (float[B,4,T] y) {
        n = Shape(x)
        rows = Slice(n, none, one)
        shape = Concat<axis=0>(rows, rest)
        cache = Expand(start, shape)
        c = Concat<axis=2>(cache, x)
        y = Conv(c, w, b) }""",
            w=rand(4, 4, 3),
            b=rand(4),
            none=np.asarray([0]),
            one=np.asarray([1]),
            rest=np.asarray([4, 2]),
            start=np.asarray([[[zero, 0.25]]], np.float32),
        ),
        axes={"x": 2},
        pulses=(1, 3),
    )


@pytest.mark.parametrize("frames, pads, delay", [(4, (0, 1), 1), (4, (2, 0), 0), (1, (0, 0), 4), (7, (1, 1), 0)])
def test_a_learned_start_is_a_border(frames: int, pads: tuple[int, int], delay: int) -> None:
    """Frames that differ are not waited for, nor remembered; through what comes behind them either."""
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {{
        c = Concat<axis=2>(start, x)
        y = Conv<pads=[{pads[0]},{pads[1]}]>(c, v, b)
        r = Tanh(c)
        z = Conv<pads=[1,1]>(r, w, b) }}""",
        v=rand(2, 2, 6),
        w=rand(2, 2, 3),
        b=rand(2),
        start=rand(1, 2, frames),
    )
    check(model, delays={"y": delay, "z": 0}, pulses=PULSES)
    every_length(model)


def test_a_learned_start_of_a_row_each() -> None:
    """Lanes of a batch begin with it when they begin."""
    check_rows(
        parse(
            """agraph (float[B,2,T] x) => (float[B,2,U] y) {
        rows = Shape<start=0, end=1>(x)
        shape = Concat<axis=0>(rows, rest)
        each = Expand(start, shape)
        c = Concat<axis=2>(each, x)
        y = Conv<pads=[0,1]>(c, w, b) }""",
            w=rand(2, 2, 6),
            b=rand(2),
            start=rand(1, 2, 4),
            rest=np.array([2, 4]),
        ),
        axes={"x": 2},
    )


def test_one_learned_start_after_another() -> None:
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        c = Concat<axis=2>(start, x)
        d = Concat<axis=2>(start, c, last)
        y = Conv<pads=[2,2]>(d, w, b) }""",
        w=rand(2, 2, 5),
        b=rand(2),
        start=rand(1, 2, 2),
        last=np.ones((1, 2, 2), np.float32),
    )
    check(model, delays={"y": 0}, pulses=PULSES)
    every_length(model)
