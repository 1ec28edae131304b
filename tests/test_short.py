"""Streams that are shorter than what a model cuts, picks or asks of them: `least_frames` tells which, and from there
on all are exact.
"""

from __future__ import annotations

import numpy as np
import pytest

from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.ordering import assuming, holds, larger, smaller
from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, every_length, parse, rand, refused

NUMBERS = {
    "zero": [0],
    "one": [1],
    "two": [2],
    "three": [3],
    "four": [4],
    "back": [-5],
    "end": [2**62],
    "last": [-1],
    "axis": 2,
    "k": 3,
    "few": 2,
    "pads": [0, 0, 3, 0, 0, 1],
}
LENGTH = "s = Shape(x)  n = Gather<axis=0>(s, axis)"

SHORT = {
    "the last frames": ("y = Slice(x, back, end, two)", 5),
    "every other of the last frames": ("y = Slice(x, back, end, two, two)", 5),
    "the last frames but one": ("y = Slice(x, back, last, two)", 5),
    "a frame counted from the end": ("y = Gather<axis=2>(x, back)", 5),
    "running values of the last frames": ("a = Slice(x, back, end, two)  y = ReduceMean<axes=[2], keepdims=1>(a)", 5),
    "mirrored frames": ('y = Pad<mode="reflect">(x, pads)', 4),
    "the first frames again": ("a = Slice(x, zero, four, two)  y = Concat<axis=2>(a, x)", 4),
    "the first frame again": ("a = Slice(x, zero, one, two)  y = Concat<axis=2>(a, x)", 1),
    "the third frame again": ("a = Slice(x, two, three, two)  y = Concat<axis=2>(a, x)", 3),
    "the first frames again, one by one": (
        "a = Slice(x, zero, one, two)  b = Slice(x, one, two, two)  y = Concat<axis=2>(a, b, x)",
        2,
    ),
    "the first of every other frame again": (
        "c = MaxPool<kernel_shape=[2], strides=[2]>(x)  a = Slice(c, zero, one, two)  y = Concat<axis=2>(a, c)",
        2,
    ),
    "the first frames alone": ("y = Slice(x, zero, four, two)", 4),
    "a running mean of the first frames": ("a = Slice(x, zero, four, two)  y = ReduceMean<axes=[2], keepdims=1>(a)", 4),
    "a running maximum of the first frames": (
        "a = Slice(x, zero, four, two)  y = ReduceMax<axes=[2], keepdims=1>(a)",
        4,
    ),
    "the last of the first frames": ("a = Slice(x, zero, four, two)  y = Gather<axis=2>(a, last)", 4),
    "as many frames as there are, or fewer": (
        f"{LENGTH}  m = Min(n, k)  e = Unsqueeze(m, zero)  a = Slice(x, zero, e, two)  y = ReduceMean<axes=[2], "
        "keepdims=1>(a)",
        3,
    ),
    "a node that asks for more": (f"{LENGTH}  c = Greater(n, k)  f = Cast<to=1>(c)  y = Mul(x, f)", 4),
    "a node that asks for as many": (f"{LENGTH}  c = GreaterOrEqual(n, k)  f = Cast<to=1>(c)  y = Mul(x, f)", 3),
    "a branch that asks for more": (
        f"{LENGTH}  c = Greater(n, k)  y = If(c)<then_branch = t () => (float[1,2,U] a) {{ a = Tanh(x) }}, "
        "else_branch = e () => (float[1,2,U] b) { b = Neg(x) }>",
        4,
    ),
    "a choice of lengths": (f"{LENGTH}  c = Less(n, k)  w = Where(c, few, k)  f = Cast<to=1>(w)  y = Mul(x, f)", 3),
    "the fewer of two": (f"{LENGTH}  m = Min(n, k)  f = Cast<to=1>(m)  y = Mul(x, f)", 3),
    "the more of two": (f"{LENGTH}  m = Max(n, k)  h = Sub(m, n)  f = Cast<to=1>(h)  y = Add(x, f)", 3),
    "a quotient that is nothing": (f"{LENGTH}  h = Div(n, k)  c = Cast<to=9>(h)  f = Cast<to=1>(c)  y = Mul(x, f)", 3),
    "all that there is": ("y = Relu(x)", 1),
    "no condition at all": (f"{LENGTH}  c = Greater(n, kk)  f = Cast<to=1>(c)  y = Mul(x, f)", 1),
}


