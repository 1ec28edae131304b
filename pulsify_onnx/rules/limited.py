"""Positions that are limited to a length: where no frame that is compared with them is beyond it, the limit is no
matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pulsify_onnx.algebra.facts import Deferred, Fact, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.lengths import COMPARED, NUMBERS, compared

MOVED = ("Unsqueeze", "Squeeze", "Reshape", "Transpose", "Expand")


def limited(node: Node, then: Callable[[Node], Outcome]) -> Outcome | None:
    """What a node makes of frames that are limited to a length, where it is the same without the limit, or so limited
    again; `then` is what it makes of other facts.
    """
    found = [k for k, f in enumerate(node.facts) if isinstance(f, Deferred) and f.limit is not None]
    if len(found) != 1 or node.domain != "":
        return None
    (at,) = found
    fact = node.facts[at]
    assert isinstance(fact, Deferred) and fact.limit is not None
    others = [f for k, f in enumerate(node.facts) if k != at]
    unlimited = replace(node, facts=tuple(fact.x if k == at else f for k, f in enumerate(node.facts)))
    if node.op_type in (*COMPARED, "Equal"):
        return then(unlimited) if _never_beyond(node, others[0], fact.limit, at) else None
    limit = _moved(node, others, fact.limit, at)
    if limit is None:
        return None
    made = then(unlimited)
    x = made.facts[0]
    if not isinstance(x, Stream):
        return None
    return replace(made, facts=(replace(fact, wire=node.outputs[0], dtype=x.dtype, shape=x.shape, x=x, limit=limit),))


def _never_beyond(node: Node, other: Fact | None, limit: Length, at: int) -> bool:
    """Whether a comparison with `other` is the same without the limit: the limit says of it what changes nothing."""
    if not isinstance(other, Stream):
        return False
    if node.op_type == "Equal":
        return compared("Less", other, limit, 1, node.world) is True
    both = node.op_type.startswith("Less") == (at == 1)
    return compared(node.op_type, other, limit, at, node.world) is both


def _moved(node: Node, others: list[Fact | None], limit: Length, at: int) -> Length | None:
    """The limit of what a node makes of limited frames."""
    if node.op_type in MOVED and at == 0:
        return limit
    if node.op_type == "Cast":
        return limit if node.attr("to") in NUMBERS else None
    by = others[0] if len(others) == 1 else None
    if node.op_type not in ("Add", "Sub") or not isinstance(by, Static) or by.value is None:
        return None
    if by.value.array.size != 1 or float(by.value.array.item()) % 1 or (node.op_type == "Sub" and at):
        return None
    number = int(by.value.array.item())
    return limit + number if node.op_type == "Add" else limit - number
