"""Borders of what a rule gives: folded where they are constant, else the rule has to do with inputs whose padding is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pulsify_onnx.algebra import padding_fold
from pulsify_onnx.algebra.facts import Fact, Stream
from pulsify_onnx.algebra.plan import Outcome, Step
from pulsify_onnx.algebra.windows import solid
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Node


def bordered(node: Node, rule: Callable[[Node], Outcome]) -> Outcome:
    """What `rule` makes of the node, with the border of every result."""
    outcome = rule(node)
    folded = _folded(node, outcome)
    if folded is not None:
        return folded
    before: list[Step] = []
    again = replace(node, facts=tuple(solid(f, node.options, before) if isinstance(f, Stream) else f for f in node.facts))
    if again.facts == node.facts:
        refuse("what it pads with can't be told before the stream runs", hint="pad with a constant")
    return bordered(again, lambda solid_node: _after(before, rule(solid_node)))


def _after(before: list[Step], outcome: Outcome) -> Outcome:
    return replace(outcome, steps=(*before, *outcome.steps))


def _folded(node: Node, outcome: Outcome) -> Outcome | None:
    """The outcome with its borders; None where one of them is not constant."""
    facts: dict[str, Fact] = {}
    own = {f.wire: f for f in node.streams}
    steps = []

    def known(wire: str) -> Fact:
        fact = facts.get(wire) or own.get(wire) or node.world.fact_of(wire)
        assert fact is not None
        return fact

    for step in outcome.steps:
        named = []
        for wire, expr, fact in zip(step.wires, step.exprs, step.facts):
            if isinstance(fact, Stream) and (fact.lead or fact.trail.terms):
                border = padding_fold.fold_border(expr, fact, known, node.world.value_of, node.world.opset)
                if border is None:
                    return None
                fact = replace(fact, border=border)
            if isinstance(fact, Stream) and fact.positional and not padding_fold.movable(step, fact):
                fact = replace(fact, positional=False)
            facts[wire] = fact
            named.append(fact)
        steps.append(replace(step, facts=tuple(named)))
    return replace(outcome, facts=tuple(facts.get(f.wire, f) if isinstance(f, Stream) and f.wire in facts and _same_view(f, facts[f.wire])
                                        else f for f in outcome.facts), steps=tuple(steps))


def _same_view(a: Stream, b: Fact) -> bool:
    return isinstance(b, Stream) and (a.delay, a.lead, a.trail, a.shape) == (b.delay, b.lead, b.trail, b.shape)
