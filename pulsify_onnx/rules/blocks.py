"""Blocks of a grid moved into the channels and back: whole frames become features, or the other way round."""

from __future__ import annotations

from dataclasses import replace

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Outcome, Step
from pulsify_onnx.algebra.windows import align, at_higher_rate, windowed
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import as_outcome, passthrough, same_op, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule


def _spatial(node: Node) -> tuple[Stream, int]:
    x = the_stream(node)
    if x.axis == 1:
        refuse(
            "the stream runs along the channels, which it spreads over the other axes",
            hint="transpose time to a spatial axis",
        )
    return x, int(node.attr("blocksize"))


@rule("DepthToSpace", versions=(1, 11, 13, 28))
def depth_to_space(node: Node) -> Outcome:
    """Either spatial axis (every frame becomes `blocksize` frames), or the batch.

    Refuses: a stream along the channels.
    """
    x, size = _spatial(node)
    if x.axis == 0:
        return passthrough(node, [0])
    steps: list[Step] = []
    (window,), y = align([materialise_padding(x, node.options, steps)], node.options)
    shape = (x.shape[0], x.shape[1].floordiv(size * size), x.shape[2] * size, x.shape[3] * size)
    y = replace(at_higher_rate(y, size), wire=node.outputs[0], shape=shape)
    return as_outcome(node, [same_op(node, [window])], [y], before=steps)


@rule("SpaceToDepth", versions=(1, 13, 28))
def space_to_depth(node: Node) -> Outcome:
    """Either spatial axis (`blocksize` frames become one), or the batch.

    Refuses: a stream along the channels.
    """
    x, size = _spatial(node)
    if x.axis == 0:
        return passthrough(node, [0])
    window, y = windowed(x, size, size, node.options)
    shape = (x.shape[0], x.shape[1] * size * size, *(d.floordiv(size) for d in x.shape[2:]))
    return as_outcome(node, [same_op(node, [window])], [replace(y, wire=node.outputs[0], shape=shape)])
