import numpy as np
import pytest

from pulsify_onnx.api import pulsify
from testing.oracle import check, every_length, parse, rand, refused

BEFORE = "a = Conv<pads=[1,1]>(x, w, b)"


def weights(**more):
    return {"w": rand(3, 3, 3), "b": rand(3), **more}


def ends(before, after):
    return np.array([0, 0, before, 0, 0, after])


@pytest.mark.parametrize("mode, delay", [("edge", 0), ("reflect", 4)])
def test_start_then_conv(mode, delay):
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        p = Pad<mode="{mode}">(x, pads)
        y = Conv(p, v, b) }}""",
            v=rand(3, 3, 5),
            b=rand(3),
            pads=ends(4, 0),
        ),
        delays={"y": delay},
        absorbed=True,
    )


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_both_ends_cost_what_the_window_needs(mode):
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        p = Pad<mode="{mode}">(x, pads)
        y = Conv(p, v, b) }}""",
            v=rand(3, 3, 5),
            b=rand(3),
            pads=ends(2, 2),
        ),
        delays={"y": 2},
    )


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_behind_a_delay_and_through_elementwise(mode):
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {BEFORE}
        p = Pad<mode="{mode}">(a, pads)
        q = Elu(p)
        r = Mul(q, c)
        s = Sigmoid(p)
        t = Add(r, s)
        y = Conv(t, v, b) }}""",
            **weights(v=rand(3, 3, 7), c=rand(3, 1), pads=ends(3, 3)),
        ),
        delays={"y": 4},
    )


@pytest.mark.parametrize("mode, delay", [("edge", 1), ("reflect", 1)])
def test_strided_reader(mode, delay):
    # frame 0 reads up to x[2] with edge, x[4] with reflect; x[i] comes one frame late
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {BEFORE}
        p = Pad<mode="{mode}">(a, pads)
        y = Conv<strides=[3]>(p, v, b) }}""",
            **weights(v=rand(3, 3, 7), pads=ends(4, 5)),
        ),
        delays={"y": delay},
    )


@pytest.mark.parametrize("mode, delay", [("edge", 1), ("reflect", 5)])
def test_as_an_output(mode, delay):
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {BEFORE}
        y = Pad<mode="{mode}">(a, pads) }}""",
            **weights(pads=ends(4, 3)),
        ),
        delays={"y": delay},
        absorbed=True,
    )


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_end_only_with_a_long_history(mode):
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z) {{
        {BEFORE}
        p = Pad<mode="{mode}">(a, pads)
        y = Conv(p, v, b)
        z = Relu(p) }}""",
            **weights(v=rand(3, 3, 3), pads=ends(0, 9)),
        ),
        delays={"y": 3, "z": 1},
    )


def test_first_one_end_then_the_other():
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {BEFORE}
        p = Pad<mode="reflect">(a, left)
        q = Pad<mode="reflect">(p, right)
        y = Conv(q, v, b) }}""",
            **weights(v=rand(3, 3, 5), left=ends(2, 0), right=ends(0, 2)),
        ),
        delays={"y": 3},
    )


def test_mirrored_twice_and_joined_with_what_is_not():
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {BEFORE}
        p = Pad<mode="reflect">(a, pads)
        e = Pad<mode="edge">(p, pads)
        z = Pad(a, wide)
        f = Add(e, z)
        y = Conv<pads=[1,1]>(f, w, b) }}""",
            **weights(pads=ends(2, 2), wide=ends(4, 4)),
        )
    )


def test_cropped_again():
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {BEFORE}
        p = Pad<mode="reflect">(a, pads)
        c = Slice(p, one, far, two)
        y = Conv(c, v, b) }}""",
            **weights(v=rand(3, 3, 3), pads=ends(3, 3), one=np.array([1]), far=np.array([-1]), two=np.array([2])),
        ),
        delays={"y": 3},
        absorbed=True,
    )


def test_cropped_beyond_the_padding():
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {BEFORE}
        p = Pad<mode="reflect">(a, pads)
        y = Slice(p, five, far, two) }}""",
            **weights(pads=ends(3, 3), five=np.array([5]), far=np.array([-2]), two=np.array([2])),
        ),
        delays={"y": 3},
    )


def test_other_axes_too_and_axes_input():
    check(
        parse(
            """<ir_version: 8, opset_import: ["": 18]>
        agraph (float[1,1,T,4] x) => (float[1,2,U,4] y) {
        p = Pad<mode="reflect">(x, pads, , axes)
        y = Conv(p, v, b) }""",
            v=rand(2, 1, 3, 3),
            b=rand(2),
            pads=np.array([1, 1, 1, 1]),
            axes=np.array([2, 3]),
        ),
        delays={"y": 1},
    )


