"""Reshape and its kin: the stream as one factor of a dimension."""

from __future__ import annotations

import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

PULSES = (1, 3, 4)
SAME = "a = Conv<pads=[1,1]>(x, w, b) t = Transpose<perm=[0,2,1]>(a)"
WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}


def shaped(body: str, out: str = "float[1,U,V] y", **more: np.ndarray) -> object:
    return parse(f"agraph (float[1,4,T] x) => ({out}) {{ {SAME} {body} }}", **WEIGHTS, **more)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


@pytest.mark.parametrize("target", ((1, -1, 4), (0, -1, 4), (0, 0, 2, 2), (-1, 4), (1, -1, 1, 4), (-1, 2, 2)))
def test_frames_keep_their_values(target: tuple[int, ...]) -> None:
    check(
        shaped("y = Reshape(t, s)", f"float[{','.join('ABCD'[: len(target)])}] y", s=ints(*target)),
        delays={"y": 1},
        pulses=PULSES,
    )


@pytest.mark.parametrize("factor", (2, 4))
def test_interleaved_up(factor: int) -> None:
    """[T, 4] to [T*f, 4/f]: delays scale with the rate."""
    check(
        shaped(
            "r = Reshape(t, s) u = Transpose<perm=[0,2,1]>(r) y = Conv<pads=[1,1]>(u, v)",
            s=ints(1, -1, 4 // factor),
            v=rand(2, 4 // factor, 3, seed=3),
        ),
        delays={"y": factor + 1},
        pulses=PULSES,
    )


@pytest.mark.parametrize(
    "factor, lookahead, delay", [(2, 1, 1), (2, 2, 1), (2, 3, 2), (3, 1, 1), (3, 3, 1), (3, 4, 2), (4, 5, 2)]
)
def test_frames_together(factor: int, lookahead: int, delay: int) -> None:
    """Behind a delay that is no multiple of the factor."""
    model = parse(
        f"""agraph (float[1,4,T] x) => (float[1,U,V] y) {{
        a = Conv<pads=[{lookahead},{lookahead}]>(x, w, b)
        t = Transpose<perm=[0,2,1]>(a)
        y = Reshape(t, s) }}""",
        w=rand(4, 4, 2 * lookahead + 1),
        b=rand(4),
        s=ints(1, -1, 4 * factor),
    )
    check(model, delays={"y": delay}, pulses=PULSES, unit=factor)


def test_down_and_up_again() -> None:
    check(
        shaped(
            "r = Reshape(t, s) m = MatMul(r, u) y = Reshape(m, z)", s=ints(1, -1, 12), u=rand(12, 12), z=ints(1, -1, 4)
        ),
        delays={"y": 3},
        unit=3,
        pulses=PULSES,
    )


def test_shape_subgraph() -> None:
    """As TorchScript exports a view: Shape, Gather, Concat, Reshape."""
    check(
        shaped(
            """s = Shape(t) n = Gather<axis=0>(s, one) m = Unsqueeze(n, zero) c = Concat<axis=0>(lead, m, minus)
        y = Reshape(t, c)""",
            one=np.int64(1),
            zero=ints(0),
            lead=ints(1),
            minus=ints(-1),
        ),
        delays={"y": 1},
        pulses=PULSES,
    )


def test_computed_pads() -> None:
    """Pads that exporters compute as constants of constants."""
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        z = ConstantOfShape<value=int64[1]{0}>(n)
        c = Concat<axis=0>(p, z)
        r = Reshape(c, two)
        f = Slice(r, minus, far, zero, minus)
        t = Transpose<perm=[1,0]>(f)
        q = Reshape(t, flat)
        a = Pad(x, q)
        y = Conv(a, w, b) }""",
            n=ints(4),
            p=ints(2, -1),
            two=ints(-1, 2),
            minus=ints(-1),
            far=ints(-(2**62)),
            zero=ints(0),
            flat=ints(-1),
            **WEIGHTS,
        ),
        delays={"y": 0},
        pulses=PULSES,
    )


def test_borders_pass() -> None:
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        p = Pad(x, pads)
        t = Transpose<perm=[0,2,1]>(p)
        r = Reshape(t, s)
        f = Reshape(r, back)
        u = Transpose<perm=[0,2,1]>(f)
        y = Conv(u, w, b) }""",
            pads=ints(0, 0, 2, 0, 0, 0),
            s=ints(0, -1, 2, 2),
            back=ints(0, 0, -1),
            **WEIGHTS,
        ),
        delays={"y": 0},
        pulses=PULSES,
    )


def test_squeeze_unsqueeze_flatten() -> None:
    check(
        shaped(
            "q = Squeeze(t, zero) u = Unsqueeze(q, two) f = Flatten<axis=1>(u) y = Unsqueeze(f, zero)",
            zero=ints(0),
            two=ints(1, 3),
        ),
        delays={"y": 1},
        pulses=PULSES,
    )


def test_merging_the_stream_under_a_slower_axis_is_refused() -> None:
    refused(
        parse("agraph (float[1,4,T] x) => (float[U] y) { y = Reshape(x, s) }", s=ints(-1)),
        "an axis is merged with time in it",
        op_type="output",
    )


