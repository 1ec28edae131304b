"""Every opset from the oldest on, at pulses of one length and of any, with and without an end: the file is valid and
its stream exact.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, parse, rand, session

W = {"w": rand(3, 3, 3), "b": rand(3)}
RNN = {"wi": rand(1, 12, 3), "ri": rand(1, 12, 4), "bi": rand(1, 24)}
SAME = "c = Conv<pads=[1,1]>(x, w, b)"


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def cut(opset: int, start: int, end: int, x: str = "x") -> tuple[str, dict[str, np.ndarray]]:
    if opset < 10:
        return f"Slice<starts=[{start}], ends=[{end}], axes=[2]>({x})", {}
    return f"Slice({x}, s0, e0, a2)", {"s0": ints(start), "e0": ints(end), "a2": ints(2)}


def slices(opset: int, start: int, end: int) -> tuple[str, dict[str, np.ndarray]]:
    text, weights = cut(opset, start, end, "c")
    return f"{SAME} y = {text}", {**W, **weights}


def padded(opset: int) -> tuple[str, dict[str, np.ndarray]]:
    if opset < 11:
        return f"{SAME} p = Pad<pads=[0,0,2,0,0,1], value=0.5>(c) y = Conv(p, w, b)", W
    return f"{SAME} p = Pad(c, pads, half) y = Conv(p, w, b)", {
        **W,
        "pads": ints(0, 0, 2, 0, 0, 1),
        "half": np.float32(0.5),
    }


def mirrored(opset: int) -> tuple[str, dict[str, np.ndarray]]:
    if opset < 11:
        return 'p = Pad<pads=[0,0,2,0,0,2], mode="reflect">(x) y = Conv(p, w, b)', W
    return 'p = Pad<mode="reflect">(x, pads) y = Conv(p, w, b)', {**W, "pads": ints(0, 0, 2, 0, 0, 2)}


def resized(opset: int, mode: str) -> tuple[str, dict[str, np.ndarray]]:
    scales = {"scales": np.asarray([1, 1, 2], np.float32)}
    if opset < 9:
        return f'{SAME} y = Upsample<mode="{mode}", scales=[1.0, 1.0, 2.0]>(c)', W
    if opset < 10:
        return f'{SAME} y = Upsample<mode="{mode}">(c, scales)', {**W, **scales}
    if opset < 11:
        return f'{SAME} y = Resize<mode="{mode}">(c, scales)', {**W, **scales}
    return f'{SAME} y = Resize<mode="{mode}">(c, none, scales)', {**W, **scales, "none": np.zeros(0, np.float32)}


def mean(opset: int) -> tuple[str, dict[str, np.ndarray]]:
    return f"{SAME} m = ReduceMean<axes=[1], keepdims=1>(c) y = Sub(c, m)", W


FAMILIES = {
    "conv": lambda opset: ('y = Conv<auto_pad="SAME_UPPER">(x, w, b)', W),
    "strided": lambda opset: ("a = Conv<pads=[1,1]>(x, w, b) y = Conv<pads=[2,0], strides=[2]>(a, w, b)", W),
    "gru": lambda opset: (
        f"{SAME} t = Transpose<perm=[2,0,1]>(c) y, h = GRU<hidden_size=4>(t, wi, ri, bi)",
        {**W, **RNN},
    ),
    "two-way pool": lambda opset: (
        f"{SAME} p = MaxPool<kernel_shape=[3], pads=[1,1]>(c) q = AveragePool<kernel_shape=[3], pads=[1,1]>(c) y = "
        "Add(p, q)",
        W,
    ),
    "pool with a divisor": lambda opset: (f"{SAME} y = AveragePool<kernel_shape=[4], strides=[2], pads=[1,1]>(c)", W),
    "transposed": lambda opset: (f"{SAME} y = ConvTranspose<strides=[2]>(c, v)", {**W, "v": rand(3, 2, 4)}),
    "transposed with pads": lambda opset: (
        "y = ConvTranspose<strides=[3], pads=[1,1], output_padding=[1]>(x, v)",
        {**W, "v": rand(3, 2, 5)},
    ),
    "slice at the start": lambda opset: slices(opset, 2, 2**31 - 1),
    "slice at the end": lambda opset: slices(opset, 0, -3),
    "pad": padded,
    "reflect": mirrored,
    "nearest": lambda opset: resized(opset, "nearest"),
    "linear": lambda opset: resized(opset, "linear"),
    "mean": mean,
    "cumsum": lambda opset: None if opset < 11 else (f"{SAME} y = CumSum(c, axis)", {**W, "axis": np.int64(2)}),
    "exclusive cumsum": lambda opset: (
        None if opset < 11 else (f"{SAME} y = CumSum<exclusive=1>(c, axis)", {**W, "axis": np.int64(2)})
    ),
    "mean over all": lambda opset: (f"{SAME} y = ReduceMean<axes=[2], keepdims=0>(c)", W),
    "max over all": lambda opset: (f"{SAME} y = ReduceMax<axes=[2], keepdims=0>(c)", W),
    "last frame": lambda opset: (f"{SAME} y = Gather<axis=2>(c, last)", {**W, "last": np.int64(-1)}),
    "last frames": lambda opset: slices(opset, -2, 2**31 - 1),
    "branches": lambda opset: (f"{SAME} d = Conv<pads=[3,3], dilations=[3]>(x, w, b) y = Concat<axis=1>(c, d, x)", W),
    "softmax": lambda opset: (f"{SAME} t = Transpose<perm=[0,2,1]>(c) y = Softmax<axis=2>(t)", W),
}


@pytest.mark.parametrize("batch, end", [("1", False), ("1", True), ("N", True)])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", range(7, 14))
def test_dynamic_pulses(opset, family, batch, end):
    made = FAMILIES[family](opset)
    if made is None:
        return
    body, weights = made
    out = "float[A,B,C] y" if "keepdims=0" not in body and family != "last frame" else "float[A,B] y"
    if family == "gru":
        out = "float[A,B,C,D] y"
    model = parse(
        f'<ir_version: 6, opset_import: ["": {opset}]> agraph (float[{batch},3,T] x) => ({out}) {{ {body} }}', **weights
    )
    pulsed = pulsify(model, pulse=None, axes={"x": 2}, end_of_stream=end)
    proto = pulsed.proto()
    onnx.checker.check_model(proto, full_check=True)
    assert session(proto.SerializeToString()) is not None
    assert [o.version for o in proto.opset_import if o.domain == ""] == [max(9, opset)]
    assert verify(model, pulsed).ok


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", (7, 9, 10, 11, 12))
def test_pulses_of_one_length(opset, family):
    made = FAMILIES[family](opset)
    if made is not None:
        out = (
            "float[A,B,C,D] y"
            if family == "gru"
            else "float[A,B] y"
            if "keepdims=0" in made[0] or family == "last frame"
            else "float[A,B,C] y"
        )
        check(
            parse(
                f'<ir_version: 6, opset_import: ["": {opset}]> agraph (float[1,3,T] x) => ({out}) {{ {made[0]} }}',
                **made[1],
            ),
            pulses=(1, 7),
            length=20,
            beyond=8,
        )


@pytest.mark.parametrize("batch", ["1", "N"])
@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("opset", (10, 11))
def test_slices_of_one_wire_have_a_buffer_each(opset, end, batch):
    """In opset 10 a slice of any number of frames is inferred to have as many: pulses of any size are not taken at
    that.
    """
    frames, steps = {"first": ints(0), "second": ints(1), "all": ints(2**31 - 1), "a1": ints(1)}, {"two": ints(2)}
    model = parse(
        f"""<ir_version: 6, opset_import: ["": {opset}]> agraph (float16[{batch},4,T] x) => (float16[A,U,8] y) {{
        t = Transpose<perm=[0,2,1]>(x)
        a = Slice(t, first, all, a1, two)
        c = Slice(t, second, all, a1, two)
        s = Shape(c)
        n = Gather<axis=0>(s, a1)
        e = Slice(a, first, n, a1, a1)
        p = Add(e, c)
        q = Sub(e, c)
        y = Concat<axis=2>(p, q) }}""",
        **frames,
        **steps,
    )
    pulsed = pulsify(model, pulse=None, axes={"x": 2}, end_of_stream=end)
    assert verify(model, pulsed, seed=2, rtol=1e-2).ok
