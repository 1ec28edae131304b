import numpy as np
import onnx
import pytest

from testing.oracle import check, parse, rand, refused

HEAD = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>\n'


def behind(body: str, y: str = "float[1,4,U] y", **weights) -> onnx.ModelProto:
    """A model of com.microsoft operators behind a SAME convolution: stream `a` along the last axis, `t` along the
    middle one.
    """
    return parse(
        HEAD
        + f"""agraph (float[1,4,T] x) => ({y}) {{
        a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[0,2,1]>(a)
        s = Transpose<perm=[0,2,1]>(x)
        {body} }}""",
        w=rand(4, 4, 3),
        b=rand(4),
        **weights,
    )


ROWS = "float[1,U,4] y"


@pytest.mark.parametrize(
    "body", ["Gelu(t)", "FastGelu(t, c)", "FastGelu(t)", "BiasGelu(t, c)", "QuickGelu<alpha=1.5>(t)"]
)
def test_gelu(body):
    check(behind(f"y = com.microsoft.{body}", ROWS, c=rand(4)), delays={"y": 1})


def test_bias_along_the_stream():
    refused(behind("y = com.microsoft.BiasGelu(a, c)", c=rand(9)), "constant of 9 frames")


@pytest.mark.parametrize("activation, extra", [("Relu", ""), ("LeakyRelu", ", activation_params=[0.2]"), ("Tanh", "")])
def test_fused_conv(activation, extra):
    check(
        behind(f'y = com.microsoft.FusedConv<pads=[1,1], activation="{activation}"{extra}>(a, w, b)'), delays={"y": 2}
    )


def test_fused_conv_with_a_second_stream():
    refused(behind('y = com.microsoft.FusedConv<pads=[1,1], activation="Relu">(a, w, b, x)'), "adds a second stream")


def test_fused_matmul():
    check(
        behind("y = com.microsoft.FusedMatMul<transA=1, alpha=0.5>(a, m)", "float[1,U,6] y", m=rand(4, 6)),
        delays={"y": 1},
    )
    check(behind("y = com.microsoft.FusedMatMul<transB=1>(m, t)", "float[1,6,U] y", m=rand(6, 4)), delays={"y": 1})
    refused(
        behind("y = com.microsoft.FusedMatMul<transA=1>(t, m)", "float[1,4,6] y", m=rand(9, 6)), "sums over the stream"
    )


def test_fused_matmul_with_transposed_batch():
    refused(behind("y = com.microsoft.FusedMatMul<transBatchA=1>(t, m)", m=rand(4, 6)), "transposes its batch axes")


def test_fused_gemm():
    check(
        parse(
            HEAD
            + """agraph (float[T,4] x) => (float[U,6] y) {
        y = com.microsoft.FusedGemm<activation="Relu", alpha=0.5, transB=1>(x, m, c) }""",
            m=rand(6, 4),
            c=rand(6),
        ),
        delays={"y": 0},
    )
    refused(
        parse(
            HEAD
            + """agraph (float[T,4] x) => (float[4,6] y) {
        y = com.microsoft.FusedGemm<activation="Relu", transA=1>(x, m) }""",
            m=rand(9, 6),
        ),
        "sums over the stream",
    )


def test_skip_layer_norm():
    check(
        behind(
            "y = com.microsoft.SkipLayerNormalization(t, s, g, e, c)",
            ROWS,
            g=rand(4),
            e=rand(4, seed=1),
            c=rand(4, seed=2),
        ),
        delays={"y": 1},
    )
    check(
        behind(
            "y, , , z = com.microsoft.SkipSimplifiedLayerNormalization(t, s, g)", ROWS + ", float[1,V,4] z", g=rand(4)
        ),
        delays={"y": 1, "z": 1},
    )


def test_skip_layer_norm_over_the_stream():
    refused(behind("y = com.microsoft.SkipLayerNormalization(a, x, g)", g=rand(9)), "normalises over the whole stream")


def test_skip_of_a_fixed_length():
    refused(
        behind("y = com.microsoft.SkipLayerNormalization(t, k, g)", ROWS, k=rand(1, 9, 4), g=rand(4)),
        "fixed number of frames",
    )


def test_old_layer_norms():
    check(
        parse(
            '<ir_version: 7, opset_import: ["": 14]> '
            + """agraph (float[1,T,4] x) => (float[1,U,4] y) {
        l = LayerNormalization<axis=-1>(x, g, e)
        y = SimplifiedLayerNormalization<axis=-1>(l, g) }""",
            g=rand(4),
            e=rand(4),
        ),
        delays={"y": 0},
    )


def test_static_contrib_is_kept():
    check(
        parse(
            HEAD
            + """agraph (float[1,T,4] x, float[1,1,4] v) => (float[1,U,4] y) {
        g = com.microsoft.Gelu(v)
        y = Add(x, g) }"""
        ),
        axes={"x": 1},
        delays={"y": 0},
    )


def test_packed_weights():
    packed = np.random.default_rng(0).integers(0, 255, (6, 1, 8)).astype(np.uint8)
    check(
        behind(
            "y = com.microsoft.MatMulNBits<K=4, N=6, bits=4, block_size=16>(t, p, c)",
            "float[1,U,6] y",
            p=packed,
            c=np.full(6, 0.1, np.float32),
        ),
        delays={"y": 1},
    )


@pytest.mark.parametrize(
    "op, body, reason",
    [
        ("NhwcFusedConv", "com.microsoft.NhwcFusedConv<pads=[1,1]>(s, w, b)", "no CPU kernel"),
        (
            "GroupQueryAttention",
            "com.microsoft.GroupQueryAttention<num_heads=1, kv_num_heads=1>(s, s, s)",
            "lengths told at run time",
        ),
    ],
)
def test_refusals(op, body, reason):
    refused(behind(f"y = {body}", ROWS), reason, op_type=op)
