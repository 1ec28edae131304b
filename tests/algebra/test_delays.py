"""Joins, rates and several inputs and outputs: what arrives when, and how much is remembered."""

from __future__ import annotations

import numpy as np
import pytest

from pulsify_onnx.api import pulsify
from pulsify_onnx.errors import PulseDoesNotFit
from testing.oracle import check, parse, rand, refused

PULSES = (1, 4, 7)
W = {"w": rand(2, 2, 3), "b": rand(2)}


def test_branches_of_other_delays() -> None:
    """An inception block: every branch waits for the slowest, and no longer."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,8,U] y, float[1,2,V] quick) {
        one = Conv(x, u)
        three = Conv<pads=[1,1]>(x, w, b)
        five = Conv<pads=[2,2]>(x, v, b)
        pool = MaxPool<kernel_shape=[3], pads=[1,1]>(x)
        quick = Identity(one)
        y = Concat<axis=1>(one, three, five, pool) }""",
            u=rand(2, 2, 1),
            v=rand(2, 2, 5),
            **W,
        ),
        delays={"y": 2, "quick": 0},
        pulses=PULSES,
    )


def test_residual_stack() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        r = Add(a, x)
        c = Conv<pads=[2,2], dilations=[2]>(r, w, b)
        s = Add(c, r)
        d = Conv<pads=[2,0]>(s, w, b)
        y = Add(s, d) }""",
            **W,
        ),
        delays={"y": 3},
        pulses=PULSES,
        state_bytes=2 * 4 * (2 + 4 + 2) + 8,
    )


def test_padded_and_cropped_branches() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv(x, w, b)
        c = Slice(x, one, minus, two)
        p = Pad(a, pads)
        q = Mul(p, x)
        r = Slice(q, one, minus, two)
        s = Add(c, a)
        y = Sub(s, r) }""",
            one=np.array([1]),
            minus=np.array([-1]),
            two=np.array([2]),
            pads=np.array([0, 0, 1, 0, 0, 1]),
            **W,
        ),
        delays={"y": 2},
        pulses=PULSES,
    )


@pytest.mark.parametrize("levels, delay", [(1, 3), (2, 7), (3, 15)])
def test_u_net(levels: int, delay: int) -> None:
    """Down by strides, up by transposed convolutions, skips between: runs for lengths of whole units only."""
    lines, skips, x = [], [], "x"
    for k in range(levels):
        lines += [f"e{k} = Conv<pads=[1,1]>({x}, w, b)", f"d{k} = Conv<pads=[1,1], strides=[2]>(e{k}, w, b)"]
        skips.append(f"e{k}")
        x = f"d{k}"
    for k in reversed(range(levels)):
        lines += [
            f"t{k} = ConvTranspose<strides=[2], pads=[1,1]>({x}, v, b)",
            f"u{k} = Concat<axis=1>(t{k}, {skips[k]})",
            f"r{k} = Conv(u{k}, n, b)",
        ]
        x = f"r{k}"
    model = parse(
        f"agraph (float[1,2,T] x) => (float[1,2,U] y) {{ {' '.join(lines)} y = Identity({x}) }}",
        v=rand(2, 2, 4),
        n=rand(2, 4, 1),
        **W,
    )
    check(model, pulses=(1, 9), length=40, unit=2**levels)
    spec = pulsify(model, pulse=2**levels).spec
    assert spec["pulse_multiple"] == 2**levels
    assert spec["outputs"][0]["delay"] == delay
    with pytest.raises(PulseDoesNotFit) as caught:
        pulsify(model, pulse=2**levels + 1)
    assert caught.value.smallest == 2**levels


