import numpy as np

from testing.oracle import check, parse, rand, refused

HEAD = '<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]>\n'
W = dict(w=rand(8, 8, 3), b=rand(8), cos=rand(999, 2), sin=rand(999, 2, seed=1))
POSITIONS = """a = Conv<pads=[1,1]>(x, w, b)
    t = Transpose<perm=[0,2,1]>(a)
    s = Shape<start=2, end=3>(x)
    n = Squeeze(s)
    r = Range(zero, n, one)
    p = Unsqueeze(r, axis)
"""
K = dict(zero=np.int64(0), one=np.int64(1), axis=np.array([0]), **W)
QUICK = dict(pulses=(1, 3, 7))


def behind(body, **weights):
    """A delayed stream `t` [1, T, 8] and its positions `p`."""
    return parse(f"{HEAD}agraph (float[1,8,T] x) => (float[1,U,8] y) {{ {POSITIONS} {body} }}", **K, **weights)


def test_by_positions():
    check(behind("y = RotaryEmbedding<num_heads=2>(t, cos, sin, p)"), delays={"y": 1}, **QUICK)


def test_by_tables_of_the_length():
    check(
        behind("""c = Gather(cos, p)
        d = Gather(sin, p)
        y = RotaryEmbedding<num_heads=2, interleaved=1>(t, c, d)"""),
        delays={"y": 1},
        **QUICK,
    )


def test_of_the_contrib_domain():
    check(behind("y = com.microsoft.RotaryEmbedding<num_heads=2>(t, p, cos, sin)"), delays={"y": 1}, **QUICK)
    refused(behind("y = com.microsoft.RotaryEmbedding<num_heads=2>(t, axis, cos, sin)"), "fixed number of frames")


def test_positions_of_a_fixed_length():
    refused(behind("y = RotaryEmbedding<num_heads=2>(t, cos, sin, q)", q=np.arange(45)[None]), "fixed number of frames")


def test_along_the_features():
    refused(
        behind("u = RotaryEmbedding<num_heads=2>(a, cos, sin, p)\n y = Transpose<perm=[0,2,1]>(u)"),
        "does not run along the sequence",
    )
