import numpy as np
import onnx
import pytest

from testing.oracle import check, parse, rand, refused

CONTRIB = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>\n'
SCALES = dict(
    s=np.float32(0.02),
    z=np.uint8(37),
    zi=np.int8(-5),
    ws=np.float32(0.01),
    wz=np.int8(0),
    ys=np.float32(0.05),
    yz=np.uint8(90),
)


def ints(*shape, seed=0, low=-20, high=20, dtype=np.int8):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def behind(body: str) -> str:
    """A quantised stream behind a SAME convolution, so that it is delayed."""
    return "a = Conv<pads=[1,1]>(x, w, b)\nq = QuantizeLinear(a, s, z)\n" + body


def model(body: str, y: str = "float[1,4,U] y", head: str = "", **weights) -> onnx.ModelProto:
    return parse(
        f"{head}agraph (float[1,4,T] x) => ({y}) {{ {behind(body)} }}",
        w=rand(4, 4, 3),
        b=rand(4),
        **{**SCALES, **weights},
    )


def test_qdq():
    check(model("y = DequantizeLinear(q, s, z)"), delays={"y": 1})


def test_qdq_per_channel():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        q = QuantizeLinear<axis=1>(a, s, z)
        y = DequantizeLinear<axis=1>(q, s, z) }""",
            w=rand(4, 4, 3),
            b=rand(4),
            s=np.full(4, 0.03, np.float32),
            z=ints(4),
        ),
        delays={"y": 1},
    )


def test_qdq_in_blocks():
    refused(
        parse(
            """<ir_version: 10, opset_import: ["": 21]> agraph (float[1,4,T] x) => (int8[1,4,U] y) {
        y = QuantizeLinear<axis=1, block_size=2>(x, s, z) }""",
            s=np.full((1, 2, 6), 0.03, np.float32),
            z=ints(1, 2, 6),
        ),
        "one scale per frame",
    )


def test_scale_per_frame():
    refused(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        q = QuantizeLinear<axis=2>(x, s, z)
        y = DequantizeLinear<axis=2>(q, s, z) }""",
            s=np.full(4, 0.03, np.float32),
            z=ints(4),
        ),
        "one scale per frame",
        op_type="QuantizeLinear",
    )


def test_scale_from_the_stream():
    refused(
        parse(
            """agraph (float[1,4,T] x, float[T] g) => (float[1,4,U] y) {
        y = DequantizeLinear<axis=2>(q, g, z) }""",
            q=ints(1, 4, 6),
            z=np.zeros(6, np.int8),
        ),
        "scales change with the stream",
    )


@pytest.mark.parametrize("pads, stride, delay", [([2, 0], 1, 1), ([1, 1], 1, 2), ([1, 1], 2, 1)])
def test_conv_integer(pads, stride, delay):
    check(
        model(
            f"""i = ConvInteger<pads={pads}, strides=[{stride}]>(q, wq, z, wz)
        y = Cast<to=1>(i)""",
            wq=ints(4, 4, 3),
        ),
        delays={"y": delay},
    )


@pytest.mark.parametrize("pads", [[2, 0], [1, 1], [0, 2]])
def test_qlinear_conv(pads):
    check(
        model(
            f"""q2 = QLinearConv<pads={pads}>(q, s, z, wq, ws, wz, ys, yz, bq)
        y = DequantizeLinear(q2, ys, yz)""",
            wq=ints(4, 4, 3, high=90),
            bq=ints(4, dtype=np.int32, high=300),
        )
    )


def test_qlinear_conv_two_dimensions():
    check(
        parse(
            """agraph (float[1,2,T,5] x) => (uint8[1,3,U,5] y) {
        q = QuantizeLinear(x, s, z)
        c = QLinearConv<pads=[1,1,1,1]>(q, s, z, wq, ws, wz, s, z)
        y = QLinearConv<pads=[1,1,1,1]>(c, s, z, vq, ws, wz, s, z) }""",
            **SCALES,
            wq=ints(3, 2, 3, 3, high=90),
            vq=ints(3, 3, 3, 3, seed=2),
        ),
        delays={"y": 2},
    )


