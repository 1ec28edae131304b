"""Borders of what a rule gives: folded where they are constant, else the rule has to do with inputs whose padding is
there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pulsify_onnx.algebra import padding_fold
from pulsify_onnx.algebra.facts import Fact, PaddingFrames, Stream
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Outcome, Step
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Node


def with_borders(node: Node, rule: Callable[[Node], Outcome]) -> Outcome:
    """What `rule` makes of the node, with the border of every result."""
    outcome = rule(node)
    folded = _folded(node, outcome)
    if folded is not None:
        return folded
    before: list[Step] = []
    again = replace(
        node,
        facts=tuple(materialise_padding(f, node.options, before) if isinstance(f, Stream) else f for f in node.facts),
    )
    if again.facts == node.facts:
        refuse("what it pads with can't be told before the stream runs", hint="pad with a constant")
    return with_borders(again, lambda solid_node: _after(before, rule(solid_node)))


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
            if isinstance(fact, Stream) and (fact.pad_before or fact.pad_after.terms):
                border = padding_fold.fold_border(expr, fact, known, node.world.value_of, node.world.opset)
                if border is None:
                    return None
                fact = replace(fact, border=border)
            if isinstance(fact, Stream) and fact.positional and not padding_fold.movable(step, fact):
                fact = replace(fact, positional=False)
            facts[wire] = fact
            named.append(fact)
        steps.append(replace(step, facts=tuple(named)))
    return replace(
        outcome,
        facts=tuple(_viewed(f, facts.get(f.wire)) if isinstance(f, Stream) else f for f in outcome.facts),
        steps=tuple(steps),
    )


def _viewed(x: Stream, made: Fact | None) -> Stream:
    """`x`, a view of a wire that was `made`, with what became of its border."""
    if not isinstance(made, Stream):
        return x
    if (x.delay, x.pad_before, x.pad_after, x.shape) == (made.delay, made.pad_before, made.pad_after, made.shape):
        return made
    if not x.pad_before or x.border is not None:
        return x
    return replace(
        x,
        border=made.border.upto(x.axis, made.pad_before - x.pad_before, x.pad_before)
        if isinstance(made.border, PaddingFrames)
        else made.border,
    )
