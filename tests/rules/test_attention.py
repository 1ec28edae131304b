"""Attention in a window: masks however they are built, behind delays and strides, one layer or several.

Among them are models that another tool of this kind streams wrongly without a word: a window without chunks
(`test_band`), `test_alibi`,
`test_no_mask_is_refused`, `test_causal_trilu_is_refused_or_cut`, `test_two_layers_with_windows_of_one_and_two`,
`test_positions_under_attention`,
`test_chunks_of_four_asked_for_a_pulse_of_one`.
"""

import numpy as np
import pytest

from pulsify_onnx.api import pulsify
from pulsify_onnx.errors import CannotStream, PulseDoesNotFit
from testing.oracle import check, parse, rand, refused

D, H = 4, 2

POSITIONS = """
    s = Shape(x)
    n = Gather<axis=0>(s, one0)
    i = Range(zero0, n, one0)
    qi = Unsqueeze(i, ax1)
    ki = Unsqueeze(i, ax0)
    d = Sub(qi, ki)
"""

BAND = (
    POSITIONS
    + """
    near = LessOrEqual(d, left)
    past = GreaterOrEqual(d, right)
    open = And(near, past)
"""
)


def constants(**more):
    base = dict(
        one0=np.asarray(1, np.int64),
        zero0=np.asarray(0, np.int64),
        ax0=np.asarray([0], np.int64),
        ax1=np.asarray([1], np.int64),
        ninf=np.asarray(-np.inf, np.float32),
        zerof=np.asarray(0, np.float32),
        scale=np.asarray(1.5, np.float32),
        wq=rand(D, D, seed=1),
        wk=rand(D, D, seed=2),
        wv=rand(D, D, seed=3),
        bq=rand(D, seed=4),
        bk=rand(D, seed=5),
        bv=rand(D, seed=6),
        wo=rand(D, D, seed=7),
        heads=np.asarray([0, 0, H, D // H], np.int64),
        flat=np.asarray([0, 0, D], np.int64),
    )
    return {**base, **{k: np.asarray(v) for k, v in more.items()}}


def window(left, right):
    return dict(left=np.int64(left), right=np.int64(-right))


ATTEND = """
    q0 = MatMul({x}, wq)
    q1 = Add(q0, bq)
    k0 = MatMul({x}, wk)
    k1 = Add(k0, bk)
    v0 = MatMul({x}, wv)
    v1 = Add(v0, bv)
    q2 = Reshape(q1, heads)
    k2 = Reshape(k1, heads)
    v2 = Reshape(v1, heads)
    q = Transpose<perm=[0,2,1,3]>(q2)
    k = Transpose<perm=[0,2,3,1]>(k2)
    v = Transpose<perm=[0,2,1,3]>(v2)
    raw = MatMul(q, k)
    scores = Div(raw, scale)
    {mask}
    weights = Softmax<axis=-1>(masked)
    mixed = MatMul(weights, v)
    back = Transpose<perm=[0,2,1,3]>(mixed)
    joined = Reshape(back, flat)
    {y} = MatMul(joined, wo)
"""

WHERE = "masked = Where(open, scores, ninf)"


def model(positions, mask=WHERE, x="x", tail="", before="", y="y", opset=17, **weights):
    body = before + positions + ATTEND.format(x=x, mask=mask, y=y) + tail
    return parse(
        f'<ir_version: 9, opset_import: ["": {opset}]>\nagraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{ {body} }}',
        **constants(**weights),
    )


@pytest.mark.parametrize("left,right", [(0, 0), (3, 0), (5, 2), (0, 1)])
def test_band(left, right):
    pulsed = check(model(BAND, **window(left, right)), delays={"y": right})
    floats = (left + right) * D
    assert pulsed.spec["outputs"][0]["receptive_field"] == left + right + 1
    assert sum(s["bytes"] for s in pulsed.spec["states"] if s["role"] == "history") in (
        4 * (2 * floats + right * D),
        4 * 2 * floats,
    )


@pytest.mark.parametrize("right, exact", [(0, True), (1, False)])
def test_a_running_value_over_attention_to_cropped_frames(right, exact):
    """The last query lacks the keys after it, in a batch that ends there; a stream that goes on has them."""
    cropped = model(
        BAND.replace("Shape(x)", "Shape(z)"),
        x="z",
        before="z = Slice(x, c0, c1, ax1)",
        y="h",
        tail="y = ReduceMax<axes=[1]>(h)",
        c0=np.int64([0]),
        c1=np.int64([-3]),
        **window(2, right),
    )
    assert check(cropped).spec["outputs"][0]["exact_every_pulse"] is exact


def test_band_with_additive_mask():
    mask = "bias = Where(open, zerof, low)\n masked = Add(scores, bias)"
    check(model(BAND, mask, low=np.float32(-1e9), **window(4, 1)), delays={"y": 1})


def test_finite_mask_that_is_not_low_enough_is_refused():
    mask = "bias = Where(open, zerof, low)\n masked = Add(scores, bias)"
    refused(model(BAND, mask, low=np.float32(-3), **window(4, 1)), "whole stream")


def test_mask_by_trilu():
    positions = """
        s = Shape(x)
        t = Slice(s, ax1, two)
        tt = Concat<axis=0>(t, t)
        full = ConstantOfShape<value = float[1] {-1e9}>(tt)
        up = Trilu<upper=1>(full, d0)
        lo = Trilu<upper=0>(full, d1)
        bias = Add(up, lo)
    """
    check(
        model(positions, "masked = Add(scores, bias)", two=np.asarray([2], np.int64), d0=np.int64(2), d1=np.int64(-4)),
        delays={"y": 1},
    )


@pytest.mark.parametrize(
    "cuts",
    [
        "rows = Slice(table, ax0, t, ax0)\n bias = Slice(rows, ax0, t, ax1)",
        "tt = Concat<axis=0>(t, t)\n nil = Concat<axis=0>(ax0, ax0)\n both = Concat<axis=0>(ax1, ax0)\n bias = "
        "Slice(table, nil, tt, both)",
    ],
)
def test_mask_from_a_constant_table(cuts):
    table = np.zeros((64, 64), np.float32)
    q, k = np.indices(table.shape)
    table[(k > q + 1) | (k < q - 3)] = -np.inf
    positions = f"s = Shape(x)\n t = Slice(s, ax1, two)\n {cuts}\n"
    m = model(positions, "masked = Add(scores, bias)", table=table, two=np.asarray([2], np.int64))
    check(m, limit=64)


CHUNK = (
    POSITIONS
    + """
    qc = Div(qi, size)
    kc = Div(ki, size)
    dc = Sub(qc, kc)
    near = LessOrEqual(dc, left)
    past = GreaterOrEqual(dc, right)
    open = And(near, past)
"""
)


@pytest.mark.parametrize("size,left,ahead", [(4, 1, 0), (3, 2, 1), (4, 0, 0)])
def test_chunks(size, left, ahead):
    m = model(CHUNK, size=np.int64(size), **window(left, ahead))
    check(m, pulses=(size, 2 * size, 5 * size), delays={"y": ahead * size})


def test_chunks_of_four_asked_for_a_pulse_of_one():
    m = model(CHUNK, size=np.int64(4), **window(1, 0))
    with pytest.raises(PulseDoesNotFit) as caught:
        pulsify(m, pulse=1)
    assert caught.value.smallest == 4


def test_band_behind_a_delay():
    before = """
        xt = Transpose<perm=[0,2,1]>(x)
        c = Conv<pads=[2,2]>(xt, cw, cb)
        h = Transpose<perm=[0,2,1]>(c)
    """
    check(model(BAND, x="h", before=before, cw=rand(D, D, 5), cb=rand(D), **window(3, 1)), delays={"y": 3})


def test_chunks_behind_a_delay():
    before = """
        xt = Transpose<perm=[0,2,1]>(x)
        c = Conv<pads=[1,1]>(xt, cw, cb)
        h = Transpose<perm=[0,2,1]>(c)
    """
    check(
        model(CHUNK, x="h", before=before, cw=rand(D, D, 3), cb=rand(D), size=np.int64(4), **window(1, 0)),
        pulses=(4, 8),
        delays={"y": 4},
    )


def test_band_behind_a_stride():
    before = """
        xt = Transpose<perm=[0,2,1]>(x)
        c = Conv<pads=[1,1], strides=[2]>(xt, cw, cb)
        h = Transpose<perm=[0,2,1]>(c)
    """
    positions = BAND.replace("Shape(x)", "Shape(h)")
    check(model(positions, x="h", before=before, cw=rand(D, D, 3), cb=rand(D), **window(3, 1)), delays={"y": 1})


def test_two_layers_with_windows_of_one_and_two():
    second = """
        near2 = LessOrEqual(d, left2)
        open2 = And(near2, past)
    """ + ATTEND.format(x="z", mask="masked = Where(open2, scores, ninf)", y="y")
    for name in (
        "q0",
        "q1",
        "k0",
        "k1",
        "v0",
        "v1",
        "q2",
        "k2",
        "v2",
        "q",
        "k",
        "v",
        "raw",
        "scores",
        "masked",
        "weights",
        "mixed",
        "back",
        "joined",
    ):
        second = (
            second.replace(f" {name} =", f" {name}_b =")
            .replace(f"({name},", f"({name}_b,")
            .replace(f"({name})", f"({name}_b)")
            .replace(f", {name})", f", {name}_b)")
            .replace(f", {name},", f", {name}_b,")
        )
    pulsed = check(model(BAND, y="z", tail=second, left2=np.int64(2), **window(1, 0)), delays={"y": 0})
    assert pulsed.spec["outputs"][0]["receptive_field"] == 4


def test_alibi():
    positions = (
        BAND
        + """
        df = Cast<to=1>(d)
        slope = Mul(df, slopes)
    """
    )
    mask = "biased = Sub(scores, slope)\n masked = Where(open, biased, ninf)"
    check(model(positions, mask, slopes=np.asarray([[[0.5]], [[0.25]]], np.float32), **window(4, 0)), delays={"y": 0})


def test_bias_buckets_of_relative_positions():
    positions = (
        BAND
        + """
        far = Min(d, most)
        bucket = Max(far, zero0)
        rows = Gather<axis=0>(table, bucket)
        bias = Transpose<perm=[2,0,1]>(rows)
    """
    )
    mask = "biased = Add(scores, bias)\n masked = Where(open, biased, ninf)"
    check(model(positions, mask, most=np.int64(3), table=rand(4, H, seed=9), **window(5, 1)), delays={"y": 1})


def test_positions_under_attention():
    before = "p = Slice(table, ax0, n1, ax0)\n h = Add(x, p)\n"
    positions = "s0 = Shape(x)\n n1 = Slice(s0, ax1, two)\n" + before + BAND
    check(
        model(positions, x="h", table=rand(512, D, seed=11), two=np.asarray([2], np.int64), **window(3, 1)),
        delays={"y": 1},
        limit=512,
    )


def test_masked_again_after_the_softmax():
    mask = "masked = Where(open, scores, low)"
    body = model(BAND, mask, low=np.float32(-1e4), **window(3, 0))
    nodes = {n.output[0]: n for n in body.graph.node}
    nodes["mixed"].input[0] = "kept"
    at = list(body.graph.node).index(nodes["mixed"])
    import onnx

    body.graph.node.insert(at, onnx.helper.make_node("Where", ["open", "weights", "zerof"], ["kept"]))
    check(body, delays={"y": 0})


def test_einsum():
    body = """
        q0 = MatMul(x, wq)
        k0 = MatMul(x, wk)
        v0 = MatMul(x, wv)
        scores = Einsum<equation="bqd,bkd->bqk">(q0, k0)
        masked = Where(open, scores, ninf)
        weights = Softmax<axis=-1>(masked)
        y = Einsum<equation="bqk,bkd->bqd">(weights, v0)
    """
    check(
        parse(f"agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{ {BAND} {body} }}", **constants(**window(4, 1))),
        delays={"y": 1},
    )


def test_causal_over_the_whole_past_is_refused():
    refused(model(POSITIONS + "open = GreaterOrEqual(d, zero0)\n"), "whole past", op_type="Softmax")


def test_causal_trilu_is_refused_or_cut():
    from pulsify_onnx.api import verify

    positions = """
        s = Shape(x)
        t = Slice(s, ax1, two)
        tt = Concat<axis=0>(t, t)
        full = ConstantOfShape<value = float[1] {1.0}>(tt)
        lower = Trilu<upper=0>(full)
        shut = Equal(lower, zerof)
    """
    m = model(positions, "masked = Where(shut, ninf, scores)", two=np.asarray([2], np.int64))
    refused(m, "whole past", op_type="Softmax")
    pulsed = pulsify(m, pulse=2, left_context=6, end_of_stream=True)
    assert pulsed.spec["outputs"][0]["receptive_field"] == 6 and verify(m, pulsed).ok


def test_no_mask_is_refused():
    refused(model("", "masked = Identity(scores)"), "whole stream", op_type="Softmax")


def test_a_mask_that_differs_along_the_stream_is_refused():
    positions = (
        POSITIONS
        + """
        wide = Less(qi, hundred)
        near = LessOrEqual(d, left)
        past = GreaterOrEqual(d, right)
        open = And(near, past)
        far = LessOrEqual(d, left2)
        open2 = And(far, past)
        open3 = Where(wide, near2, far2)
    """
    )
    positions = (
        POSITIONS
        + """
        early = Less(qi, hundred)
        reach = Where(early, left, left2)
        near = LessOrEqual(d, reach)
        past = GreaterOrEqual(d, right)
        open = And(near, past)
    """
    )
    refused(model(positions, hundred=np.int64(5000), left2=np.int64(9), **window(3, 0)), "changes along the stream")


def test_one_mask_does_not_speak_for_another():
    tail = ""
    m = model(BAND, "masked = Identity(scores)", tail=tail, **window(2, 0))
    with pytest.raises(CannotStream) as caught:
        pulsify(m, pulse=1)
    assert [b.op_type for b in caught.value.blockers] == ["Softmax"]


def test_a_mask_from_the_caller_is_refused():
    body = ATTEND.format(x="x", mask="masked = Where(open, scores, ninf)", y="y")
    m = parse(f"agraph (float[1,T,{D}] x, bool[T,T] open) => (float[1,U,{D}] y) {{ {body} }}", **constants())
    refused(m, "given by the caller", axes={"x": 1})


def test_scores_as_an_output_are_refused():
    m = parse(
        f"agraph (float[1,T,{D}] x) => (float[1,U,{D}] y, float[1,{H},U,U] weights) {{ {BAND} "
        f"{ATTEND.format(x='x', mask=WHERE, y='y')} }}",
        **constants(**window(2, 0)),
    )
    refused(m, "every frame meets every other", op_type="output")


def causal(**weights):
    return model(POSITIONS + "open = GreaterOrEqual(d, zero0)\n", **weights)


def test_left_context_cuts_the_past_and_says_so():
    from pulsify_onnx.api import verify

    m = causal()
    pulsed = pulsify(m, pulse=3, left_context=8)
    assert pulsed.spec["approximation"]["left_context"] == 8 and len(pulsed.spec["approximation"]["nodes"]) == 1
    assert pulsed.spec["outputs"][0]["receptive_field"] == 8
    assert verify(m, pulsed).ok


def test_left_context_is_exact_for_short_streams():
    from testing.oracle import close, run_stream, session

    m = causal()
    pulsed = pulsify(m, pulse=3, left_context=12)
    x = np.random.default_rng(0).standard_normal((1, 12, D)).astype(np.float32)
    got = np.concatenate(run_stream(pulsed, {"x": x}, {}, 12, 0)["y"], 1)
    close(got, session(m.SerializeToString()).run(None, {"x": x})[0], "12 frames", 1e-5)


def test_left_context_without_unbounded_attention_is_wrong_usage():
    from pulsify_onnx.errors import UsageError

    with pytest.raises(UsageError, match="no attention"):
        pulsify(model(BAND, **window(2, 0)), pulse=1, left_context=4)


@pytest.mark.parametrize("bias", [False, True])
def test_left_context_of_multi_head_attention(bias):
    from pulsify_onnx.api import verify

    table = (
        "t = Shape<start=1, end=2>(x)  one = Constant<value_ints=[1]>()  s = Concat<axis=0>(one, one, t, t)  b = "
        "Expand(low, s)"
        if bias
        else ""
    )
    m = parse(
        f"""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
    agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{
        q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  {table}
        y = com.microsoft.MultiHeadAttention<num_heads=2, unidirectional=1>(q, k, v, , , {"b" if bias else ""})
    }}""",
        wq=rand(D, D, seed=1),
        wk=rand(D, D, seed=2),
        wv=rand(D, D, seed=3),
        low=np.full((1, 1, 1, 1), -0.5, np.float32),
    )
    with pytest.raises(CannotStream, match="attention over the whole past"):
        pulsify(m, pulse=2)
    for pulse in (1, 3):
        pulsed = pulsify(m, pulse=pulse, left_context=6, end_of_stream=True)
        assert pulsed.spec["outputs"][0]["receptive_field"] == 6 and verify(m, pulsed, frames=40).ok


def test_left_context_of_the_attention_operator():
    from pulsify_onnx.api import verify

    text = f"""<ir_version: 10, opset_import: ["": 23]>
    agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        y = Attention<is_causal=1, q_num_heads=2, kv_num_heads=2>(q, k, v)
    }}"""
    m = parse(text, wq=rand(D, D, seed=1), wk=rand(D, D, seed=2), wv=rand(D, D, seed=3))
    refused(m, "whole past", op_type="Attention")
    pulsed = pulsify(m, pulse=2, left_context=5)
    assert verify(m, pulsed).ok
    assert verify(m, pulsify(m, pulse=2, left_context=5, end_of_stream=True)).ok


def test_causal_attention_operator_with_a_band():
    text = f"""<ir_version: 10, opset_import: ["": 23]>
    agraph (float[1,T,{D}] x) => (float[1,U,{D}] y) {{ {BAND}
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        y = Attention<is_causal=1, q_num_heads=2, kv_num_heads=2>(q, k, v, open)
    }}"""
    check(
        parse(
            text,
            **{
                k: v
                for k, v in constants(**window(3, 2)).items()
                if k not in ("bq", "bk", "bv", "wo", "heads", "flat", "ninf", "zerof", "scale")
            },
        ),
        delays={"y": 0},
    )


@pytest.mark.parametrize("size", [11, 13])
def test_chunks_of_any_size(size):
    check(model(CHUNK, size=np.int64(size), **window(1, 0)), pulses=(size,), length=70, delays={"y": 0})


def test_causal_inside_chunks_with_one_chunk_to_the_left():
    positions = CHUNK.replace(
        "open = And(near, past)", "same = And(near, past)\n order = GreaterOrEqual(d, zero0)\n open = And(same, order)"
    )
    check(model(positions, size=np.int64(7), **window(1, 0)), pulses=(1, 3), length=40, delays={"y": 0})
