"""Normalisations and softmax over axes other than the stream's."""

from __future__ import annotations

from collections.abc import Sequence

from pulsify_onnx.algebra.facts import QueryKey
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.attention import softmax_over_keys
from pulsify_onnx.rules.kit.combinators import aligned_inputs, as_outcome, keep_unless, same_op, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.views import normalised_axes
from pulsify_onnx.rules.pooling_attention import OVER_TIME, OVER_TIME_HINT, softmax_over_time

WHOLE = "it normalises over the whole stream, so the first frame needs the last"
HINT = "normalise over the channels of a frame, or use running statistics (cumulative layer norm)"


@rule("BatchNormalization", versions=(7, 9, 14, 15))
def batch_norm(node: Node) -> Outcome:
    """Any axis but the channels.

    Refuses: training mode, and a stream along the channels.
    """
    x = the_stream(node)
    if node.attr("training_mode", 0) or any(node.outputs[1:]):
        refuse(
            "it takes its statistics from the whole batch (training mode)", hint="export the model in evaluation mode"
        )
    return keep_unless(
        node,
        [1] if x.rank > 1 else [0],
        "it has one mean and scale per frame",
        hint="the stream must not run along the channels; see --axis",
    )


@rule("LayerNormalization", "SimplifiedLayerNormalization", versions=(1, 17))
@rule("RMSNormalization", versions=(23,))
def layer_norm(node: Node) -> Outcome:
    """Any axis before those it normalises.

    Refuses: normalising over the stream.
    """
    x = the_stream(node)
    return keep_unless(node, range(node.axis(x.rank), x.rank), WHOLE, HINT)


@rule("Softmax", versions=(1, 11, 13))
@rule("LogSoftmax", versions=(1, 11, 13))
@rule("Hardmax", versions=(1, 11, 13))
def softmax(node: Node) -> Outcome:
    """Any axis but the one it normalises over; over keys behind a mask of positions (attention in a window).

    Over the stream it gives weights, which only a weighted sum over the stream takes (attention pooling).
    Refuses: a softmax over the stream that is needed frame by frame.
    """
    if isinstance(node.facts[0], QueryKey) and node.op_type == "Softmax":
        return softmax_over_keys(node, node.facts[0])
    x = the_stream(node)
    touched = normalised_axes(node, x.rank)
    if (
        node.op_type == "Softmax"
        and x.axis in touched
        and all(x.shape[a].constant == 1 for a in touched if a != x.axis)
    ):
        return softmax_over_time(node, x)
    return keep_unless(node, touched, OVER_TIME, OVER_TIME_HINT)


def _same_shape(node: Node, touched: Sequence[int]) -> Outcome:
    """Keep a normalisation over axes `touched`, which must not be the stream's; onnx infers no shape for some of
    them.
    """
    x = the_stream(node)
    if x.axis in touched:
        refuse(WHOLE, HINT)
    exprs, y, _ = aligned_inputs(node, [x.axis, *[None] * (len(node.facts) - 1)])
    return as_outcome(node, [same_op(node, exprs)], [y.placed(node.outputs[0], x.dtype, x.shape, x.axis)])


@rule("InstanceNormalization", versions=(6, 22))
def instance_norm(node: Node) -> Outcome:
    """The batch axis only.

    Refuses: averaging over the stream.
    """
    return _same_shape(node, range(1, the_stream(node).rank))


@rule("GroupNormalization", versions=(18, 21))
def group_norm(node: Node) -> Outcome:
    """The batch axis only.

    Refuses: averaging over the stream.
    """
    return _same_shape(node, range(1, the_stream(node).rank))


@rule("LpNormalization", versions=(1, 22))
def lp_norm(node: Node) -> Outcome:
    """Any axis but the one it normalises over."""
    x = the_stream(node)
    return keep_unless(node, [node.axis(x.rank, default=-1)], WHOLE, HINT)


@rule("LRN", versions=(1, 13))
def local_response(node: Node) -> Outcome:
    """Any axis but the channels.

    Refuses: a stream along the channels.
    """
    return keep_unless(
        node, [1], "it sums over neighbouring channels and the stream runs along them", hint="see --axis"
    )


@rule("MeanVarianceNormalization", versions=(9, 13))
def mean_variance(node: Node) -> Outcome:
    """Any axis that it does not average over."""
    axes = node.ints("axes") or [0, 2, 3]
    rank = the_stream(node).rank
    return _same_shape(node, [a % rank for a in axes])
