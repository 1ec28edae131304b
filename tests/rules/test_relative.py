"""Relative positions by pad, reshape and slice, as Transformer-XL and Conformer encoders have them."""

import numpy as np
import pytest

from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, parse, rand, refused

D, H, ROWS = 4, 2, 512


def constants(**more):
    base = dict(
        one0=np.int64(1),
        zero0=np.int64(0),
        minus=np.int64(-1),
        two0=np.int64(2),
        ax0=[0],
        ax1=[1],
        ax2=[2],
        ax3=[3],
        one=[1],
        neg1=[-1],
        zero=[0],
        big=[2**62],
        ninf=np.float32(-np.inf),
        scale=np.float32(1.5),
        left=np.int64(5),
        right=np.int64(0),
        wq=rand(D, D, seed=1),
        wk=rand(D, D, seed=2),
        wv=rand(D, D, seed=3),
        wp=rand(D, D, seed=4),
        u=rand(1, 1, H, D // H, seed=5),
        v=rand(1, 1, H, D // H, seed=6),
        wo=rand(D, D, seed=7),
        bq=rand(D, seed=8),
        heads=[0, 0, H, D // H],
        flat=[0, 0, D],
        h1=[H],
        table=rand(1, 2 * ROWS - 1, D, seed=9),
        centre=np.int64(ROWS),
    )
    return {k: np.asarray(x, np.int64) if isinstance(x, list) else np.asarray(x) for k, x in {**base, **more}.items()}


SIZES = """
    s = Shape({x})
    n = Gather<axis=0>(s, one0)
    nv = Unsqueeze(n, ax0)
    i = Range(zero0, n, one0)
    qi = Unsqueeze(i, ax1)
    ki = Unsqueeze(i, ax0)
    d = Sub(qi, ki)
    near = LessOrEqual(d, left)
    past = GreaterOrEqual(d, right)
    open = And(near, past)
    twice = Mul(n, two0)
    wide = Sub(twice, one0)
    wv1 = Unsqueeze(wide, ax0)
    tv = Unsqueeze(twice, ax0)
"""

MIDDLE = """
    start = Sub(centre, n)
    end0 = Add(centre, n)
    end = Sub(end0, one0)
    startv = Unsqueeze(start, ax0)
    endv = Unsqueeze(end, ax0)
    pos = Slice(table, startv, endv, ax1)
"""

SINUSOIDS = """
    top = Sub(n, one0)
    low = Neg(n)
    r = Range(top, low, minus)
    rf = Cast<to=1>(r)
    ru = Unsqueeze(rf, ax1)
    phase = Mul(ru, freq)
    sn = Sin(phase)
    cs = Cos(phase)
    sn2 = Unsqueeze(sn, ax2)
    cs2 = Unsqueeze(cs, ax2)
    both = Concat<axis=2>(sn2, cs2)
    flat2 = Reshape(both, pairs)
    pos = Unsqueeze(flat2, ax0)
"""

PRODUCTS = """
    q0 = MatMul({x}, wq)
    q1 = Add(q0, bq)
    q2 = Reshape(q1, heads)
    qu0 = Add(q2, u)
    qu = Transpose<perm=[0,2,1,3]>(qu0)
    qv0 = Add(q2, v)
    qv = Transpose<perm=[0,2,1,3]>(qv0)
    k0 = MatMul({x}, wk)
    k1 = Reshape(k0, heads)
    k = Transpose<perm=[0,2,3,1]>(k1)
    v0 = MatMul({x}, wv)
    v1 = Reshape(v0, heads)
    vv = Transpose<perm=[0,2,1,3]>(v1)
    p0 = MatMul(pos, wp)
    p1 = Reshape(p0, heads)
    p = Transpose<perm=[0,2,3,1]>(p1)
    ac = MatMul(qu, k)
    bd0 = MatMul(qv, p)
"""

PADDED = """
    bd1 = Pad(bd0, pads)
    folded = Concat<axis=0>(one, h1, neg1, nv)
    bd2 = Reshape(bd1, folded)
    bd3 = Slice(bd2, one, big, ax2)
    back = Concat<axis=0>(one, h1, nv, wv1)
    bd4 = Reshape(bd3, back)
    bd = Slice(bd4, zero, nv, ax3)
"""

JOINED = """
    column = Concat<axis=0>(one, h1, nv, one)
    zeros = ConstantOfShape(column)
    bd1 = Concat<axis=-1>(zeros, bd0)
    folded = Concat<axis=0>(one, h1, tv, nv)
    bd2 = Reshape(bd1, folded)
    bd3 = Slice(bd2, one, big, ax2)
    s0 = Shape(bd0)
    bd4 = Reshape(bd3, s0)
    sd = Shape(bd4)
    sw = Gather<axis=0>(sd, minus)
    sh = Div(sw, two0)
    se = Add(sh, one0)
    sv = Unsqueeze(se, ax0)
    bd = Slice(bd4, zero, sv, ax3)
"""

CLOSED = """
    raw = Add(ac, bd)
    scores = Div(raw, scale)
    masked = Where(open, scores, ninf)
    weights = Softmax<axis=-1>(masked)
    mixed = MatMul(weights, vv)
    mt = Transpose<perm=[0,2,1,3]>(mixed)
    joined = Reshape(mt, flat)
    y = MatMul(joined, wo)
"""


def model(positions, skew, before="", x="x", products=PRODUCTS, closed=CLOSED, **more):
    body = before + SIZES.format(x=x) + positions + products.format(x=x) + skew + closed
    weights = constants(
        **{"pads": [0, 0, 0, 1, 0, 0, 0, 0], "freq": rand(1, D // 2, seed=10), "pairs": [-1, D], **more}
    )
    return parse(f"agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{ {body} }}", **weights)


@pytest.mark.parametrize("positions", [MIDDLE, SINUSOIDS], ids=["table", "sinusoids"])
@pytest.mark.parametrize("skew", [PADDED, JOINED], ids=["pad", "concat"])
@pytest.mark.parametrize("right", [0, 2])
def test_skew(positions, skew, right):
    check(model(positions, skew, right=np.int64(-right)), delays={"y": right}, limit=ROWS)


CONV = """
    xt = Transpose<perm=[0,2,1]>(x)
    c = Conv<pads=[1,1], strides=[STRIDE]>(xt, cw, cb)
    h = Transpose<perm=[0,2,1]>(c)
"""


def test_skew_behind_a_delay():
    m = model(
        MIDDLE, PADDED, before=CONV.replace("STRIDE", "1"), x="h", cw=rand(D, D, 3), cb=rand(D), right=np.int64(-1)
    )
    check(m, delays={"y": 2}, limit=ROWS)


def test_skew_behind_a_stride():
    m = model(SINUSOIDS, JOINED, before=CONV.replace("STRIDE", "2"), x="h", cw=rand(D, D, 3), cb=rand(D))
    check(m, delays={"y": 0})


def test_skew_at_a_symbolic_pulse():
    m = model(MIDDLE, JOINED, right=np.int64(-1))
    assert verify(m, pulsify(m, pulse=None, end_of_stream=True)).ok


REACHING_BACK = """
    top = Sub(n, one0)
    r = Range(top, minus, minus)
    rf = Cast<to=1>(r)
    ru = Unsqueeze(rf, ax1)
    phase = Mul(ru, freq)
    sn = Sin(phase)
    cs = Cos(phase)
    flat2 = Concat<axis=-1>(sn, cs)
    pos = Unsqueeze(flat2, ax0)
"""

BACK = """
    bd1 = Pad(bd0, pads)
    folded = Concat<axis=0>(one, h1, neg1, nv)
    bd2 = Reshape(bd1, folded)
    bd3 = Slice(bd2, one, big, ax2)
    back = Concat<axis=0>(one, h1, nv, nv)
    bd = Reshape(bd3, back)
"""


def test_positions_that_reach_back_only():
    check(model(REACHING_BACK, BACK), delays={"y": 0})


def test_positions_that_reach_back_only_under_a_mask_that_looks_ahead_are_refused():
    refused(model(REACHING_BACK, BACK, right=np.int64(-1)), "reach back from a query only", op_type="Softmax")


LAST_ROWS = """
    low = Neg(nv)
    pos = Slice(table, low, big, ax1)
"""


def test_the_last_rows_of_a_table():
    check(model(LAST_ROWS, BACK), delays={"y": 0}, limit=ROWS)


def test_as_many_positions_as_two_lengths_without_a_pad():
    positions = SINUSOIDS.replace("top = Sub(n, one0)", "top = Identity(n)")
    skew = PADDED.replace("bd1 = Pad(bd0, pads)", "bd1 = Identity(bd0)")
    check(model(positions, skew, right=np.int64(-1)), delays={"y": 1})


def test_time_first():
    products = """
        xt0 = Transpose<perm=[1,0,2]>(x)
        q0 = MatMul(xt0, wq)
        q2 = Reshape(q0, heads)
        qu = Add(q2, u)
        qv = Add(q2, v)
        k0 = MatMul(xt0, wk)
        k = Reshape(k0, heads)
        v0 = MatMul(xt0, wv)
        vv = Reshape(v0, heads)
        p00 = Squeeze(pos, ax0)
        p0 = MatMul(p00, wp)
        p = Reshape(p0, pheads)
        ac = Einsum<equation="ibnd,jbnd->ijbn">(qu, k)
        bd0 = Einsum<equation="ibnd,jnd->ijbn">(qv, p)
    """
    skew = """
        bd1 = Pad(bd0, pads1)
        tv1 = Add(nv, one)
        folded = Concat<axis=0>(tv1, nv, one, h1)
        bd2 = Reshape(bd1, folded)
        bd3 = Slice(bd2, one, big, ax0)
        back = Concat<axis=0>(nv, nv, one, h1)
        bd = Reshape(bd3, back)
    """
    closed = """
        open2 = Unsqueeze(open, last2)
        raw = Add(ac, bd)
        scores = Div(raw, scale)
        masked = Where(open2, scores, ninf)
        weights = Softmax<axis=1>(masked)
        mixed = Einsum<equation="ijbn,jbnd->ibnd">(weights, vv)
        joined = Reshape(mixed, flat)
        yt = MatMul(joined, wo)
        y = Transpose<perm=[1,0,2]>(yt)
    """
    m = model(
        REACHING_BACK,
        skew,
        products=products,
        closed=closed,
        pads1=[0, 1, 0, 0, 0, 0, 0, 0],
        last2=[2, 3],
        pheads=[-1, H, D // H],
    )
    check(m, delays={"y": 0})


def test_a_skew_that_shifts_by_another_offset_is_refused():
    refused(
        model(MIDDLE.replace("end = Sub(end0, one0)", "end = Identity(end0)"), PADDED.replace("nv, wv1", "nv, tv")),
        "other offsets",
        op_type="Reshape",
    )


def test_a_product_that_is_not_skewed_is_refused():
    refused(model(MIDDLE, "bd = Slice(bd0, zero, nv, ax3)"), "before they are skewed", op_type="Slice")


def test_a_skew_that_keeps_the_first_row_is_refused():
    refused(
        model(MIDDLE, PADDED.replace("Slice(bd2, one, big, ax2)", "Slice(bd2, zero, wv1, ax2)")),
        "before they are skewed",
        op_type="Slice",
    )


def test_positions_counted_from_the_end_are_refused_elsewhere():
    m = parse(
        f"agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{ {SIZES.format(x='x')} {REACHING_BACK} y = Add(x, pos) }}",
        **constants(freq=rand(1, D // 2)),
    )
    refused(m, "counts down from the length", op_type="Range")


def test_a_table_of_absolute_positions_is_not_skewed():
    refused(model("pos = Slice(table, zero, nv, ax1)", BACK), "pairs of frames")


LOOKED_UP = """
    top = Sub(n, one0)
    low = Neg(n)
    r = Range(top, low, minus)
    above = Max(r, least)
    clipped = Min(above, most)
    index = Add(clipped, most)
    rows = Gather<axis=0>(short, index)
    pos = Unsqueeze(rows, ax0)
"""


def test_embeddings_of_clipped_relative_positions():
    m = model(LOOKED_UP, PADDED, short=rand(19, D, seed=11), least=np.int64(-9), most=np.int64(9), right=np.int64(-1))
    check(m, delays={"y": 1}, pulses=(1, 3))


@pytest.mark.parametrize(
    "body",
    [
        "m = ReduceMean<axes=[1]>(pos)\n y = Add(x, m)",
        "m = Slice(pos, zero, nv, ax1)\n y = Add(x, m)",
        "c = CumSum(pos, one0)\n m = Slice(c, zero, nv, ax1)\n y = Add(x, m)",
    ],
)
def test_relative_positions_taken_for_frames_are_refused(body):
    m = parse(
        f"agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{ {SIZES.format(x='x')} {SINUSOIDS} {body} }}",
        **constants(freq=rand(1, D // 2), pairs=[-1, D]),
    )
    refused(m, "counts down from the length", op_type="Range")
