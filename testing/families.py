"""A small model of every family of operators, for tests that want all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from testing.oracle import parse, rand


def _ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def _attention(mask: str, of: str = "", at: str = "r", **numbers: Any) -> onnx.ModelProto:
    """Frames that attend to one another where `mask` lets them: `m` from scores `p` and distances `d` of the
    positions `at`, made by `of` from indices `r`.
    """
    return parse(
        f"""agraph (float[1,T,4] x) => (float[1,T,4] y) {{
        s = Shape<start=1, end=2>(x)
        n = Squeeze(s)
        r = Range(zero, n, one)
        {of}
        i = Unsqueeze({at}, at1)
        j = Unsqueeze({at}, at0)
        d = Sub(i, j)
        t = Transpose<perm=[0,2,1]>(x)
        p = MatMul(x, t)
        {mask}
        a = Softmax<axis=-1>(m)
        y = MatMul(a, x) }}""",
        zero=np.int64(0),
        one=np.int64(1),
        at0=_ints(0),
        at1=_ints(1),
        minus=np.float32(-np.inf),
        **numbers,
    )


FAMILIES: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        c = Relu(a)
        y = Conv<pads=[2,2], dilations=[2], strides=[2]>(c, w, b) }""",
        w=rand(3, 3, 3),
        b=rand(3),
    ),
    "conv2d": lambda: parse(
        """agraph (float[N,1,T,8] x) => (float[N,2,U,4] y) {
        a = Conv<pads=[1,1,1,1], strides=[1,2]>(x, w, b)
        y = Conv<group=2, auto_pad="SAME_UPPER">(a, v, b) }""",
        w=rand(2, 1, 3, 3),
        v=rand(2, 1, 3, 3),
        b=rand(2),
    ),
    "transposed": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[1,1], strides=[2]>(x, w, b)
        y = ConvTranspose<strides=[2], pads=[1,1], output_padding=[1]>(a, w, b) }""",
        w=rand(3, 3, 4),
        b=rand(3),
    ),
    "pool": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z) {
        c = Conv<pads=[1,1]>(x, w, b)
        y = MaxPool<kernel_shape=[3], pads=[1,1], strides=[2]>(c)
        z = AveragePool<kernel_shape=[3], pads=[1,1], count_include_pad=0>(c) }""",
        w=rand(3, 3, 3),
        b=rand(3),
    ),
    "pad": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,U] y, float[1,3,V] z) {
        c = Conv<pads=[1,1]>(x, w, b)
        p = Pad<mode="reflect">(c, amounts)
        y = Conv(p, w, b)
        q = Pad(c, amounts, value)
        z = MaxPool<kernel_shape=[3]>(q) }""",
        w=rand(3, 3, 3),
        b=rand(3),
        amounts=_ints(0, 0, 1, 0, 0, 1),
        value=np.float32(0.5),
    ),
    "slices": lambda: parse(
        """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        c = Conv<pads=[1,1]>(x, w, b)
        s = Slice(c, start, end, axis)
        l, r = Split<axis=1>(s, parts)
        o = Concat<axis=1>(r, l)
        e = Slice(x, start, end, axis)
        y = Add(o, e) }""",
        w=rand(4, 4, 3),
        b=rand(4),
        start=_ints(2),
        end=_ints(2**62),
        axis=_ints(2),
        parts=_ints(2, 2),
    ),
    "shapes": lambda: parse(
        """agraph (float[1,T,4] x) => (float[1,T,4] y) {
        s = Shape(x)
        n = Gather(s, one)
        u = Unsqueeze(n, zero)
        d = Concat<axis=0>(minus, u, heads, heads)
        r = Reshape(x, d)
        t = Transpose<perm=[0,2,1,3]>(r)
        m = MatMul(t, w)
        q = Transpose<perm=[0,2,1,3]>(m)
        e = Concat<axis=0>(minus, u, four)
        y = Reshape(q, e) }""",
        one=np.int64(1),
        zero=_ints(0),
        minus=_ints(1),
        heads=_ints(2),
        four=_ints(4),
        w=rand(2, 2),
    ),
    "gru": lambda: parse(
        """agraph (float[T,1,3] x) => (float[T,1,1,4] y, float[1,1,4] h) {
        y, h = GRU<hidden_size=4, linear_before_reset=1>(x, w, r, b, , h0) }""",
        w=rand(1, 12, 3),
        r=rand(1, 12, 4),
        b=rand(1, 24),
        h0=rand(1, 1, 4),
    ),
    "lstm": lambda: parse(
        """agraph (float[1,3,T] x) => (float[T,1,1,4] y) {
        c = Conv<pads=[1,1]>(x, k, b)
        t = Transpose<perm=[2,0,1]>(c)
        y, h, z = LSTM<hidden_size=4>(t, w, r, g) }""",
        k=rand(3, 3, 3),
        b=rand(3),
        w=rand(1, 16, 3),
        r=rand(1, 16, 4),
        g=rand(1, 32),
    ),
    "scan": lambda: parse("""agraph (float[T,3] x, float[3] start) => (float[T,3] y) {
        last, y = Scan<num_scan_inputs=1, body=step(float[3] s, float[3] f) => (float[3] n, float[3] o) {
            n = Add(s, f)
            o = Tanh(n) }>(start, x) }"""),
    "loop": lambda: parse(
        """agraph (float[T,3] x) => (float[T,3] y) {
        s = Shape<start=0, end=1>(x)
        n = Squeeze(s)
        yes = Constant<value = bool {1}>()
        last, y = Loop<body=step(int64 i, bool go, float[3] h) => (bool on, float[3] g, float[3] o) {
            on = Identity(go)
            f = Gather(x, i)
            g = Add(h, f)
            o = Relu(g) }>(n, yes, zeros) }""",
        zeros=np.zeros(3, np.float32),
    ),
    "if": lambda: parse("""agraph (float[1,3,T] x, bool flag) => (float[1,3,T] y) {
        y = If<then_branch=yes() => (float[1,3,T] p) { p = Relu(x) }, else_branch=no() => (float[1,3,T] q) { q = Neg(x) }>(flag) }"""),
    "cumulative": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,T] y, float[1,3] m) {
        c = Conv<pads=[1,1]>(x, w, b)
        y = CumSum(c, axis)
        m = ReduceMean<axes=[2], keepdims=0>(c) }""",
        w=rand(3, 3, 3),
        b=rand(3),
        axis=np.asarray(2),
    ),
    "norm": lambda: parse(
        """agraph (float[1,T,4] x) => (float[1,T,4] y) {
        a = LayerNormalization<axis=-1>(x, s, b)
        c = Softmax<axis=-1>(a)
        d = Mul(c, x)
        y = Where(f, d, a) }""",
        s=rand(4),
        b=rand(4),
        f=np.asarray([True, False, True, False]),
    ),
    "resize": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,U] y) {
        c = Conv<pads=[1,1]>(x, w, b)
        y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(c, , scales) }""",
        w=rand(3, 3, 3),
        b=rand(3),
        scales=np.asarray([1, 1, 2], np.float32),
    ),
    "quantized": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,T] y) {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        k = DequantizeLinear(w, s, n)
        c = Conv<pads=[1,1]>(d, k, b)
        o = QuantizeLinear(c, s, z)
        y = DequantizeLinear(o, s, z) }""",
        s=np.float32(0.05),
        z=np.uint8(128),
        n=np.int8(0),
        w=(rand(3, 3, 3) * 40).astype(np.int8),
        b=rand(3),
    ),
    "attention": lambda: _attention(
        """past = Less(d, zero)
        far = Greater(d, left)
        closed = Or(past, far)
        m = Where(closed, minus, p)""",
        left=np.int64(3),
    ),
    "framing": lambda: parse(
        """agraph (float[1,T] x) => (float[1,F,9,2] y) {
        y = STFT<onesided=1>(x, hop, window) }""",
        hop=np.int64(4),
        window=np.hanning(16).astype(np.float32),
    ),
    "rates": lambda: parse(
        """agraph (float[1,2,T] x, float[1,2,U] e) => (float[1,2,U] y) {
        a = Conv<strides=[4], kernel_shape=[4]>(x, w)
        y = Add(a, e) }""",
        w=rand(2, 2, 4),
    ),
    "functions": lambda: onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        agraph (float[1,3,T] x) => (float[1,3,T] y) { a = own.twice(x)
            y = own.twice(a) }
        <domain: "own", opset_import: ["": 17]> twice (p) => (q) { r = Add(p, p)
            q = Tanh(r) }"""),
}

EDGES: dict[str, Callable[[], onnx.ModelProto]] = {
    "pads at the start": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,T] y, float[1,3,T] z) {
        y = Conv<pads=[2,0]>(x, w, b)
        n = Abs(x)
        m = Neg(n)
        z = MaxPool<kernel_shape=[3], pads=[2,0]>(m) }""",
        w=rand(3, 3, 3),
        b=rand(3),
    ),
    "padded, then bent": lambda: parse(
        """agraph (float[1,3,T] x) => (float[1,3,T] y) {
        p = Pad(x, amounts)
        s = Sigmoid(p)
        y = Conv(s, w, b) }""",
        w=rand(3, 3, 3),
        b=rand(3),
        amounts=_ints(0, 0, 1, 0, 0, 1),
    ),
    "attention with a band": lambda: _attention(
        """size = Abs(d)
        open = Less(size, left)
        m = Where(open, p, minus)""",
        left=np.int64(3),
    ),
    "attention in chunks": lambda: _attention(
        """past = Less(d, zero)
        far = Greater(d, one)
        closed = Or(past, far)
        m = Where(closed, minus, p)""",
        of="c = Div(r, size)",
        at="c",
        size=np.int64(4),
    ),
}
"""Small models where a rule does what it seldom does."""