def test_contrib_qlinear_conv():
    check(
        model(
            """q2 = com.microsoft.QLinearConv<pads=[1,1]>(q, s, z, wq, ws, wz, ys, yz)
        y = DequantizeLinear(q2, ys, yz)""",
            head=CONTRIB,
            wq=ints(4, 4, 3),
        ),
        delays={"y": 2},
    )


def test_channels_last():
    refused(
        parse(
            CONTRIB
            + """agraph (uint8[1,T,4] x) => (uint8[1,U,4] y) {
        y = com.microsoft.QLinearConv<pads=[1,1], channels_last=1>(x, s, z, wq, ws, wz, ys, yz) }""",
            **SCALES,
            wq=ints(4, 4, 3),
        ),
        "channels come last",
    )


def test_along_channels():
    refused(
        parse(
            "agraph (uint8[1,T,8] x) => (int32[1,4,6] y) { y = ConvInteger(x, wq, z, wz) }", **SCALES, wq=ints(4, 5, 3)
        ),
        "along the channels",
    )


def test_zero_point_per_channel():
    refused(
        parse(
            "agraph (uint8[1,4,T] x) => (int32[1,4,U] y) { y = ConvInteger<pads=[1,1]>(x, wq, zz, wz) }",
            **SCALES,
            wq=ints(4, 4, 3),
            zz=np.zeros(4, np.uint8),
        ),
        "one zero point per channel",
    )


def test_matmul_integer():
    check(
        model(
            """t = Transpose<perm=[0,2,1]>(q)
        i = MatMulInteger(t, wq, z, wv)
        y = Cast<to=1>(i)""",
            y="float[1,U,6] y",
            wq=ints(4, 6),
            wv=ints(6),
        ),
        delays={"y": 1},
    )


def test_matmul_integer_zero_point_per_frame():
    refused(
        parse(
            "agraph (uint8[T,4] x) => (int32[U,6] y) { y = MatMulInteger(x, wq, zz) }",
            wq=ints(4, 6),
            zz=np.zeros(5, np.uint8),
        ),
        "one scale per frame",
    )


def test_qlinear_matmul():
    check(
        model(
            """t = Transpose<perm=[0,2,1]>(q)
        q2 = QLinearMatMul(t, s, z, wq, wv, wz6, ys, yz)
        y = DequantizeLinear(q2, ys, yz)""",
            y="float[1,U,6] y",
            wq=ints(4, 6),
            wv=np.full(6, 0.02, np.float32),
            wz6=np.zeros(6, np.int8),
        ),
        delays={"y": 1},
    )


def test_dynamic_quantisation():
    refused(
        parse(
            """agraph (float[1,4,T] x) => (uint8[1,4,U] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }"""
        ),
        "smallest and largest value of the whole recording",
        op_type="DynamicQuantizeLinear",
    )


def test_dynamic_quantised_matmul():
    refused(
        parse(
            CONTRIB
            + """agraph (float[1,T,4] x) => (float[1,U,6] y) { y = com.microsoft.DynamicQuantizeMatMul(x, wq, ws) }""",
            wq=ints(4, 6),
            ws=np.float32(0.1),
        ),
        "smallest and largest value",
        op_type="DynamicQuantizeMatMul",
    )


def test_matmul_integer_to_float():
    check(
        model(
            """t = Transpose<perm=[0,2,1]>(q)
        y = com.microsoft.MatMulIntegerToFloat(t, wq, s, ws, z, wz, b6)""",
            y="float[1,U,6] y",
            head=CONTRIB,
            wq=ints(4, 6),
            b6=rand(6),
        ),
        delays={"y": 1},
    )


def test_qlinear_add_aligns():
    check(
        model(
            """p = QuantizeLinear(x, s, z)
        q2 = com.microsoft.QLinearAdd(q, s, z, p, s, z, ys, yz)
        q3 = com.microsoft.QLinearMul(q2, ys, yz, c, s, z, ys, yz)
        y = DequantizeLinear(q3, ys, yz)""",
            head=CONTRIB,
            c=ints(1, 4, 1, low=0, high=99, dtype=np.uint8),
        ),
        delays={"y": 1},
    )


