"""Steps that no output is computed from are left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pulsify_onnx.algebra.plan import Plan, QueryKeyRead, Ref, Step, Window, leaves
from pulsify_onnx.model.subgraphs import outer_names


def live(plan: Plan) -> Plan:
    """`plan` with the steps that its outputs are computed from."""
    wanted = {plan.facts[name].wire for name in plan.outputs}
    alive = []
    for step in reversed(plan.steps):
        if wanted & set(step.wires):
            alive.append(step)
            wanted |= {leaf.wire for leaf in leaves(step) if isinstance(leaf, (Ref, Window, QueryKeyRead))}
            wanted |= {*outer_wires(step, plan), step.history}
    return plan if len(alive) == len(plan.steps) else replace(plan, steps=tuple(alive[::-1]))


def outer_wires(step: Step, plan: Plan) -> Iterator[str]:
    """Wires that subgraphs of a step read by name."""
    for graph in step.graphs:
        yield from (plan.facts[n].wire if n in plan.facts else n for n in outer_names(graph))