def short(body: str):
    used = {
        k: np.int64(v)
        for k, v in {**NUMBERS, "kk": 0}.items()
        if k in body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    return parse(f"agraph (float[1,2,T] x) => (float y) {{ {body} }}", **used)


@pytest.mark.parametrize("name", SHORT)
def test_every_length_that_is_promised_is_exact(name):
    body, least = SHORT[name]
    model = short(body)
    for end in (False, True):
        assert pulsify(model, pulse=2, end_of_stream=end).spec["least_frames"] == least, end
    every_length(model)
    pulsed = pulsify(model, pulse=2, end_of_stream=True)
    found = verify(model, pulsed)
    assert found.ok and min(found.lengths) >= least, found


@pytest.mark.parametrize(
    "body",
    [
        "y = ReduceMean<axes=[2], keepdims=1>(a)",
        "y = ReduceMax<axes=[2], keepdims=1>(a)",
        "y = Gather<axis=2>(a, last)",
        "t = Transpose<perm=[2, 0, 1]>(a)  z, y = RNN<hidden_size=2>(t, w, r)",
        "y, z = TopK<axis=2>(a, two)",
        "y = GlobalAveragePool(a)",
    ],
)
def test_running_values_of_the_first_frames_forget_what_comes_later(body):
    model = parse(
        f"agraph (float[1,2,T] x) => (float y) {{ a = Slice(x, zero, four, two)  {body} }}",
        zero=np.int64([0]),
        four=np.int64([4]),
        two=np.int64([2]),
        last=np.int64([-1]),
        w=rand(1, 2, 2),
        r=rand(1, 2, 2),
    )
    pulsed = check(model)
    assert pulsed.spec["state_bytes"] < 100 and pulsed.spec["outputs"][0]["exact_every_pulse"]


def test_running_values_of_first_frames_that_come_late_wait_for_them():
    model = parse(
        "agraph (float[1,2,T] x) => (float y) { c = Conv(x, w)  a = Slice(c, zero, four, two)  y = "
        "ReduceMean<axes=[2], keepdims=1>(a) }",
        zero=np.int64([0]),
        four=np.int64([4]),
        two=np.int64([2]),
        w=rand(2, 2, 3),
    )
    check(model)
    every_length(model)
    assert [pulsify(model, pulse=pulse).spec["outputs"][0]["exact_every_pulse"] for pulse in (1, 8)] == [False, True]


T, N, M = Length.symbol(TIME), Length.symbol("N"), Length.symbol("M")


@pytest.mark.parametrize(
    "decide, least",
    [
        (lambda: holds(T, 5, 1), 6),
        (lambda: holds(T, 5, 0, 1), 5),
        (lambda: holds(5, T, 1), 5),
        (lambda: holds(T.floordiv(4), 2, 1), 12),
        (lambda: holds(T.floordiv(2) * 2, T, -1, 0), 1),
        (lambda: holds(T, 70000, 1), 70001),
        (lambda: larger(T - 3, 0), 3),
        (lambda: smaller(T, T - 4), 1),
        (lambda: holds(T * T, 99, 1), 10),
        (lambda: holds(2**62, T, 1), 1),
    ],
)
def test_from_which_length_on_a_decision_is_true(decide, least):
    with assuming() as found:
        assert decide() is not None
    assert found.least == least


@pytest.mark.parametrize(
    "a, b, signs, answer",
    [
        (N, 3, [1], None),
        (N, 3, [0], None),
        (N, 100, [-1], None),
        (N, 0, [1], True),
        (N, -1, [0], False),
        (N, 1, [-1], False),
        (N, 1, [0], None),
        (2 * N, N, [1], True),
        (N, M, [0], None),
        (N, M, [1], None),
        (N * M, 0, [1], True),
        (N * T, 5, [1], True),
        (T, N, [1], None),
        (N * N - 5 * N, 0, [1], None),
    ],
)
def test_sizes_that_do_not_follow_the_stream_may_be_anything(a, b, signs, answer):
    assert holds(a, b, *signs) is answer


def test_the_larger_of_a_size_and_the_least_it_may_be():
    assert larger(N, 1) == N and smaller(1, N) == Length.of(1)
    assert larger(N, 2) not in (N, Length.of(2)) and larger(N, 2).at(9, others=1) == 2


@pytest.mark.parametrize("op_type", ["Greater", "Less", "Equal"])
def test_a_condition_on_a_size_that_is_known_by_name_only_is_refused(op_type):
    model = parse(
        "agraph (float[N,2,T] x) => (float[N,2,T] y) { s = Shape(x)  n = Gather<axis=0>(s, zero)  g = "
        f"{op_type}(n, k)  c = Neg(x)  y = Where(g, x, c) }}",
        zero=np.int64(0),
        k=np.int64(3),
    )
    refused(model, "it compares N with 3", op_type=op_type)


def test_a_condition_that_every_size_meets_is_decided():
    check(
        parse(
            "agraph (float[N,2,T] x) => (float[N,2,T] y) { s = Shape(x)  n = Gather<axis=0>(s, zero)  g = "
            "Greater(n, zero)  c = Neg(x)  y = Where(g, x, c) }",
            zero=np.int64(0),
        ),
        rows=2,
    )
