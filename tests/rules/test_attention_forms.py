"""Other ways that attention is written: blocks by reshape, grouped queries, relative embeddings by index, the
operator's attributes.
"""

import numpy as np
import onnx
import pytest
from test_attention import BAND, WHERE, D, H, constants, model, window

from testing.oracle import check, parse, rand, refused

SIZE = D // H

SHAW = (
    BAND
    + """
    offset = Sub(ki, qi)
    above = Max(offset, lowest)
    clipped = Min(above, highest)
    index = Add(clipped, highest)
    relative = Gather<axis=0>(table, index)
    nv = Unsqueeze(n, ax0)
"""
)

BY_EINSUM = 'extra = Einsum<equation="bhqd,qkd->bhqk">(q, relative)'
BY_MATMUL = """
    qt = Transpose<perm=[2,0,1,3]>(q)
    qf = Reshape(qt, folded)
    rt = Transpose<perm=[0,2,1]>(relative)
    e0 = MatMul(qf, rt)
    shape = Concat<axis=0>(nv, some, nv)
    e1 = Reshape(e0, shape)
    extra = Transpose<perm=[1,2,0,3]>(e1)
"""


def shaw(how):
    mask = how + "\n biased = Add(scores, extra)\n masked = Where(open, biased, ninf)"
    return model(
        SHAW,
        mask,
        lowest=np.int64(-3),
        highest=np.int64(3),
        table=rand(7, SIZE, seed=9),
        folded=np.asarray([0, H, SIZE]),
        some=np.asarray([1, H]),
        **window(5, 1),
    )


@pytest.mark.parametrize("how", [BY_EINSUM, BY_MATMUL], ids=["einsum", "matmul"])
def test_relative_embeddings_of_keys_by_index(how):
    check(shaw(how), delays={"y": 1})


def after(m, name, *made):
    """`m` with nodes after the one that makes `name`, which is now called ``name + "0"``."""
    node = next(n for n in m.graph.node if n.output[0] == name)
    node.output[0] = name + "0"
    at = list(m.graph.node).index(node)
    for k, new in enumerate(made):
        m.graph.node.insert(at + 1 + k, new)
    return m


def test_relative_embeddings_of_values_by_einsum():
    more = onnx.helper.make_node("Einsum", ["weights", "relative"], ["more"], equation="bhqk,qkd->bhqd")
    check(
        after(shaw(BY_EINSUM), "mixed", more, onnx.helper.make_node("Add", ["mixed0", "more"], ["mixed"])),
        delays={"y": 1},
    )


def test_relative_embeddings_of_values_by_matmul():
    nodes = [
        onnx.helper.make_node("Transpose", ["weights"], ["wt"], perm=[2, 0, 1, 3]),
        onnx.helper.make_node("Squeeze", ["wt", "ax1"], ["ws"]),
        onnx.helper.make_node("MatMul", ["ws", "relative"], ["m0"]),
        onnx.helper.make_node("Unsqueeze", ["m0", "ax0"], ["m1"]),
        onnx.helper.make_node("Transpose", ["m1"], ["more"], perm=[0, 2, 1, 3]),
        onnx.helper.make_node("Add", ["mixed0", "more"], ["mixed"]),
    ]
    check(after(shaw(BY_EINSUM), "mixed", *nodes), delays={"y": 1})


# blocks by reshape

BLOCK = 4


def blocks(body, **more):
    head = f"agraph (float[1,T,{D}] x) => (float[1,U,{D}] y)"
    text = (
        head + f" {{ b = Reshape(x, blocks)\n q = MatMul(b, wq)\n k = MatMul(b, wk)\n v = MatMul(b, wv)\n{body}\n y = "
        "Reshape(o, whole) }"
    )
    return parse(
        text,
        wq=rand(D, D, seed=1),
        wk=rand(D, D, seed=2),
        wv=rand(D, D, seed=3),
        blocks=np.asarray([-1, BLOCK, D]),
        whole=np.asarray([1, -1, D]),
        zero=np.asarray([0]),
        last=np.asarray([-1]),
        one=np.asarray([1]),
        big=np.asarray([2**62]),
        **more,
    )


