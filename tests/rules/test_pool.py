"""Pools: every rounding, divisor and padding, at both ends, as onnxruntime computes them."""

from __future__ import annotations

import numpy as np
import pytest

from pulsify_onnx.api import pulsify
from testing.oracle import check, parse, rand, refused, session

PULSES = (1, 4)
PADS = [(0, 0), (1, 1), (2, 0), (0, 2), (2, 2)]


def pooled(op: str, attributes: str, opset: int = 17) -> object:
    return parse(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        a = Conv<pads=[1,1]>(x, w, b)
        y = {op}<{attributes}>(a) }}""",
        w=rand(2, 2, 3),
        b=rand(2),
    )


@pytest.mark.parametrize("ceil", (0, 1))
@pytest.mark.parametrize("stride", (1, 2, 3))
@pytest.mark.parametrize("before, after", PADS)
def test_max_pool(before: int, after: int, stride: int, ceil: int) -> None:
    check(
        pooled("MaxPool", f"kernel_shape=[3], strides=[{stride}], pads=[{before},{after}], ceil_mode={ceil}"),
        pulses=PULSES,
        length=23 + stride,
    )


@pytest.mark.parametrize("opset", (17, 22))  # the divisor of a window that ceil_mode adds differs
@pytest.mark.parametrize("include", (0, 1))
@pytest.mark.parametrize("ceil", (0, 1))
@pytest.mark.parametrize("stride", (1, 2, 3))
@pytest.mark.parametrize("before, after", PADS)
def test_average_pool(before: int, after: int, stride: int, ceil: int, include: int, opset: int) -> None:
    text = (
        f"kernel_shape=[3], strides=[{stride}], pads=[{before},{after}], ceil_mode={ceil}, count_include_pad={include}"
    )
    for length in range(24, 24 + stride) if ceil else (24,):
        check(pooled("AveragePool", text, opset), pulses=(4,), length=length)


@pytest.mark.parametrize("include", (0, 1))
@pytest.mark.parametrize("ceil", (0, 1))
def test_average_pool_with_dilation(ceil: int, include: int) -> None:
    text = f"kernel_shape=[3], strides=[2], pads=[2,2], dilations=[2], ceil_mode={ceil}, count_include_pad={include}"
    for length in (22, 23, 24, 25):
        check(pooled("AveragePool", text, 19), pulses=(4,), length=length)


@pytest.mark.parametrize("dilation, before, after", [(2, 1, 1), (3, 2, 0), (2, 0, 2)])
def test_max_pool_with_dilation(dilation: int, before: int, after: int) -> None:
    check(pooled("MaxPool", f"kernel_shape=[3], dilations=[{dilation}], pads=[{before},{after}]"), pulses=PULSES)


@pytest.mark.parametrize("before, after", PADS)
@pytest.mark.parametrize("attributes", ("", ", ceil_mode=1, strides=[2]", ", dilations=[2]"))
def test_max_pool_of_frames_that_are_infinite_themselves(before: int, after: int, attributes: str) -> None:
    """A window whose only real frames are -inf gives -inf, in the batch model too."""

    def low(rng: np.random.Generator, shape: list[int]) -> np.ndarray:
        x = rng.standard_normal(shape).astype(np.float32)
        x[..., :3] = x[..., 12:19] = x[..., -4:] = -np.inf
        return x

    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        c = Slice(x, one, many, two)
        y = MaxPool<kernel_shape=[3], pads=[{before},{after}]{attributes}>(c) }}""",
            one=np.int64([1]),
            many=np.int64([2**31]),
            two=np.int64([2]),
        ),
        pulses=PULSES,
        inputs={"x": low},
        length=33,
    )


@pytest.mark.parametrize("before, after", PADS)
@pytest.mark.parametrize("stride", (1, 2))
def test_lp_pool(before: int, after: int, stride: int) -> None:
    check(pooled("LpPool", f"kernel_shape=[3], p=2, strides=[{stride}], pads=[{before},{after}]"), pulses=PULSES)


@pytest.mark.parametrize("op", ("MaxPool", "AveragePool"))
@pytest.mark.parametrize("auto", ("SAME_UPPER", "SAME_LOWER", "VALID"))
def test_auto_pad(op: str, auto: str) -> None:
    check(pooled(op, f'kernel_shape=[4], auto_pad="{auto}"'), pulses=PULSES)


