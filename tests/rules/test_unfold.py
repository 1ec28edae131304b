import onnx
import pytest

from testing.oracle import check, every_length, parse, rand, refused

HEAD = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>\n'


def behind(body: str, y: str = "float[1,4,U,V] y") -> onnx.ModelProto:
    """A model of windows `a` of a stream along the last axis, behind a SAME convolution."""
    return parse(
        HEAD
        + f"""agraph (float[1,4,T] x) => ({y}) {{
        a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[0,2,1]>(a)
        {body} }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        v=rand(4, 4, 3, seed=1),
        p=[0, 0, 2, 0, 0, 3],
        m=rand(5, 2),
        d=[3],
    )


@pytest.mark.parametrize("size, hop, delay", [(5, 1, 5), (4, 2, 2), (3, 3, 1), (2, 4, 0), (1, 1, 1)])
def test_windows_of_frames(size, hop, delay):
    pulsed = check(behind(f"y = com.microsoft.UnfoldTensor<size={size}, step={hop}>(a)"), delays={"y": delay})
    assert pulsed.spec["pulse_multiple"] == hop


def test_another_axis():
    check(behind("y = com.microsoft.UnfoldTensor<dim=1, size=3, step=1>(a)", "float[1,2,U,3] y"), delays={"y": 1})
    check(behind("y = com.microsoft.UnfoldTensor<dim=-2, size=3>(t)", "float[1,U,4,3] y"), delays={"y": 3})


def test_padded_frames_are_zeros():
    model = behind("q = Pad(a, p)  y = com.microsoft.UnfoldTensor<size=5>(q)")
    check(model, delays={"y": 3})
    every_length(model)


def test_padding_passes_windows_of_another_axis():
    """Pads before windows of the channels cost no delay."""
    check(
        behind(
            """q = Relu(a)  r = Pad(q, p)  u = com.microsoft.UnfoldTensor<dim=1, size=2, step=2>(r)
        f = ReduceMax<axes=[3], keepdims=0>(u)  g = Concat<axis=1>(f, f)  y = Conv<pads=[1,1]>(g, v, b)""",
            "float[1,4,U] y",
        ),
        delays={"y": 0},
    )


def test_what_follows_windows():
    check(
        behind(
            """u = com.microsoft.UnfoldTensor<size=5, step=2>(a)  s = MatMul(u, m)
        f = ReduceSum<keepdims=0>(s, d)  y = Conv<pads=[1,1]>(f, v, b)""",
            "float[1,4,U] y",
        ),
        delays={"y": 3},
    )


def test_no_window():
    refused(behind("y = com.microsoft.UnfoldTensor<size=3, step=0>(a)"), "one every 0")
