import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

W = dict(w=rand(4, 4, 3), b=rand(4))
QUICK = dict(pulses=(1, 3, 7))
SUMS = "sums over the stream"


def delayed(body, y, **weights):
    """`a` is a SAME convolution of `x`, one frame late; `t` has time in the middle."""
    return parse(
        f"""agraph (float[1,4,T] x) => ({y}) {{
        a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[0,2,1]>(a)
        {body} }}""",
        **W,
        **weights,
    )


@pytest.mark.parametrize(
    "body, y, weights",
    [
        ("y = MatMul(t, m)", "float[1,U,6] y", dict(m=rand(4, 6))),
        ("y = MatMul(t, m)", "float[3,U,6] y", dict(m=rand(3, 4, 6))),
        ("y = MatMul(m, a)", "float[1,6,U] y", dict(m=rand(6, 4))),
        ("y = MatMul(m, a)", "float[1,U] y", dict(m=rand(4))),
        ("y = MatMul(m, a)", "float[2,3,6,U] y", dict(m=rand(2, 3, 6, 4))),
    ],
)
def test_rows_and_columns(body, y, weights):
    check(delayed(body, y, **weights), delays={"y": 1}, **QUICK)


def test_vector():
    check(parse("agraph (float[1,T,4] x) => (float[1,U] y) { y = MatMul(x, m) }", m=rand(4)), **QUICK)


def test_batch():
    check(parse("agraph (float[T,2,4] x) => (float[U,2,6] y) { y = MatMul(x, m) }", m=rand(4, 6)), **QUICK)
    check(parse("agraph (float[T,2,4] x) => (float[U,6,4] y) { y = MatMul(m, x) }", m=rand(1, 6, 2)), **QUICK)
    check(parse("agraph (float[T,2,4] x, float[T,4,3] z) => (float[U,2,3] y) { y = MatMul(x, z) }"), **QUICK)
    refused(
        parse("agraph (float[T,2,4] x) => (float[U,2,6] y) { y = MatMul(x, m) }", m=rand(9, 4, 6)),
        "9 matrices for the frames",
    )


def test_sums():
    refused(delayed("y = MatMul(a, m)", "float[1,4,6] y", m=rand(9, 6)), SUMS)
    refused(delayed("y = MatMul(m, t)", "float[1,6,4] y", m=rand(6, 9)), SUMS)
    refused(parse("agraph (float[T] x) => (float[6] y) { y = MatMul(x, m) }", m=rand(9, 6)), SUMS)


@pytest.mark.parametrize("flip", [0, 1])
def test_gemm(flip):
    x = "float[4,T] x" if flip else "float[T,4] x"
    check(
        parse(
            f"agraph ({x}) => (float[U,6] y) {{ y = Gemm<transA={flip}, alpha=0.5, beta=2.0>(x, m, c) }}",
            m=rand(4, 6),
            c=rand(6),
        ),
        **QUICK,
    )
    z = "float[T,4] x" if flip else "float[4,T] x"
    check(
        parse(f"agraph ({z}) => (float[6,U] y) {{ y = Gemm<transB={flip}>(m, x, c) }}", m=rand(6, 4), c=rand(6, 1)),
        **QUICK,
    )


def test_gemm_with_a_stream_added():
    check(
        parse(
            """agraph (float[T,4] x) => (float[U,4] y) {
        u = Unsqueeze(x, axis)
        q = Transpose<perm=[0,2,1]>(u)
        c = Conv<pads=[1,1]>(q, w, b)
        s = Squeeze(c, axis)
        a = Transpose<perm=[1,0]>(s)
        y = Gemm(a, m, x) }""",
            m=rand(4, 4),
            axis=np.array([0]),
            **W,
        ),
        delays={"y": 1},
    )


def test_gemm_refused():
    refused(parse("agraph (float[4,T] x) => (float[4,6] y) { y = Gemm(x, m) }", m=rand(9, 6)), SUMS)
    refused(
        parse("agraph (float[T,4] x) => (float[U,6] y) { y = Gemm(x, m, c) }", m=rand(4, 6), c=rand(9, 1)),
        "9 frames along the stream",
    )


@pytest.mark.parametrize(
    "equation, y, m",
    [
        ("bct,cd->bdt", "float[1,6,U] y", rand(4, 6)),
        ("bct,cd->tbd", "float[U,1,6] y", rand(4, 6)),
        ("bct,cd", "float[1,6,U] y", rand(4, 6)),
        ("b c t, c d -> b d t", "float[1,6,U] y", rand(4, 6)),
        ("...ct,cd->...td", "float[1,U,6] y", rand(4, 6)),
        ("bc...,cd->bd...", "float[1,6,U] y", rand(4, 6)),
        ("bct,bcd->bdt", "float[1,6,U] y", rand(1, 4, 6)),
    ],
)
def test_einsum(equation, y, m):
    check(delayed(f'y = Einsum<equation="{equation}">(a, m)', y, m=m), delays={"y": 1}, **QUICK)


def test_einsum_of_two_streams():
    check(delayed('y = Einsum<equation="bct,bct->bt">(a, x)', "float[1,U] y"), delays={"y": 1}, **QUICK)
    check(delayed('y = Einsum<equation="bct,bdt->bcdt">(a, x)', "float[1,4,4,U] y"), delays={"y": 1}, **QUICK)


def test_einsum_refused():
    refused(delayed('y = Einsum<equation="bct,td->bcd">(a, m)', "float[1,4,6] y", m=rand(9, 6)), SUMS)
    refused(
        delayed('y = Einsum<equation="bct,td->bctd">(a, m)', "float[1,4,U,6] y", m=rand(9, 6)), "fixed number of frames"
    )
    refused(parse('agraph (float[T,5] x) => (float[U] y) { y = Einsum<equation="ii->i">(x) }'), "diagonal")
