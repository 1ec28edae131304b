"""Nodes that read a value over the whole stream beside its frames: closed by a reduction, or refused."""

from __future__ import annotations

from pulsify_onnx.algebra.facts import Deferred
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import Refusal, refuse
from pulsify_onnx.rules.deviation import deviating
from pulsify_onnx.rules.kit.combinators import BACK, BACK_HINT
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import lookup
from pulsify_onnx.rules.log_sum_so_far import summing
from pulsify_onnx.rules.pooling_attention import pooling


def closed(node: Node) -> Outcome:
    """What a node makes of pending values, or of a running value and a stream; refuses what needs it frame by frame."""
    found = (deviating(node) or pooling(node) or summing(node)) if node.domain == "" else None
    if found is not None:
        return found
    for fact in (*node.facts, *node.outer.values()):
        if isinstance(fact, Deferred):
            raise Refusal(fact.blame.reason, fact.blame.hint, fact.blame)
    if node.op_type == "If" and node.domain == "":
        return lookup(node)(node)
    refuse(BACK, BACK_HINT)
