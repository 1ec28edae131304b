"""Every operator that has a rule has an answer along the batch: in a model of it rows are apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx.algebra.plan import Options
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.analysis.batch_axis import batch_of, mixing
from pulsify_onnx.model.load import load
from pulsify_onnx.rules.kit.registry import RULES
from testing.oracle import parse, rand

FRAMES, IMAGE, BYTES = "float[B,T,4] x", "float[B,4,T,6] x", "uint8[B,T,4] x"

FLOATS = """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish
    Identity LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh
    ThresholdedRelu
    Softmax LogSoftmax Hardmax LpNormalization com.microsoft.Gelu com.microsoft.FastGelu com.microsoft.QuickGelu"""
REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare"""
MERGED, APART, APART3 = (
    "n = Shape(x)\n m = Slice(n, two, ends)\n c = Concat<axis=0>(minus, m)\n r = Reshape(x, c)\n",
    "y = Reshape(v, n)",
    ("f = Flatten(v)\n o = Slice(n, nought, two)\n q = Concat<axis=0>(o, minus)\n y = Reshape(f, q)"),
)
POSITIONS = """n = Shape<start=2, end=3>(x)\n e = Squeeze(n)\n i = Range(none, e, single)\n d = Shape<start=0, end=1>(x)
    l = Concat<axis=0>(d, n)\n p = Expand(i, l)\n"""
START = "h = Shape<start=1>(x)\n first = ConstantOfShape(h)\n"