def test_qlinear_add_of_a_fixed_length():
    refused(
        parse(
            CONTRIB
            + "agraph (uint8[1,4,T] x) => (uint8[1,4,U] y) { y = com.microsoft.QLinearAdd(x, s, z, c, s, z, ys, yz) }",
            **SCALES,
            c=ints(1, 4, 7, low=0, dtype=np.uint8),
        ),
        "fixed number of frames",
    )


def test_qlinear_where():
    check(
        model(
            """p = QuantizeLinear(x, s, z)
        m = Greater(x, a)
        q2 = com.microsoft.QLinearWhere(m, q, s, z, p, s, z, ys, yz)
        y = DequantizeLinear(q2, ys, yz)""",
            head=CONTRIB,
        ),
        delays={"y": 1},
    )


def test_qlinear_activations():
    check(
        model(
            """l = com.microsoft.QLinearLeakyRelu<alpha=0.1>(q, s, z, ys, yz)
        g = com.microsoft.QLinearSigmoid(l, ys, yz, s, z)
        m = com.microsoft.QLinearSoftmax<axis=1, opset=13>(g, s, z, ys, yz)
        y = DequantizeLinear(m, ys, yz)""",
            head=CONTRIB,
        ),
        delays={"y": 1},
    )


def test_qlinear_softmax_over_the_stream():
    refused(
        model(
            """m = com.microsoft.QLinearSoftmax<axis=2, opset=13>(q, s, z, ys, yz)
        y = DequantizeLinear(m, ys, yz)""",
            head=CONTRIB,
        ),
        "over the whole stream",
    )


def test_qlinear_concat():
    check(
        model(
            """p = QuantizeLinear(x, s, z)
        q2 = com.microsoft.QLinearConcat<axis=1>(ys, yz, q, s, z, p, s, z)
        y = DequantizeLinear(q2, ys, yz)""",
            y="float[1,8,U] y",
            head=CONTRIB,
        ),
        delays={"y": 1},
    )


def test_qlinear_average_pool():
    check(
        model(
            """q2 = com.microsoft.QLinearAveragePool<kernel_shape=[3], strides=[2]>(q, s, z, ys, yz)
        y = DequantizeLinear(q2, ys, yz)""",
            head=CONTRIB,
        )
    )
    refused(
        model(
            """q2 = com.microsoft.QLinearAveragePool<kernel_shape=[3], pads=[1,1]>(q, s, z, ys, yz)
        y = DequantizeLinear(q2, ys, yz)""",
            head=CONTRIB,
        ),
        "divisor",
    )


def test_qlinear_global_pool():
    refused(
        model("y = com.microsoft.QLinearGlobalAveragePool(q, s, z, ys, yz)", y="uint8[1,4,1] y", head=CONTRIB),
        "averages over the whole stream",
    )


def test_quantised_states_are_integers():
    pulsed = check(model("y = MaxPool<kernel_shape=[4], pads=[3,0]>(q)", y="uint8[1,4,U] y"), delays={"y": 1})
    assert {s["dtype"] for s in pulsed.spec["states"]} >= {"uint8"}


def test_nhwc_max_pool():
    check(
        parse(
            CONTRIB
            + """agraph (float[1,T,5,4] x) => (uint8[1,U,5,4] y) {
        q = QuantizeLinear(x, s, z)
        p = com.microsoft.NhwcMaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(q)
        y = com.microsoft.NhwcMaxPool<kernel_shape=[3,1], pads=[1,0,1,0]>(p) }""",
            **SCALES,
        ),
        delays={"y": 2},
    )


