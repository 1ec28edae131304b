"""Streams whose dimension has a slower axis merged before time ([n, T] as n*T): only operators on rows may see them."""

from __future__ import annotations

from pulsify_onnx.errors import refuse
from pulsify_onnx.facts import Fact, Stream
from pulsify_onnx.node import Node
from pulsify_onnx.rules.arithmetic import BINARY, UNARY

ROWWISE = frozenset({*UNARY, *BINARY, "BatchNormalization", "CastLike", "DequantizeLinear", "Dropout", "Einsum", "Gemm", "GroupNormalization",
                     "InstanceNormalization", "LayerNormalization",
                     "LogSoftmax", "MatMul", "QuantizeLinear", "RMSNormalization", "Reshape", "Softmax", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that treat all frames of a stream alike, whatever their order."""

REASON = "an axis that runs more slowly was merged before time (all frames of its first entry, then all of its second), so frames of one time lie far apart"
HINT = "split the merged axis again before this operator, or transpose time to the front before merging"


def scattered(fact: Fact | None) -> bool:
    """Whether rows of one time lie apart in the batch tensor."""
    return isinstance(fact, Stream) and fact.slower > 1


def check_rows(node: Node) -> None:
    """Refuse a node that must not see rows out of their order in time."""
    if any(map(scattered, node.facts)) and (node.domain or node.op_type not in ROWWISE):
        refuse(REASON, HINT)
