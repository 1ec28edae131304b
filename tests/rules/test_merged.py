"""Time merged with a batch of any size: operators that treat all frames alike see the frames of all rows at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from testing.oracle import check, parse, rand, refused
from testing.rowing import check_rows

PULSES = (1, 3, 4)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


NUMBERS = {
    "zero": ints(0),
    "one": ints(1),
    "two": ints(2),
    "three": ints(3),
    "four": ints(4),
    "six": ints(6),
    "minus": ints(-1),
}
WEIGHTS = {"w": rand(4, 4, 3), "b": rand(4), "g": rand(4, 4, seed=3), "gb": rand(4, seed=4)}
SIZES = "s = Shape(x) n = Slice(s, zero, one) t = Slice(s, two, three)"
"""Of x [N, 4, T]: the batch and the length."""


def model(body: str, out: str = "float[N,4,U] y", **more: np.ndarray) -> onnx.ModelProto:
    """`body` on `a`, a delayed stream [N, 4, T], with the sizes n and t."""
    return parse(
        f"agraph (float[N,4,T] x) => ({out}) {{ a = Conv<pads=[1,1]>(x, w, b) {SIZES} {body} }}",
        **WEIGHTS,
        **{k: v for k, v in NUMBERS.items() if k not in more},
        **more,
    )


TO_ROWS = "p = Transpose<perm=[0,2,1]>(a) nt = Mul(n, t) k = Concat<axis=0>(nt, four) m = Reshape(p, k)"
FROM_ROWS = "j = Concat<axis=0>(n, t, four) q = Reshape(h, j) y = Transpose<perm=[0,2,1]>(q)"

FORMS = {
    "computed": (TO_ROWS + " h = Gemm<transB=1>(m, g, gb) " + FROM_ROWS, {}),
    "worked out": (
        "p = Transpose<perm=[0,2,1]>(a) m = Reshape(p, k) h = Gemm(m, g, gb) j = Concat<axis=0>(n, minus, four)"
        " q = Reshape(h, j) y = Transpose<perm=[0,2,1]>(q)",
        {"k": ints(-1, 4)},
    ),
    "batch worked out": (
        "p = Transpose<perm=[0,2,1]>(a) m = Reshape(p, k) h = Gemm(m, g, gb) j = Concat<axis=0>(minus, t, four)"
        " q = Reshape(h, j) y = Transpose<perm=[0,2,1]>(q)",
        {"k": ints(-1, 4)},
    ),
    "flattened": ("p = Transpose<perm=[0,2,1]>(a) m = Flatten<axis=2>(p) h = Gemm(m, g, gb) " + FROM_ROWS, {}),
    "time first": (
        "p = Transpose<perm=[2,0,1]>(a) m = Reshape(p, k) h = Gemm(m, g, gb) j = Concat<axis=0>(t, n, four) q = "
        "Reshape(h, j)"
        " y = Transpose<perm=[1,2,0]>(q)",
        {"k": ints(-1, 4)},
    ),
    "time last": (
        "nc = Mul(n, four) k = Concat<axis=0>(nc, t) m = Reshape(a, k) h = Tanh(m) j = Concat<axis=0>(n, four, t) "
        "y = Reshape(h, j)",
        {},
    ),
    "channels and time": (
        "ct = Mul(t, four) k = Concat<axis=0>(n, ct) m = Reshape(a, k) h = Tanh(m) j = Concat<axis=0>(n, four, t) "
        "y = Reshape(h, j)",
        {},
    ),
    "all in one": ("m = Reshape(a, minus) h = Tanh(m) j = Concat<axis=0>(n, four, t) y = Reshape(h, j)", {}),
    "all in one, time first": (
        "p = Transpose<perm=[2,0,1]>(a) m = Reshape(p, minus) h = Tanh(m) j = Concat<axis=0>(t, n, four) q = "
        "Reshape(h, j)"
        " y = Transpose<perm=[1,2,0]>(q)",
        {},
    ),
    "normalised": (TO_ROWS + " h = LayerNormalization<axis=-1>(m, gb, b) " + FROM_ROWS, {}),
    "convolved per frame": (
        TO_ROWS
        + " k3 = Concat<axis=0>(nt, one, four) i = Reshape(m, k3) c = Conv<pads=[1,1]>(i, v) h = Relu(c) "
        + FROM_ROWS,
        {"v": rand(1, 1, 3, seed=5)},
    ),
    "pooled and joined": (
        TO_ROWS
        + " e = Softmax<axis=-1>(m) l = Slice(m, zero, two, one) r = Slice(e, two, four, one) h = Concat<axis=1>(r, l) "
        + FROM_ROWS,
        {},
    ),
    "aligned within": (TO_ROWS + " z = Transpose<perm=[0,2,1]>(x) mx = Reshape(z, k) h = Sub(m, mx) " + FROM_ROWS, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_merged_and_split_again(form: str) -> None:
    body, more = FORMS[form]
    check(model(body, **more), axes={"x": 2}, delays={"y": 1}, pulses=PULSES)
    check_rows(model(body, **more), axes={"x": 2}, pulses=(1, 3))


@pytest.mark.parametrize("shape", ("float[N,T,4]", "float[3,T,4]"))
def test_time_is_split_off_before_it_leaves(shape: str) -> None:
    refused(
        parse(f"agraph ({shape} x) => (float[U,4] y) {{ y = Reshape(x, k) }}", k=ints(-1, 4)),
        "merged with time",
        axes={"x": 1},
        op_type="output",
    )


def test_rows_of_different_order_do_not_meet() -> None:
    body = TO_ROWS + " z = Transpose<perm=[2,0,1]>(a) mz = Reshape(z, k) h = Add(m, mz) " + FROM_ROWS
    refused(model(body), "of another order", axes={"x": 2}, op_type="Add")


@pytest.mark.parametrize(
    "body",
    (
        "c = Unsqueeze(m, zero) e = Transpose<perm=[0,2,1]>(c) f = Conv<pads=[1,1]>(e, w, b) i = "
        "Transpose<perm=[0,2,1]>(f) h = Squeeze(i, zero)",
        "h = CumSum(m, zero)",
        "h = Softmax<axis=0>(m)",
        "l = Slice(m, one, far, zero) h = Pad(l, pads)",
        "h = Slice(m, zero, t, zero)",
        "c = ReduceMean<axes=[0]>(m) h = Sub(m, c)",
    ),
)
def test_what_sees_other_frames_is_refused(body: str) -> None:
    refused(
        model(TO_ROWS + body + FROM_ROWS, far=ints(2**31 - 1), pads=ints(1, 0, 0, 0)), "merged with time", axes={"x": 2}
    )


def test_the_order_of_rows_is_kept() -> None:
    """[T, N] read as [N, T] mixes rows."""
    refused(
        model(
            "p = Transpose<perm=[2,0,1]>(a) k = Concat<axis=0>(n, t, four) q = Reshape(p, k) y = "
            "Transpose<perm=[0,2,1]>(q)"
        ),
        "frames of one row for those of another",
        axes={"x": 2},
        op_type="Reshape",
    )


HIDDEN = {
    "wi": rand(1, 15, 1, seed=6),
    "wr": rand(1, 15, 5, seed=7),
    "wb": rand(1, 30, seed=8),
    "h0": rand(1, 1, 5, seed=9),
    "wo": rand(5, 1, seed=10),
}
GRU = "i = Unsqueeze(m, two) f = Transpose<perm=[1,0,2]>(i)"
OUT = "o0 = Squeeze(o, one) o1 = MatMul(o0, wo) o2 = Squeeze(o1, two) h = Transpose<perm=[1,0]>(o2)"
ATTENTION = """r = Shape(m) l = Gather(r, step) p = Range(first, l, step) pq = Unsqueeze(p, one) pk = Unsqueeze(p, zero) d = Sub(pq, pk)
    late = Less(d, first) far_ = Greater(d, last) closed = Or(late, far_) bias = Where(closed, low, none)
    v = Unsqueeze(m, two) e = Mul(v, scale) kt = Transpose<perm=[0,2,1]>(v) sc = MatMul(e, kt) sb = Add(sc, bias) pr = Softmax<axis=-1>(sb)
    av = MatMul(pr, v) h = Squeeze(av, two)"""

CARRIED = {
    "recurrence": (f"{GRU} o = GRU<hidden_size=5>(f, wi, wr, wb) {OUT}", HIDDEN),
    "recurrence that starts elsewhere": (
        f"{GRU} z = Shape(m) z1 = Slice(z, zero, one) z2 = Concat<axis=0>(one, z1, five) hi = Expand(h0, z2)"
        f" o = GRU<hidden_size=5>(f, wi, wr, wb, , hi) {OUT}",
        {**HIDDEN, "five": ints(5)},
    ),
    "convolution": (
        "i = Unsqueeze(m, one) c = Conv<pads=[1,1]>(i, v, vb) h = Squeeze(c, one)",
        {"v": rand(1, 1, 3, seed=5), "vb": rand(1)},
    ),
    "strided and back": (
        "i = Unsqueeze(m, one) c = Conv<pads=[2,1], strides=[2]>(i, v, vb) e = ConvTranspose<strides=[2], "
        "pads=[1,1]>(c, v4) h = Squeeze(e, one)",
        {"v": rand(1, 1, 4, seed=5), "vb": rand(1), "v4": rand(1, 1, 4, seed=6)},
    ),
    "maximum": ("i = Unsqueeze(m, one) c = MaxPool<kernel_shape=[3], pads=[1,1]>(i) h = Squeeze(c, one)", {}),
    "sum": ("h = CumSum(m, one)", {}),
    "positions": (
        "r = Shape(m) l = Gather(r, step) p = Range(first, l, step) q = Cast<to=1>(p) e = Sin(q) h = Add(m, e)",
        {"first": np.int64(0), "step": np.int64(1)},
    ),
    "reflected": (
        'i = Unsqueeze(m, one) e = Pad<mode="reflect">(i, around) c = Conv(e, v, vb) h = Squeeze(c, one)',
        {"around": ints(0, 0, 1, 0, 0, 1), "v": rand(1, 1, 3, seed=5), "vb": rand(1)},
    ),
    "attention": (
        ATTENTION,
        {
            "first": np.int64(0),
            "step": np.int64(1),
            "last": np.int64(3),
            "low": np.float32(-np.inf),
            "none": np.float32(0),
            "scale": np.float32(0.3),
        },
    ),
}
ORDERS = {
    "slower": (
        "nc = Mul(n, four) k = Concat<axis=0>(nc, t) m = Reshape(a, k)",
        "j = Concat<axis=0>(n, four, t) y = Reshape(h, j)",
    ),
    "faster": (
        "c_ = Transpose<perm=[1,0,2]>(a) nc = Mul(n, four) k = Concat<axis=0>(nc, t) m = Reshape(c_, k)",
        "j = Concat<axis=0>(four, n, t) q_ = Reshape(h, j) y = Transpose<perm=[1,0,2]>(q_)",
    ),
    "between": (
        "h2 = Concat<axis=0>(n, two, two, t) r_ = Reshape(a, h2) c_ = Transpose<perm=[1,0,2,3]>(r_) nc = Mul(n, "
        "four) k = Concat<axis=0>(nc, t) m = Reshape(c_, k)",
        "j = Concat<axis=0>(two, n, two, t) q_ = Reshape(h, j) u_ = Transpose<perm=[1,0,2,3]>(q_) j2 = "
        "Concat<axis=0>(n, four, t) y = Reshape(u_, j2)",
    ),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("carried", CARRIED)
def test_states_of_channels_merged_with_the_batch(carried: str, order: str) -> None:
    """[N, 4, T] as [4 N, T]: the batch is the first axis of every state, and rows are streams of their own."""
    (body, more), (before, after) = CARRIED[carried], ORDERS[order]
    text = model(f"{before} {body} {after}", **more)
    pulsed = check_rows(
        text,
        axes={"x": 2},
        pulses=(1, 2) if carried.startswith("strided") else (1, 3),
        unit=2 if carried.startswith("strided") else 1,
        shortest=4,
    )
    assert all(s["shape"][0] == "N" for s in pulsed.spec["states"])
    if order == "slower":
        check(text, axes={"x": 2}, pulses=(1, 4), unit=2 if carried.startswith("strided") else 1)


PADDED = {
    "batch before time": "p = Transpose<perm=[0,2,1]>(a5) k_ = Concat<axis=0>(minus, four) m = Reshape(p, k_) l = "
    "MatMul(m, g) r = Sigmoid(l)"
    " j = Concat<axis=0>(n, minus, four) q = Reshape(r, j) u = Transpose<perm=[0,2,1]>(q)",
    "channels before time, batch after": "p = Transpose<perm=[1,2,0]>(a5) m = Reshape(p, minus) r = Sigmoid(m) j = "
    "Concat<axis=0>(four, minus, n) q = Reshape(r, j)"
    " u = Transpose<perm=[2,0,1]>(q)",
}


@pytest.mark.parametrize("order", PADDED)
@pytest.mark.parametrize("mode, delay", [("constant", 1), ("edge", 1), ("reflect", 3)])
def test_padding_passes_through_what_is_merged(order: str, mode: str, delay: int) -> None:
    """Two frames before the first and one after the last, of which the convolution behind sees what the operators
    between made.
    """
    text = model(
        f'a5 = Pad<mode="{mode}">(a, pads{", five" if mode == "constant" else ""}) {PADDED[order]} y = Conv(u, w, b)',
        pads=ints(0, 0, 2, 0, 0, 1),
        five=np.float32(5),
    )
    check(text, axes={"x": 2}, delays={"y": delay}, pulses=(1, 3), absorbed=True)
    check_rows(text, axes={"x": 2}, pulses=(2,), shortest=5)


def test_a_batch_worked_out_of_a_padded_length() -> None:
    """[N, 2 (T + 3), 2] as [-1, T + 3, 2]: the length cancels out of twice the length."""
    body = """a3 = Pad(a, pads) z = Shape<start=2, end=3>(a3) p = Transpose<perm=[0,2,1]>(a3) tt = Mul(z, two) k = Concat<axis=0>(n, tt, two) m = Reshape(p, k)
        l = Tanh(m) k2 = Concat<axis=0>(minus, z, four) q = Reshape(l, k2) y = Transpose<perm=[0,2,1]>(q)"""
    check(model(body, pads=ints(0, 0, 2, 0, 0, 1)), axes={"x": 2}, pulses=(1, 3))