def test_float16_int8_bool_states():
    check(
        parse(
            """agraph (float16[1,4,T] x) => (float16[1,4,U] y) {
        p = MaxPool<kernel_shape=[3], pads=[1,1]>(x)
        y = Concat<axis=1>(p, x) }""".replace("4,U", "8,U")
        ),
        delays={"y": 1},
        rtol=1e-2,
    )
    check(
        parse(
            """agraph (bool[1,4,T] x) => (bool[1,4,U] y) {
        p = Pad(x, pads, f)
        s = Slice(p, st, en, ax)
        y = Or(s, x) }""",
            pads=np.array([0, 0, 2, 0, 0, 0]),
            st=np.array([0]),
            en=np.array([-2]),
            ax=np.array([2]),
            f=np.bool_(True),
        ),
        delays={"y": 0},
    )
    check(
        parse(
            """agraph (double[1,4,T] x) => (double[1,4,U] y) { y = AveragePool<kernel_shape=[3], pads=[1,1]>(x) }""".replace(
                "AveragePool", "MaxPool"
            )
        ),
        delays={"y": 1},
    )
    check(
        parse(
            """agraph (int64[1,4,T] x) => (int64[1,4,U] y) {
        p = Pad(x, pads, f)
        s = Slice(p, st, en, ax)
        y = Add(s, x) }""",
            pads=np.array([0, 0, 2, 0, 0, 0]),
            st=np.array([0]),
            en=np.array([-2]),
            ax=np.array([2]),
            f=np.int64(7),
        ),
        delays={"y": 0},
    )


def padded(body: str, head: str = "", zero: str = "z", **weights) -> onnx.ModelProto:
    """Operators `c` on a dequantised stream `d` and on `w`, quantised again."""
    return parse(
        f"""{head}agraph (float[1,4,T] x) => (float[1,C,U] y) {{
        q = QuantizeLinear(x, s, {zero})
        d = DequantizeLinear(q, s, {zero})
        w = DequantizeLinear(wq, ws, wz)
        {body}
        p = QuantizeLinear(c, ys, yz)
        y = DequantizeLinear(p, ys, yz) }}""",
        **SCALES,
        wq=ints(4, 4, 3, low=-90, high=90),
        **weights,
    )


@pytest.mark.parametrize("zero", ["z", "zi", "z0"])
@pytest.mark.parametrize("pads, delay", [([2, 0], 0), ([1, 1], 1), ([0, 2], 2)])
def test_qdq_conv(pads, delay, zero):
    pulsed = check(padded(f"c = Conv<pads={pads}>(d, w)", zero=zero, z0=np.int8(0)), delays={"y": delay})
    assert [s["dtype"] for s in pulsed.spec["states"] if s["role"] == "history"] == ["uint8"]


def test_qdq_residual():
    """The shortcut waits for the frames ahead: as integers, in the history that the convolution reads."""
    pulsed = check(
        padded("""h = Conv<pads=[0,2]>(d, w)
        hq = QuantizeLinear(h, s, z)
        hd = DequantizeLinear(hq, s, z)
        c = Add(hd, d)"""),
        delays={"y": 2},
    )
    assert [(s["dtype"], s["shape"]) for s in pulsed.spec["states"] if s["role"] == "history"] == [("uint8", [1, 4, 2])]


def test_qdq_of_onnxruntime():
    check(
        parse(
            CONTRIB
            + """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        q = com.microsoft.QuantizeLinear(x, s, z)
        d = com.microsoft.DequantizeLinear(q, s, z)
        w = DequantizeLinear(wq, ws, wz)
        c = Conv<pads=[1,1]>(d, w)
        p = QuantizeLinear(c, ys, yz)
        y = DequantizeLinear(p, ys, yz) }""",
            **SCALES,
            wq=ints(4, 4, 3, low=-90, high=90),
        ),
        delays={"y": 1},
    )


def test_qdq_of_an_old_opset():
    check(padded("c = Conv<pads=[1,1]>(d, w)", head='<ir_version: 5, opset_import: ["": 10]>\n'), delays={"y": 1})


def test_qdq_of_float16():
    check(
        parse(
            """<ir_version: 10, opset_import: ["": 19]> agraph (float16[1,4,T] x) => (float16[1,4,U] y) {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        y = Conv<pads=[2,0]>(d, w) }""",
            s=np.float16(0.02),
            z=np.uint8(37),
            w=rand(4, 4, 3, dtype=np.float16),
        ),
        delays={"y": 0},
        bits=False,
        rtol=1e-2,
    )


