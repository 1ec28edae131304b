import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4), "v": rand(3, 4, 5, seed=2)}
BODY = "agraph (float[1,4,T] x) => (float y) { a = Conv<pads=[1,1]>(x, w, b)\n c = Conv<pads=[2,2]>(x, v)\n"


def test_matrix_product():
    spec = check(parse(BODY + "t = Transpose<perm=[0,2,1]>(c)\n y = MatMul(a, t) }", **WEIGHTS)).spec
    assert spec["outputs"][0]["shape"] == [1, 4, 3]


def test_at_once_with_a_batch():
    spec = check(
        parse("agraph (float[N,4,T] x) => (float[N,4,4] y) { t = Transpose<perm=[0,2,1]>(x)\n y = MatMul(x, t) }"),
        axes={"x": 2},
    ).spec
    assert spec["outputs"][0]["exact_every_pulse"] is True and spec["states"][-1]["shape"] == ["N", 4, 4]


def test_energy_of_a_vector():
    check(parse("agraph (float[T] x) => (float y) { y = MatMul(x, x) }"))


@pytest.mark.parametrize("c", ["", ", c"])
def test_gemm(c):
    check(
        parse(
            f"""agraph (float[T,4] x) => (float[4,4] y) {{ d = Sigmoid(x)
        y = Gemm<transA=1, alpha=0.5, beta=2.0>(x, d{c}) }}""",
            c=rand(4),
        )
    )


@pytest.mark.parametrize("equation", ["bct,bdt->bcd", "bct,bdt->b", "bct,bdt,cd->bd"])
def test_einsum(equation):
    third = ", m" if equation.count(",") == 2 else ""
    check(parse(BODY + f'y = Einsum<equation="{equation}">(a, c{third}) }}', m=rand(4, 3), **WEIGHTS))


def test_fed_back_is_refused():
    refused(
        parse("""agraph (float[1,T,4] x) => (float[1,T,4] y) { k = Transpose<perm=[0,2,1]>(x)
        m = MatMul(k, x)
        y = MatMul(x, m) }"""),
        "it brings a value over the whole stream back to the frames",
        op_type="MatMul",
    )


def test_a_fixed_number_of_frames_is_refused():
    refused(
        parse("agraph (float[1,4,T] x) => (float[1,4,3] y) { y = MatMul(x, m) }", m=np.ones((45, 3), np.float32)),
        "it sums over the stream",
    )
