"""Frames written into a stream by position: shifts, pre-emphasis in place, interleaving."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import check, every_length, parse, rand, refused
from testing.rowing import check_rows

PULSES = (1, 3, 7)
WEIGHTS = {"w": rand(2, 2, 3), "b": rand(2)}
INTS = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "zeros": [0],
    "ones": [1],
    "twos": [2],
    "minus": [-1],
    "minus2": [-2],
    "far": [2**62],
    "row": [1, 1, -1],
    "rows": [1, 2, 1],
    "front": [[0]],
    "pair": [[1], [2]],
    "odd": [[0], [2], [3]],
}


def made(body: str, y: str = "float[U,2] y", conv: bool = True, opset: int = 18, **more: np.ndarray):
    """`v` is [T, 2], behind a SAME convolution with `conv`; `n` is T."""
    first = "a = Conv<pads=[1,1]>(x, w, b)" if conv else "a = Identity(x)"
    text = f"""<ir_version: 8, opset_import: ["": {opset}]>
    agraph (float[1,2,T] x) => ({y}) {{ {first}
        t = Transpose<perm=[2,0,1]>(a)
        v = Squeeze(t, ones)
        h = Shape(v)
        n = Gather(h, zero)
        {body} }}"""
    weights = {k: np.asarray(v, np.int64) for k, v in INTS.items()} | WEIGHTS | more
    return parse(text, **{k: v for k, v in weights.items() if k in text})


def at(start: str, stop: str, step: str = "one") -> str:
    return f"r = Range({start}, {stop}, {step})\n i = Unsqueeze(r, minus)"


SHIFTS = {
    "later": f"{at('one', 'n')}\n c = Slice(v, zeros, minus, zeros)\n y = ScatterND(o, i, c)",
    "sooner": f"m = Sub(n, one)\n {at('zero', 'm')}\n c = Slice(v, ones, far, zeros)\n y = ScatterND(o, i, c)",
    "inside": f"m = Sub(n, one)\n {at('one', 'm')}\n c = Slice(v, twos, far, zeros)\n y = ScatterND(o, i, c)",
    "sum": f'{at("one", "n")}\n c = Slice(v, zeros, minus, zeros)\n y = ScatterND<reduction="add">(v, i, c)',
    "sliced": """r0 = Range(zero, n, one)
        r = Slice(r0, ones, far, zeros)
        i = Unsqueeze(r, minus)
        k = Slice(v, ones, far, zeros)
        l = Slice(v, zeros, minus, zeros)
        c = Sub(k, l)
        y = ScatterND(v, i, c)""",
}


@pytest.mark.parametrize("how", SHIFTS)
@pytest.mark.parametrize("conv", (True, False))
def test_a_range_of_frames(how: str, conv: bool) -> None:
    model = made(f"o = Tanh(v)\n {SHIFTS[how]}", conv=conv)
    late = int(how in ("sooner", "inside"))
    check(model, delays={"y": late + conv}, pulses=PULSES)
    every_length(model)


def test_then_a_convolution() -> None:
    body = SHIFTS["inside"].replace("y = ", "s = ")
    model = made(
        f"""o = Tanh(v)\n {body}
        u = Unsqueeze(s, zeros)
        p = Transpose<perm=[0,2,1]>(u)
        y = Conv<pads=[1,1]>(p, w, b)""",
        "float[1,2,U] y",
    )
    check(model, pulses=PULSES)
    every_length(model)


def test_into_zeros() -> None:
    body = f"z = ConstantOfShape(h)\n {SHIFTS['later'].replace('(o,', '(z,')}"
    check(made(body, conv=False), delays={"y": 0}, pulses=PULSES)


def test_interleaved() -> None:
    body = """m = Mul(n, two)
        q = Gather(h, one)
        mq = Unsqueeze(m, zeros)
        qq = Unsqueeze(q, zeros)
        s = Concat<axis=0>(mq, qq)
        z = ConstantOfShape(s)
        r = Range(zero, m, two)
        i = Unsqueeze(r, minus)
        r1 = Range(one, m, two)
        i1 = Unsqueeze(r1, minus)
        d = Neg(v)
        e = ScatterND(z, i, v)
        y = ScatterND(e, i1, d)"""
    for conv in (True, False):
        model = made(body, conv=conv)
        check(model, delays={"y": 2 * conv}, pulses=PULSES)
        every_length(model)


def test_along_an_axis() -> None:
    body = """r = Range(one, n, one)
        e = Reshape(r, row)
        m = Expand(e, rows)
        c = Slice(a, zeros, minus, twos)
        o = Tanh(a)
        y = ScatterElements<axis=2>(o, m, c)"""
    model = made(body, "float[1,2,U] y")
    check(model, delays={"y": 1}, pulses=PULSES)
    every_length(model)


def test_some_channels() -> None:
    """A temporal shift: one channel from the frame before, another from the next one."""
    body = """r = Range(one, n, one)
        e = Reshape(r, row)
        c0 = Slice(a, zeros, minus, twos)
        c = Slice(c0, zeros, ones, ones)
        y = ScatterElements<axis=2>(a, e, c)"""
    check(made(body, "float[1,2,U] y"), delays={"y": 1}, pulses=PULSES)


def test_a_grid_of_indices() -> None:
    body = """r = Range(one, n, one)
        f = Reshape(r, column)
        z0 = Mul(f, zero)
        z1 = Add(z0, one)
        g = Concat<axis=3>(z0, f, z1)
        c0 = Transpose<perm=[0,2,1]>(a)
        c1 = Slice(c0, zeros, minus, ones)
        c = Slice(c1, zeros, ones, twos)
        y = ScatterND(c0, g, c)"""
    model = made(body, "float[1,U,2] y", column=np.array([1, -1, 1, 1]))
    check(model, delays={"y": 1}, pulses=PULSES)
    every_length(model)


def test_the_first_frame() -> None:
    check(made("y = ScatterND(v, front, u)", u=rand(1, 2)), delays={"y": 1}, pulses=PULSES)
    body = "c = Slice(v, twos, far, zeros)\n d = Slice(c, zeros, ones, zeros)\n y = ScatterND(v, front, d)"
    model = made(body)
    check(model, delays={"y": 3}, absorbed=True, pulses=PULSES)
    every_length(model)


def test_a_batch_of_any_size() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["": 18]> agraph (float[T,N,2] x) => (float[U,N,2] y) {
        h = Shape<start=0, end=1>(x)
        n = Squeeze(h)
        r = Range(one, n, one)
        i = Unsqueeze(r, minus)
        c = Slice(x, zeros, minus, zeros)
        k = Slice(x, ones, far, zeros)
        d = Sub(k, c)
        y = ScatterND(x, i, d) }""",
        **{k: np.asarray(INTS[k], np.int64) for k in ("one", "minus", "zeros", "ones", "far")},
    )
    check(model, axes={"x": 0}, delays={"y": 0}, pulses=PULSES)


