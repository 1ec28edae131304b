"""Convolutions: every spatial axis, padding, stride, dilation and group, behind delays and borders."""

from __future__ import annotations

import numpy as np
import pytest

from pulsify_onnx.api import pulsify
from testing.oracle import check, every_length, parse, rand, refused

QUICK = (1, 3, 7)


@pytest.mark.parametrize("rank, axis", [(3, 2), (4, 2), (4, 3), (5, 2), (5, 3), (5, 4)])
def test_any_spatial_axis(rank: int, axis: int) -> None:
    shape = ["1", "2", *["5"] * (rank - 2)]
    shape[axis] = "T"
    pads = ",".join(["1"] * (2 * (rank - 2)))
    kernel = [3] * (rank - 2)
    strides = ",".join("1" if k + 2 == axis else "2" for k in range(rank - 2))
    out = ["1", "3", *("U" if k + 2 == axis else "3" for k in range(rank - 2))]
    check(
        parse(
            f"""agraph (float[{",".join(shape)}] x) => (float[{",".join(out)}] y) {{
        a = Conv<pads=[{pads}]>(x, w, b)
        y = Conv<pads=[{pads}], strides=[{strides}]>(a, v, c) }}""",
            w=rand(2, 2, *kernel),
            b=rand(2),
            v=rand(3, 2, *kernel),
            c=rand(3),
        ),
        delays={"y": 2},
        pulses=QUICK,
        length=20,
    )


@pytest.mark.parametrize(
    "attributes, delay",
    [
        ('auto_pad="VALID"', 3),
        ('auto_pad="SAME_UPPER"', 2),
        ('auto_pad="SAME_LOWER"', 2),
        ('auto_pad="NOTSET", pads=[2,0]', 1),
    ],
)
def test_auto_pad(attributes: str, delay: int) -> None:
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        a = Conv<pads=[1,1]>(x, w, b)
        y = Conv<{attributes}>(a, w, b) }}""",
            w=rand(2, 2, 3),
            b=rand(2),
        ),
        delays={"y": delay},
        pulses=QUICK,
    )


@pytest.mark.parametrize("kernel, upper, lower", [(2, 1, 0), (4, 2, 1), (5, 2, 2)])
def test_auto_pad_puts_the_odd_frame_at_its_side(kernel: int, upper: int, lower: int) -> None:
    for side, delay in (("UPPER", upper), ("LOWER", lower)):
        check(
            parse(
                f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
            y = Conv<auto_pad="SAME_{side}">(x, w, b) }}""",
                w=rand(2, 2, kernel),
                b=rand(2),
            ),
            delays={"y": delay},
            pulses=(1, 3),
        )


