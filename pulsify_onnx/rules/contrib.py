"""Operators of onnxruntime's own domain, as its optimizer and its transformers tools write them."""

from __future__ import annotations

from pulsify_onnx.algebra.facts import Fact, Stream
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.conv import convolution
from pulsify_onnx.rules.kit.combinators import broadcast, passthrough, the_stream
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import CONTRIB, rule
from pulsify_onnx.rules.matmul import gemm_axes, product_axes
from pulsify_onnx.rules.norm import HINT, WHOLE

GATE = "its gate or its scale has one value per frame of a fixed length"


@rule("Gelu", "FastGelu", "BiasGelu", "QuickGelu", versions=(1,), domain=CONTRIB)
def gelu(node: Node) -> Outcome:
    """Any axis; the bias is added along the last axis.

    Refuses: a bias along the stream, which fits one length only.
    """
    return broadcast(node)


@rule("ScaledSiLU", "GatedAdd", versions=(1,), domain=CONTRIB)
def gated(node: Node) -> Outcome:
    """Any axis; several streams are aligned to the largest delay.

    Refuses: streams that meet on different axes, and a constant with as many frames as the export had.
    """
    return broadcast(node)


@rule("FusedConv", versions=(1,), domain=CONTRIB)
def fused_conv(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride, dilation and groups, with its activation.

    State: span - stride frames.  Refuses: a stream along the channels, a second stream added before the activation.
    """
    if isinstance(node.fact(3), Stream):
        refuse(
            "it adds a second stream before its activation",
            hint="convert the model before it is optimized (optimization level basic at most)",
        )
    return convolution(node, 0, 1)


@rule("FusedMatMul", "TransposeMatMul", versions=(1,), domain=CONTRIB)
def fused_matmul(node: Node) -> Outcome:
    """Rows, columns or batch axes, transposed or not.

    Refuses: a sum over the stream, batch axes that are transposed too.
    """
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        refuse(
            "it transposes its batch axes",
            hint="convert the model before it is optimized (optimization level basic at most)",
        )
    return passthrough(
        node, product_axes(node, flip_a=bool(node.attr("transA", 0)), flip_b=bool(node.attr("transB", 0)))
    )


@rule("FusedGemm", versions=(1,), domain=CONTRIB)
def fused_gemm(node: Node) -> Outcome:
    """Rows or columns of the result, transposed or not; C broadcasts.

    Refuses: a sum over the stream.
    """
    return passthrough(node, gemm_axes(node))


def _same_place(node: Node, data: int) -> list[int | None]:
    """The stream axis of inputs 0 to `data` - 1, none of which may have a fixed number of frames there."""
    streams = node.streams
    axis = streams[0].axis if streams else -1
    for k, fact in enumerate(node.facts[:data]):
        if fact is not None and not isinstance(fact, Stream) and _frames(fact, axis, streams[0].rank) != 1:
            refuse(
                f"its input {k} has a fixed number of frames along the stream",
                hint="compute it from frame positions, or export with a dynamic length",
            )
    offsets = [streams[0].rank - f.rank if isinstance(f, Stream) else 0 for f in node.facts]
    return [
        f.axis + offset if isinstance(f, Stream) and k < data else None
        for k, (f, offset) in enumerate(zip(node.facts, offsets))
    ]


def _frames(fact: Fact, axis: int, rank: int) -> int | None:
    shape = shape_of(fact)
    at = axis - rank + len(shape)
    return 1 if at < 0 else shape[at].constant


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", versions=(1,), domain=CONTRIB)
def skip_layer_norm(node: Node) -> Outcome:
    """Any axis but the last, which it normalises; both streams are aligned.

    Refuses: normalising over the stream, a skip with a fixed number of frames, the mean and variance outputs.
    """
    x = next(iter(node.streams))
    if x.axis == x.rank - 1:
        refuse(WHOLE, HINT)
    if any(node.outputs[1:3]):
        refuse("its mean and variance are read, which only training needs", hint="export the model in evaluation mode")
    return passthrough(node, _same_place(node, 2))


@rule("GatedRMSNorm", versions=(1,), domain=CONTRIB)
def gated_rms_norm(node: Node) -> Outcome:
    """Any axis but the last, which it normalises; the gate streams too.

    Refuses: normalising over the stream, a gate with a fixed number of frames.
    """
    x = the_first(node)
    if x.axis == x.rank - 1:
        refuse(WHOLE, HINT)
    if not isinstance(node.fact(2), Stream):
        refuse(GATE, hint="let the gate stream too")
    return passthrough(node, [x.axis, None, x.axis])


def the_first(node: Node) -> Stream:
    """Input 0 as a stream."""
    fact = node.facts[0]
    if not isinstance(fact, Stream):
        refuse("its first input does not stream", hint="make it the input with time")
    return fact


@rule("BranchwiseRMSNorm", versions=(1,), domain=CONTRIB)
def branchwise_norm(node: Node) -> Outcome:
    """Any axis but the last two, which it normalises.

    Refuses: normalising over the stream.
    """
    x = the_stream(node)
    if x.axis >= x.rank - 2 + bool(node.attr("num_branches", 0)):
        refuse(WHOLE, HINT)
    return passthrough(node, [x.axis, *[None] * (len(node.facts) - 1)])
