"""Operators that are not defined everywhere, on frames that are not real: before the first one of a delayed stream,
and past the end.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx.api import pulsify
from testing.oracle import check, parse, rand

KNOWN = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "half": np.float32(1.5),
    "power": np.float32(-1.5),
    "two": np.float32(2),
    "eps": np.float32(1e-5),
    "w": rand(4, 4, 3),
    "s": rand(4),
    "v": rand(4, 4, 5),
    "pads": np.int64([0, 0, 2, 0, 0, 2]),
}

PARTIAL = [
    "q = Log(m)",
    "q = Sqrt(u)",
    "q = Reciprocal(m)",
    "q = Div(x, m)",
    "q = Pow(m, power)",
    "q = Acosh(m)",
    "q = Acos(o)",
    "q = Asin(o)",
    "q = Atanh(o)",
    "q = ReduceLogSum<axes=[1]>(m)",
    "q = MeanVarianceNormalization<axes=[1]>(m)",
    "t = Transpose<perm=[0,2,1]>(m)\n l = LayerNormalization<epsilon=0.0>(t, s)\nq = Transpose<perm=[0,2,1]>(l)",
]


def above(rng: np.random.Generator, shape: list[int]) -> np.ndarray:
    """Between 1 and 2, where every operator here is defined."""
    return rng.uniform(1.01, 1.99, shape).astype(np.float32)


def late(body: str) -> onnx.ModelProto:
    """M is x, one frame late: before frame 0 it is the zeros that a history begins with."""
    return parse(
        f"""agraph (float[1,4,T] x) => (float[1,C,U] y) {{
        a = Conv<pads=[1,1]>(x, w)
        n = Mul(a, zero)
        m = Add(x, n)
        o = Sub(m, half)
        u = Sub(m, one)
        {body} }}""",
        **KNOWN,
    )


@pytest.mark.parametrize("body", PARTIAL)
def test_operators_that_are_not_defined_everywhere(body: str):
    check(late(f"{body}\n y = Identity(q)"), inputs={"x": above}, pulses=(1, 3, 7), delays={"y": 1}, rtol=1e-3)


@pytest.mark.parametrize("body", PARTIAL[:4])
def test_what_they_give_is_remembered(body: str):
    """A history of what is not finite would not be either."""
    check(late(f"{body}\n y = Conv(q, v)"), inputs={"x": above}, pulses=(1, 3, 7), delays={"y": 5})


def test_behind_padding():
    """Frames of a border are frames of the batch model."""
    check(late("p = Pad(m, pads, half)\n q = Log(p)\n y = Conv(q, v)"), inputs={"x": above}, pulses=(1, 3, 7))


def test_the_reciprocal_of_a_frame_number():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w)
        h = Shape(x)
        c = Gather(h, last)
        i = Range(none, c, first)
        j = Add(i, first)
        f = Cast<to=1>(j)
        r = Reciprocal(f)
        y = Mul(a, r) }""",
            **KNOWN,
            last=np.int64(2),
            none=np.int64(0),
            first=np.int64(1),
        ),
        pulses=(1, 3, 7),
        delays={"y": 1},
    )


def nodes(body: str) -> list[str]:
    return [n.op_type for n in pulsify(late(body), pulse=4).proto().graph.node]


@pytest.mark.parametrize(
    "body",
    [
        "k = Mul(m, m)\n l = Add(k, eps)\n q = Sqrt(l)\n y = Div(m, q)",
        "y = Pow(m, two)",
        "k = Exp(m)\n l = Add(k, eps)\n y = Log(l)",
        "k = Abs(m)\n l = Max(k, eps)\n y = Reciprocal(l)",
        "k = Clip(m, eps)\n y = Log(k)",
    ],
)
def test_operands_that_suit_whatever_the_frames_are_cost_nothing(body: str):
    check(late(body), pulses=(1, 3))
    assert "Where" not in nodes(body)


@pytest.mark.parametrize(
    "body",
    [
        "y = Log(m)",
        "k = Clip(m, , half)\n y = Log(k)",
        "k = Mul(m, m)\n y = Reciprocal(k)",
        "k = Add(m, eps)\n y = Sqrt(k)",
        "y = Pow(m, half)",
    ],
)
def test_operands_that_may_not_suit_are_told_apart(body: str):
    assert "Where" in nodes(body)