def test_auto_pad_with_a_stride_moves_with_the_length() -> None:
    refused(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        y = Conv<auto_pad="SAME_UPPER", strides=[2]>(x, w) }""",
            w=rand(2, 2, 5),
        ),
        "pads another number of frames at the start",
        op_type="Conv",
    )


@pytest.mark.parametrize("axis", (2, 3))
@pytest.mark.parametrize(
    "side, kernel, stride",
    [("UPPER", 1, 2), ("LOWER", 1, 2), ("UPPER", 1, 3), ("LOWER", 1, 3), ("UPPER", 2, 3), ("UPPER", 2, 4)],
)
def test_auto_pad_with_a_kernel_shorter_than_the_stride(side: str, kernel: int, stride: int, axis: int) -> None:
    shape, kernels, strides = (
        ("1,1,T,12", (kernel, 3), (stride, 1)) if axis == 2 else ("1,1,12,T", (3, kernel), (1, stride))
    )
    for length in range(24, 24 + stride):
        check(
            parse(
                f"""agraph (float[{shape}] x) => (float[1,2,U,V] y) {{
            y = Conv<auto_pad="SAME_{side}", strides=[{strides[0]},{strides[1]}]>(x, w, b) }}""",
                w=rand(2, 1, *kernels),
                b=rand(2),
            ),
            pulses=(4,),
            length=length,
        )
        check(
            parse(
                f"""agraph (float[1,1,T,{length}] x) => (float[1,2,U,V] y) {{
            y = Conv<auto_pad="SAME_{side}", strides=[1,{stride}]>(x, w, b) }}""",
                w=rand(2, 1, 3, kernel),
                b=rand(2),
            ),
            pulses=(4,),
        )


@pytest.mark.parametrize("shape", ("1,1,T,9", "1,1,9,T"))
def test_auto_pad_with_a_kernel_far_shorter_than_the_stride_is_refused(shape: str) -> None:
    refused(
        parse(
            f"""agraph (float[{shape}] x) => (float[1,2,U,V] y) {{
        y = Conv<auto_pad="SAME_UPPER", strides=[4,4]>(x, w, b) }}""",
            w=rand(2, 1, 1, 1),
            b=rand(2),
        ),
        "a kernel of 1 and a stride of 4",
        op_type="Conv",
    )


@pytest.mark.parametrize("dilations", ("2,1", "1,2"))
def test_auto_pad_with_dilation_is_refused(dilations: str) -> None:
    """Onnxruntime does not run it at all."""
    refused(
        parse(
            f"""agraph (float[1,1,T,9] x) => (float[1,2,U,V] y) {{
        y = Conv<auto_pad="SAME_UPPER", dilations=[{dilations}]>(x, w, b) }}""",
            w=rand(2, 1, 3, 3),
            b=rand(2),
        ),
        "with dilations",
        op_type="Conv",
    )


@pytest.mark.parametrize(
    "kernel, stride, dilation, before, after",
    [
        (3, 2, 1, 1, 1),
        (3, 3, 1, 0, 0),
        (2, 3, 1, 0, 0),
        (1, 4, 1, 0, 0),
        (3, 2, 2, 2, 2),
        (5, 3, 1, 4, 0),
        (2, 5, 2, 1, 1),
        (3, 2, 1, 5, 6),
        (3, 1, 4, 8, 0),
    ],
)
def test_stride_and_dilation(kernel: int, stride: int, dilation: int, before: int, after: int) -> None:
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,3,U] y) {{
        a = Conv<pads=[1,1]>(x, u, c)
        y = Conv<strides=[{stride}], dilations=[{dilation}], pads=[{before},{after}]>(a, w, b) }}""",
            u=rand(2, 2, 3),
            c=rand(2),
            w=rand(3, 2, kernel),
            b=rand(3),
        ),
        pulses=(1, 4, 7),
        length=37,
    )


@pytest.mark.parametrize("first, stride, delay", [(3, 2, 0), (5, 2, 1), (5, 3, 0), (7, 4, 0), (9, 4, 1)])
def test_stride_absorbs_a_delay(first: int, stride: int, delay: int) -> None:
    half = first // 2
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        a = Conv<pads=[{half},{half}]>(x, w, b)
        y = Conv<strides=[{stride}]>(a, v) }}""",
            w=rand(2, 2, first),
            b=rand(2),
            v=rand(2, 2, 1),
        ),
        delays={"y": delay},
        pulses=QUICK,
    )


@pytest.mark.parametrize("group, into, out", [(2, 4, 2), (4, 4, 8), (3, 9, 3)])
def test_groups(group: int, into: int, out: int) -> None:
    check(
        parse(
            f"""agraph (float[1,{into},T] x) => (float[1,{out},U] y) {{
        y = Conv<group={group}, pads=[2,0]>(x, w, b) }}""",
            w=rand(out, into // group, 3),
            b=rand(out),
        ),
        delays={"y": 0},
        pulses=QUICK,
        state_bytes=into * 2 * 4,
    )


@pytest.mark.parametrize("before, after", [(1, -1), (-1, 1), (3, -2), (-2, -1), (4, 0), (0, 3)])
def test_asymmetric_and_negative_pads(before: int, after: int) -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        p = Pad(a, pads)
        y = Conv<pads=[1,1]>(p, w, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
            pads=np.array([0, 0, before, 0, 0, after]),
        ),
        delays={"y": max(0, 2 - before)},
        pulses=QUICK,
    )


@pytest.mark.parametrize("before, after", [(5, 0), (9, 9), (0, 7), (6, 2)])
def test_padding_beyond_the_kernel(before: int, after: int) -> None:
    """Whole windows of padding give the bias, and do not wait for any frame."""
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {{
        y = Conv<pads=[{before},{after}]>(x, w, b)
        r = Relu(y)
        z = Conv<pads=[1,1]>(r, w, b) }}""",
            w=rand(2, 2, 3),
            b=rand(2),
        ),
        delays={"y": max(0, 2 - before)},
        pulses=QUICK,
        length=12,
    )


