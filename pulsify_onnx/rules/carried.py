"""Operators that carry a state of their own, of opsets that onnxruntime can't load yet."""

from __future__ import annotations

from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule

UNVERIFIED = "onnxruntime cannot load opset 27 yet, so its stream could not be verified against the batch model"


@rule("CausalConvWithState", versions=(27,))
def causal_conv(node: Node) -> Outcome:
    """Refuses: it is of an opset that can't be verified; Pad and Conv say the same."""
    refuse(
        UNVERIFIED,
        hint="export it as Pad (kernel - 1 frames before) and a depthwise Conv, with the default opset of your "
        "exporter",
    )


@rule("LinearAttention", versions=(27,))
def linear_attention(node: Node) -> Outcome:
    """Refuses: it is of an opset that can't be verified; Scan says the same."""
    refuse(UNVERIFIED, hint="export the recurrence as Scan, with the default opset of your exporter")
