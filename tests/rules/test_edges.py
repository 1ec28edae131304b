"""The first frame repeated before a stream and the last one after it: a border of its edges."""

from __future__ import annotations

import numpy as np
import pytest

from testing.oracle import check, every_length, parse, rand, refused
from testing.rowing import check_rows

WEIGHTS = {"w": rand(2, 2, 3), "b": rand(2)}
INTS = {
    "zero": [0],
    "one": [1],
    "three": [3],
    "minus": [-1],
    "two": [2],
    "far": [2**62],
    "none": 0,
    "last": -1,
    "reps": [1, 1, 3],
    "wide": [1, 2, 3],
    "frames": [0, 0, 0],
    "lasts": [-1, -1, -1],
    "head": [1, 2],
}
PULSES = (1, 3, 7)

FIRST = {
    "tile": "f = Slice(a, zero, one, two)\n p = Tile(f, reps)",
    "expand": "f = Slice(a, zero, one, two)\n p = Expand(f, wide)",
    "gather": "p = Gather<axis=2>(a, frames)",
    "index": "i = Gather<axis=2>(a, none)\n f = Unsqueeze(i, two)\n p = Tile(f, reps)",
    "concat": "f = Slice(a, zero, one, two)\n p = Concat<axis=2>(f, f, f)",
}
LAST = {
    "tile": "l = Slice(a, minus, far, two)\n q = Tile(l, reps)",
    "expand": "l = Slice(a, minus, far, two)\n q = Expand(l, wide)",
    "gather": "q = Gather<axis=2>(a, lasts)",
    "index": "j = Gather<axis=2>(a, last)\n l = Unsqueeze(j, two)\n q = Tile(l, reps)",
}
MULTIPLE = """n = Shape<start=2>(a)
        g = Neg(n)
        r = Mod(g, three)
        s = Concat<axis=0>(head, r)
        l = Slice(a, minus, far, two)
        q = Expand(l, s)"""


def edged(body: str, join: str, y: str = "y = AveragePool<kernel_shape=[3]>(c)", conv: bool = True):
    made = "a = Conv<pads=[1,1]>(x, w, b)" if conv else "a = Identity(x)"
    weights = {k: np.asarray(v, np.int64) for k, v in INTS.items()} | WEIGHTS
    return parse(
        f"agraph (float[1,2,T] x) => (float[1,2,U] y) {{ {made}\n {body}\n c = Concat<axis=2>({join})\n {y} }}",
        **{k: v for k, v in weights.items() if k in body + made + join + y},
    )


@pytest.mark.parametrize("how", FIRST)
def test_first_frame_before(how: str) -> None:
    check(edged(FIRST[how], "p, a"), delays={"y": 1}, absorbed=True, pulses=PULSES)
    check(edged(FIRST[how], "p, a", "y = Identity(c)", conv=False), delays={"y": 0}, pulses=PULSES)


@pytest.mark.parametrize("how", LAST)
def test_last_frame_after(how: str) -> None:
    model = edged(LAST[how], "a, q")
    check(model, delays={"y": 3}, pulses=PULSES)
    every_length(model)


def test_both_ends() -> None:
    model = edged(FIRST["tile"] + "\n" + LAST["tile"], "p, a, q", "y = AveragePool<kernel_shape=[7]>(c)", conv=False)
    check(model, delays={"y": 3}, pulses=PULSES)
    every_length(model)


def test_up_to_a_multiple() -> None:
    model = edged(MULTIPLE, "a, q", "y = AveragePool<kernel_shape=[3], strides=[3]>(c)")
    check(model, pulses=PULSES)
    every_length(model)


def test_first_frame_by_rows() -> None:
    model = parse(
        """agraph (float[T,4] x) => (float[U,4] y) { f = Gather<axis=0>(x, none)
        e = Expand(f, rows)
        p = Tile(e, reps)
        y = Concat<axis=0>(p, x) }""",
        none=np.int64(0),
        rows=np.array([1, 4]),
        reps=np.array([2, 1]),
    )
    check(model, delays={"y": 0}, pulses=PULSES)


def test_edge_of_an_edge() -> None:
    body = FIRST["tile"] + "\n d = Concat<axis=2>(p, a)\n f2 = Slice(d, zero, one, two)"
    check(edged(body, "f2, d"), delays={"y": 1}, absorbed=True, pulses=PULSES)