def test_lead_of_an_over_padded_convolution_feeds_a_lookahead() -> None:
    """Without a bias, padded zeros stay zeros: the second convolution's lookahead is paid by them."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv<pads=[4,0]>(x, w)
        y = Conv<pads=[1,1]>(a, w) }""",
            w=rand(2, 2, 3),
        ),
        delays={"y": 0},
        pulses=QUICK,
    )


@pytest.mark.parametrize("fill", (0.0, 1.5))
@pytest.mark.parametrize("between", ["Relu(p)", "Add(p, one)", "Exp(p)", "Mul(p, gain)", "Add(p, shift)"])
def test_padding_seen_through_pointwise_operators(fill: float, between: str) -> None:
    """The border becomes what the operator makes of it."""
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        a = Conv<pads=[1,1]>(x, w, b)
        p = Pad(a, pads, fill)
        q = {between}
        y = Conv(q, w, b) }}""",
            w=rand(2, 2, 3),
            b=rand(2),
            pads=np.array([0, 0, 1, 0, 0, 1]),
            fill=np.float32(fill),
            one=np.float32(1),
            gain=rand(2, 1),
            shift=rand(1, 2, 1),
        ),
        delays={"y": 2},
        pulses=QUICK,
    )


def test_pad_of_another_value_then_same() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        p = Pad(x, pads, fill)
        y = Conv<pads=[1,1]>(p, w, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
            pads=np.array([0, 0, 2, 0, 0, 3]),
            fill=np.float32(-2),
        ),
        pulses=QUICK,
    )


def test_branches_with_other_pads_side_by_side() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        p = Pad(x, two)
        q = Pad(x, three)
        c = Concat<axis=1>(p, q)
        y = Conv(c, w, b) }""",
            w=rand(2, 4, 5),
            b=rand(2),
            two=np.array([0, 0, 2, 0, 0, 2]),
            three=np.array([0, 0, 4, 0, 0, 0]),
        ),
        delays={"y": 2},
        pulses=QUICK,
    )


def test_pad_through_quantisation() -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        p = Pad(a, pads)
        q = QuantizeLinear(p, scale, zero)
        d = DequantizeLinear(q, scale, zero)
        y = Conv(d, w, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
            pads=np.array([0, 0, 1, 0, 0, 1]),
            scale=np.float32(0.05),
            zero=np.uint8(100),
        ),
        delays={"y": 2},
        pulses=QUICK,
        rtol=2e-2,
    )


def test_pad_through_matmul() -> None:
    check(
        parse(
            """agraph (float[1,T,2] x) => (float[1,3,U] y) {
        p = Pad(x, pads)
        m = MatMul(p, u)
        s = Add(m, c)
        t = Transpose<perm=[0,2,1]>(s)
        y = Conv(t, w, b) }""",
            u=rand(2, 3),
            c=rand(3),
            w=rand(3, 3, 3),
            b=rand(3),
            pads=np.array([0, 1, 0, 0, 1, 0]),
        ),
        delays={"y": 1},
        pulses=QUICK,
    )


