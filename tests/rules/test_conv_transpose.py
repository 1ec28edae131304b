"""Transposed convolutions and upsampling: overlap, trims, output padding, behind delays and in front of
convolutions.
"""

from __future__ import annotations

import numpy as np
import pytest

from testing.oracle import check, every_length, parse, rand, refused

PULSES = (1, 3, 4)


def transposed(attributes: str, kernel: int, before: str = "Identity(x)", after: str = "Identity(c)") -> object:
    return parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        a = {before}
        c = ConvTranspose<{attributes}>(a, v, d)
        y = {after} }}""",
        v=rand(2, 2, kernel),
        d=rand(2),
        w=rand(2, 2, 3),
        b=rand(2),
    )


SAME = "Conv<pads=[1,1]>(x, w, b)"


@pytest.mark.parametrize(
    "kernel, stride", [(1, 2), (2, 3), (2, 2), (3, 3), (3, 2), (4, 2), (5, 2), (7, 3), (3, 1), (1, 1), (8, 4)]
)
@pytest.mark.parametrize("before", ("Identity(x)", SAME))
def test_kernel_against_stride(kernel: int, stride: int, before: str) -> None:
    delay = stride if before == SAME else 0
    check(transposed(f"strides=[{stride}]", kernel, before), delays={"y": delay}, pulses=PULSES, length=20)


@pytest.mark.parametrize("pads", ((1, 1), (2, 0), (0, 3), (1, 2)))
def test_trims(pads: tuple[int, int]) -> None:
    check(
        transposed(f"strides=[2], pads=[{pads[0]},{pads[1]}]", 4, SAME),
        delays={"y": 2 + pads[0]},
        pulses=PULSES,
        length=20,
    )


@pytest.mark.parametrize(
    "kernel, stride, extra, after", [(3, 2, 1, 1), (2, 3, 2, 0), (4, 3, 1, 2), (3, 3, 2, 1), (5, 4, 3, 0)]
)
def test_output_padding(kernel: int, stride: int, extra: int, after: int) -> None:
    check(
        transposed(f"strides=[{stride}], output_padding=[{extra}], pads=[1,{after}]", kernel, SAME),
        pulses=PULSES,
        length=20,
    )


@pytest.mark.parametrize("auto", ("SAME_UPPER", "SAME_LOWER", "VALID"))
def test_auto_pad(auto: str) -> None:
    check(transposed(f'strides=[2], auto_pad="{auto}"', 5, SAME), pulses=PULSES, length=20)


@pytest.mark.parametrize(
    "kernel, stride, frames", [(1, 2, 0), (2, 2, 0), (3, 2, 1), (4, 2, 1), (5, 2, 2), (3, 1, 2), (8, 4, 1), (9, 4, 2)]
)
def test_no_more_frames_are_kept_than_overlap(kernel: int, stride: int, frames: int) -> None:
    check(transposed(f"strides=[{stride}]", kernel), state_bytes=2 * 4 * frames, pulses=PULSES, length=20)


@pytest.mark.parametrize("auto", ("SAME_UPPER", "SAME_LOWER"))
def test_auto_pad_across_time(auto: str) -> None:
    """The output padding widens what is cut off across time."""
    check(
        parse(
            f"""agraph (float[1,2,T,4] x) => (float[1,2,U,V] y) {{
        y = ConvTranspose<strides=[2,3], output_padding=[0,1], auto_pad="{auto}">(x, v, d) }}""",
            v=rand(2, 2, 3, 4),
            d=rand(2),
        ),
        pulses=PULSES,
        length=20,
    )


@pytest.mark.parametrize("mode", ("edge", "reflect"))
@pytest.mark.parametrize("kernel", (1, 3))
def test_behind_mirrored_ends(kernel: int, mode: str) -> None:
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        p = Pad<mode="{mode}">(x, pads)
        y = ConvTranspose<strides=[2]>(p, v, d) }}""",
            v=rand(2, 2, kernel),
            d=rand(2),
            pads=np.array([0, 0, 2, 0, 0, 1]),
        ),
        pulses=PULSES,
        length=20,
    )


