import numpy as np

from testing.oracle import check, parse, rand, refused

W = dict(w=rand(4, 4, 3), b=rand(4))
LENGTH = """s = Shape(x)
    n = Gather(s, two)
    f = Conv<pads=[1,1]>(x, w, b)
"""
K = dict(two=np.int64(2), zero=np.int64(0), one=np.int64(1), **W)
QUICK = dict(pulses=(1, 3, 7))


def of_length(body, y="float[1,4,U] y", head="", **weights):
    """`n` is the length of `x`, `f` a SAME convolution of it."""
    return parse(f"{head}agraph (float[1,4,T] x) => ({y}) {{ {LENGTH}{body} }}", **K, **weights)


def test_positions():
    check(of_length("r = Range(zero, n, one)\n c = Cast<to=1>(r)\n y = Add(f, c)"), delays={"y": 1}, **QUICK)
    check(of_length("r = Range(one, n, two)\n y = Identity(r)", "int64[U] y"), **QUICK)


def test_positions_of_floats():
    check(
        of_length(
            "g = Cast<to=1>(n)\n r = Range(start, g, step)\n y = Add(f, r)", start=np.float32(0), step=np.float32(1)
        ),
        delays={"y": 1},
        **QUICK,
    )


def test_countdown():
    refused(
        of_length("r = Range(n, zero, down)\n c = Cast<to=1>(r)\n y = Add(f, c)", down=np.int64(-1)),
        "counts down",
        op_type="Range",
    )


def test_range_from_the_length():
    refused(
        of_length("m = Add(n, n)\n r = Range(n, m, one)\n c = Cast<to=1>(r)\n y = Add(f, c)"),
        "counts from a number that depends on the length",
    )


def test_constant_of_shape():
    check(of_length("c = ConstantOfShape<value=float[1] {0.5}>(s)\n y = Add(f, c)"), delays={"y": 1}, **QUICK)
    check(of_length("c = ConstantOfShape(s)\n y = Sub(f, c)"), delays={"y": 1}, **QUICK)


def test_expand_a_constant_to_the_length():
    check(of_length("e = Expand(v, s)\n y = Mul(f, e)", v=rand(4, 1)), delays={"y": 1}, **QUICK)
    check(
        of_length(
            "u = Unsqueeze(n, z1)\n k = Concat<axis=0>(o2, u)\n e = Expand(v, k)\n y = Mul(f, e)",
            v=rand(4, 1),
            z1=np.array([0]),
            o2=np.array([1, 1]),
        ),
        delays={"y": 1},
        **QUICK,
    )


def test_tile_a_frame_to_the_length():
    check(
        of_length(
            "u = Unsqueeze(n, z1)\n k = Concat<axis=0>(o2, u)\n e = Tile(v, k)\n y = Mul(f, e)",
            v=rand(1, 4, 1),
            z1=np.array([0]),
            o2=np.array([1, 1]),
        ),
        delays={"y": 1},
        **QUICK,
    )


def test_tile_of_a_fixed_length():
    refused(
        of_length(
            "u = Unsqueeze(n, z1)\n k = Concat<axis=0>(o2, u)\n e = Tile(v, k)\n y = Mul(f, e)",
            v=rand(1, 4, 2),
            z1=np.array([0]),
            o2=np.array([1, 1]),
        ),
        "",
    )


def test_square_of_the_length():
    refused(
        of_length(
            "u = Unsqueeze(n, z1)\n k = Concat<axis=0>(u, u)\n e = ConstantOfShape(k)\n y = MatMul(f, e)",
            z1=np.array([0]),
        ),
        "",
    )
