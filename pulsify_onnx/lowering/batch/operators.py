"""What the writer of a batch knows and reads of an operator about to be written: its kind, attributes and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.arrays import Array

ELEMENTWISE = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "And",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitCast",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Div",
        "Dropout",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
        "Where",
        "Xor",
        "CastLike",
        "BiasGelu",
        "Binarizer",
        "FastGelu",
        "GatedAdd",
        "QuickGelu",
        "ScaledSiLU",
        "SwiGLU",
        "QLinearAdd",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearWhere",
    ]
)
"""Operators that broadcast and mix no elements."""

RECURRENT = ("GRU", "LSTM", "RNN")

BATCH_FIRST = {"Attention": 4, "GridSample": 4, "MultiHeadAttention": 4, "RotaryEmbedding": 0}
"""Operators all of whose inputs that have rows have them first, and the dimensions that their mask or grid has at
least.
"""


def attribute(attributes: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The plain value of an attribute of an operator about to be written."""
    value = attributes.get(name, default)
    if isinstance(value, Attribute):
        value = value.attr
    return value.value if isinstance(value, ir.Attr) else value


def constant(value: ir.Value | None) -> Array | None:
    """The value of a constant."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def axes_told(
    inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any], index: int, rank: int
) -> list[int] | None:
    """The axes that an operator takes as an attribute or as its input `index`; None where they are not known, all
    without any.
    """
    given = attribute(attributes, "axes")
    if given is None and len(inputs) > index and inputs[index] is not None:
        found = constant(inputs[index])
        if found is None:
            return None
        given = found.reshape(-1).tolist()
    return [int(a) % rank for a in given] if given is not None else list(range(rank))


def entries(shape: ir.Value | None) -> int | None:
    """How many dimensions a shape that is computed has."""
    if shape is not None and shape.const_value is not None:
        return int(shape.const_value.size)
    size = shape.shape[0] if shape is not None and shape.shape is not None and len(shape.shape) == 1 else None
    return size if isinstance(size, int) else None
