"""Overlapping windows of a tensor, as an axis of their own."""

from __future__ import annotations

from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.algebra.windows import windowed
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, passthrough, same_op, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import CONTRIB, rule


@rule("UnfoldTensor", versions=(1,), domain=CONTRIB)
def unfold(node: Node) -> Outcome:
    """Any axis; along the stream a window of `size` frames every `step`. State: size - step frames.

    Refuses: windows without frames, or without a step from one to the next.
    """
    x = the_stream(node)
    axis, size, hop = node.axis(x.rank, "dim", -1), int(node.attr("size", 0)), int(node.attr("step", 1))
    if size < 1 or hop < 1:
        refuse(
            f"it takes windows of {size} frames, one every {hop}", hint="export it with a size and a step of 1 at least"
        )
    if axis != x.axis:
        return passthrough(node, [x.axis])
    window, y = windowed(x, size, hop, node.options)
    shape = (*y.shape, Length.of(size))
    return as_outcome(node, [same_op(node, [window])], [y.placed(node.outputs[0], x.dtype, shape, axis)])
