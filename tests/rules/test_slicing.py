import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

W = {"w": rand(3, 3, 3), "b": rand(3)}
TWO = np.array([2])


def ints(*values):
    return np.array(values)


@pytest.mark.parametrize("start, step, delay", [(0, 2, 0), (1, 2, 1), (5, 3, 2), (0, 4, 0)])
def test_every_few_frames(start, step, delay):
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        s = Slice(a, start, far, axis, step)
        y = Conv<pads=[1,1]>(s, w, b) }""",
            **W,
            start=ints(start),
            far=ints(2**62),
            axis=TWO,
            step=ints(step),
        ),
        delays={"y": delay + 1},
    )


def test_step_over_padding_and_another_axis():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,2,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        p = Pad(a, pads, seven)
        y = Slice(p, start, end, axes, step) }""",
            **W,
            pads=ints(0, 0, 5, 0, 0, 4),
            seven=np.array(7, np.float32),
            start=ints(1, 2),
            end=ints(3, -1),
            axes=ints(1, 2),
            step=ints(1, 2),
        )
    )


def test_crop_to_what_is_left_of_two_ends():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z) {
        a = Conv<pads=[3,3]>(x, w, b)
        y = Slice(a, two, back, axis)
        z = Conv<pads=[1,1]>(y, w, b) }""",
            **W,
            two=TWO,
            back=ints(-2),
            axis=TWO,
        ),
        delays={"y": 1, "z": 2},
    )


def test_old_slices_and_negative_pads():
    check(
        parse(
            """<ir_version: 4, opset_import: ["": 9]>
        agraph (float[1,3,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        s = Slice<starts=[1], ends=[9223372036854775807], axes=[2]>(a)
        p = Pad<pads=[0,0,-1,0,0,2], value=0.5>(s)
        y = Conv(p, w, b) }""",
            **W,
        ),
        delays={"y": 5},
    )


def test_shifted_by_a_pad_that_crops():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,T] y) {
        p = Pad(x, pads)
        y = Conv<pads=[2,0]>(p, w, b) }""",
            **W,
            pads=ints(0, 0, 1, 0, 0, -1),
        ),
        delays={"y": 0},
    )


def test_split_along_the_stream():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,2] h, float[1,3,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        s = Shape(a)
        n = Gather(s, one)
        m = Sub(n, two)
        l = Concat<axis=0>(two, m)
        h, r = Split<axis=2>(a, l)
        y = Relu(r) }""",
            **W,
            one=ints(2),
            two=TWO,
        ),
        delays={"h": 1, "y": 3},
    )


def test_flip_is_refused():
    refused(
        parse(
            "agraph (float[1,3,T] x) => (float[1,3,T] y) { y = Slice(x, start, end, axis, step) }",
            start=ints(-1),
            end=ints(-(2**62)),
            axis=TWO,
            step=ints(-1),
        ),
        "turns the stream around",
        op_type="Slice",
    )


def test_split_into_equal_parts_is_refused():
    refused(
        parse("""agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,U] z) { y, z = Split<axis=2>(x) }"""),
        "it cuts the whole stream into equal parts",
        op_type="Split",
    )


def test_embedding_after_a_crop_waits_for_what_may_be_the_end():
    check(
        parse(
            """agraph (int64[T] x) => (float[U,4] y, float[V,4] z) {
        c = Slice(x, k0, k1)
        y = Gather(table, c)
        u = Unsqueeze(c, one)
        i = Expand(u, wide)
        z = GatherElements(table, i) }""",
            table=rand(3, 4),
            k0=np.int64([0]),
            k1=np.int64([-2]),
            one=np.int64([1]),
            wide=np.int64([1, 4]),
        ),
        delays={"y": 0},
    )


@pytest.mark.parametrize("start", [0, 1, 5])
def test_table_of_positions_from_a_start(start):
    """As many rows of a table as there are frames, from a fixed row on."""
    check(
        parse(
            """agraph (float[1,T,3] x) => (float[1,T,3] y) {
        s = Shape(x)
        n = Slice(s, one, two, zero)
        end = Add(n, start)
        rows = Slice(table, start, end, zero)
        y = Add(x, rows) }""",
            table=rand(600, 3, seed=4),
            one=ints(1),
            two=TWO,
            zero=ints(0),
            start=ints(start),
        ),
        delays={"y": 0},
        limit=500,
    )
