"""Operators of ai.onnx.ml that work on every value alike."""

from __future__ import annotations

from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Outcome, Step
from pulsify_onnx.algebra.windows import align, wait_until_known
from pulsify_onnx.rules.kit.combinators import as_outcome, same_op, the_stream
from pulsify_onnx.rules.kit.guarded import guarded
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule


@rule("Binarizer", versions=(1,), domain="ai.onnx.ml")
def binarizer(node: Node) -> Outcome:
    """Any axis: every value becomes 0 or 1 by one threshold."""
    steps: list[Step] = []
    x = materialise_padding(the_stream(node), node.options, steps)
    (window,), y = align([x], node.options)
    (window,), y = wait_until_known([window], y)
    feed = guarded(window, x, 0)  # onnxruntime stops at a NaN, which frames past the end may be
    return as_outcome(
        node, [same_op(node, [feed])], [y.placed(node.outputs[0], x.dtype, x.shape, x.axis)], before=steps
    )
