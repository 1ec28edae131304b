import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

DELAYED = "a = Conv<pads=[1,1]>(x, w, b)\n"
W = dict(w=rand(4, 4, 3), b=rand(4), lo=np.float32(0), hi=np.float32(3))


def test_one_hot():
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,1,U,5] y) {{ {DELAYED} m = ReduceMax<axes=[1]>(a)
        n = Clip(m, lo, hi)
        p = Cast<to=7>(n)
        y = OneHot(p, depth, values) }}""",
            depth=np.int64(5),
            values=np.array([0.5, 2], np.float32),
            **W,
        ),
        delays={"y": 1},
    )
    check(
        parse(
            "agraph (int64[T] x) => (float[5,U] y) { y = OneHot<axis=0>(x, depth, values) }",
            depth=np.int64(5),
            values=np.array([0, 1], np.float32),
        ),
        delays={"y": 0},
    )


def test_one_hot_of_unknown_depth():
    refused(
        parse(
            "agraph (int64[T] x, int64[1] n) => (float[U,d] y) { y = OneHot(x, n, values) }",
            values=np.array([0, 1], np.float32),
        ),
        "shape of its result",
        axes={"x": 0},
    )


def test_reverse_sequence():
    check(
        parse(
            "agraph (float[5,3,T] x) => (float[5,3,U] y) { y = ReverseSequence<time_axis=0, batch_axis=1>(x, n) }",
            n=np.array([2, 5, 1]),
        ),
        delays={"y": 0},
    )
    refused(
        parse(
            "agraph (float[T,3,4] x) => (float[U,3,4] y) { y = ReverseSequence<time_axis=0, batch_axis=1>(x, n) }",
            n=np.array([2, 5, 1]),
        ),
        "turns the stream around",
    )
    refused(
        parse(
            "agraph (float[5,T,4] x) => (float[5,U,4] y) { y = ReverseSequence<time_axis=0, batch_axis=1>(x, n) }",
            n=np.array([2, 5, 1]),
        ),
        "sequence of its own length",
    )


def test_det():
    check(parse("agraph (float[T,3,3] x) => (float[U] y) { y = Det(x) }"), delays={"y": 0}, rtol=1e-3)
    refused(parse("agraph (float[2,T,3] x) => (float[2] y) { y = Det(x) }"), "rows or columns of the matrix")


@pytest.mark.parametrize("upper, k", [(0, 0), (1, 2), (0, -3), (1, -1)])
def test_trilu(upper, k):
    check(
        parse(
            f"""agraph (float[1,4,T] x) => (float[1,4,U] y, float[1,V,4] z) {{ {DELAYED} t = Transpose<perm=[0,2,1]>(a)
        y = Trilu<upper={upper}>(a, k)
        z = Trilu<upper={upper}>(t, k) }}""",
            k=np.int64(k),
            **W,
        ),
        delays={"y": 1, "z": 1},
    )


def test_trilu_of_every_frame():
    check(parse("agraph (float[T,4,4] x) => (float[U,4,4] y) { y = Trilu(x) }"), delays={"y": 0})


def test_eye_like():
    check(
        parse("""agraph (float[T,4] x) => (float[U,4] y, int64[4,V] z) { t = Transpose<perm=[1,0]>(x)
        e = EyeLike<k=-2>(x)
        y = Add(e, x)
        z = EyeLike<k=3, dtype=7>(t) }"""),
        delays={"y": 0},
    )


def test_grid_sample():
    grid = np.clip(rand(1, 3, 5, 2), -1, 1)
    check(
        parse(
            """agraph (float[1,2,T,2] g) => (float[1,3,U,2] y) { y = GridSample(image, g) }""", image=rand(1, 3, 4, 4)
        ),
        delays={"y": 0},
    )
    check(parse("agraph (float[1,T,4,4] x) => (float[1,U,3,5] y) { y = GridSample(x, g) }", g=grid), delays={"y": 0})
    refused(
        parse("agraph (float[1,3,T,4] x) => (float[1,3,3,5] y) { y = GridSample(x, g) }", g=grid),
        "spans the whole image",
    )


def test_rois():
    boxes = dict(r=np.array([[0, 0, 3, 3]], np.float32), i=np.array([0]))
    check(
        parse(
            "agraph (float[1,T,8,8] x) => (float[1,U,2,2] y) { y = RoiAlign<output_height=2, output_width=2>(x, r, "
            "i) }",
            **boxes,
        ),
        delays={"y": 0},
    )
    refused(
        parse(
            "agraph (float[1,3,T,8] x) => (float[1,3,2,2] y) { y = RoiAlign<output_height=2, output_width=2>(x, r, "
            "i) }",
            **boxes,
        ),
        "boxes lie anywhere",
    )


def test_deform_conv():
    refused(
        parse(
            """<ir_version: 9, opset_import: ["": 19]> agraph (float[1,2,T,4] x, float[1,8,T,3] o) => (float[1,2,U,3] y) { y = DeformConv(x, w, o) }""",
            w=rand(2, 2, 2, 2),
        ),
        "offsets may reach any frame",
    )


def test_col2im():
    refused(
        parse(
            """<ir_version: 9, opset_import: ["": 18]> agraph (float[1,5,T] x) => (float[1,1,5,5] y) { y = Col2Im(x, s, k) }""",
            s=np.array([5, 5]),
            k=np.array([1, 5]),
        ),
        "image of a fixed size",
    )


def test_center_crop_pad():
    head = '<ir_version: 9, opset_import: ["": 18]> '
    check(
        parse(
            head + f"agraph (float[1,4,T] x) => (float[1,2,U] y) {{ {DELAYED} y = CenterCropPad<axes=[1]>(a, s) }}",
            s=np.array([2]),
            **W,
        ),
        delays={"y": 1},
    )
    refused(
        parse(
            head + "agraph (float[1,4,T] x) => (float[1,4,7] y) { y = CenterCropPad<axes=[2]>(x, s) }", s=np.array([7])
        ),
        "middle of the stream",
    )


def test_a_triangle_of_booleans():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,T] y) {
        b = Greater(x, zero)
        t = Trilu(b)
        y = Cast<to=1>(t) }""",
            zero=np.float32(0),
        ),
        delays={"y": 0},
    )
