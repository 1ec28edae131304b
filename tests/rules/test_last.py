import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}
START = "agraph (float[1,4,T] x) => (float[A,B,C] y) { a = Conv<pads=[1,1]>(x, w, b)\n"


def ints(**values: list[int] | int) -> dict[str, np.ndarray]:
    return {k: np.asarray(v, np.int64) for k, v in values.items()}


@pytest.mark.parametrize(
    "start, end, step", [(-1, 2**62, 1), (-5, 2**31 - 1, 1), (-9, 2**62, 2), (-9, -2, 3), (-12, -11, 1)]
)
def test_slice(start, end, step):
    spec = check(
        parse(START + "y = Slice(a, s, e, i, n) }", **ints(s=[start], e=[end], i=[2], n=[step]), **WEIGHTS)
    ).spec
    assert spec["outputs"][0]["kind"] == "prefix" and spec["outputs"][0]["shape"] == [
        1,
        4,
        len(range(45)[start:end:step]),
    ]


def test_exact_at_every_pulse_without_right_context():
    spec = check(
        parse("agraph (float[1,4,T] x) => (float[1,4,5] y) { y = Slice(x, s, e, i) }", **ints(s=[-7], e=[-2], i=[2]))
    ).spec
    assert spec["outputs"][0]["exact_every_pulse"] is True


def test_padded_on_the_left():
    spec = check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,24] y) { p = Pad(x, pads)
        y = Slice(p, s, e, i) }""",
            **ints(pads=[0, 0, 23, 0, 0, 0], s=[-24], e=[2**62], i=[2]),
        ),
        pulses=(1, 2, 3, 7, 32),
    ).spec
    assert spec["outputs"][0]["exact_every_pulse"] is True


def test_padded_on_both_sides():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,9] y) { p = Pad(x, pads, c)
        y = Slice(p, s, e, i) }""",
            c=np.float32(0.5),
            **ints(pads=[0, 0, 9, 0, 0, 3], s=[-9], e=[2**62], i=[2]),
        )
    )


@pytest.mark.parametrize("mode", ["edge", "reflect"])
@pytest.mark.parametrize("start, end", [(-1, 2**62), (-2, -1), (-4, 2**62)])
def test_mirrored_at_both_ends(mode, start, end):
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,4,U] y) {{ p = Pad<mode="{mode}">(x, pads)
        y = Slice(p, s, e, i) }}""",
            **ints(pads=[0, 0, 3, 0, 0, 2], s=[start], e=[end], i=[2]),
        )
    )


@pytest.mark.parametrize("index", [-1, [-1], [-2, -1], [[-1, -4], [-3, -3]]])
def test_gather(index):
    check(
        parse(
            "agraph (float[1,4,T] x) => (float y) { a = Conv<pads=[1,1]>(x, w, b)\n y = Gather<axis=2>(a, i) }",
            **ints(i=index),
            **WEIGHTS,
        )
    )


def test_gather_by_the_length():
    check(
        parse(
            """agraph (float[1,T,4] x) => (float[1,4] y) { n = Shape(x)
        t = Gather(n, one)
        i = Sub(t, one)
        y = Gather<axis=1>(x, i) }""",
            **ints(one=1),
        )
    )


def test_then_downsampled_and_batched():
    spec = check(
        parse(
            """agraph (float[N,4,T] x) => (float[N,4,3] y) { a = Conv<strides=[2], pads=[1,1]>(x, w, b)
        y = Slice(a, s, e, i) }""",
            **ints(s=[-3], e=[2**62], i=[2]),
            **WEIGHTS,
        ),
        axes={"x": 2},
    ).spec
    assert spec["states"][-1]["shape"][0] == "N"


def test_last_frame_of_a_recurrence():
    check(
        parse(
            """agraph (float[T,1,4] x) => (float[1,5] y) { h = GRU<hidden_size=5, linear_before_reset=1>(x, gw, gr, gb)
        s = Squeeze(h, one)
        y = Gather(s, last) }""",
            gw=rand(1, 15, 4),
            gr=rand(1, 15, 5),
            gb=rand(1, 30),
            **ints(one=[1], last=-1),
        )
    )


def test_booleans():
    check(
        parse("agraph (bool[1,4,T] x) => (bool[1,4,2] y) { y = Slice(x, s, e, i) }", **ints(s=[-2], e=[2**62], i=[2]))
    )


def test_fed_back_is_refused():
    refused(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,T] y) { l = Slice(x, s, e, i)
        y = Sub(x, l) }""",
            **ints(s=[-1], e=[2**62], i=[2]),
        ),
        "it brings a value over the whole stream back to the frames",
    )


def test_half_of_the_stream_is_refused():
    refused(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) { n = Shape<start=2>(x)
        h = Div(n, two)
        y = Slice(x, h, n, two) }""",
            **ints(two=[2]),
        ),
        "before the end of the whole stream",
        op_type="Slice",
    )
