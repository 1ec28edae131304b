import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

W = {"w": rand(3, 3, 3), "b": rand(3)}


def ends(before, after):
    return np.array([0, 0, before, 0, 0, after])


@pytest.mark.parametrize("before, after, delay", [(2, 0, 1), (0, 2, 3), (3, -1, 0), (-2, 1, 5), (-1, -3, 4)])
def test_constant_then_conv(before, after, delay):
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        p = Pad(a, pads, seven)
        y = Conv(p, w, b) }""",
            **W,
            pads=ends(before, after),
            seven=np.array(7, np.float32),
        ),
        delays={"y": max(0, delay)},
    )


def test_constants_of_two_kinds_meet():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        p = Pad(x, pads, seven)
        q = Pad(x, pads)
        r = Pad<mode="edge">(x, pads)
        s = Sum(p, q, r)
        t = Pad(s, more, seven)
        y = Conv(t, w, b) }""",
            **W,
            pads=ends(2, 1),
            more=ends(1, 2),
            seven=np.array(7, np.float32),
        ),
        delays={"y": 1},
    )


PADDED_TO_WHOLE_FRAMES = """agraph (float[1,3,T] x) => (float[1,3,U] y) {{
    a = Conv<pads=[1,1]>(x, w, b)
    s = Shape(a)
    n = Gather(s, two)
    m = Sub(n, four)
    f = Cast<to=1>(m)
    d = Div(f, three)
    u = Ceil(d)
    i = Cast<to=7>(u)
    j = Mul(i, step)
    k = Add(j, four)
    l = Sub(k, n)
    h = Unsqueeze(l, zero)
    pads = Concat<axis=0>(before, h)
    p = Pad<mode="{mode}">(a, pads)
    y = Conv<strides=[3]>(p, v, b) }}"""


@pytest.mark.parametrize("mode, delay", [("constant", 0), ("edge", 0), ("reflect", 1)])
@pytest.mark.parametrize("length", [43, 44, 45])
def test_after_as_many_as_make_the_last_frame_whole(mode, delay, length):
    check(
        parse(
            PADDED_TO_WHOLE_FRAMES.format(mode=mode),
            **W,
            v=rand(3, 3, 4),
            two=np.array(2),
            four=np.array(4),
            three=np.array(3, np.float32),
            step=np.array(3),
            zero=np.array([0]),
            before=np.array([0, 0, 2, 0, 0]),
        ),
        length=length,
        delays={"y": delay},
        absorbed=True,
    )


def test_padded_to_a_multiple_of_the_length_is_refused():
    refused(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        s = Shape(x)
        n = Gather(s, two)
        pads = Concat<axis=0>(before, n)
        p = Pad<mode="reflect">(x, pads)
        y = Conv(p, w, b) }""",
            **W,
            two=np.array([2]),
            before=np.array([0, 0, 0, 0, 0]),
        ),
        "more and more with the length of the stream",
        op_type="Pad",
        end=True,
    )


def test_at_the_start_by_the_length_is_refused():
    refused(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        s = Shape(x)
        n = Gather(s, two)
        pads = Concat<axis=0>(before, n, after)
        y = Pad(x, pads) }""",
            two=np.array([2]),
            before=np.array([0, 0]),
            after=np.array([0, 0, 0]),
        ),
        "how much it pads at the start depends",
        op_type="Pad",
    )


def test_padded_to_the_length_of_a_skip_connection() -> None:
    """A decoder whose frames are one too few for streams of odd length pads half of what is missing at either end."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,T] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        p = MaxPool<kernel_shape=[2], strides=[2]>(a)
        u = ConvTranspose<strides=[2]>(p, v, b)
        n = Shape<start=2>(a)
        m = Shape<start=2>(u)
        d = Sub(n, m)
        before = Div(d, two)
        after = Sub(d, before)
        pads = Concat<axis=0>(none, before, none, after)
        e = Pad(u, pads)
        c = Concat<axis=1>(a, e)
        y = Conv<pads=[1,1]>(c, z, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
            v=rand(2, 2, 2),
            z=rand(2, 4, 3),
            two=np.int64([2]),
            none=np.int64([0, 0]),
        )
    )


@pytest.mark.parametrize("opset", [9, 10, 11])
def test_time_and_another_axis_at_once_in_old_opsets(opset):
    """Pads were attributes before opset 11."""
    how = "Pad<pads=[0,0,3,1,0,0,4,2], value=2.0>(x)" if opset < 11 else "Pad(x, pads, two)"
    more = dict(pads=np.asarray([0, 0, 3, 1, 0, 0, 4, 2]), two=np.float32(2)) if opset >= 11 else {}
    check(
        parse(
            f"""<ir_version: 6, opset_import: ["": {opset}]> agraph (float[1,2,T,4] x) => (float[1,2,U,7] y) {{
        p = {how}
        y = Conv(p, w, b) }}""",
            w=rand(2, 2, 4, 1),
            b=rand(2),
            **more,
        ),
        delays={"y": 0},
    )


def test_padding_to_one_length():
    """Up to 64 frames: longer streams are cropped, which is all that a stream without an end sees."""
    model = parse(
        """agraph (float[1, 2, T] x) => (float[1, 2, U] y) {
        n = Shape<start=2, end=3>(x)
        after = Sub(wanted, n)
        pads = Concat<axis=0>(none, none, none, none, none, after)
        y = Pad(x, pads) }""",
        wanted=np.asarray([64]),
        none=np.asarray([0]),
    )
    check(model, both=False)
    refused(model, "crops some streams and pads others", op_type="Pad", end=True)


@pytest.mark.parametrize("end", [False, True])
def test_padding_behind_a_cut(end):
    """The stream goes on where the cut one ends, and what pads it can't be in both places."""
    model = parse(
        """agraph (float[1, 3, T] x) => (float[1, 3, U] y) {
        c = Slice(x, none, thirty, two)
        y = Conv<pads=[1, 1]>(c, w, b) }""",
        **W,
        none=np.asarray([0]),
        thirty=np.asarray([30]),
        two=np.asarray([2]),
    )
    refused(model, "which comes before the end of the stream", op_type="Conv", end=end)
