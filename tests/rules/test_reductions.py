import numpy as np
import pytest

from pulsify_onnx import pulsify, verify
from testing.oracle import check, parse, rand, refused

OPS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
]
BODY = "agraph (float[1,4,T] x) => (float[1,A,B] y) { a = Conv<pads=[1,1]>(x, w, b)\n"
WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}


def reduce(op: str, value: str, axes: str, keepdims: int = 1) -> str:
    if op == "ReduceSum":
        return f"axes = Constant<value_ints={axes}>()\n y = ReduceSum<keepdims={keepdims}>({value}, axes)"
    return f"y = {op}<axes={axes}, keepdims={keepdims}>({value})"


@pytest.mark.parametrize("op", OPS)
def test_delayed(op):
    spec = check(parse(BODY + reduce(op, "a", "[2]") + "}", **WEIGHTS)).spec
    assert spec["outputs"][0]["exact_every_pulse"] is False and spec["outputs"][0]["kind"] == "prefix"


@pytest.mark.parametrize("op", OPS)
def test_at_once(op):
    spec = check(parse("agraph (float[1,4,T] x) => (float[1] y) {\n" + reduce(op, "x", "[1,2]", 0) + "}")).spec
    assert spec["outputs"][0]["exact_every_pulse"] is True and spec["outputs"][0]["shape"] == [1]


@pytest.mark.parametrize("op", ["ReduceProd", "ReduceLogSum"])
def test_products_and_logarithms(op):
    check(
        parse(
            "agraph (float[1,4,T] x) => (float[1,A,B] y) { a = Conv<pads=[1,1]>(x, w, b)\n s = Sigmoid(a)\n o = "
            "Add(s, s)\n" + reduce(op, "o", "[-1]") + "}",
            **WEIGHTS,
        ),
        length=20,
    )


def test_all_axes_and_no_axes():
    check(
        parse("""agraph (float[1,4,T] x) => (float y, float[1,1,1] z) { y = ReduceMax<keepdims=0>(x)
        z = ReduceMean(x) }""")
    )


def test_axes_input_of_opset_18():
    check(
        parse("""<ir_version: 10, opset_import: ["": 18]>
        agraph (float[1,4,T] x) => (float[1,4] y, float[1,4,T] z) { axes = Constant<value_ints=[2]>()
        y = ReduceMean<keepdims=0>(x, axes)
        z = ReduceMean<noop_with_empty_axes=1>(x) }""")
    )


@pytest.mark.parametrize(
    "op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd"]
)
def test_whole_numbers(op):
    text = (
        "agraph (int32[1,4,T] x) => (int32[1,A,B] y) { c = Constant<value_int=3>()\n d = Cast<to=6>(c)\n p = "
        "Sub(x, d)\n"
    )
    check(parse(text + reduce(op, "p", "[2]") + "}"), length=19)


def test_small_whole_numbers():
    check(parse("agraph (int8[1,4,T] x) => (int8[1,4,1] y) { y = ReduceMax<axes=[2]>(x) }"))


def test_half_floats_accumulate_in_float():
    spec = check(
        parse("agraph (float16[1,4,T] x) => (float16[1,4,1] y) { y = ReduceMean<axes=[2]>(x) }"), rtol=2e-3
    ).spec
    assert [s["dtype"] for s in spec["states"]][-1] == "float32"


def test_batch_is_axis_0_of_the_state():
    spec = check(
        parse("agraph (float[T,N,3] x) => (float[N,3] y) { y = ReduceMean<axes=[0], keepdims=0>(x) }"), axes={"x": 0}
    ).spec
    assert [s["shape"] for s in spec["states"] if s["role"] == "add"] == [["N", 1, 3]]