def test_outputs_of_other_rates_and_delays() -> None:
    pulsed = check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,A] a, float[1,2,B] half, float[1,2,C] third, float[1,2,D] twice) {
        a = Conv<pads=[1,1]>(x, w, b)
        half = Conv<pads=[1,1], strides=[2]>(a, w, b)
        third = MaxPool<kernel_shape=[3], strides=[3]>(a)
        twice = ConvTranspose<strides=[2]>(a, w, b) }""",
            **W,
        ),
        delays={"a": 1, "half": 1, "third": 1, "twice": 2},
        pulses=PULSES,
    )
    assert [o["rate"] for o in pulsed.spec["outputs"]] == [[1, 1], [1, 2], [1, 3], [2, 1]]
    assert pulsed.spec["pulse_multiple"] == 6


@pytest.mark.parametrize("down", (2, 3))
def test_inputs_of_two_rates(down: int) -> None:
    """The second input meets the first behind a stride: it runs at that rate."""
    pulsed = check(
        parse(
            f"""agraph (float[1,2,T] x, float[1,2,S] z) => (float[1,2,U] y) {{
        a = Conv<pads=[1,1], strides=[{down}]>(x, w, b)
        c = Conv<pads=[1,1]>(z, w, b)
        y = Add(a, c) }}""",
            **W,
        ),
        pulses=(1, 6),
        unit=down,
        length=36,
    )
    rates = {i["name"]: i["rate"] for i in pulsed.spec["inputs"]}
    assert rates == {"x": [down, 1], "z": [1, 1]}


def test_inputs_of_rates_three_to_two() -> None:
    pulsed = check(
        parse(
            """agraph (float[1,2,T] x, float[1,2,S] z) => (float[1,2,U] y) {
        a = Conv<pads=[1,1], strides=[3]>(x, w, b)
        c = Conv<pads=[1,1], strides=[2]>(z, w, b)
        y = Add(a, c) }""",
            **W,
        ),
        pulses=(2, 6),
        unit=2,
        length=36,
    )
    rates = {i["name"]: i["rate"] for i in pulsed.spec["inputs"]}
    assert rates == {"x": [3, 2], "z": [1, 1]}
    assert pulsed.spec["pulse_multiple"] == 2


def test_static_inputs_beside_the_stream() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x, float[1,2,1] gain, float[2] shift) => (float[1,2,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        m = Mul(a, gain)
        s = Reshape(shift, column)
        n = Add(m, s)
        y = Conv<pads=[1,1]>(n, w, b) }""",
            column=np.array([1, 2, 1]),
            **W,
        ),
        axes={"x": 2},
        delays={"y": 2},
        pulses=PULSES,
    )


def test_lengths_that_never_meet_are_refused() -> None:
    refused(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv(x, w, b)
        y = Add(a, x) }""",
            **W,
        ),
        "different lengths",
        op_type="Add",
    )


def test_a_flip_is_refused() -> None:
    refused(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) { y = Slice(x, last, first, two, back) }""",
            last=np.array([-1]),
            first=np.array([-(2**62)]),
            two=np.array([2]),
            back=np.array([-1]),
        ),
        "turns the stream around",
        op_type="Slice",
    )


def test_positions_are_had_at_any_delay_without_a_state() -> None:
    """A table added behind a delay, and one added before: the same frames of it."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        s = Shape(x)
        n = Gather<axis=0>(s, two)
        r = Range(zero, n, one)
        f = Cast<to=1>(r)
        g = Sin(f)
        a = Conv<pads=[1,1]>(x, w, b)
        c = Add(a, g)
        d = Conv<pads=[1,1]>(c, w, b)
        y = Mul(d, g) }""",
            two=np.int64(2),
            zero=np.int64(0),
            one=np.int64(1),
            **W,
        ),
        delays={"y": 2},
        pulses=PULSES,
        state_bytes=2 * 2 * 2 * 4 + 8,
    )


def test_reads_behind_a_recurrence() -> None:
    """What warms up must not reach what is carried, nor what is carried reach the frames before it began."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,1,2] h) {
        a = Conv<pads=[1,1], strides=[2]>(x, w, b)
        c = Conv<pads=[1,1]>(a, w, b)
        t = Transpose<perm=[2,0,1]>(c)
        g, h = GRU<hidden_size=2>(t, gw, gr, gb, , h0)
        q = Squeeze(g, one)
        s = Transpose<perm=[1,2,0]>(q)
        u = ConvTranspose<strides=[2]>(s, w, b)
        k = CumSum(u, two)
        y = Conv<pads=[1,1]>(k, w, b) }""",
            gw=rand(1, 6, 2),
            gr=rand(1, 6, 2),
            gb=rand(1, 12),
            h0=rand(1, 1, 2),
            one=np.array([1]),
            two=np.int64(2),
            **W,
        ),
        pulses=PULSES,
    )
