import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

W = {"w": rand(1, 1, 3), "b": rand(1)}
NUMBERS = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "minus": np.array([1])}


def frames(hop, span, *, column="Unsqueeze(r, minus)", offsets=None, result="float[1,U,6] y"):
    offsets = np.arange(span) if offsets is None else np.asarray(offsets)
    return parse(
        f"""agraph (float[1,1,T] x) => ({result}) {{
        a = Conv<pads=[1,1]>(x, w, b)
        f = Squeeze(a, minus)
        s = Shape(f)
        n = Gather(s, one)
        l = Sub(n, shorter)
        r = Range(zero, l, hop)
        c = {column}
        i = Add(c, offsets)
        y = Gather<axis=1>(f, i) }}""",
        **W,
        **NUMBERS,
        hop=np.array(hop),
        shorter=np.array(int(offsets.max())),
        offsets=offsets,
    )


@pytest.mark.parametrize("hop, span, delay", [(1, 6, 6), (4, 6, 1), (4, 16, 4), (6, 6, 1), (7, 3, 0)])
def test_frames_at_a_hop(hop, span, delay):
    check(frames(hop, span, result=f"float[1,U,{span}] y"), delays={"y": delay})


def test_offsets_with_gaps_and_a_fixed_start():
    check(frames(3, 0, offsets=[9, 2, 5], result="float[1,U,3] y"), delays={"y": 3})


def test_time_last():
    check(
        parse(
            """agraph (float[1,1,T] x) => (float[1,6,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        f = Squeeze(a, minus)
        s = Shape(f)
        n = Gather(s, one)
        l = Sub(n, five)
        r = Range(zero, l, four)
        i = Add(r, offsets)
        y = Gather<axis=1>(f, i) }""",
            **W,
            **NUMBERS,
            five=np.array(5),
            four=np.array(4),
            offsets=np.arange(6)[:, None],
        ),
        delays={"y": 1},
    )


def test_one_frame_ahead():
    check(frames(1, 0, column="Identity(r)", offsets=np.array(1), result="float[1,U] y"), delays={"y": 2})


def test_framed_after_reflection():
    check(
        parse(
            """agraph (float[1,1,T] x) => (float[1,1,U,6] y) {
        p = Pad<mode="reflect">(x, pads)
        s = Shape(p)
        n = Gather(s, two)
        l = Sub(n, five)
        r = Range(zero, l, one)
        c = Unsqueeze(r, minus)
        i = Add(c, offsets)
        y = Gather<axis=2>(p, i) }""",
            **NUMBERS,
            five=np.array(5),
            pads=np.array([0, 0, 3, 0, 0, 3]),
            offsets=np.arange(6),
        ),
        delays={"y": 3},
        absorbed=True,
    )


def test_by_data_is_refused():
    refused(
        parse("""agraph (float[1,1,T] x, int64[T] i) => (float[1,1,U] y) { y = Gather<axis=2>(x, i) }"""),
        "it looks up one stream in another",
        op_type="Gather",
        axes={"x": 2, "i": 0},
    )


def test_another_pattern_is_refused():
    refused(
        frames(1, 0, column="Mod(r, two)", offsets=np.array(1), result="float[1,U] y"),
        "do not follow each other at a fixed hop",
        op_type="Gather",
    )


def test_backwards_is_refused():
    refused(frames(1, 0, column="Neg(r)", offsets=np.array(1), result="float[1,U] y"), "", op_type="Gather")


def test_fixed_frames_are_refused():
    refused(
        parse("""agraph (float[1,1,T] x) => (float[1,1,2] y) { y = Gather<axis=2>(x, i) }""", i=np.array([3, 0])),
        "it picks frames of the stream by index",
        op_type="Gather",
    )