def test_rate_and_padding_at_the_end():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,1] y, float[1,4,1] z) { a = Conv<strides=[2], pads=[1,1]>(x, w, b)
        y = ReduceMean<axes=[2]>(a)
        p = Constant<value_ints=[0,0,2,0,0,3]>()
        f = Constant<value_float=0.5>()
        q = Pad(a, p, f)
        z = ReduceMean<axes=[2]>(q) }""",
            **WEIGHTS,
        )
    )


def test_cropped_at_the_end():
    spec = check(
        parse("""agraph (float[1,4,T] x) => (float[1,4,1] y) { s = Constant<value_ints=[0]>()
        e = Constant<value_ints=[-5]>()
        i = Constant<value_ints=[2]>()
        c = Slice(x, s, e, i)
        y = ReduceSum(c, i) }""")
    ).spec
    assert spec["outputs"][0]["exact_every_pulse"] is True


def test_other_axes_are_kept():
    check(
        parse(
            "agraph (float[1,4,T] x) => (float[1,T] y) { a = Conv<pads=[1,1]>(x, w, b)\n y = ReduceMean<axes=[1], "
            "keepdims=0>(a) }",
            **WEIGHTS,
        ),
        delays={"y": 1},
    )


def test_operators_after_it_run_as_they_are():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,3] y) { a = Conv<pads=[1,1]>(x, w, b)
        m = ReduceSum<keepdims=0>(a, axes)
        n = Shape(a)
        i = Constant<value_int=2>()
        t = Gather(n, i)
        f = Cast<to=1>(t)
        half = Constant<value_float=0.5>()
        h = Mul(f, half)
        d = Div(m, h)
        r = Reshape(d, shape)
        g = Gemm<transB=1>(r, v)
        y = Softmax(g) }""",
            v=rand(3, 4),
            axes=rand(1).astype("int64") + 2,
            shape=rand(2).astype("int64") + np.array([1, 4]),
            **WEIGHTS,
        )
    )


def test_the_root_of_a_length():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4] y) { m = ReduceSum<keepdims=0>(x, axes)
        n = Shape<start=2>(x)
        f = Cast<to=1>(n)
        r = Sqrt(f)
        y = Div(m, r) }""",
            axes=rand(1).astype("int64") + 2,
        )
    )


BACK = "it brings a value over the whole stream back to the frames"


def test_fed_back_is_refused():
    refused(
        parse("agraph (float[1,4,T] x) => (float[1,4,T] y) { m = ReduceMean<axes=[2]>(x)\n y = Sub(x, m) }"),
        BACK,
        op_type="Sub",
    )
    refused(
        parse("""agraph (float[1,4,T] x) => (float[1,4,T] y) { m = ReduceMean<axes=[2]>(x)
        s = Sigmoid(m)
        y = Mul(x, s) }"""),
        BACK,
        op_type="Mul",
    )
    refused(
        parse("""agraph (float[1,4,T] x) => (float[1,4,T] y) { m = ReduceMax<axes=[2]>(x)
        n = Shape(x)
        e = Expand(m, n)
        y = Concat<axis=1>(x, e) }"""),
        BACK,
        op_type="Expand",
    )
    refused(
        parse("""agraph (float[1,4,T] x) => (float[1,4,T] y) { m = ReduceMean<axes=[2]>(x)
        c = Greater(x, m)
        y = Where(c, x, m) }"""),
        BACK,
        op_type="Greater",
    )


def test_logarithm_of_whole_numbers_is_refused():
    refused(
        parse("agraph (int32[1,4,T] x) => (int32[1,4,1] y) { y = ReduceLogSum<axes=[2]>(x) }"),
        "logarithm of a running sum of whole numbers",
    )


@pytest.mark.parametrize("before, after, kernel, frames, exact", [(0, 0, 1, 2, True), (5, 1, 3, 7, False)])
def test_a_mean_of_first_frames_is_exact_where_they_have_come_with_the_shortest_stream(
    before: int, after: int, kernel: int, frames: int, exact: bool
) -> None:
    """Of padding at the end, short streams have as many frames sooner than the long ones that go on."""
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2] y) {
        p = Pad(x, pads)
        c = Conv(p, w, b)
        f = Slice(c, zero, count, axis)
        y = ReduceMean<axes=[2], keepdims=0>(f) }""",
        pads=np.array([0, 0, before, 0, 0, after]),
        w=rand(2, 2, kernel),
        b=rand(2),
        zero=np.array([0]),
        count=np.array([frames]),
        axis=np.array([2]),
    )
    check(model)
    found = pulsify(model, pulse=1)
    assert found.spec["outputs"][0]["exact_every_pulse"] is exact
    assert verify(model, found).ok
