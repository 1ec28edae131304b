"""Products summed over the stream: a running sum of what every pulse adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Expr, Outcome, Step
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.infer import infer
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.running import Accumulator, cast, feed, number, running_sum, wide


def summed(
    node: Node, streams: Sequence[Stream], product: Callable[[list[Expr]], Expr], added: Expr | None = None
) -> Outcome | None:
    """The sum over the frames so far of a `product` of `streams` that sums over their frames; None where its shape is
    not known.

    `added` joins the total, once.
    """
    dtype, shape = infer(node)[0]
    if shape is None or any(d is None for d in shape):
        return None
    known = tuple(d for d in shape if d is not None)
    steps: list[Step] = []
    source = feed(streams, node.options, steps)
    kind = wide(dtype)
    values = [source.only_real(source.value(k), number(0, wide(x.dtype)), k) for k, x in enumerate(streams)]
    total = Accumulator(source, f"{node.outputs[0]}.add", kind, known or (Length.of(1),), "add")
    after, states = running_sum(total, cast(product(values), wide(streams[0].dtype), kind))
    value = after if known else onnx_op("Reshape", after, const([]))
    if added is not None:
        value = onnx_op("Add", value, added)
    return as_outcome(node, [cast(value, kind, dtype)], [source.fact(node.outputs[0], dtype, known)], states, steps)