def test_pointwise_convolution_passes_it_on():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        p = Pad<mode="reflect">(x, pads)
        q = Conv(p, u, b)
        y = Conv(q, v, b) }""",
            u=rand(3, 3, 1),
            v=rand(3, 3, 5),
            b=rand(3),
            pads=ends(2, 2),
        ),
        delays={"y": 2},
    )


def test_recurrence_behind():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[U,1,1,5] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        p = Pad<mode="reflect">(a, pads)
        t = Transpose<perm=[2,0,1]>(p)
        y = GRU<hidden_size=5, linear_before_reset=1>(t, gw, gr, gb) }""",
            w=rand(4, 4, 3),
            b=rand(4),
            gw=rand(1, 15, 4),
            gr=rand(1, 15, 5),
            gb=rand(1, 30),
            pads=ends(2, 2),
        ),
        delays={"y": 3},
        absorbed=True,
    )


def test_pool_and_transposed_convolution_behind():
    check(
        parse(
            f"""agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z) {{
        {BEFORE}
        p = Pad<mode="reflect">(a, pads)
        y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(p)
        z = ConvTranspose<strides=[2], pads=[1,1]>(p, v, b) }}""",
            **weights(v=rand(3, 3, 4), pads=ends(2, 3)),
        )
    )


def test_positions_mirrored():
    check(
        parse(
            """agraph (float[1,3,T] x) => (float[1,1,U] y) {
        s = Shape(x)
        n = Gather(s, two)
        r = Range(zero, n, one)
        f = Cast<to=1>(r)
        t = Unsqueeze(f, axes)
        p = Pad<mode="reflect">(t, pads)
        m = ReduceSum(x, chan)
        q = Pad<mode="reflect">(m, pads)
        z = Add(p, q)
        y = Conv(z, v) }""",
            two=np.array(2),
            zero=np.array(0),
            one=np.array(1),
            axes=np.array([0, 1]),
            chan=np.array([1]),
            v=rand(1, 1, 5),
            pads=ends(2, 2),
        ),
        delays={"y": 2},
    )


def test_embedding_of_mirrored_indices():
    check(
        parse(
            """agraph (int64[1,T] x) => (float[1,U,4] y) {
        p = Pad<mode="reflect">(x, pads)
        y = Gather(table, p) }""",
            table=rand(5, 4),
            pads=np.array([0, 2, 0, 2]),
        ),
        delays={"y": 2},
        absorbed=True,
    )


def test_embedding_of_padded_indices():
    check(
        parse(
            """agraph (int64[1,T] x) => (float[1,U,4] y) {
        p = Pad(x, pads, three)
        y = Gather(table, p) }""",
            table=rand(5, 4),
            pads=np.array([0, 2, 0, 2]),
            three=np.array(3),
        ),
        delays={"y": 0},
    )


def test_old_opset():
    check(
        parse(
            """<ir_version: 4, opset_import: ["": 9]>
        agraph (float[1,3,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        p = Pad<mode="edge", pads=[0,0,2,0,0,1]>(a)
        y = Conv(p, v, b) }""",
            **weights(v=rand(3, 3, 4)),
        ),
        delays={"y": 2},
    )


def test_wrap_is_refused():
    refused(
        parse(
            """<ir_version: 9, opset_import: ["": 19]>
        agraph (float[1,3,T] x) => (float[1,3,U] y) { y = Pad<mode="wrap">(x, pads) }""",
            pads=ends(2, 2),
        ),
        "from the other end of the stream",
        op_type="Pad",
    )


def test_crop_and_mirror_in_one_is_refused():
    refused(
        parse("""agraph (float[1,3,T] x) => (float[1,3,U] y) { y = Pad<mode="reflect">(x, pads) }""", pads=ends(2, -2)),
        "crops one end of the stream and pads the other",
        op_type="Pad",
    )


