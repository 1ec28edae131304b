"""Operators by how they treat the rows of a batch."""

ELEMENTWISE = frozenset("""
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu Clip Cos Cosh
    Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual
    Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
    Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor CastLike BiasGelu Binarizer FastGelu GatedAdd QuickGelu ScaledSiLU SwiGLU
    QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearWhere""".split())
"""Operators that broadcast and mix no elements."""

CONTRIB = frozenset("""
    BiasGelu Binarizer BranchwiseRMSNorm DequantizeLinear FastGelu FusedConv FusedGemm FusedMatMul GatedAdd GatedRMSNorm Gelu Inverse
    MatMulBnb4 MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcMaxPool QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv
    QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu RotaryEmbedding
    ScaledSiLU SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul Trilu""".split())
"""Operators of other domains, nearly all onnxruntime's own, that are known here."""

CHANNELWISE = frozenset("""
    AveragePool BatchNormalization Conv ConvInteger ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization
    InstanceNormalization LRN LpPool MaxPool NhwcMaxPool QLinearConv SpaceToDepth STFT FusedConv
    QLinearAveragePool QLinearGlobalAveragePool""".split())
"""Operators whose first axis is the batch."""

BATCH_FIRST = {"Attention": 4, "GridSample": 4, "MultiHeadAttention": 4, "RotaryEmbedding": 0}
"""Operators all of whose inputs that have rows have them first, and the dimensions that their mask or grid has at least."""

SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax")
NORMALISED = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
ONE_AXIS = {"TopK": -1, "Split": 0, "LpNormalization": -1}
"""Operators that mix elements along the axis of an attribute only, with its default."""


def interpolated(mode: str | bytes, rank: int, axis: int) -> bool:
    """Whether onnxruntime may interpolate along an `axis` that a Resize leaves at its size: by weights of 0, which spread what is no number.

    Linear and cubic modes do so along all axes of up to three, and else along those that come after the batch and the channels.
    """
    return mode not in ("nearest", b"nearest") and (rank < 4 or axis > 0)
