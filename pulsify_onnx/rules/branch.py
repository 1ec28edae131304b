"""If: the walker goes through its branches in place of the node; what is left for a rule is to say which can't be
told.
"""

from __future__ import annotations

from dataclasses import replace

from pulsify_onnx.algebra.facts import Blocked, Deferred, Fact, Nothing, QueryKey, ShapeTensor, Stream
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import Refusal, refuse
from pulsify_onnx.model.schema import since_version
from pulsify_onnx.ort import carrier
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares

DECIDED = "the branch taken is decided at run time"


@declares(Trait.BRANCHES)
@rule("If", versions=(1, 11, 13, 16, 19, 21, 23, 24, 25))
def branch(node: Node) -> Outcome:
    """On a constant condition, the branch taken; on a static one, both run and the result is chosen.

    Refuses: conditions that depend on the stream or its length, and branches that give different shapes.
    """
    if isinstance(node.fact(0), ShapeTensor):
        refuse(
            f"{DECIDED}, by the length of the stream",
            hint="export one of the branches, or make both the same for every length",
        )
    refuse(f"{DECIDED}, by values of the stream", hint="compute both branches and choose with Where, frame by frame")


def choice_of(node: Node, out: str, condition: Fact, yes: Fact, no: Fact) -> Node:
    """A Where that is output `out` of an If whose branches both run."""
    return replace(
        node,
        op_type="Where",
        since=since_version("Where", node.opset, "") or 1,
        attributes={},
        outer={},
        inputs=(node.inputs[0], yes.wire, no.wire),
        outputs=(out,),
        facts=(condition, yes, no),
    )


def choosable(yes: Fact, no: Fact) -> None:
    """Refuse results of two branches between which `Where` can't choose."""
    if yes == no:
        return
    for fact in (yes, no):
        if isinstance(fact, (Deferred, Nothing)):
            raise Refusal(fact.blame.reason, fact.blame.hint, fact.blame)
    if isinstance(yes, (ShapeTensor, QueryKey)) or isinstance(no, (ShapeTensor, QueryKey)):
        refuse(f"{DECIDED}, and its branches give different lengths", hint="export one of the branches")
    a, b = shape_of(yes), shape_of(no)
    same = len(a) == len(b) and all(p == q or (_along(yes, k) and _along(no, k)) for k, (p, q) in enumerate(zip(a, b)))
    if not same or isinstance(yes, Stream) != isinstance(no, Stream):
        refuse(f"{DECIDED}, and its branches give different shapes", hint="export one of the branches")
    assert not isinstance(yes, Blocked)
    if carrier(yes.dtype) != yes.dtype:
        refuse(
            f"{DECIDED}, and no operator chooses between tensors of type {yes.dtype.name}",
            hint="export one of the branches",
        )


def _along(fact: Fact, k: int) -> bool:
    return isinstance(fact, Stream) and fact.axis == k