def test_frames_mirrored_within_one_pulse_cost_no_delay():
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        p = Pad<mode="reflect">(x, pads)
        c = Conv(p, w, b)
        q = Pad<mode="reflect">(c, pads)
        y = Conv<strides=[2]>(q, w, b) }""",
        pads=np.asarray([0, 0, 4, 0, 0, 0], np.int64),
        w=rand(2, 2, 5),
        b=rand(2),
    )
    check(model, pulses=(2, 8, 16))
    assert pulsify(model, pulse=2).spec["outputs"][0]["delay"] == 4
    assert pulsify(model, pulse=8).spec["outputs"][0]["delay"] == 0


OVER = {
    "values": ("p = Pad(x, two, half)  q = Pad(p, one)  y = Conv<pads=[1,1]>(q, w, b)", 0),
    "bias behind its own padding": (
        "p = Conv<pads=[3,3]>(x, w, b)  q = Conv<pads=[3,3]>(p, w, b)  r = Conv<pads=[3,3]>(q, w, b)  y = Conv(r, "
        "v, b)",
        1,
    ),
    "single frames": (
        "p = Conv<pads=[2,2]>(x, u, b)  q = Tanh(p)  r = Conv<pads=[2,2]>(q, u, b)  y = Conv(r, v, b)",
        0,
    ),
    "at the start only": ("p = Pad(x, start, half)  q = Conv<pads=[3,0]>(p, w, b)  y = Conv<pads=[0,2]>(q, w, b)", 0),
    "a stride": (
        "p = Pad(x, two, half)  q = Pad(p, two)  r = Conv<strides=[2], pads=[1,1]>(q, w, b)  y = "
        "Conv<pads=[0,1]>(r, w, b)",
        0,
    ),
    "a crop": (
        "p = Conv<pads=[4,4]>(x, w, b)  q = Pad(p, crop)  r = Pad(q, one, half)  y = Conv<pads=[1,0]>(r, v, b)",
        1,
    ),
    "behind a delay": ("a = Conv<pads=[1,1]>(x, w, b)  p = Pad(a, two, half)  q = Pad(p, two)  y = Conv(q, v, b)", 1),
    "joined": (
        "p = Pad(x, two, half)  q = Pad(p, one)  c = Concat<axis=1>(q, q)  s = Pad(x, three)  t = Add(q, s)  y = "
        "Conv<pads=[1,1]>(t, w, b)",
        0,
    ),
    "a pool": (
        "p = Conv<pads=[4,4]>(x, w, b)  y = MaxPool<kernel_shape=[3], pads=[1,1]>(p)",
        None,
    ),  # its border is infinite
    "a carry": ("p = Conv<pads=[4,4]>(x, w, b)  q = Conv<pads=[1,1]>(p, w, b)  y = CumSum(q, axis)", 0),
}


@pytest.mark.parametrize("name", OVER)
def test_a_border_inside_a_border_of_another_value_is_not_waited_for(name: str) -> None:
    body, delay = OVER[name]
    model = parse(
        f"agraph (float[1,2,T] x) => (float[1,2,U] y) {{ {body} }}",
        u=rand(2, 2, 1),
        w=rand(2, 2, 3),
        v=rand(2, 2, 5),
        b=rand(2),
        half=np.float32(0.5),
        one=np.array([0, 0, 1, 0, 0, 1]),
        two=np.array([0, 0, 2, 0, 0, 2]),
        three=np.array([0, 0, 3, 0, 0, 3]),
        start=np.array([0, 0, 2, 0, 0, 0]),
        crop=np.array([0, 0, -1, 0, 0, -3]),
        axis=np.int64(2),
    )
    check(model, delays={} if delay is None else {"y": delay})
    every_length(model)


@pytest.mark.parametrize("cut", (3, 4, 5))
def test_a_border_that_a_short_stream_ends_in(cut: int) -> None:
    """The end cuts into the border at the start, and what comes after the end goes before it."""
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        p = Pad(x, start)
        c = Slice(p, zero, cut, two)
        y = Pad(c, both, half) }""",
        start=np.array([0, 0, 3, 0, 0, 1]),
        zero=np.array([0]),
        cut=np.array([-cut]),
        two=np.array([2]),
        both=np.array([0, 0, 1, 0, 0, 4]),
        half=np.float32(0.5),
    )
    check(model, pulses=(1, 3))
    every_length(model)


@pytest.mark.parametrize("before, delay", [("a = Identity(x)", 0), ("a = Conv<pads=[0,2]>(x, w, b)", 2)])
@pytest.mark.parametrize("then", ["c = Relu(k)", "c = Conv<pads=[1,1], group=3>(k, v, b)"])
def test_a_short_kernel_padded_on_both_sides(before: str, delay: int, then: str) -> None:
    """Its first frames are its bias, and the next pad is around them."""
    model = parse(
        f"""agraph (float[1,3,T] x) => (float[1,3,U] y) {{
        {before}
        k = Conv<pads=[2,2], group=3>(a, v, b)
        {then}
        y = Conv<pads=[1,1]>(c, w, b) }}""",
        w=rand(3, 3, 3),
        v=rand(3, 1, 2),
        b=rand(3),
    )
    check(model, delays={"y": delay})
    every_length(model)
