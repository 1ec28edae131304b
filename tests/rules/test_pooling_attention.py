import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4), "v": rand(1, 4, 1, seed=3), "d": rand(1)}
BODY = "agraph (float[1,4,T] x) => (float y) { a = Conv<pads=[1,1]>(x, w, b)\n"
WHOLE = "it is taken over the whole stream"


def model(rest: str, **more: np.ndarray):
    return parse(BODY + "c = Conv(a, v, d)\n s = Softmax<axis=2>(c)\n" + rest + "}", **{**WEIGHTS, **more})


def test_product_and_sum():
    spec = check(model("p = Mul(a, s)\n y = ReduceSum(p, time)", time=np.asarray([2]))).spec
    assert spec["outputs"][0]["kind"] == "prefix"


@pytest.mark.parametrize("keepdims", [0, 1])
def test_sum_over_more_axes(keepdims):
    check(model(f"p = Mul(s, a)\n y = ReduceSum<keepdims={keepdims}>(p, axes)", axes=np.asarray([1, 2])))


def test_mean_and_deviation_by_weights():
    check(
        model(
            """p = Mul(s, a)
        m = ReduceSum(p, time)
        q = Mul(p, a)
        e = ReduceSum(q, time)
        z = Mul(m, m)
        y = Sub(e, z)""",
            time=np.asarray([2]),
        )
    )


def test_matrix_product_from_the_left():
    check(model("t = Transpose<perm=[0,2,1]>(a)\n y = MatMul(s, t)"))


def test_matrix_product_from_the_right():
    check(model("t = Transpose<perm=[0,2,1]>(s)\n y = MatMul(a, t)"))


def test_frames_first():
    check(
        parse(
            """agraph (float[1,T,4] x) => (float[1,4] y) { c = MatMul(x, v)
        s = Softmax<axis=1>(c)
        t = Transpose<perm=[0,2,1]>(s)
        m = MatMul(t, x)
        y = Squeeze(m, one) }""",
            v=rand(4, 1) * 9,
            one=np.asarray([1]),
        )
    )


def test_several_heads_and_a_batch():
    spec = check(
        parse(
            """agraph (float[N,T,4] x) => (float[N,3,4] y) { c = MatMul(x, v)
        t = Transpose<perm=[0,2,1]>(c)
        s = Softmax(t)
        y = MatMul(s, x) }""",
            v=rand(4, 3),
        ),
        axes={"x": 1},
    ).spec
    assert all(s["shape"][0] == "N" for s in spec["states"] if s["role"] in ("max", "weight", "add"))


def test_masked_scores_and_large_ones():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float y) { c = Conv(x, v, d)
        h = Mul(c, big)
        g = Greater(c, zero)
        k = Where(g, h, low)
        s = Softmax<axis=2>(k)
        p = Mul(x, s)
        y = ReduceSum(p, time) }""",
            big=np.float32(200),
            zero=np.float32(0),
            low=np.float32(-np.inf),
            time=np.asarray([2]),
            v=WEIGHTS["v"],
            d=WEIGHTS["d"],
        ),
        finite=False,
    )


@pytest.mark.parametrize(
    "rest",
    [
        "y = Mul(a, s)",
        "y = Identity(s)",
        "p = Mul(a, s)\n y = Conv(p, w, b)",
        "y = ReduceMax<axes=[2]>(s)",
        "p = Mul(a, s)\n y = ReduceSum(p, channel)",
    ],
)
def test_weights_needed_frame_by_frame_are_refused(rest):
    refused(model(rest, channel=np.asarray([1])), WHOLE, op_type="Softmax")


def test_context_fed_back_is_refused():
    refused(
        model("p = Mul(a, s)\n c2 = ReduceSum(p, time)\n y = Add(a, c2)", time=np.asarray([2])),
        "it brings a value over the whole stream back",
        op_type="Add",
    )


def test_blockers_are_in_the_order_of_the_nodes():
    from pulsify_onnx.api import analyze

    plan = analyze(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,T] y, float[1,4,T] z) { y = Softmax<axis=2>(x)
        z = CumSum<reverse=1>(x, two) }""",
            two=np.int64(2),
        )
    )
    assert [b.op_type for b in plan.blockers] == ["Softmax", "CumSum"]
