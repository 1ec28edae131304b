"""Positions that are limited to the length of the stream."""

import numpy as np
import pytest
from test_attention import POSITIONS, WHERE, model

from testing.oracle import check, every_length, parse, refused

CHUNKS = (
    POSITIONS
    + """
    chunk = Div(i, four)
    before = Sub(chunk, one0b)
    low0 = Mul(before, four)
    lowest = Max(low0, zero0)
    after = Add(chunk, one0b)
    high = Mul(after, four)
    low = Unsqueeze(lowest, ax1)
    begun = GreaterOrEqual(ki, low)
"""
)

ENDS = {
    "less": "cut = Min(high, n)\n end = Unsqueeze(cut, ax1)\n ended = Less(ki, end)",
    "turned": "cut = Min(n, high)\n end = Unsqueeze(cut, ax1)\n ended = Greater(end, ki)",
    "not_beyond": "cut = Min(high, n)\n end = Unsqueeze(cut, ax1)\n over = GreaterOrEqual(ki, end)\n ended = Not(over)",
    "last": "top = Sub(high, one0b)\n l = Sub(n, one0b)\n cut = Min(top, l)\n end = Unsqueeze(cut, ax1)\n"
    " ended = LessOrEqual(ki, end)",
    "less_one": "cut = Min(high, n)\n e = Unsqueeze(cut, ax1)\n end = Sub(e, one0b)\n ended = LessOrEqual(ki, end)",
    "last_and_one": "top = Sub(high, one0b)\n l = Sub(n, one0b)\n cut = Min(top, l)\n e = Unsqueeze(cut, ax1)\n"
    " end = Add(one0b, e)\n ended = Less(ki, end)",
    "clip": "cut = Clip(high, , n)\n end = Unsqueeze(cut, ax1)\n ended = Less(ki, end)",
    "clip_from": "cut = Clip(high, zero0, n)\n end = Unsqueeze(cut, ax1)\n ended = Less(ki, end)",
    "cast": "cut = Min(high, n)\n e = Unsqueeze(cut, ax1)\n end = Cast<to=6>(e)\n k32 = Cast<to=6>(ki)\n"
    " ended = Less(k32, end)",
    "cast_to_float": "f = Cast<to=1>(high)\n nf = Cast<to=1>(n)\n cut = Min(f, nf)\n end = Unsqueeze(cut, ax1)\n"
    " kf = Cast<to=1>(ki)\n ended = Less(kf, end)",
    "row_of_one": "row = Unsqueeze(n, ax0)\n cut = Min(high, row)\n end = Unsqueeze(cut, ax1)\n ended = Less(ki, end)",
}


def chunks(end):
    return model(CHUNKS + ENDS[end] + "\n open = And(begun, ended)\n", WHERE, four=np.int64(4), one0b=np.int64(1))


@pytest.mark.parametrize("end", ENDS)
def test_chunks_that_end_with_the_stream(end):
    check(chunks(end), delays={"y": 0}, pulses=(4, 8))


def test_chunks_that_end_with_streams_of_every_length():
    every_length(chunks("less"), pulses=(4,))


def test_a_band_that_ends_with_the_stream():
    band = """
        up = Add(i, two)
        e = Min(up, n)
        end = Unsqueeze(e, ax1)
        near = Less(ki, end)
        d0 = LessOrEqual(d, three)
        open = And(near, d0)
    """
    check(model(POSITIONS + band, WHERE, two=np.int64(2), three=np.int64(3)), delays={"y": 1}, pulses=(2,))


@pytest.mark.parametrize("limit, exact", [("n", True), ("last", False)])
def test_the_next_key_that_is_clipped_to_the_stream(limit, exact):
    """At the last frame it is the last key again, where that is the limit."""
    band = f"""
        last = Sub(n, one0b)
        up = Add(i, one0b)
        cut = Min(up, {limit})
        next = Unsqueeze(cut, ax1)
        one = Equal(ki, next)
        own = Equal(d, zero0)
        open = Or(one, own)
    """
    m = model(POSITIONS + band, WHERE, one0b=np.int64(1))
    if exact:
        check(m, delays={"y": 1}, pulses=(1, 3))
    else:
        refused(m, "length of the whole stream", op_type="Min")


TEXT = """
    <ir_version: 9, opset_import: ["": 17]>
    agraph (float[1,4,T] x) => (float[1,4,U] y) {
      s = Shape<start = 2, end = 3>(x)
      n = Squeeze(s)
      p = Range(zero, n, one)
      %s
      f = Cast<to=1>(c)
      y = Add(x, f)
    }
"""

NEVER = {
    "min": "e = Add(p, one)\n c = Min(e, n)",
    "clip": "last = Sub(n, one)\n c = Clip(p, zero, last)",
    "clip_shifted": "last = Sub(n, one)\n b = Sub(p, three)\n c = Clip(b, one, last)",
}


def numbers(body):
    return parse(TEXT % body, zero=np.int64(0), one=np.int64(1), three=np.int64(3))


@pytest.mark.parametrize("body", NEVER)
def test_positions_that_are_never_beyond_the_limit(body):
    m = numbers(NEVER[body])
    check(m, delays={"y": 0}, pulses=(1, 3))
    every_length(m, pulses=(2,))


@pytest.mark.parametrize(
    "body",
    [
        "e = Add(p, three)\n c = Min(e, n)",
        "e = Add(p, three)\n last = Sub(n, one)\n c = Clip(e, zero, last)",
        "e = Max(p, n)\n c = Identity(e)",
        "e = Add(p, three)\n m = Min(e, n)\n d = Add(p, one)\n lt = LessOrEqual(d, m)\n g = Add(p, three)\n"
        " gt = Less(g, m)\n both = And(lt, gt)\n c = Cast<to=7>(both)",
    ],
)
def test_a_limit_that_shows_is_refused(body):
    refused(numbers(body), "length of the whole stream")


def test_half_the_length_as_a_limit_is_refused():
    body = "h = Div(n, two)\n cut = Min(high, h)\n end = Unsqueeze(cut, ax1)\n ended = Less(ki, end)\n"
    refused(
        model(
            CHUNKS + body + " open = And(begun, ended)\n",
            WHERE,
            four=np.int64(4),
            one0b=np.int64(1),
            two=np.int64(2),
        ),
        "length of the whole stream",
        op_type="Min",
    )