def test_dilation_and_groups() -> None:
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        y = ConvTranspose<strides=[2], dilations=[2], group=2>(x, v, d) }""",
            v=rand(4, 2, 3),
            d=rand(4),
        ),
        delays={"y": 0},
        pulses=PULSES,
        length=20,
    )


@pytest.mark.parametrize("axis", (2, 3))
def test_planes(axis: int) -> None:
    shape, out = ("1,2,T,4", "1,2,U,9") if axis == 2 else ("1,2,4,T", "1,2,9,U")
    check(
        parse(
            f"""agraph (float[{shape}] x) => (float[{out}] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = ConvTranspose<strides=[2,2]>(a, v, d) }}""",
            w=rand(2, 2, 3, 3),
            b=rand(2),
            v=rand(2, 2, 3, 3),
            d=rand(2),
        ),
        delays={"y": 2},
        pulses=PULSES,
        length=12,
    )


def test_causal_trim_by_a_slice() -> None:
    """The last k - s frames are cut off: no delay."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        c = ConvTranspose<strides=[2]>(x, v, d)
        y = Slice(c, zero, end, two) }""",
            v=rand(2, 2, 4),
            d=rand(2),
            zero=np.array([0]),
            end=np.array([-2]),
            two=np.array([2]),
        ),
        delays={"y": 0},
        pulses=PULSES,
    )


def test_then_convolution() -> None:
    check(transposed("strides=[2], pads=[1,1]", 4, SAME, "Conv<pads=[1,1]>(c, w, b)"), delays={"y": 4}, pulses=PULSES)


def test_padded_input() -> None:
    """Frames of padding make frames of their own."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {
        p = Pad(x, pads, fill)
        y = ConvTranspose<strides=[2]>(p, v, d)
        q = Conv<pads=[5,4]>(x, w, b)
        z = ConvTranspose<strides=[2], pads=[1,1]>(q, v, d) }""",
            v=rand(2, 2, 4),
            d=rand(2),
            w=rand(2, 2, 3),
            b=rand(2),
            pads=np.array([0, 0, 2, 0, 0, 1]),
            fill=np.float32(0.7),
        ),
        pulses=PULSES,
        length=17,
    )


@pytest.mark.parametrize("factor", (2, 3))
def test_nearest_upsampling_then_convolution(factor: int) -> None:
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , scales)
        y = Conv<pads=[1,1]>(u, w, b) }""",
            w=rand(2, 2, 3),
            b=rand(2),
            scales=np.array([1, 1, factor], np.float32),
        ),
        delays={"y": factor + 1},
        pulses=PULSES,
    )


def test_output_shape_is_refused() -> None:
    refused(transposed("strides=[2], output_shape=[32]", 4), "output_shape", op_type="ConvTranspose")


def test_channels_are_refused() -> None:
    refused(
        parse("""agraph (float[1,T,9] x) => (float[1,2,U] y) { y = ConvTranspose(x, v) }""", v=rand(2, 2, 3)),
        "along the channels",
        axes={"x": 1},
        op_type="ConvTranspose",
    )


def test_weights_that_are_not_finite_are_refused() -> None:
    """Where no frame is, a stream has zeros, and zero times infinity is not nothing."""
    weights = rand(2, 2, 3)
    weights[0, 1, 2] = np.inf
    refused(
        parse("agraph (float[1,2,T] x) => (float[1,2,U] y) { y = ConvTranspose<strides=[2]>(x, v) }", v=weights),
        "not all finite",
        op_type="ConvTranspose",
    )


def test_overlapping_windows_of_ones() -> None:
    """The envelope of an overlap-add is computed from ones: before the first frame there are none."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {
        s = Shape(x)
        ones = ConstantOfShape<value=float[1]{1.0}>(s)
        e = ConvTranspose<strides=[2]>(ones, v)
        o = ConvTranspose<strides=[2]>(x, v)
        y = Div(o, e)
        c = Conv<pads=[1,1]>(ones, w, b)
        a = Conv<pads=[1,1]>(x, w, b)
        z = Mul(a, c) }""",
            v=np.abs(rand(2, 2, 6)) + 0.1,
            w=rand(2, 2, 3),
            b=rand(2),
        ),
        delays={"y": 0, "z": 1},
        pulses=PULSES,
    )