@pytest.mark.parametrize("op", ("MaxPool", "AveragePool", "LpPool"))
@pytest.mark.parametrize("axis", (2, 3))
def test_planes(op: str, axis: int) -> None:
    shape = "1,2,T,6" if axis == 2 else "1,2,6,T"
    out = "1,2,U,4" if axis == 2 else "1,2,4,U"
    pads, strides = ("1,1,1,2", "2,2") if axis == 2 else ("1,1,2,1", "2,2")
    check(
        parse(
            f"""agraph (float[{shape}] x) => (float[{out}] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = {op}<kernel_shape=[3,3], pads=[{pads}], strides=[{strides}]>(a) }}""",
            w=rand(2, 2, 3, 3),
            b=rand(2),
        ),
        pulses=(2, 4),
        length=21,
    )


def test_delay_of_a_pool() -> None:
    check(pooled("MaxPool", "kernel_shape=[3], pads=[1,1]"), delays={"y": 2}, pulses=PULSES)
    check(pooled("MaxPool", "kernel_shape=[2], strides=[2]"), delays={"y": 1}, pulses=PULSES)
    check(pooled("AveragePool", "kernel_shape=[3], pads=[2,0]"), delays={"y": 1}, pulses=PULSES)


def test_integers() -> None:
    check(
        parse("""agraph (int8[1,2,T] x) => (int8[1,2,U] y) {
        y = MaxPool<kernel_shape=[3], pads=[1,1]>(x) }"""),
        delays={"y": 1},
        pulses=PULSES,
    )


def test_frames_as_the_batch() -> None:
    check(
        parse("""agraph (float[T,2,9] x) => (float[T,2,4] y) {
        y = AveragePool<kernel_shape=[3], strides=[2]>(x) }"""),
        axes={"x": 0},
        delays={"y": 0},
        state_bytes=0,
        pulses=PULSES,
    )


def test_a_pool_behind_a_border() -> None:
    """What it pads with is not what the stream was padded with."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {
        p = Pad(x, pads, fill)
        y = MaxPool<kernel_shape=[3], pads=[1,1]>(p)
        z = AveragePool<kernel_shape=[3], pads=[1,1]>(p) }""",
            pads=np.array([0, 0, 2, 0, 0, 2]),
            fill=np.float32(-3),
        ),
        pulses=PULSES,
    )