FORMS: tuple[tuple[str, str, str, str], ...] = (
    (FLOATS, FRAMES, "y = {op}(x)", "float"),
    ("Add CastLike Div Max Mean Min Mod Mul PRelu Pow Sub Sum", FRAMES, "y = {op}(x, x)", "float"),
    ("Equal Greater GreaterOrEqual Less LessOrEqual", FRAMES, "y = {op}(x, x)", "bool"),
    ("IsInf IsNaN", FRAMES, "y = {op}(x)", "bool"),
    ("Not", "bool[B,T,4] x", "y = {op}(x)", "bool"),
    ("And Or Xor", "bool[B,T,4] x", "y = {op}(x, x)", "bool"),
    ("BitwiseNot", "int32[B,T,4] x", "y = {op}(x)", "int32"),
    ("BitwiseAnd BitwiseOr BitwiseXor", "int32[B,T,4] x", "y = {op}(x, x)", "int32"),
    ("Where", FRAMES, "c = Less(x, x)\n y = {op}(c, x, x)", "float"),
    ("Cast", FRAMES, "y = {op}<to=1>(x)", "float"),
    ("BitShift", BYTES, 'y = {op}<direction="LEFT">(x, x)', "uint8"),
    (REDUCTIONS, FRAMES, "y = {op}(x, two)", "float"),
    ("ArgMax ArgMin", FRAMES, "y = {op}<axis=2>(x)", "int64"),
    ("TopK", FRAMES, "y, i = {op}<axis=2>(x, two)", "float"),
    ("CumSum", FRAMES, "y = {op}(x, axis2)", "float"),
    ("Slice", FRAMES, "y = {op}(x, nought, two, two)", "float"),
    ("Split", FRAMES, "y, z = {op}<axis=2>(x, halves)", "float"),
    ("Pad", FRAMES, "y = {op}(x, pads)", "float"),
    ("Gather", FRAMES, "y = {op}<axis=2>(x, two)", "float"),
    ("Transpose", FRAMES, "y = {op}<perm=[0,2,1]>(x)", "float"),
    ("Squeeze", "float[B,T,1] x", "y = {op}(x, two)", "float"),
    ("Unsqueeze", FRAMES, "y = {op}(x, two)", "float"),
    ("Concat", FRAMES, "y = {op}<axis=2>(x, x)", "float"),
    ("Tile", FRAMES, "y = {op}(x, repeats)", "float"),
    ("Expand", "float[B,T,1] x", "y = {op}(x, widened)", "float"),
    ("Reshape", FRAMES, "y = {op}(x, split)", "float"),
    ("Flatten", FRAMES, "f = {op}<axis=2>(x)\n m = Relu(f)\n n = Shape(x)\n y = Reshape(m, n)", "float"),
    ("ConstantOfShape", FRAMES, "n = Shape(x)\n c = {op}(n)\n y = Add(x, c)", "float"),
    (
        "Range",
        FRAMES,
        "n = Shape<start=1, end=2>(x)\n e = Squeeze(n)\n r = {op}(none, e, single)\n f = Cast<to=1>(r)\n"
        " u = Unsqueeze(f, one)\n y = Add(x, u)",
        "float",
    ),
    (
        "If",
        FRAMES,
        "y = {op}(yes) <then_branch = g () => (float[B,T,4] p) {{ p = Relu(x) }},"
        " else_branch = h () => (float[B,T,4] q) {{ q = Neg(x) }}>",
        "float",
    ),
    ("MatMul com.microsoft.FusedMatMul com.microsoft.TransposeMatMul", FRAMES, "y = {op}(x, mix)", "float"),
    (
        "Gemm com.microsoft.FusedGemm",
        FRAMES,
        "f = Reshape(x, flat)\n m = {op}{act}(f, mix, b)\n n = Shape(x)\n y = Reshape(m, n)",
        "float",
    ),
    ("Einsum", FRAMES, 'y = {op}<equation="bti,io->bto">(x, mix)', "float"),
    ("Conv com.microsoft.FusedConv", "float[B,4,T] x", "y = {op}{act}(x, w, b)", "float"),
    ("ConvTranspose", "float[B,4,T] x", "y = {op}(x, w)", "float"),
    ("MaxPool AveragePool LpPool", "float[B,4,T] x", "y = {op}<kernel_shape=[3]>(x)", "float"),
    ("GlobalAveragePool GlobalMaxPool GlobalLpPool", "float[B,4,T] x", "y = {op}(x)", "float"),
    ("BatchNormalization", "float[B,4,T] x", "y = {op}(x, b, b, b, b)", "float"),
    ("LRN", "float[B,4,T] x", "y = {op}<size=3>(x)", "float"),
    ("LayerNormalization RMSNormalization SimplifiedLayerNormalization", FRAMES, "y = {op}<axis=-1>(x, b)", "float"),
    ("MeanVarianceNormalization", FRAMES, "y = {op}<axes=[2]>(x)", "float"),
    (
        "InstanceNormalization",
        "float[B,T,4] x",
        "t = Reshape(x, flat)\n u = Unsqueeze(t, one)\n v = {op}(u, bs1, bs1)\n n = Shape(x)\n y = Reshape(v, n)",
        "float",
    ),
    (
        "GroupNormalization",
        "float[B,T,4] x",
        "t = Reshape(x, flat)\n v = {op}<num_groups=2>(t, b, b)\n n = Shape(x)\n y = Reshape(v, n)",
        "float",
    ),
    ("DepthToSpace SpaceToDepth", IMAGE, "y = {op}<blocksize=2>(x)", "float"),
    ("GRU", "float[T,B,4] x", "y = {op}<hidden_size=5>(x, gi, gr)", "float"),
    ("LSTM", "float[T,B,4] x", "y = {op}<hidden_size=5>(x, li, lr)", "float"),
    ("RNN", "float[T,B,4] x", "y = {op}<hidden_size=5>(x, ri, rr)", "float"),
    ("Trilu com.microsoft.Trilu", "float[B,T,3,3] x", "y = {op}(x)", "float"),
    ("Det com.microsoft.Inverse", "float[B,T,3,3] x", "y = {op}(x)", "float"),
    ("GatherElements", FRAMES, "i = ArgMax<axis=2>(x)\n y = {op}<axis=2>(x, i)", "float"),
    ("GatherND", "float[B,T,4] x", "i = ArgMax<axis=2>(x)\n y = {op}(table, i)", "float"),
    ("OneHot", "int64[B,T] x", "y = {op}(x, depth, marks)", "float"),
    ("Resize", "float[B,4,T] x", "y = {op}(x, , scales)", "float"),
    ("DFT", "float[B,T,4,2] x", "y = {op}(x, , axis2)", "float"),
    ("STFT", "float[B,T] x", "y = {op}<onesided=1>(x, hop, window)", "float"),
    ("QuantizeLinear com.microsoft.QuantizeLinear", FRAMES, "y = {op}(x, scale, zero)", "uint8"),
    ("DequantizeLinear com.microsoft.DequantizeLinear", BYTES, "y = {op}(x, scale, zero)", "float"),
    ("QLinearConv", "uint8[B,4,T] x", "y = {op}(x, scale, zero, w8, scale, zero, scale, zero)", "uint8"),
    ("ConvInteger", "uint8[B,4,T] x", "y = {op}(x, w8, zero)", "int32"),
    ("MatMulInteger", BYTES, "y = {op}(x, m8, zero)", "int32"),
    ("QLinearMatMul", BYTES, "y = {op}(x, scale, zero, m8, scale, zero, scale, zero)", "uint8"),
    ("com.microsoft.MatMulIntegerToFloat", BYTES, "y = {op}(x, m8, scale, scale, zero, zero)", "float"),
    (
        "com.microsoft.QLinearAdd com.microsoft.QLinearMul",
        BYTES,
        "y = {op}(x, scale, zero, x, scale, zero, scale, zero)",
        "uint8",
    ),
    (
        "com.microsoft.QLinearSigmoid com.microsoft.QLinearLeakyRelu",
        BYTES,
        "y = {op}(x, scale, zero, scale, zero)",
        "uint8",
    ),
    ("com.microsoft.QLinearSoftmax", BYTES, "y = {op}<axis=2, opset=13>(x, scale, zero, scale, zero)", "uint8"),
    ("com.microsoft.QLinearConcat", BYTES, "y = {op}<axis=2>(scale, zero, x, scale, zero, x, scale, zero)", "uint8"),
    (
        "com.microsoft.QLinearAveragePool",
        "uint8[B,4,T] x",
        "y = {op}<kernel_shape=[3]>(x, scale, zero, scale, zero)",
        "uint8",
    ),
    ("com.microsoft.NhwcMaxPool", "uint8[B,T,6,4] x", "y = {op}<kernel_shape=[3,1]>(x)", "uint8"),
    ("com.microsoft.BiasGelu", FRAMES, "y = {op}(x, b)", "float"),
    (
        "com.microsoft.SkipLayerNormalization com.microsoft.SkipSimplifiedLayerNormalization",
        FRAMES,
        "y = {op}(x, x, b)",
        "float",
    ),
    ("HannWindow HammingWindow BlackmanWindow", FRAMES, "h = {op}(four)\n y = Mul(x, h)", "float"),
    (
        "ScatterElements Scatter",
        FRAMES,
        "i = ArgMax<axis=2>(x)\n m = Slice(x, nought, one, two)\n y = {op}<axis=2>(x, i, m)",
        "float",
    ),
    ("Attention", "float[B,T,4,2] x", f"{MERGED} v = {{op}}<q_num_heads=1, kv_num_heads=1>(r, r, r)\n{APART}", "float"),
    (
        "com.microsoft.MultiHeadAttention",
        "float[B,T,4,2] x",
        f"{MERGED} v = {{op}}<num_heads=1>(r, r, r)\n{APART}",
        "float",
    ),
    ("Col2Im", "float[B,T,4,3] x", f"{MERGED} v = {{op}}(r, image, block)\n{APART3}", "float"),
    ("DeformConv", "float[B,T,2,2,2] x", f"{MERGED} v = {{op}}(r, point, r)\n{APART}", "float"),
    ("GridSample", "float[B,T,2,2,2] x", f"{MERGED} v = {{op}}(r, r)\n{APART}", "float"),
    (
        "com.microsoft.QLinearGlobalAveragePool",
        "uint8[B,T,4,3,3] x",
        f"{MERGED} v = {{op}}(r, scale, zero, scale, zero)\n{APART3}",
        "uint8",
    ),
    (
        "com.microsoft.QGemm",
        BYTES,
        "f = Reshape(x, flat)\n v = {op}(f, scale, zero, m8, scale, zero, , scale, zero)\n n = Shape(x)\n"
        " y = Reshape(v, n)",
        "uint8",
    ),
    (
        "com.microsoft.QLinearWhere",
        BYTES,
        "c = Less(x, zero)\n y = {op}(c, x, scale, zero, x, scale, zero, scale, zero)",
        "uint8",
    ),
    ("com.microsoft.QLinearConv", "uint8[B,4,T] x", "y = {op}(x, scale, zero, w8, scale, zero, scale, zero)", "uint8"),
    ("com.microsoft.UnfoldTensor", FRAMES, "y = {op}<size=3>(x)", "float"),
    ("com.microsoft.GatedAdd", FRAMES, "y = {op}(x, x, x)", "float"),
    ("com.microsoft.ScaledSiLU", FRAMES, "y = {op}(x)", "float"),
    ("com.microsoft.GatedRMSNorm", FRAMES, "y = {op}(x, b, x)", "float"),
    ("com.microsoft.BranchwiseRMSNorm", "float[B,T,2,4] x", "y = {op}(x, b)", "float"),
    ("com.microsoft.MatMulNBits", FRAMES, "y = {op}<K=4, N=6, bits=4, block_size=16>(x, packed, ratios)", "float"),
    (
        "com.microsoft.MatMulBnb4",
        FRAMES,
        "y = {op}<K=4, N=8, block_size=16, quant_type=0>(x, nibbles, two_ratios)",
        "float",
    ),
    ("ai.onnx.ml.Binarizer", FRAMES, "y = {op}<threshold=0.2>(x)", "float"),
    ("BitCast", FRAMES, "y = {op}<to=6>(x)", "int32"),
    ("Swish", FRAMES, "y = {op}(x)", "float"),
    ("SwiGLU", FRAMES, "y = {op}(x, x)", "float"),
    ("CumProd", FRAMES, "y = {op}(x, axis2)", "float"),
    ("CenterCropPad", FRAMES, "y = {op}<axes=[2]>(x, two)", "float"),
    ("MelWeightMatrix", FRAMES, "h = {op}(four, six, rate, low, high)\n y = MatMul(x, h)", "float"),
    ("ReverseSequence", "float[5,3,T,B] x", "y = {op}<time_axis=0, batch_axis=1>(x, counts)", "float"),
    ("ScatterND", "float[4,T,B] x", "u = Slice(x, nought, two, nought)\n y = {op}(x, places, u)", "float"),
    ("Upsample", "float[B,4,T] x", "y = {op}(x, scales)", "float"),
    ("RotaryEmbedding", "float[B,2,T,4] x", f"{POSITIONS} y = {{op}}(x, turns, turns, p)", "float"),
    ("com.microsoft.RotaryEmbedding", "float[B,2,T,4] x", f"{POSITIONS} y = {{op}}(x, p, turns, turns)", "float"),
    (
        "Scan",
        "float[T,B,4] x",
        f"{START} last, y = {{op}}<num_scan_inputs=1, body = inner (float[Q,4] s, float[Q,4] u) => "
        "(float[Q,4] k, float[Q,4] v) {{ k = Add(s, u)\n v = Tanh(k) }}>(first, x)",
        "float",
    ),
    (
        "Loop",
        "float[T,B,4] x",
        f"{START} n = Shape(x)\n e = Gather(n, none)\n last, y = {{op}}<body = inner (int64 i, bool c, float[Q,4] "
        "s) => "
        "(bool d, float[Q,4] k, float[Q,4] v) {{ d = Identity(c)\n u = Gather(x, i)\n k = Add(s, u)\n v = Tanh(k) }}>"
        "(e, , first)",
        "float",
    ),
)
NUMBERS = dict(
    two=np.int64([2]),
    one=np.int64([1]),
    nought=np.int64([0]),
    none=np.int64(0),
    single=np.int64(1),
    axis2=np.int64(2),
    halves=np.int64([2, 2]),
    four=np.int64(4),
    pads=np.int64([0, 0, 1, 0, 0, 0]),
    repeats=np.int64([1, 1, 3]),
    widened=np.int64([1, 1, 5]),
    split=np.int64([0, 0, 2, 2]),
    flat=np.int64([-1, 4]),
    yes=np.bool_(True),
    depth=np.int64(4),
    marks=np.float32([0, 1]),
    scales=np.float32([1, 1, 2]),
    hop=np.int64(4),
    scale=np.float32(0.02),
    zero=np.uint8(37),
    mix=rand(4, 4),
    b=np.abs(rand(4)) + 1,
    bs1=rand(1),
    w=rand(4, 4, 3),
    table=rand(4, 5),
    window=rand(8),
    m8=np.ones([4, 4], np.uint8),
    w8=np.ones([4, 4, 3], np.uint8),
    gi=rand(1, 15, 4),
    gr=rand(1, 15, 5),
    li=rand(1, 20, 4),
    lr=rand(1, 20, 5),
    ri=rand(1, 5, 4),
    rr=rand(1, 5, 5),
    ends=np.int64([9]),
    minus=np.int64([-1]),
    image=np.int64([2, 2]),
    block=np.int64([2, 2]),
    point=rand(2, 2, 1, 1),
    packed=np.ones([6, 1, 8], np.uint8),
    ratios=np.ones(6, np.float32),
    nibbles=np.ones(16, np.uint8),
    two_ratios=np.ones(2, np.float32),
    six=np.int64(6),
    rate=np.int64(16000),
    low=np.float32(0),
    high=np.float32(8000),
    counts=np.int64([2, 5, 1]),
    places=np.int64([[0], [2]]),
    turns=rand(4096, 2),
)
OPSETS = {
    "Scatter": 10,
    "Upsample": 9,
    "Swish": 24,
    "RMSNormalization": 23,
    "Attention": 23,
    "BitCast": 26,
    "CumProd": 26,
    "SwiGLU": 28,
    "RotaryEmbedding": 23,
}

