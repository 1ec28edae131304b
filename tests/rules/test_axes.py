import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

W = dict(w=rand(4, 4, 3), b=rand(4))
QUICK = dict(pulses=(1, 3, 7))
FIXED = "fixed number of frames"


def delayed(body, y="float[1,4,U] y", head="", **weights):
    """`a` is a SAME convolution of `x`, one frame late; `t` has time in the middle."""
    return parse(
        f"""{head}agraph (float[1,4,T] x) => ({y}) {{
        a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[0,2,1]>(a)
        {body} }}""",
        **W,
        **weights,
    )


def to(*shape):
    return np.array(shape, np.int64)


@pytest.mark.parametrize(
    "perm, y", [("2,0,1", "float[U,1,4] y"), ("1,2,0", "float[4,U,1] y"), ("0,1,2", "float[1,4,U] y")]
)
def test_transpose(perm, y):
    check(delayed(f"y = Transpose<perm=[{perm}]>(a)", y), delays={"y": 1}, **QUICK)


def test_transpose_reverses():
    check(delayed("y = Transpose(a)", "float[U,4,1] y"), delays={"y": 1}, **QUICK)


def test_squeeze_and_unsqueeze():
    check(
        delayed("s = Squeeze(a, z)\n y = Unsqueeze(s, o)", "float[4,U,1,1] y", z=to(0), o=to(2, -1)),
        delays={"y": 1},
        **QUICK,
    )
    check(delayed("s = Squeeze(a)\n y = Relu(s)", "float[4,U] y"), delays={"y": 1}, **QUICK)
    head = '<ir_version: 6, opset_import: ["": 11]> '
    check(
        delayed("s = Squeeze<axes=[0]>(a)\n y = Unsqueeze<axes=[0,3]>(s)", "float[1,4,U,1] y", head=head),
        delays={"y": 1},
        **QUICK,
    )
    refused(delayed("y = Squeeze(a, z)", "float[1,4] y", z=to(2)), "squeezes the stream axis")


@pytest.mark.parametrize(
    "body, y, target",
    [
        ("y = Reshape(t, s)", "float[U,4] y", to(-1, 4)),
        ("y = Reshape(t, s)", "float[1,U,2,2] y", to(0, -1, 2, 2)),
        ("y = Reshape(t, s)", "float[1,U,2,2] y", to(0, 0, 2, 2)),
        ("y = Reshape(t, s)", "float[1,U,4,1] y", to(1, -1, 4, 1)),
        ("y = Reshape(a, s)", "float[1,2,2,U] y", to(1, 2, 2, -1)),
        ("y = Reshape(a, s)", "float[4,U] y", to(4, -1)),
    ],
)
def test_reshape(body, y, target):
    check(delayed(body, y, s=target), delays={"y": 1}, **QUICK)


def test_reshape_to_samples_and_back():
    check(
        delayed("r = Reshape(t, s)\n m = MaxPool<kernel_shape=[3]>(r)\n y = Relu(m)", "float[1,1,U] y", s=to(1, 1, -1)),
        delays={"y": 6},
        **QUICK,
    )
    check(
        parse("agraph (float[1,T] x) => (float[1,U,4] y) { y = Reshape(x, s) }", s=to(1, -1, 4)),
        unit=4,
        delays={"y": 0},
    )


def test_reshape_with_a_batch_of_any_size():
    check(
        parse("agraph (float[N,T,4] x) => (float[N,U,2,2] y) { y = Reshape(x, s) }", s=to(0, 0, 2, 2)),
        axes={"x": 1},
        **QUICK,
    )
    check(
        parse(
            """agraph (float[batch,4,T] x) => (float[batch,U,4] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[0,2,1]>(a)
        s = Shape(x)
        n = Gather(s, zero)
        f = Gather(s, two)
        k = Concat<axis=0>(n, f, two, two)
        r = Reshape(t, k)
        l = Concat<axis=0>(n, f, four)
        y = Reshape(r, l) }""",
            zero=to(0),
            two=to(2),
            four=to(4),
            **W,
        ),
        axes={"x": 2},
        delays={"y": 1},
        **QUICK,
    )


def test_frames_written_into_the_target():
    refused(
        delayed("m = Softmax<axis=1>(t)\n y = Reshape(m, s)", "float[1,45,2,2] y", s=to(1, 45, 2, 2)),
        "over the whole stream",
        op_type="Softmax",
    )
    refused(delayed("e = Expand(a, s)\n y = Relu(e)", "float[1,4,45] y", s=to(1, 4, 45)), FIXED, op_type="Expand")


def test_frames_that_do_not_divide():
    refused(delayed("y = Reshape(t, s)", "float[1,U,3] y", s=to(1, -1, 3)), "neither of which divides the other")


def test_flatten():
    check(parse("agraph (float[T,2,4] x) => (float[U,8] y) { y = Flatten(x) }"), **QUICK)
    check(parse("agraph (float[1,T,2,4] x) => (float[U,8] y) { y = Flatten<axis=2>(x) }"), **QUICK)
    check(delayed("s = Squeeze(t, z)\n y = Flatten<axis=-1>(s)", "float[U,4] y", z=to(0)), delays={"y": 1}, **QUICK)
    refused(parse("agraph (float[3,T,4] x) => (float[U,4] y) { y = Flatten<axis=2>(x) }"), "merged with time")
    refused(delayed("y = Flatten(a)", "float[1,U] y"), "flattens the whole stream")


def test_expand_and_tile():
    check(delayed("y = Expand(a, s)", "float[3,4,U] y", s=to(3, 1, 1)), delays={"y": 1}, **QUICK)
    check(delayed("y = Tile(a, s)", "float[2,12,U] y", s=to(2, 3, 1)), delays={"y": 1}, **QUICK)
    refused(delayed("y = Tile(a, s)", "float[1,4,U] y", s=to(1, 1, 2)), "repeats the whole stream")


def test_identity_chain():
    check(delayed("i = Identity(a)\n y = Identity(i)"), delays={"y": 1}, **QUICK)


@pytest.mark.parametrize("repeats", [(2, 1), (1, 2), (3, 2)])
def test_tile_of_any_number_of_rows(repeats):
    """Onnx gives no name to a batch that is repeated once."""
    model = parse(
        """agraph (float[B,4,T] x) => (float[B,U,C] y) {
        t = Transpose<perm=[0,2,1]>(x)
        u = Unsqueeze(t, two)
        r = Tile(u, repeats)
        y = Reshape(r, flat) }""",
        two=np.array([2]),
        repeats=np.array([1, 1, *repeats]),
        flat=np.array([0, -1, 4 * repeats[1]]),
    )
    check(model, axes={"x": 2}, delays={"y": 0}, state_bytes=0, **QUICK)