def test_shift_by_a_frame_then_same() -> None:
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        p = Pad(x, pads)
        a = Conv<pads=[1,1]>(p, w, b)
        y = Conv<pads=[1,1]>(a, w, b) }""",
        w=rand(2, 2, 3),
        b=rand(2),
        pads=np.array([0, 0, 1, 0, 0, -1]),
    )
    check(model, delays={"y": 1}, pulses=QUICK)


def test_half_precision() -> None:
    check(
        parse(
            """agraph (float16[1,2,T] x) => (float16[1,2,U] y, float16[1,2,V] z) {
        a = Conv<pads=[1,1]>(x, w, b)
        r = Relu(a)
        y = Conv<pads=[1,1]>(r, w, b)
        z = MaxPool<kernel_shape=[3], pads=[1,1]>(a) }""",
            w=rand(2, 2, 3, dtype=np.float16),
            b=rand(2, dtype=np.float16),
        ),
        delays={"y": 2, "z": 2},
        pulses=QUICK,
        rtol=2e-2,
    )


@pytest.mark.parametrize("opset", (9, 10, 11, 12, 13, 24))
def test_every_opset(opset: int) -> None:
    """The graph around it is written as the opset has it."""
    check(
        parse(
            f"""<ir_version: 4, opset_import: ["": {opset}]>
        agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {{
        a = Conv<pads=[1,1], strides=[2]>(x, w, b)
        p = AveragePool<kernel_shape=[3], pads=[1,1]>(a)
        y = Conv<pads=[1,1]>(p, w, b)
        z = ConvTranspose<strides=[2], pads=[1,1]>(y, w, b) }}""",
            w=rand(2, 2, 3),
            b=rand(2),
        ),
        delays={"y": 2},
        pulses=(1, 4),
    )


def test_batch_of_frames() -> None:
    """Time as the batch: every frame on its own."""
    check(
        parse(
            """agraph (float[T,2,9] x) => (float[T,2,9] y) {
        y = Conv<pads=[1,1]>(x, w, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
        ),
        axes={"x": 0},
        delays={"y": 0},
        pulses=QUICK,
        state_bytes=0,
    )


def test_a_stream_along_the_channels_is_refused() -> None:
    refused(
        parse(
            """agraph (float[1,T,9] x) => (float[1,2,9] y) {
        y = Conv<pads=[1,1]>(x, w, b) }""",
            w=rand(2, 3, 3),
            b=rand(2),
        ),
        "along the channels",
        axes={"x": 1},
        op_type="Conv",
    )


def test_weights_that_stream_are_refused() -> None:
    refused(
        parse(
            """agraph (float[1,2,T] x) => (float[1,3,U] y) {
        t = Transpose<perm=[2,1,0]>(x)
        y = Conv<kernel_shape=[1]>(z, t) }""",
            z=rand(1, 2, 9),
        ),
        "stream",
        axes={"x": 2},
        op_type="Conv",
    )


