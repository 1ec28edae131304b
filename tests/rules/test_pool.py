"""Pools: every rounding, divisor and padding, at both ends, as onnxruntime computes them."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import check, parse, rand, refused

PULSES = (1, 4)
PADS = [(0, 0), (1, 1), (2, 0), (0, 2), (2, 2)]


def pooled(op: str, attributes: str, opset: int = 17) -> object:
    return parse(f"""<ir_version: 8, opset_import: ["": {opset}]>
        agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        a = Conv<pads=[1,1]>(x, w, b)
        y = {op}<{attributes}>(a) }}""", w=rand(2, 2, 3), b=rand(2))


@pytest.mark.parametrize("ceil", (0, 1))
@pytest.mark.parametrize("stride", (1, 2, 3))
@pytest.mark.parametrize("before, after", PADS)
def test_max_pool(before: int, after: int, stride: int, ceil: int) -> None:
    check(pooled("MaxPool", f"kernel_shape=[3], strides=[{stride}], pads=[{before},{after}], ceil_mode={ceil}"), pulses=PULSES, length=23 + stride)


@pytest.mark.parametrize("opset", (17, 22))  # the divisor of a window that ceil_mode adds differs
@pytest.mark.parametrize("include", (0, 1))
@pytest.mark.parametrize("ceil", (0, 1))
@pytest.mark.parametrize("stride", (1, 2, 3))
@pytest.mark.parametrize("before, after", PADS)
def test_average_pool(before: int, after: int, stride: int, ceil: int, include: int, opset: int) -> None:
    text = f"kernel_shape=[3], strides=[{stride}], pads=[{before},{after}], ceil_mode={ceil}, count_include_pad={include}"
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

    check(parse(f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        c = Slice(x, one, many, two)
        y = MaxPool<kernel_shape=[3], pads=[{before},{after}]{attributes}>(c) }}""", one=np.int64([1]), many=np.int64([2**31]), two=np.int64([2])),
        pulses=PULSES, inputs={"x": low}, length=33)


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
    check(parse(f"""agraph (float[{shape}] x) => (float[{out}] y) {{
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = {op}<kernel_shape=[3,3], pads=[{pads}], strides=[{strides}]>(a) }}""", w=rand(2, 2, 3, 3), b=rand(2)), pulses=(2, 4), length=21)


def test_delay_of_a_pool() -> None:
    check(pooled("MaxPool", "kernel_shape=[3], pads=[1,1]"), delays={"y": 2}, pulses=PULSES)
    check(pooled("MaxPool", "kernel_shape=[2], strides=[2]"), delays={"y": 1}, pulses=PULSES)
    check(pooled("AveragePool", "kernel_shape=[3], pads=[2,0]"), delays={"y": 1}, pulses=PULSES)


def test_integers() -> None:
    check(parse("""agraph (int8[1,2,T] x) => (int8[1,2,U] y) {
        y = MaxPool<kernel_shape=[3], pads=[1,1]>(x) }"""), delays={"y": 1}, pulses=PULSES)


def test_frames_as_the_batch() -> None:
    check(parse("""agraph (float[T,2,9] x) => (float[T,2,4] y) {
        y = AveragePool<kernel_shape=[3], strides=[2]>(x) }"""), axes={"x": 0}, delays={"y": 0}, state_bytes=0, pulses=PULSES)


def test_a_pool_behind_a_border() -> None:
    """What it pads with is not what the stream was padded with."""
    check(parse("""agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {
        p = Pad(x, pads, fill)
        y = MaxPool<kernel_shape=[3], pads=[1,1]>(p)
        z = AveragePool<kernel_shape=[3], pads=[1,1]>(p) }""", pads=np.array([0, 0, 2, 0, 0, 2]), fill=np.float32(-3)), pulses=PULSES)


@pytest.mark.parametrize("include", (0, 1))
@pytest.mark.parametrize("stride", (1, 2))
def test_a_pool_behind_a_crop_at_the_end(stride: int, include: int) -> None:
    """Frames that are cut off in the end are counted until then."""
    check(parse(f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        c = Slice(x, one, end, two)
        y = AveragePool<kernel_shape=[2], strides=[{stride}], pads=[1,0], ceil_mode=1, count_include_pad={include}>(c) }}""",
                one=np.array([1]), end=np.array([-4]), two=np.array([2])), pulses=PULSES)


def test_indices_are_refused() -> None:
    refused(parse("""agraph (float[1,2,T] x) => (float[1,2,U] y, int64[1,2,U] i) {
        y, i = MaxPool<kernel_shape=[2]>(x) }"""), "positions in the whole recording", op_type="MaxPool")