INSIDE = """
    kt = Transpose<perm=[0,2,1]>(k)
    s = MatMul(q, kt)
    w = Softmax<axis=-1>(s)
    o = MatMul(w, v)
"""


def test_attention_inside_blocks():
    check(blocks(INSIDE), unit=BLOCK, delays={"y": 0})


NEIGHBOUR = """
    kp = Pad(k, pads)
    kn = Slice(kp, first, end, zero)
    kk = Concat<axis=1>(kn, k)
    vp = Pad(v, pads)
    vn = Slice(vp, first, end, zero)
    vv = Concat<axis=1>(vn, v)
    kt = Transpose<perm=[0,2,1]>(kk)
    s = MatMul(q, kt)
    {mask}
    w = Softmax<axis=-1>(masked)
    o = MatMul(w, vv)
"""


def test_blocks_that_look_back():
    m = blocks(
        NEIGHBOUR.format(mask="masked = Identity(s)"),
        pads=np.asarray([1, 0, 0, 0, 0, 0]),
        first=np.asarray([0]),
        end=np.asarray([-1]),
    )
    pulsed = check(m, unit=BLOCK, delays={"y": 0})
    assert pulsed.spec["pulse_multiple"] == BLOCK


def test_blocks_that_look_ahead():
    m = blocks(
        NEIGHBOUR.format(mask="masked = Identity(s)"),
        pads=np.asarray([0, 0, 0, 1, 0, 0]),
        first=np.asarray([1]),
        end=np.asarray([2**62]),
    )
    check(m, unit=BLOCK, delays={"y": BLOCK})


def test_blocks_that_look_back_but_not_before_the_first():
    mask = """
        sb = Shape(b)
        nb = Gather<axis=0>(sb, zero0)
        i = Range(zero0, nb, one0)
        ib = Unsqueeze(i, ax12)
        start = Mul(ib, size)
        position = Add(start, within)
        real = GreaterOrEqual(position, zero0)
        masked = Where(real, s, ninf)
    """
    m = blocks(
        NEIGHBOUR.format(mask=mask),
        pads=np.asarray([1, 0, 0, 0, 0, 0]),
        first=np.asarray([0]),
        end=np.asarray([-1]),
        zero0=np.int64(0),
        one0=np.int64(1),
        ax12=np.asarray([1, 2]),
        size=np.int64(BLOCK),
        within=np.arange(-BLOCK, BLOCK).reshape(1, 1, -1),
        ninf=np.float32(-np.inf),
    )
    check(m, unit=BLOCK, delays={"y": 0})


# grouped queries and the operator

PROJECTED = """
    q0 = MatMul(x, wq)
    k0 = MatMul(x, wk)
    v0 = MatMul(x, wv)
    q1 = Reshape(q0, heads)
    q = Transpose<perm=[0,2,1,3]>(q1)
    k1 = Reshape(k0, kvheads)
    k2 = Transpose<perm=[0,2,1,3]>(k1)
    v1 = Reshape(v0, kvheads)
    v2 = Transpose<perm=[0,2,1,3]>(v1)
"""


def grouped(body, opset=17, **more):
    text = f"""<ir_version: {8 if opset < 20 else 11}, opset_import: ["": {opset}]>
    agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{ {BAND} {PROJECTED} {body} }}"""
    return parse(
        text,
        **{
            **constants(**window(4, 1)),
            "wk": rand(D, SIZE, seed=2),
            "wv": rand(D, SIZE, seed=3),
            "kvheads": np.asarray([0, 0, 1, SIZE]),
            **more,
        },
    )