def test_frames_of_a_low_rate() -> None:
    """The first frame in front, the last one up to whole groups, joined group by group."""
    model = parse(
        """<ir_version: 8, opset_import: ["": 18]> agraph (float[T,4] x) => (float[U,12] y) {
        f = Slice(x, zero, one, zero)
        d = Concat<axis=0>(f, x)
        n = Shape<start=0, end=1>(d)
        g = Neg(n)
        r = Mod(g, three)
        l = Slice(d, minus, far, zero)
        s = Concat<axis=0>(r, four)
        q = Expand(l, s)
        c = Concat<axis=0>(d, q)
        y = Reshape(c, groups) }""",
        four=np.array([4]),
        groups=np.array([-1, 12]),
        **{k: np.asarray(INTS[k], np.int64) for k in ("zero", "one", "three", "minus", "far")},
    )
    check(model, delays={"y": 0}, pulses=(3, 6))
    every_length(model)


def test_halved_with_the_last_frame_again() -> None:
    model = parse(
        """agraph (float[T,N,2] x) => (float[U,N,2] y) {
        s = Shape(x)
        n = Gather(s, none)
        b = Slice(s, one, two, zero)
        m = Add(n, c1)
        d = Div(m, c2)
        e = Mul(d, c2)
        p = Sub(e, n)
        k = Sub(n, c1)
        start = Unsqueeze(k, zero)
        more = Unsqueeze(p, zero)
        l = Slice(x, start, far, zero)
        sh = Concat<axis=0>(more, b, two)
        q = Expand(l, sh)
        c = Concat<axis=0>(x, q)
        half = Unsqueeze(d, zero)
        pairs = Concat<axis=0>(half, two, b, two)
        r = Reshape(c, pairs)
        y = ReduceMean<axes=[1], keepdims=0>(r) }""",
        c1=np.int64(1),
        c2=np.int64(2),
        **{k: np.asarray(INTS[k], np.int64) for k in ("none", "zero", "one", "two", "far")},
    )
    check(model, axes={"x": 0}, delays={"y": 0}, pulses=(2, 6))
    every_length(model, axes={"x": 0})


def test_rows_of_a_batch_are_streams_of_their_own() -> None:
    model = parse(
        """agraph (float[N,T,2] x) => (float[N,U,2] y) {
        f = Slice(x, zero, one, one)
        p = Tile(f, again)
        l = Slice(x, minus, far, one)
        q = Tile(l, again)
        y = Concat<axis=1>(p, x, q) }""",
        again=np.array([1, 3, 1]),
        **{k: np.asarray(INTS[k], np.int64) for k in ("zero", "one", "minus", "far")},
    )
    check_rows(model, axes={"x": 1}, pulses=(3,), rows=3)


def test_first_frame_of_another_stream() -> None:
    check(edged("t = Tanh(a)\n f = Slice(t, zero, one, two)\n p = Tile(f, reps)", "p, a"), pulses=PULSES)
    check(edged(FIRST["tile"] + "\n d = Relu(p)", "d, a"), pulses=PULSES)


def test_first_frame_of_zeros() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) { z = Pad(x, pads)
        f = Slice(z, zero, one, two)
        p = Tile(f, reps)
        c = Concat<axis=2>(p, z)
        y = Conv<pads=[1,1]>(c, w, b) }""",
            pads=np.array([0, 0, 2, 0, 0, 0]),
            **{k: np.asarray(INTS[k], np.int64) for k in ("zero", "one", "two", "reps")},
            **WEIGHTS,
        ),
        delays={"y": 0},
        pulses=PULSES,
    )


def test_repeated_frame_as_a_result() -> None:
    check(edged(FIRST["tile"], "p, p", "y = Identity(c)"), pulses=PULSES)


def test_what_is_no_edge() -> None:
    refused(edged("p = Gather<axis=2>(a, one)", "p, a"), "by index")
    refused(edged("t = Tanh(a)\n l = Slice(t, minus, far, two)\n q = Tile(l, reps)", "a, q"), "over the whole stream")
    refused(edged(LAST["tile"], "q, a"), "over the whole stream")
    refused(edged("i = Gather<axis=2>(a, none)\n d = Softmax<axis=1>(i)", "a, a"), "one stream after another")
    refused(edged("i = Gather<axis=2>(a, none)\n f = Unsqueeze(i, two)\n c2 = Sub(a, f)", "c2, a"), "different lengths")