@pytest.mark.parametrize("auto", ("SAME_UPPER", "SAME_LOWER"))
@pytest.mark.parametrize("kernel", (2, 3, 4))
def test_auto_pad_and_output_padding_of_another_axis(kernel, auto):
    """The result is as long as the input times the stride, whatever the output padding."""
    check(
        parse(
            f"""agraph (float[1,2,T,4] x) => (float[1,2,U,V] y) {{
        a = ConvTranspose<auto_pad="{auto}", strides=[1,2], output_padding=[0,1]>(x, w)
        s = Shape<start=3>(a)
        n = Cast<to=1>(s)
        b = Div(a, n)
        y = AveragePool<kernel_shape=[2,1]>(b) }}""",
            w=rand(2, 2, 3, kernel),
        ),
        pulses=(1, 4),
        length=20,
    )


@pytest.mark.parametrize(
    "kernel, taps, attributes, delay, state",
    [
        (5, (2, 3), "pads=[2,0]", 0, 8),
        (5, (1, 2), "strides=[2], pads=[2,2]", 1, 0),
        (6, (0, 1), "strides=[2]", 0, 0),
        (6, (4, 5), "strides=[2]", 0, 40),
        (3, (2,), "dilations=[2], pads=[4,0]", 0, 0),
        (7, (3,), "strides=[4], pads=[1,1]", 0, 24),
    ],
)
def test_taps_that_are_all_zero_at_the_ends_are_no_reads(
    kernel: int, taps: tuple[int, ...], attributes: str, delay: int, state: int
) -> None:
    weights = np.where(np.isin(np.arange(kernel), taps), rand(2, 2, kernel), 0).astype(np.float32)
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        y = ConvTranspose<{attributes}, kernel_shape=[{kernel}]>(x, v, d) }}""",
        v=weights,
        d=rand(2),
    )
    check(model, delays={"y": delay}, pulses=PULSES, length=20, state_bytes=state)
    every_length(model)


@pytest.mark.parametrize("bias", ("", ", d"))
@pytest.mark.parametrize("before", ("", "pads=[1,0], "))
def test_zero_taps_in_front_are_frames_of_bias_alone(bias: str, before: str) -> None:
    """The window of an overlap-add begins with a zero, and what it gives is cropped."""
    weights = rand(2, 2, 8) * np.float32([0, 1, 1, 1, 1, 1, 1, 1])
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        c = Conv<strides=[2], pads=[4,4]>(x, w)
        a = Tanh(c)
        o = ConvTranspose<{before}strides=[2], kernel_shape=[8]>(a, v{bias})
        y = Slice(o, start, end, axis) }}""",
        w=rand(2, 2, 8),
        v=weights,
        d=rand(2),
        start=np.array([4 - bool(before)]),
        end=np.array([-4]),
        axis=np.array([2]),
    )
    check(model, delays={"y": 5}, pulses=PULSES)
    every_length(model)
    free = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        o = ConvTranspose<{before}strides=[2], kernel_shape=[8]>(x, v{bias})
        y = Conv<pads=[1,1]>(o, w) }}""",
        v=weights,
        d=rand(2),
        w=rand(2, 2, 3),
    )
    check(free, delays={"y": 0 if not before else 1}, pulses=PULSES)
    every_length(free)


@pytest.mark.parametrize(
    "mode, before, after, start, delay",
    [
        ("edge", 5, 5, 15, 5),
        ("edge", 5, 0, 15, 5),
        ("edge", 3, 1, 0, 0),
        ("edge", 5, 5, 12, 2),
        ("edge", 2, 0, 4, 0),
        ("reflect", 3, 3, 0, 6),
        ("reflect", 5, 0, 12, 8),
        ("reflect", 2, 1, 2, 4),
        ("reflect", 5, 5, 20, 10),
    ],
)
def test_a_border_that_mirrors_is_no_wait(mode: str, before: int, after: int, start: int, delay: int) -> None:
    """Upsampling against aliasing: the padding is cropped again."""
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        p = Pad<mode="{mode}">(x, pads)
        o = ConvTranspose<strides=[2], group=2, kernel_shape=[12]>(p, v, d)
        y = Slice(o, start, end, axis) }}""",
        pads=np.array([0, 0, before, 0, 0, after]),
        v=rand(2, 1, 12),
        d=rand(2),
        start=np.array([start]),
        end=np.array([-start or 2**40]),
        axis=np.array([2]),
    )
    check(model, delays={"y": delay}, pulses=(1, 2, 3, 7, 16), absorbed=True)
    every_length(model)
