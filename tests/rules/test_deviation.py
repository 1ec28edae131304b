import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4)}
BODY = "agraph (float[1,4,T] x) => (float y) { a = Conv<pads=[1,1]>(x, w, b)\n"
BACK = "it brings a value over the whole stream back to the frames"
FORMS = {
    "power": "m = ReduceMean<axes=[2]>(a)\n d = Sub(a, m)\n s = Pow(d, two)\n y = ReduceMean<axes=[2], "
    "keepdims=0>(s) }",
    "product": "m = ReduceMean<axes=[-1]>(a)\n d = Sub(a, m)\n s = Mul(d, d)\n y = ReduceSum(s, time) }",
    "squeezed": "m = ReduceMean<axes=[2], keepdims=0>(a)\n u = Unsqueeze(m, time)\n d = Sub(u, a)\n s = Mul(d, "
    "d)\n y = ReduceMean<axes=[2]>(s) }",
    "expanded": "m = ReduceMean<axes=[2]>(a)\n n = Shape(a)\n e = Expand(m, n)\n d = Sub(a, e)\n s = Mul(d, d)\n y "
    "= ReduceMean<axes=[2]>(s) }",
    "all axes": "m = ReduceMean(a)\n d = Sub(a, m)\n y = ReduceSumSquare<keepdims=0>(d) }",
    "norm": "m = GlobalAveragePool(a)\n d = Sub(a, m)\n y = ReduceL2<axes=[2]>(d) }",
    "pooled": "m = GlobalAveragePool(a)\n d = Sub(a, m)\n s = Pow(d, two)\n y = GlobalAveragePool(s) }",
}


@pytest.mark.parametrize("form", FORMS)
def test_of_a_delayed_stream(form):
    check(parse(BODY + FORMS[form], two=np.float32(2), time=np.asarray([2]), **WEIGHTS))


@pytest.mark.parametrize("form", FORMS)
def test_at_once(form):
    spec = check(
        parse("agraph (float[1,4,T] a) => (float y) {\n" + FORMS[form], two=np.float32(2), time=np.asarray([2]))
    ).spec
    assert spec["outputs"][0]["exact_every_pulse"] is True


def test_far_from_zero():
    """The mean is a thousand deviations from zero: E[x²] - E[x]² would keep no digit of it."""
    check(
        parse(
            "agraph (float[1,4,T] x) => (float y) { a = Add(x, far)\n" + FORMS["power"],
            far=np.float32(3000),
            two=np.float32(2),
        ),
        rtol=1e-3,
    )


def test_unbiased_by_the_length():
    check(
        parse(
            BODY
            + """m = ReduceMean<axes=[2]>(a)
        d = Sub(a, m)
        s = Mul(d, d)
        v = ReduceMean<axes=[2], keepdims=0>(s)
        n = Shape(a)
        t = Gather(n, time)
        p = ReduceProd<keepdims=0>(t)
        f = Cast<to=1>(p)
        z = Mul(v, f)
        o = Sub(f, one)
        q = Div(z, o)
        y = Sqrt(q) }""",
            time=np.asarray([2]),
            one=np.float32(1),
            **WEIGHTS,
        ),
        finite=False,
    )


def test_normalised_frames_are_refused():
    refused(
        parse(
            BODY
            + """m = ReduceMean<axes=[2]>(a)
        d = Sub(a, m)
        s = Mul(d, d)
        v = ReduceMean<axes=[2]>(s)
        r = Sqrt(v)
        y = Div(d, r) }""",
            **WEIGHTS,
        ),
        BACK,
        op_type="Sub",
    )


def test_a_deviation_as_output_is_refused():
    refused(parse(BODY + "m = ReduceMean<axes=[2]>(a)\n y = Sub(a, m) }", **WEIGHTS), BACK, op_type="Sub")


@pytest.mark.parametrize(
    "rest",
    [
        "m = ReduceMean<axes=[2]>(x)\n d = Sub(a, m)\n s = Mul(d, d)\n y = ReduceMean<axes=[2]>(s) }",
        "m = ReduceMax<axes=[2]>(a)\n d = Sub(a, m)\n s = Mul(d, d)\n y = ReduceMean<axes=[2]>(s) }",
        "m = ReduceMean<axes=[2]>(a)\n h = Mul(m, two)\n d = Sub(a, h)\n s = Mul(d, d)\n y = ReduceMean<axes=[2]>(s) }",
        "m = ReduceMean<axes=[2]>(a)\n d = Sub(a, m)\n s = Abs(d)\n y = ReduceMean<axes=[2]>(s) }",
        "m = ReduceMean<axes=[2]>(a)\n d = Sub(a, m)\n s = Mul(d, d)\n y = ReduceMean<axes=[1,2]>(s) }",
        "m = ReduceMean<axes=[2]>(a)\n d = Sub(a, m)\n s = Mul(d, d)\n y = ReduceMax<axes=[2]>(s) }",
    ],
)
def test_other_uses_are_refused(rest):
    refused(parse(BODY + rest, two=np.float32(2), **WEIGHTS), BACK)