def test_grouped_queries_by_expand():
    body = """
        ks = Shape(k2)
        kn = Slice(ks, two, three)
        wide = Concat<axis=0>(one, one, groups, kn, size)
        merged = Concat<axis=0>(one, groups, kn, size)
        k3 = Unsqueeze(k2, two)
        k4 = Expand(k3, wide)
        k = Reshape(k4, merged)
        v3 = Unsqueeze(v2, two)
        v4 = Expand(v3, wide)
        v = Reshape(v4, merged)
        kt = Transpose<perm=[0,1,3,2]>(k)
        scores = MatMul(q, kt)
        masked = Where(open, scores, ninf)
        weights = Softmax<axis=-1>(masked)
        mixed = MatMul(weights, v)
        back = Transpose<perm=[0,2,1,3]>(mixed)
        y = Reshape(back, flat)
    """
    numbers = dict(one=[1], two=[2], three=[3], groups=[H], size=[SIZE])
    check(grouped(body, **{k: np.asarray(v) for k, v in numbers.items()}), delays={"y": 1})


CALLED = "a = Attention{attributes}(q, k2, v2, {mask})\n back = Transpose<perm=[0,2,1,3]>(a)\n y = Reshape(back, flat)"


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("attributes", ["", "<softcap=2.0, scale=0.3>"])
def test_attention_operator_of_heads_with_grouped_queries(opset, attributes):
    check(grouped(CALLED.format(attributes=attributes, mask="open"), opset), delays={"y": 1})


def test_attention_operator_with_an_additive_mask():
    check(grouped("bias = Where(open, zerof, ninf)\n" + CALLED.format(attributes="", mask="bias"), 23), delays={"y": 1})


def test_attention_operator_that_hides_padded_keys_is_refused():
    body = CALLED.format(attributes="", mask="open, , , lengths")
    refused(grouped(body, 24, lengths=np.asarray([5])), "hides padded keys", op_type="Attention")


# positions against the length


@pytest.mark.parametrize(
    "test",
    [
        "real = Less(i, n)",
        "real = Greater(n, i)",
        "pad = GreaterOrEqual(i, n)\n real = Not(pad)",
        "e = Add(i, one0)\n real = LessOrEqual(e, n)",
    ],
)
def test_frames_within_the_length_are_real(test):
    mask = (
        BAND
        + test
        + """
        rk = Unsqueeze(real, ax0)
        rq = Unsqueeze(real, ax1)
        both = And(rk, rq)
        seen = And(open, both)
    """
    )
    check(model(mask, WHERE.replace("open", "seen"), **window(4, 1)), delays={"y": 1})


def test_frames_compared_with_half_the_length_are_refused():
    mask = BAND + "half = Div(n, two)\n real = Less(i, half)\n rk = Unsqueeze(real, ax0)\n seen = And(open, rk)\n"
    refused(
        model(mask, WHERE.replace("open", "seen"), two=np.int64(2), **window(4, 1)),
        "length of the whole stream",
        op_type="Less",
    )


def test_lengths_of_the_caller_hide_keys():
    """The caller passes the length; where keys are beyond it, the band decides first."""
    mask = BAND + "real = Less(i, lengths)\n rk = Unsqueeze(real, ax0)\n seen = And(open, rk)\n"
    m = model(mask, WHERE.replace("open", "seen"), **window(4, 1))
    m.graph.input.append(onnx.helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, [1]))
    check(m, axes={"x": 1}, statics={"lengths": np.asarray([10**6])}, delays={"y": 1})


def test_comparisons_of_old_opsets():
    check(model(BAND, opset=13, **window(3, 1)), delays={"y": 1}, pulses=(2,))


def test_a_length_repeated_for_every_row_of_a_batch_is_refused():
    m = model(
        BAND + "rows = Gather<axis=0>(s, ax0)\n told = Expand(n, rows)\n real = Less(i, told)\n rk = Unsqueeze(real, "
        "ax0)\n seen = And(open, rk)\n",
        WHERE.replace("open", "seen"),
        **window(4, 1),
    )
    for value in (*m.graph.input, *m.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    refused(m, "length of the whole stream", op_type="Expand")