def test_state_does_not_hold_frames_that_padding_gives() -> None:
    """Padding is an index shift: no buffer of its own."""
    spec = pulsify(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        p = Pad(x, pads)
        y = Conv(p, w) }""",
            w=rand(2, 2, 3),
            pads=np.array([0, 0, 2, 0, 0, 0]),
        ),
        pulse=4,
    ).spec
    assert [s["shape"] for s in spec["states"]] == [[1, 2, 2]]


def masked(kernel: int, *taps: int) -> np.ndarray:
    """Weights of which only `taps` are not zero."""
    return np.where(np.isin(np.arange(kernel), taps), rand(2, 2, kernel), 0).astype(np.float32)


@pytest.mark.parametrize(
    "kernel, taps, attributes, delay, frames",
    [
        (7, (0, 1, 2, 3), "pads=[3,3]", 0, 3),
        (7, (0, 1, 2), "pads=[3,3]", 0, 4),
        (7, (2, 4), "pads=[3,3]", 1, 2),
        (5, (4,), "", 4, 0),
        (5, (0,), "", 0, 0),
        (5, (), "pads=[2,2]", 0, 3),
        (3, (0, 1), "pads=[4,4], dilations=[4]", 0, 4),
        (3, (1,), "pads=[1,1]", 0, 0),
        (5, (1, 2), "pads=[2,2], strides=[2]", 0, 1),
        (5, (0,), "pads=[4,0]", 0, 5),
        (4, (0, 1), 'auto_pad="SAME_UPPER"', 0, 1),
        (3, (1, 2), "pads=[0,3]", 2, 1),
        (3, (2,), "strides=[2]", 1, 0),
        (3, (0,), "pads=[0,0], strides=[3]", 0, 0),
    ],
)
def test_taps_that_are_all_zero_at_the_ends_are_no_reads(
    kernel: int, taps: tuple[int, ...], attributes: str, delay: int, frames: int
) -> None:
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        y = Conv<{attributes}{", " if attributes else ""}kernel_shape=[{kernel}]>(x, w, b) }}""",
        w=masked(kernel, *taps),
        b=rand(2),
    )
    check(model, delays={"y": delay}, pulses=QUICK, state_bytes=2 * 4 * frames)
    every_length(model)


def test_zero_taps_behind_and_before_padding() -> None:
    """Causal by its mask, on a delayed wire, and behind padding of another value; a lane of a batch is as good as
    another.
    """
    check(
        parse(
            """agraph (float[N,2,T] x) => (float[N,2,U] y, float[N,2,V] z) {
        a = Conv<pads=[1,1]>(x, u, b)
        y = Conv<pads=[2,2]>(a, w, b)
        p = Pad(a, two, half)
        z = Conv<pads=[2,2]>(p, w, b) }""",
            u=rand(2, 2, 3),
            w=masked(5, 0, 1, 2),
            b=rand(2),
            two=np.array([0, 0, 2, 0, 0, 2]),
            half=np.float32(0.5),
        ),
        delays={"y": 1, "z": 0},
        pulses=QUICK,
        rows=3,
    )


def test_a_mask_times_weights_is_folded() -> None:
    """A masked convolution of two dimensions, as PixelCNN has it: nothing below its row is read."""
    mask = np.zeros((1, 1, 5, 5), np.float32)
    mask[:, :, :2], mask[:, :, 2, :3] = 1, 1
    check(
        parse(
            """agraph (float[1,1,T,6] x) => (float[1,3,U,6] y) {
        m = Mul(w, mask)
        y = Conv<pads=[2,2,2,2]>(x, m, b) }""",
            w=rand(3, 1, 5, 5),
            mask=mask,
            b=rand(3),
        ),
        delays={"y": 0},
        pulses=QUICK,
        length=20,
    )


def test_zero_taps_that_somebody_else_reads_too() -> None:
    """The weights themselves stay as they are."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {
        y = Conv<pads=[2,2]>(x, w)
        s = ReduceSum<keepdims=0>(w, axes)
        r = Reshape(s, column)
        z = Mul(x, r) }""",
            w=masked(5, 0, 1),
            axes=np.array([0, 2]),
            column=np.array([1, 2, 1]),
        ),
        delays={"y": 0, "z": 0},
        pulses=QUICK,
    )


def test_a_masked_wavenet_stack_waits_for_nothing() -> None:
    """Fixed by masks alone: 15 frames of lookahead by its pads, none by its weights."""
    layers = "\n".join(f"r{k + 1} = Conv<pads=[{2**k},{2**k}], dilations=[{2**k}]>(r{k}, w, b)" for k in range(4))
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        r0 = Identity(x)
        {layers}
        y = Identity(r4) }}""",
            w=masked(3, 0, 1),
            b=rand(2),
        ),
        delays={"y": 0},
        pulses=QUICK,
    )
