import numpy as np
import pytest

from pulsify_onnx.api import analyze, pulsify
from testing.oracle import check, parse, rand, refused, session

W = dict(w=rand(4, 4, 3), b=rand(4))
DELAYED = "a = Conv<pads=[1,1]>(x, w, b)\n"
NEW = '<ir_version: 10, opset_import: ["": 20]> '
QUICK = dict(pulses=(1, 3, 7))


def delayed(body: str, y: str = "float[1,4,U] y", head: str = "", **weights):
    """`a` is a SAME convolution of `x`, one frame late."""
    return parse(f"{head}agraph (float[1,4,T] x) => ({y}) {{ {DELAYED}{body} }}", **W, **weights)


UNARY = [
    "Abs",
    "Atan",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Identity",
]


def test_unary():
    lines = [f"v{k} = {name}({'a' if not k else f't{k - 1}'})\n t{k} = Tanh(v{k})" for k, name in enumerate(UNARY)]
    check(delayed("\n".join([*lines, f"y = Identity(t{len(UNARY) - 1})"]), head=NEW), delays={"y": 1}, **QUICK)


def test_partial_functions():
    check(
        delayed(
            """p = Sigmoid(a)
        q = Sqrt(p)
        l = Log(q)
        m = Acos(p)
        n = Asin(p)
        o = Atanh(n0)
        n0 = Mul(p, half)
        s = Add(l, m)
        t = Add(s, n)
        y = Add(t, o)""".replace(
                "o = Atanh(n0)\n        n0 = Mul(p, half)", "n0 = Mul(p, half)\n        o = Atanh(n0)"
            ),
            half=np.float32(0.5),
        ),
        delays={"y": 1},
        **QUICK,
    )


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu"])
def test_join_of_two_delays(op):
    check(delayed(f"y = {op}(a, x)"), delays={"y": 1}, **QUICK)


def test_join_of_three():
    check(
        delayed("c = Conv<pads=[1,1]>(a, w, b)\n m = Greater(c, zero)\n y = Where(m, a, x)", zero=np.float32(0)),
        delays={"y": 2},
    )
    check(delayed("c = Conv<pads=[1,1]>(a, w, b)\n y = Sum(c, a, x, k)", k=rand(4, 1)), delays={"y": 2}, **QUICK)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
def test_variadic_with_one_input(op):
    check(delayed(f"y = {op}(a)"), delays={"y": 1}, **QUICK)


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons(op):
    check(delayed(f"y = {op}(a, x)", "bool[1,4,U] y"), delays={"y": 1}, **QUICK)


def test_logic():
    check(
        delayed(
            "p = Greater(a, k)\n q = Less(x, k)\n r = And(p, q)\n s = Or(r, q)\n t = Xor(s, p)\n y = Not(t)",
            "bool[1,4,U] y",
            k=np.float32(0.1),
        ),
        delays={"y": 1},
    )


def test_bits():
    check(
        parse(
            NEW
            + """agraph (int32[T,4] x) => (int32[U,4] y) {
        n = BitwiseNot(x)
        a = BitwiseAnd(n, k)
        o = BitwiseOr(a, x)
        y = BitwiseXor(o, k) }""",
            k=np.int32(5),
        ),
        **QUICK,
    )
    check(
        parse('agraph (uint8[T,4] x) => (uint8[U,4] y) { y = BitShift<direction="LEFT">(x, k) }', k=np.uint8(2)),
        **QUICK,
    )


def test_infinities():
    check(
        delayed(
            "e = Exp(a)\n f = Mul(e, k)\n y = IsInf(f)\n z = IsNaN(f)",
            "bool[1,4,U] y, bool[1,4,V] z",
            k=np.float32(3e38),
        ),
        **QUICK,
    )


@pytest.mark.parametrize("kind", ["bool", "int32", "int8", "uint8", "float16", "double", "int64"])
def test_cast_and_remember(kind):
    numbers = dict(bool=9, int32=6, int8=3, uint8=2, float16=10, double=11, int64=7)
    check(
        delayed(
            f"""m = Abs(a)
        c = Cast<to={numbers[kind]}>(m)
        n = Cast<to={numbers[kind]}>(x)
        y = Concat<axis=1>(c, n)""",
            f"{kind}[1,8,U] y",
        ),
        delays={"y": 1},
        inputs={"x": lambda rng, shape: rng.uniform(0, 3, shape).astype(np.float32)},
        rtol=1e-2,
        **QUICK,
    )


def test_bfloat16():
    """Numpy has no bfloat16, so onnxruntime can load the model but Python can't feed its states as arrays."""
    pulsed = pulsify(
        delayed(
            """c = Cast<to=16>(a)
        n = Cast<to=16>(x)
        e = Concat<axis=1>(c, n)
        y = Cast<to=1>(e)""",
            "float[1,8,U] y",
        ),
        pulse=4,
    )
    assert session(pulsed.proto().SerializeToString()) and pulsed.spec["outputs"][0]["delay"] == 1


def test_cast_like():
    check(delayed("y = CastLike(a, k)", "double[1,4,U] y", head=NEW, k=np.float64(0)), delays={"y": 1}, **QUICK)