WITHOUT = {
    "CausalConvWithState": "onnxruntime cannot load its opset",
    "LinearAttention": "onnxruntime cannot load its opset",
    "EyeLike": "a matrix, of which one axis is the stream and the other is not kept apart",
    "MaxRoiPool": "its boxes tell the rows by number",
    "RoiAlign": "its boxes tell the rows by number",
}
"""Operators that have no such model, and why."""

EXAMPLES = {name: (inputs, body, dtype) for names, inputs, body, dtype in FORMS for name in names.split()}


def title(domain: str, name: str) -> str:
    """The name of an operator as models write it."""
    return f"{domain}.{name}" if domain else name


def example(name: str) -> onnx.ModelProto:
    """A model in which `name` streams along T, with a batch B."""
    inputs, body, dtype = EXAMPLES[name]
    act = '<activation="Relu">' if "Fused" in name else ""
    used = {k: v for k, v in NUMBERS.items() if k in body.replace("(", " ").replace(")", " ").replace(",", " ").split()}
    head = f'<ir_version: 10, opset_import: ["": {OPSETS.get(name, 21)}, "com.microsoft": 1, "ai.onnx.ml": 1]>\n'
    model = parse(f"{head}agraph ({inputs}) => ({dtype}[U] y) {{ {body.format(op=name, act=act)} }}", **used)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("name", EXAMPLES)
def test_rows_are_apart(name: str) -> None:
    model = example(name)
    dims = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    source = load(model)
    _, plan = choose(source, {"x": dims.index("T")}, Options())
    assert not plan.blockers, plan.blockers
    assert batch_of(plan) == "B" and mixing(source, plan) == ()


def test_every_operator_that_streams_is_among_them() -> None:
    streaming = {title(domain, name) for (domain, name), rule in RULES.items() if rule.versions is not None}
    assert streaming == {*EXAMPLES, *WITHOUT}
    assert not set(EXAMPLES) & set(WITHOUT)