@pytest.mark.parametrize("include", (0, 1))
@pytest.mark.parametrize("stride", (1, 2))
def test_a_pool_behind_a_crop_at_the_end(stride: int, include: int) -> None:
    """Frames that are cut off in the end are counted until then."""
    check(
        parse(
            f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        c = Slice(x, one, end, two)
        y = AveragePool<kernel_shape=[2], strides=[{stride}], pads=[1,0], ceil_mode=1, count_include_pad={include}>(c) }}""",
            one=np.array([1]),
            end=np.array([-4]),
            two=np.array([2]),
        ),
        pulses=PULSES,
    )


def test_indices_are_refused() -> None:
    refused(
        parse("""agraph (float[1,2,T] x) => (float[1,2,U] y, int64[1,2,U] i) {
        y, i = MaxPool<kernel_shape=[2]>(x) }"""),
        "positions in the whole recording",
        op_type="MaxPool",
    )


@pytest.mark.parametrize("opset", (11, 17, 22))
@pytest.mark.parametrize("op", ("MaxPool", "AveragePool", "LpPool"))
@pytest.mark.parametrize("bins", (2, 5, 6, 7))
@pytest.mark.parametrize("pads", ("0,0,0,0", "1,1,1,1", "0,0,0,1"))
def test_ceil_mode_of_another_axis(op: str, opset: int, bins: int, pads: str) -> None:
    """The last window must not begin in the padding at the end; what follows needs to know how many there are."""
    if op == "LpPool" and opset < 18:
        pytest.skip("has no ceil_mode")
    check(
        parse(f"""<ir_version: 8, opset_import: ["": {opset}]>
        agraph (float[1,1,T,{bins}] x) => (float[1,1,U,V] y) {{
        a = {op}<ceil_mode=1, kernel_shape=[3,2], strides=[1,3], pads=[{pads}]>(x)
        y = AveragePool<kernel_shape=[2,1]>(a) }}"""),
        pulses=PULSES,
        length=21,
    )


def test_ceil_mode_of_another_axis_with_a_kernel_of_one() -> None:
    check(
        parse("""agraph (float[1,1,T,2] x) => (float[1,1,U,1] y) {
        a = AveragePool<ceil_mode=1, kernel_shape=[3,1], strides=[1,2]>(x)
        s = Shape<start=3>(a)
        n = Cast<to=1>(s)
        b = Div(a, n)
        y = AveragePool<kernel_shape=[2,1]>(b) }"""),
        pulses=PULSES,
        length=21,
    )


@pytest.mark.parametrize("axis", (2, 3))
@pytest.mark.parametrize("op, opset", [("MaxPool", 12), ("MaxPool", 22), ("AveragePool", 22), ("LpPool", 22)])
def test_same_with_dilation_is_refused(op: str, opset: int, axis: int) -> None:
    """Onnxruntime pads as if there were no dilation."""
    dilations = "2,1" if axis == 2 else "1,2"
    refused(
        parse(f"""<ir_version: 8, opset_import: ["": {opset}]> agraph (float[1,1,T,9] x) => (float[1,1,U,V] y) {{
        y = {op}<auto_pad="SAME_UPPER", kernel_shape=[3,3], dilations=[{dilations}]>(x) }}"""),
        "with dilations",
        op_type=op,
    )


@pytest.mark.parametrize("axis", (2, 3))
@pytest.mark.parametrize("op, kernel, stride", [("MaxPool", 1, 2), ("AveragePool", 2, 3), ("LpPool", 1, 3)])
def test_same_with_a_kernel_shorter_than_the_stride_is_refused(op: str, kernel: int, stride: int, axis: int) -> None:
    kernels, strides = ((kernel, 3), (stride, 1)) if axis == 2 else ((3, kernel), (1, stride))
    refused(
        parse(f"""agraph (float[1,1,T,12] x) => (float[1,1,U,V] y) {{
        y = {op}<auto_pad="SAME_LOWER", kernel_shape=[{kernels[0]},{kernels[1]}], strides=[{strides[0]},{strides[1]}]>(x) }}"""),
        f"a kernel of {kernel} and a stride of {stride}",
        op_type=op,
    )


@pytest.mark.parametrize("side", ("UPPER", "LOWER"))
@pytest.mark.parametrize(
    "op, opset, kernel, stride, bins",
    [
        ("MaxPool", 17, 2, 3, 7),
        ("AveragePool", 17, 3, 3, 8),
        ("AveragePool", 22, 3, 2, 8),
        ("LpPool", 17, 1, 2, 8),
        ("MaxPool", 22, 5, 2, 9),
    ],
)
def test_same_of_another_axis(op: str, opset: int, kernel: int, stride: int, bins: int, side: str) -> None:
    """Sizes at which nothing is padded by less than nothing."""
    check(
        parse(f"""<ir_version: 8, opset_import: ["": {opset}]> agraph (float[1,1,T,{bins}] x) => (float[1,1,U,V] y) {{
        y = {op}<auto_pad="SAME_{side}", kernel_shape=[3,{kernel}], strides=[1,{stride}]>(x) }}"""),
        pulses=PULSES,
        length=21,
    )


def test_ceil_mode_of_another_axis_whose_memory_is_used_again() -> None:
    """Onnxruntime plans its memory by the sizes that onnx's inference tells, which must be those of the run."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        r = Unsqueeze(x, three)
        d = Mul(r, two)
        a = MaxPool<ceil_mode=1, kernel_shape=[2,1], pads=[1,0,0,0], strides=[1,2]>(d)
        y = ReduceMean<axes=[3], keepdims=0>(a) }""",
            three=np.array([3]),
            two=rand(1, 2, 1, 2),
        ),
        pulses=PULSES,
        length=24,
    )


@pytest.mark.parametrize("kernel, before, after", [(3, 2, 1), (4, 2, 2), (4, 3, 1)])
def test_a_lane_without_a_stream_is_finite(kernel: int, before: int, after: int) -> None:
    """No frame of it is real, ever, so no window of it is one of a border alone."""
    model = parse(
        f"agraph (float[B,3,T] x) => (float[B,3,U] y) {{ y = MaxPool<kernel_shape=[{kernel}], "
        f"pads=[{before},{after}]>(x) }}"
    )
    pulsed = pulsify(model, pulse=4, axes={"x": 2}, end_of_stream=True)
    stream, names = session(pulsed.proto().SerializeToString()), [s["input"] for s in pulsed.spec["states"]]
    states = {s["input"]: np.zeros([2, *s["shape"][1:]], s["dtype"]) for s in pulsed.spec["states"]}
    for _ in range(4):
        y, *after = stream.run(None, {"x": rand(2, 3, 4), "valid_frames": np.array([0, 4]), **states})
        states = dict(zip(names, after))
        assert all(np.abs(v).max() < 1e3 for v in (y, *after))
