"""If, in place of which its branches are walked: the taken one where that is known, else both, between which Where
chooses.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Blocked, Fact, Static
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.analysis.readings import Next, Reading
from pulsify_onnx.rules.branch import choice_of, choosable
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.traits import Trait, has


def branches(walk: Callable[[ir.Graph], list[Fact]], settle: Callable[[Outcome, Node], None]) -> Reading:
    """The reading of an If by a walker that can `walk` a branch, which gives the facts of its outputs, and `settle`
    what a node has become.
    """

    def run(node: Node, then: Next) -> Outcome | None:
        condition = node.facts[0]
        if not isinstance(condition, Static):
            return None
        if condition.value is not None:
            return Outcome(tuple(walk(_graph(node, bool(condition.value.array.reshape(-1)[0])))))
        if all(isinstance(f, Static) for f in node.outer.values()):
            return None
        found: list[Fact] = []
        for out, yes, no in zip(node.outputs, *(walk(_graph(node, taken)) for taken in (True, False))):
            if out:
                choice = choice_of(node, out, condition, yes, no)
                outcome = _chosen(choice, yes, no, then)
                settle(outcome, choice)
            found.append(outcome.facts[0] if out else yes)
        return Outcome(tuple(found))

    return Reading("branches", lambda node: has(node, Trait.BRANCHES), run)


def _graph(node: Node, taken: bool) -> ir.Graph:
    return node.attributes["then_branch" if taken else "else_branch"].as_graph()


def _chosen(choice: Node, yes: Fact, no: Fact, then: Next) -> Outcome:
    if not any(isinstance(f, Blocked) for f in (yes, no)):
        choosable(yes, no)
        if yes == no:
            return Outcome((yes,))
    return then(choice)