def test_a_length_written_into_the_shape_is_refused() -> None:
    refused(
        parse("agraph (float[1,T,4] x) => (float[2,U] y) { y = Reshape(x, s) }", s=ints(2, 15)),
        "fixed number of frames",
        op_type="Reshape",
    )


def test_flattening_the_stream_into_features_is_refused() -> None:
    refused(parse("agraph (float[1,4,T] x) => (float[1,U] y) { y = Flatten(x) }"), "features", op_type="Flatten")


MERGED = """agraph (float[1,T,3,4] x) => (float[1,U,3,4] y) {
    n = Transpose<perm=[2,1,0,3]>(x)
    s = Shape(n)
    t = Slice(s, one, two)
    flat_ = Concat<axis=0>(minus, four)
    flat = Reshape(n, flat_)
    g = Gemm<transB=1>(flat, w, b)
    r = Relu(g)
    back_ = Concat<axis=0>(three, t, one, four)
    back = Reshape(r, back_)
    y0 = Transpose<perm=[2,1,0,3]>(back)
    y = Add(y0, x) }"""


def numbers():
    return dict(
        one=np.asarray([1]),
        two=np.asarray([2]),
        three=np.asarray([3]),
        four=np.asarray([4]),
        minus=np.asarray([-1]),
        w=rand(4, 4),
        b=rand(4),
    )


def test_a_slower_axis_merged_before_time_and_split_again():
    check(parse(MERGED, **numbers()), axes={"x": 1}, delays={"y": 0})


def test_merged_before_time_behind_a_delay():
    check(
        parse(
            MERGED.replace("float[1,T,3,4] x", "float[1,3,T,4] x0").replace(
                "{",
                """{
        c = Conv<pads=[1,1,1,1]>(x0, cw, cb)
        x = Transpose<perm=[0,2,1,3]>(c)""",
                1,
            ),
            cw=rand(3, 3, 3, 3),
            cb=rand(3),
            **numbers(),
        ),
        axes={"x0": 2},
        delays={"y": 1},
    )


def test_heads_and_a_slower_axis_merged_at_once():
    """[n, T*h, d] -> [n*T, h*d], as multi-head attention over sensors writes it."""
    text = """agraph (float[1,T,3,4] x) => (float[1,U,3,4] y) {
        n = Transpose<perm=[2,1,0,3]>(x)
        halves = Reshape(n, h)
        r = Tanh(halves)
        flat = Reshape(r, f)
        g = Gemm<transB=1>(flat, w, b)
        s = Shape(x)
        t = Slice(s, one, two)
        back_ = Concat<axis=0>(three, t, one, four)
        back = Reshape(g, back_)
        y = Transpose<perm=[2,1,0,3]>(back) }"""
    check(parse(text, h=np.asarray([3, -1, 2]), f=np.asarray([-1, 4]), **numbers()), axes={"x": 1}, delays={"y": 0})


def test_rows_out_of_order_are_refused_elsewhere():
    text = """agraph (float[3,T,4] x) => (float[U,4] y) {
        flat = Reshape(x, f)
        z = Unsqueeze(flat, zero)
        m = Transpose<perm=[0,2,1]>(z)
        c = Conv<pads=[1,1]>(m, w)
        y = Squeeze(c, zero) }"""
    refused(
        parse(text, f=np.asarray([-1, 4]), zero=np.asarray([0]), w=rand(4, 4, 3)),
        "lie far apart",
        axes={"x": 1},
        op_type="Conv",
    )
    refused(
        parse("agraph (float[3,T,4] x) => (float[U,4] y) { y = Reshape(x, f) }", f=np.asarray([-1, 4])),
        "merged with time",
        axes={"x": 1},
        op_type="output",
    )


def test_a_batch_of_unknown_size_with_other_axes() -> None:
    check(
        parse(
            """agraph (float[batch,4,T] x) => (float[M,2,T] y) { n = Shape<start=0, end=1>(x)
        m = Mul(n, two)
        target = Concat<axis=0>(m, two, rest)
        y = Reshape(x, target) }""",
            two=np.int64([2]),
            rest=np.int64([-1]),
        ),
        delays={"y": 0},
        pulses=(1, 3),
    )


@pytest.mark.parametrize("back, field", [(4, 1), (8, 2), (2, 1)])
@pytest.mark.parametrize(
    "between, more", [("g = Relu(f)", 0), ("p = Pad(f, front)\n g = Slice(p, zero, ends, zero)", 1)]
)
def test_the_receptive_field_of_frames_taken_apart_and_together(back: int, field: int, between: str, more: int):
    """Parts of a frame that are put together again depend on that frame; shifted by one, they do not."""
    model = parse(
        f"agraph (float[T,4] x) => (float[U,{back}] y) {{ f = Reshape(x, flat)\n {between}\n y = Reshape(g, back) }}",
        flat=np.int64([-1]),
        back=np.int64([-1, back]),
        front=np.int64([1, 0]),
        zero=np.int64([0]),
        ends=np.int64([-1]),
    )
    pulsed = check(model, axes={"x": 0}, unit=2)
    assert pulsed.spec["outputs"][0]["receptive_field"] == (field if not more else {2: 2, 4: 2, 8: 3}[back])