def test_every_other_frame() -> None:
    body = at("zero", "n", "two") + "\n e = Slice(v, zeros, far, zeros, twos)\n g = Tanh(e)\n y = ScatterND(v, i, g)"
    model = made(body, conv=False)
    check(model, delays={"y": 0}, pulses=(2, 4, 6))
    every_length(model)


def test_rows_of_a_batch_are_streams_of_their_own() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["": 18]> agraph (float[N,T,2] x) => (float[N,U,2] y) {
        t = Transpose<perm=[1,0,2]>(x)
        h = Shape<start=0, end=1>(t)
        n = Squeeze(h)
        r = Range(one, n, one)
        i = Unsqueeze(r, minus)
        e = Slice(t, zeros, minus, zeros)
        s = ScatterND(t, i, e)
        y = Transpose<perm=[1,0,2]>(s) }""",
        **{k: np.asarray(INTS[k], np.int64) for k in ("one", "minus", "zeros")},
    )
    check_rows(model, axes={"x": 1}, pulses=(3,), rows=3)


def test_truth_values() -> None:
    body = f"k = Cast<to=9>(v)\n {at('one', 'n')}\n e = Slice(k, zeros, minus, zeros)\n f = Not(e)"
    check(made(f"{body}\n y = ScatterND(k, i, f)", "bool[U,2] y"), delays={"y": 1}, pulses=PULSES)


def test_what_is_no_range() -> None:
    def blocked(model: onnx.ModelProto) -> None:
        refused(model, "writes to frames of the stream by index")

    blocked(made("y = ScatterND(v, odd, u)", u=rand(3, 2)))
    blocked(made("y = ScatterND(v, pair, u)", u=rand(2, 2)))
    blocked(made("c = Slice(v, ones, far, zeros)\n y = ScatterND(v, pair, c)"))
    blocked(
        made(
            "m = Sub(n, two)\n m1 = Sub(m, one)\n r = Range(one, n, one)\n q = Mul(r, r)\n i = Unsqueeze(q, minus)"
            "\n c = Slice(v, zeros, minus, zeros)\n y = ScatterND(v, i, c)"
        )
    )
    blocked(made(f'{at("one", "n")}\n c = Slice(v, zeros, minus, zeros)\n y = ScatterND<reduction="max">(v, i, c)'))


@pytest.mark.parametrize("crop", [0, 1, 2, 3])
def test_every_other_frame_written_with_frames_that_run_ahead_of_the_end(crop: int) -> None:
    """A transposed convolution that is cropped at its end: its newest frames are no frames only if the stream ends now."""
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[U,1,2] y) {{
            c = ConvTranspose<strides=[3], pads=[0,{crop}]>(x, w, b)
            s = Shape(c)
            n = Gather(s, two)
            m = Mul(n, two)
            u = Unsqueeze(m, first)
            k = Concat<axis=0>(sizes, u)
            o = ConstantOfShape(k)
            r = Range(zero, m, two)
            d = Transpose<perm=[2,0,1]>(o)
            e = Transpose<perm=[2,0,1]>(c)
            at = Unsqueeze(r, second)
            y = ScatterND(d, at, e) }}""",
        w=rand(2, 2, 5),
        b=rand(2),
        two=np.int64(2),
        zero=np.int64(0),
        first=np.array([0]),
        second=np.array([1]),
        sizes=np.array([1, 2]),
    )
    check(model)
    every_length(model)
