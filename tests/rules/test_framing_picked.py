"""Frames picked at their own position, or some frames later: a wire that follows from positions still does."""

import numpy as np
import pytest
from test_attention import BAND, POSITIONS, WHERE, model, window

from testing.oracle import check, every_length, parse, rand, refused

NUMBERS = dict(
    zero=np.int64(0),
    one=np.int64(1),
    two=np.int64(2),
    ax0=np.int64([0]),
    ax1=np.int64([1]),
    last=np.int64([-1]),
    w=rand(4, 4, 3),
    b=rand(4),
    shape=np.int64([1, 1, -1]),
)


def picks(body, source="x"):
    return parse(
        f"""<ir_version: 9, opset_import: ["": 17]>
        agraph (float[1,4,T] x) => (float[1,4,U] y) {{
        a = Conv<pads=[1,1]>(x, w, b)
        s = Shape<start = 2, end = 3>({source})
        n = Squeeze(s)
        p = Range(zero, n, one)
        {body} }}""",
        **NUMBERS,
    )


POSITIONAL = {
    "gather_nd": "at = Unsqueeze(p, last)\n q = GatherND(p, at)",
    "gather": "q = Gather<axis=0>(p, p)",
    "gather_elements": "q = GatherElements<axis=0>(p, p)",
    "of_another_rank": "r = Unsqueeze(p, ax0)\n at = Unsqueeze(r, last)\n q0 = GatherND(p, at)\n q = Squeeze(q0, ax0)",
    "gather_of_another_rank": "r = Unsqueeze(p, ax0)\n q0 = Gather<axis=0>(p, r)\n q = Squeeze(q0, ax0)",
    "two_coordinates": "d = Unsqueeze(p, ax0)\n at = Unsqueeze(p, last)\n null = Mul(at, zero)\n"
    " both = Concat<axis=1>(null, at)\n q = GatherND(d, both)",
    "other_values": "e = Mul(p, two)\n at = Unsqueeze(p, last)\n q = GatherND(e, at)",
    "shifted_back_again": "e = Sub(p, one)\n f = Add(e, one)\n at = Unsqueeze(f, last)\n q = GatherND(p, at)",
}


@pytest.mark.parametrize("body", POSITIONAL)
def test_positions_by_positions(body):
    m = picks(POSITIONAL[body] + "\n z = Cast<to=1>(q)\n y = Add(x, z)")
    pulsed = check(m, delays={"y": 0}, pulses=(1, 3))
    assert {s["role"] for s in pulsed.spec["states"]} == {"clock"}
    every_length(m, pulses=(2,))


@pytest.mark.parametrize("body", POSITIONAL)
def test_positions_by_positions_behind_a_delay(body):
    check(picks(POSITIONAL[body] + "\n z = Cast<to=1>(q)\n y = Add(a, z)"), delays={"y": 1}, pulses=(3,))


STREAMS = {
    "rows": "t = Transpose<perm=[2,0,1]>(a)\n at = Unsqueeze(p, last)\n g = GatherND(t, at)\n"
    " y = Transpose<perm=[1,2,0]>(g)",
    "one_entry": "t = Transpose<perm=[0,2,1]>(a)\n at = Unsqueeze(p, last)\n null = Mul(at, zero)\n"
    " both = Concat<axis=1>(null, at)\n g = GatherND(t, both)\n h = Unsqueeze(g, ax0)\n"
    " y = Transpose<perm=[0,2,1]>(h)",
    "one_channel": "m = Squeeze(a, ax0)\n at = Unsqueeze(p, last)\n null = Mul(at, zero)\n c2 = Add(null, two)\n"
    " both = Concat<axis=1>(c2, at)\n g = GatherND(m, both)\n h = Reshape(g, shape)\n y = Add(a, h)",
    "elements": "m = ReduceMean<axes=[1]>(a)\n i = Reshape(p, shape)\n g = GatherElements<axis=2>(m, i)\n"
    " y = Add(a, g)",
}


@pytest.mark.parametrize("body", STREAMS)
def test_frames_at_their_own_position(body):
    m = picks(STREAMS[body])
    check(m, delays={"y": 1}, pulses=(1, 3))
    every_length(m, pulses=(2,))


LATER = (
    "t = Transpose<perm=[2,0,1]>(x)\n late = {late}\n at = Unsqueeze(late, last)\n g = GatherND(t, at)\n"
    " y = Transpose<perm=[1,2,0]>(g)"
)


def test_frames_some_frames_later():
    m = picks(LATER.format(late="Range(two, n, one)"))
    check(m, delays={"y": 2}, pulses=(1, 3))
    every_length(m, pulses=(2,))


def test_all_frames_but_the_last():
    m = picks("l = Sub(n, one)\n" + LATER.format(late="Range(zero, l, one)"))
    check(m, delays={"y": 0}, pulses=(1, 3))
    every_length(m, pulses=(2,))


def test_frames_after_the_last_one_are_refused():
    refused(picks(LATER.format(late="Add(p, two)")), "after the last one")


@pytest.mark.parametrize(
    "indices", ["i = Sub(p, one)", "i = Div(p, two)", "i = Mul(p, zero)", "e = Mod(p, two)\n i = Add(p, e)"]
)
@pytest.mark.parametrize("pick", ["at = Unsqueeze(i, last)\n q = GatherND(p, at)", "q = GatherElements<axis=0>(p, i)"])
def test_other_frames_are_refused(indices, pick):
    refused(picks(f"{indices}\n {pick}\n z = Cast<to=1>(q)\n y = Add(x, z)"), "pick")


def test_frames_across_another_axis_are_refused():
    """Every row picks frames of its own number."""
    body = (
        "m = Squeeze(x, ax0)\n t = Transpose<perm=[1,0]>(m)\n i = Unsqueeze(p, ax0)\n k = Concat<axis=0>(i, i, i, i)\n"
    )
    refused(picks(body + " g = GatherElements<axis=0>(t, k)\n y = Unsqueeze(g, ax0)"), "pick")


def test_indices_that_differ_from_each_other_are_refused():
    body = "at = Unsqueeze(p, last)\n next = Mul(at, two)\n both = Concat<axis=1>(at, next)\n"
    square = "c = Unsqueeze(p, last)\n e = Mul(c, zero)\n table = Concat<axis=1>(c, e)\n"
    refused(picks(body + square + " q = GatherND(table, both)\n z = Cast<to=1>(q)\n y = Add(x, z)"), "pick")


def test_masks_whose_positions_are_gathered():
    body = POSITIONS.replace(
        "qi = Unsqueeze(i, ax1)", "at = Unsqueeze(i, ax1)\n again = GatherND(i, at)\n qi = Unsqueeze(again, ax1)"
    )
    m = model(BAND.replace(POSITIONS, body), WHERE, **window(3, 1))
    check(m, delays={"y": 1}, pulses=(1, 3))


def test_masks_with_frames_that_are_all_real():
    """The padding mask that is none: ones, looked up by row and key."""
    body = """
        sizes = Unsqueeze(n, ax0)
        row = Concat<axis=0>(ax1, sizes)
        ones = ConstantOfShape<value = int64[1] {1}>(row)
        real = Cast<to=9>(ones)
        at = Unsqueeze(i, ax1)
        null = Mul(at, zero0)
        both = Concat<axis=1>(null, at)
        keys4 = Reshape(both, five)
        seen = GatherND(real, keys4)
        inside = And(open, seen)
    """
    m = model(BAND + body, WHERE.replace("open", "inside"), five=np.int64([1, 1, 1, -1, 2]), **window(3, 1))
    check(m, delays={"y": 1}, pulses=(1, 3))