def test_qdq_around_a_recurrence():
    check(
        parse(
            """agraph (float[T,1,4] x) => (float[U,1,1,3] y) {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        c, h = GRU<hidden_size=3>(d, gw, gr)
        p = QuantizeLinear(c, ys, yz)
        y = DequantizeLinear(p, ys, yz) }""",
            **SCALES,
            gw=rand(1, 9, 4),
            gr=rand(1, 9, 3, seed=1),
        ),
        delays={"y": 0},
    )


def test_qdq_around_gemm_and_a_shift():
    check(
        parse(
            """agraph (float[T,4] x) => (float[U,4] y) {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        w = DequantizeLinear(wq, ws, wz)
        b = DequantizeLinear(bq, bs)
        g = Gemm(d, w, b)
        gq = QuantizeLinear(g, ys, yz)
        gd = DequantizeLinear(gq, ys, yz)
        l = Pad(gd, pads)
        m = Slice(l, st, en, ax)
        lq = QuantizeLinear(m, ys, yz)
        ld = DequantizeLinear(lq, ys, yz)
        c = Add(ld, gd)
        p = QuantizeLinear(c, ys, yz)
        y = DequantizeLinear(p, ys, yz) }""",
            **SCALES,
            wq=ints(4, 4, low=-90, high=90),
            bq=np.arange(4, dtype=np.int32),
            bs=np.float32(0.0002),
            pads=np.array([2, 0, 0, 0]),
            st=np.array([0]),
            en=np.array([-2]),
            ax=np.array([0]),
        ),
        delays={"y": 0},
    )


def test_qdq_per_channel_behind_a_window():
    """Onnxruntime's kernels take one scale for all channels of a stream, so the history stays where it is run
    without them.
    """
    pulsed = check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        q = QuantizeLinear<axis=1>(x, s, z)
        d = DequantizeLinear<axis=1>(q, s, z)
        y = Conv<pads=[1,1]>(d, w) }""",
            w=rand(4, 4, 3),
            s=np.full(4, 0.03, np.float32),
            z=ints(4),
        ),
        delays={"y": 1},
        bits=False,
    )
    assert {s["dtype"] for s in pulsed.spec["states"] if s["role"] == "history"} == {"float32"}


def test_qdq_around_resampling():
    check(padded("c = ConvTranspose<strides=[2]>(d, v)", v=rand(4, 4, 4)), bits=False)
    check(padded('c = Resize<mode="linear">(d, , sc)', sc=np.array([1, 1, 2], np.float32)), bits=False)


@pytest.mark.parametrize("left, right", [(3, 0), (2, 2)])
def test_qdq_values(left, right):
    """Attention in a band: the values that a pulse still sees are remembered as integers."""
    pulsed = check(
        parse(
            """agraph (float[1,T,4] x) => (float[1,U,4] y) {
        xs = Shape(x)
        n = Gather<axis=0>(xs, one)
        i = Range(nought, n, one)
        qi = Unsqueeze(i, ax1)
        ki = Unsqueeze(i, ax0)
        between = Sub(qi, ki)
        near = LessOrEqual(between, left)
        past = GreaterOrEqual(between, right)
        open = And(near, past)
        kq = QuantizeLinear(x, s, z)
        k = DequantizeLinear(kq, s, z)
        v0 = Mul(x, half)
        vq = QuantizeLinear(v0, s, zi)
        v = DequantizeLinear(vq, s, zi)
        kt = Transpose<perm=[0,2,1]>(k)
        raw = MatMul(x, kt)
        masked = Where(open, raw, ninf)
        weights = Softmax<axis=-1>(masked)
        y = MatMul(weights, v) }""",
            **SCALES,
            one=np.asarray(1),
            nought=np.asarray(0),
            ax0=np.array([0]),
            ax1=np.array([1]),
            left=np.asarray(left),
            right=np.asarray(-right),
            half=np.float32(0.5),
            ninf=np.float32(-np.inf),
        ),
        delays={"y": right},
        bits=False,
    )
    assert [s["dtype"] for s in pulsed.spec["states"] if "vq" in s["input"]] == ["uint8"]
