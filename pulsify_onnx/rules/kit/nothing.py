"""Tensors without a single element: others that are put beside them do not change, and nothing else streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pulsify_onnx.algebra.facts import Fact, Nothing, Running, Stream
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.errors import Blocker, Refusal, refuse
from pulsify_onnx.rules.kit.infer import NotInferred, infer
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.traits import Trait, has

HINT = "remove it from the model"


def emptied(node: Node, outcome: Outcome) -> Outcome:
    """The outcome, where a stream or a value over one that has no element is nothing. Refuses a node that takes one."""
    for fact in node.facts:
        if _empty(fact):
            refuse(f"its input {_without(fact)}", hint=HINT)
    if not any(map(_empty, outcome.facts)):
        return outcome
    facts = tuple(_nothing(node, fact) if _empty(fact) else fact for fact in outcome.facts)
    return replace(outcome, facts=facts, steps=outcome.steps if any(not isinstance(f, Nothing) for f in facts) else ())


def _empty(fact: Fact | None) -> bool:
    return isinstance(fact, (Stream, Running)) and any(d.constant == 0 for d in fact.shape)


def _without(fact: Fact | None) -> str:
    assert isinstance(fact, (Stream, Running))
    return f"has no elements: dimension {[d.constant for d in fact.shape].index(0)} is 0"


def _nothing(node: Node, fact: Fact) -> Nothing:
    assert isinstance(fact, (Stream, Running))
    wire = node.streams[0].wire if node.streams else ""
    blame = Blocker(node.name, node.op_type, f"its result {_without(fact)}", HINT, wire)
    return Nothing(fact.wire, fact.dtype, fact.shape, blame)


def beside_nothing(node: Node, then: Callable[[Node], Outcome]) -> Outcome:
    """What a node makes of nothing: without it where its inputs are put one after another, else nothing again."""
    empty = [fact for fact in node.facts if isinstance(fact, Nothing)]
    if empty and has(node, Trait.JOINS):
        axis = node.axis(len(empty[0].shape))
        left = [k for k, f in enumerate(node.facts) if not isinstance(f, Nothing) or f.shape[axis].constant != 0]
        facts = tuple(node.facts[k] for k in left)
        if len(facts) == 1 and isinstance(facts[0], (Stream, Running)):
            return Outcome((facts[0],))
        if facts and not any(isinstance(f, Nothing) for f in facts):
            return then(replace(node, facts=facts, inputs=tuple(node.inputs[k] for k in left)))
    blame = next(fact.blame for fact in node.read_facts if isinstance(fact, Nothing))
    try:
        found = [] if node.outer else infer(node)
    except NotInferred:
        found = []
    shapes = [(dtype, shape) for dtype, shape in found if shape is not None and None not in shape]
    made = tuple(
        Nothing(wire, dtype, tuple(d for d in shape if d is not None), blame)
        for wire, (dtype, shape) in zip(node.outputs, shapes)
    )
    if not made or len(shapes) != len(node.outputs) or not all(any(d.constant == 0 for d in f.shape) for f in made):
        raise Refusal(blame.reason, blame.hint, blame)
    return Outcome(made)