def test_clip():
    check(delayed("y = Clip(a, lo, hi)", lo=np.float32(-0.2), hi=np.float32(0.4)), delays={"y": 1}, **QUICK)
    check(
        parse("""agraph (float[1,4,T] x, float low) => (float[1,4,U] y) { y = Clip(x, low) }"""), axes={"x": 2}, **QUICK
    )
    check(
        parse(
            '<ir_version: 3, opset_import: ["": 9]> agraph (float[1,4,T] x) => (float[1,4,U] y) { y = '
            "Clip<min=-0.1, max=0.3>(x) }"
        ),
        **QUICK,
    )


@pytest.mark.parametrize("slope", [rand(1), rand(4, 1), rand(1, 4, 1)])
def test_prelu(slope):
    check(delayed("y = PRelu(a, s)", s=slope), delays={"y": 1}, **QUICK)


def test_mod_and_pow():
    check(delayed("y = Mod<fmod=1>(a, k)", k=np.float32(0.3)), delays={"y": 1}, **QUICK)
    check(
        parse("agraph (int64[T,4] x) => (int64[U,4] y, int64[V,4] z) { y = Mod(x, k)\n z = Pow(x, k) }", k=np.int64(3)),
        **QUICK,
    )


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_whole_numbers_are_never_divided_by_zero(op):
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (int64[1,4,U] y, int64[1,4,V] z) {{ {DELAYED}
        n = Cast<to=7>(a)
        m = Abs(x)
        p = Cast<to=7>(m)
        q = Add(p, one)
        y = {op}(n, q)
        aa = Abs(n)
        r = Add(aa, one)
        z = {op}(p, r) }}""",
            one=np.int64(1),
            **W,
        ),
        delays={"y": 1, "z": 1},
    )


def test_positions_are_never_divided_by_zero():
    check(
        delayed(
            """s = Shape(x)
        n = Gather(s, two)
        r = Range(zero, n, one)
        d = Add(r, one)
        e = Div(hundred, d)
        f = Cast<to=1>(e)
        y = Add(a, f)""",
            two=np.int64(2),
            zero=np.int64(0),
            one=np.int64(1),
            hundred=np.int64(100),
        ),
        delays={"y": 1},
        **QUICK,
    )


def test_constant_division_by_zero():
    """Folding it would end the process."""
    assert analyze(
        parse(
            "agraph (int64[T,4] x) => (int64[U,4] y) { c = Div(one, zero)\n y = Add(x, c) }",
            one=np.int64(1),
            zero=np.int64(0),
        )
    )


def test_constant_of_a_fixed_length():
    refused(delayed("y = Add(a, k)", k=rand(9)), "constant of 9 frames along the stream", op_type="Add")


def test_streams_on_different_axes():
    refused(
        parse(
            "agraph (float[1,4,T] x) => (float[U,4,V] y) { t = Transpose<perm=[2,1,0]>(x)\n s = Relu(t)\n p = "
            "Add(s, x)\n y = Softmax(p) }"
        ),
        "every frame needs the last",
    )


def test_streams_of_different_lengths():
    refused(
        parse("agraph (float[1,4,T] x) => (float[1,4,U] y) { c = Conv(x, w, b)\n y = Add(c, x) }", **W),
        "different lengths",
        op_type="Add",
    )


def test_length_as_a_number():
    check(
        parse(
            """agraph (float[T,4] x) => (float[U,4] y) {
        s = Shape(x)
        f = Cast<to=1>(s)
        g = Gather(f, i)
        z = Mul(g, zero)
        y = Add(x, z) }""",
            i=np.int64(1),
            zero=np.float32(0),
        ),
        **QUICK,
    )
    refused(
        parse(
            """agraph (float[T,4] x) => (float[U,4] y) {
        s = Shape(x)
        f = Cast<to=1>(s)
        g = Gather(f, i)
        y = Div(x, g) }""",
            i=np.int64(0),
        ),
        "not known while the stream runs",
        op_type="Div",
    )


def test_dropout():
    check(delayed("y = Dropout(a)"), delays={"y": 1}, **QUICK)
    check(delayed("y = Dropout(a, r, t)", r=np.float32(0.5), t=np.bool_(False)), delays={"y": 1}, **QUICK)
    refused(delayed("y = Dropout(a, r, t)", r=np.float32(0.5), t=np.bool_(True)), "drops frames at random")
    refused(delayed("y, z = Dropout(a)", "float[1,4,U] y, bool[1,4,U] z"), "its mask is read")


def test_positions_that_divide_end_before_the_stream():
    """With an end, a frame is divided by 1 only where it is known not to be real."""
    check(
        delayed(
            """s = Shape(x)
        n = Gather(s, two)
        r = Range(one, n, one)
        d = Div(hundred, r)
        e = Cast<to=1>(d)
        k = Slice(a, first, last, axis)
        y = Mul(k, e)""",
            two=np.int64(2),
            one=np.int64(1),
            hundred=np.int64(100),
            first=np.asarray([1]),
            last=np.asarray([2**31 - 1]),
            axis=np.asarray([2]),
        ),
        **QUICK,
    )
