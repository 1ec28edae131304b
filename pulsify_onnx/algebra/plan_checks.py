"""What is true of every plan, as a table: each stage is followed by it, so that a wrong plan is named where it was
made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pulsify_onnx.algebra.delay import Delay, DelayLike
from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.hidden import Mask
from pulsify_onnx.algebra.plan import (
    Expr,
    Number,
    Op,
    Past,
    Plan,
    Position,
    QueryKeyRead,
    Ref,
    Start,
    Step,
    When,
    Window,
)
from pulsify_onnx.errors import BrokenRule


@dataclass(frozen=True)
class Place:
    """A step, everything in its expressions and its states' updates, and what is made before it and at all."""

    plan: Plan
    step: Step
    inside: tuple[Expr, ...]
    before: frozenset[str] | set[str]
    made: frozenset[str]


@dataclass(frozen=True)
class PlanRule:
    """A rule that every step keeps: ``broken`` says in words where it does not."""

    name: str
    broken: Callable[[Place], Iterator[str]]


def check_plan(plan: Plan, stage: str) -> None:
    """Raise `BrokenRule` where a plan that streams is not well formed after `stage`. Time is linear in the size of
    the plan.
    """
    if plan.blockers:
        return
    made = frozenset(wire for step in plan.steps for wire in step.wires)
    before: set[str] = set()
    for step in plan.steps:
        place = Place(plan, step, step.everything, before, made)
        for rule in PLAN_RULES:
            for problem in rule.broken(place):
                raise BrokenRule(rule.name, stage, f"{step.node}: {problem}")
        before.update(step.wires)


def _each_wire_once(at: Place) -> Iterator[str]:
    for wire in at.step.wires:
        if wire in at.before:
            yield f"{wire} is made a second time"
    if not len(at.step.wires) == len(at.step.exprs) == len(at.step.facts):
        yield f"{len(at.step.wires)} wires, {len(at.step.exprs)} expressions, {len(at.step.facts)} facts"


def _wires_are_known(at: Place) -> Iterator[str]:
    yield from (f"nothing is known of {wire}" for wire in at.step.wires if wire not in at.plan.wires)


def _windows_on_streams(at: Place) -> Iterator[str]:
    for leaf in at.inside:
        if isinstance(leaf, Window) and not isinstance(at.plan.wires.get(leaf.wire), Stream):
            yield f"window on {leaf.wire}, which is no stream"


def _made_before_read(at: Place) -> Iterator[str]:
    for leaf in at.inside:
        if (
            isinstance(leaf, (Window, Ref, QueryKeyRead))
            and leaf.wire in at.made
            and leaf.wire not in at.before
            and leaf.wire not in at.step.wires
        ):
            yield f"{leaf.wire} is used before it is made"


def _own_states(at: Place) -> Iterator[str]:
    own = [state.name for state in at.step.states]
    yield from (f"state {name} is there twice" for name in {name for name in own if own.count(name) > 1})
    yield from (
        f"state {leaf.state} is not its own" for leaf in at.inside if isinstance(leaf, Past) and leaf.state not in own
    )


def _outputs_in_range(at: Place) -> Iterator[str]:
    yield from (
        f"output {e.index} of {e.op_type}, which has {e.outputs}"
        for e in at.inside
        if isinstance(e, Op) and not 0 <= e.index < e.outputs
    )


def _scheduled(at: Place) -> Iterator[str]:
    if at.plan.timing is None:
        return
    for e in at.inside:
        if (
            isinstance(e, (When, Number))
            or (isinstance(e, Window) and isinstance(e.mask, Mask))
            or any(isinstance(d, Delay) and d.terms for d in _delays(e))
        ):
            yield f"{type(e).__name__} is not of numbers"
    yield from (
        f"{fact.wire} has the delay {fact.delay}"
        for fact in at.step.facts
        if isinstance(fact, Stream) and fact.delay.terms
    )
    if at.step.requires or any(state.test is not None for state in at.step.states):
        yield "it still depends on the schedule"


def _come(at: Place) -> Iterator[str]:
    """Frames of a window end with the pulse at the latest; indices are computed, wherever they are."""
    for leaf in at.inside if at.plan.timing is not None else ():
        x = at.plan.wires.get(leaf.wire) if isinstance(leaf, Window) and leaf.role == 0 else None
        if (
            isinstance(leaf, Window)
            and isinstance(x, Stream)
            and not x.positional
            and int(leaf.back) < int(leaf.frames.extra)
        ):
            yield f"it reads {int(leaf.frames.extra) - int(leaf.back)} frames of {leaf.wire} before they come"


def _delays(e: Expr) -> tuple[DelayLike, ...]:
    if isinstance(e, Window):
        return e.back, e.frames.extra
    if isinstance(e, QueryKeyRead):
        return (*e.a, *e.b)
    return (e.delay, e.extra) if isinstance(e, Position) else (e.delay,) if isinstance(e, Start) else ()


PLAN_RULES = (
    PlanRule("every wire is made once", _each_wire_once),
    PlanRule("every wire has a fact", _wires_are_known),
    PlanRule("windows are of streams", _windows_on_streams),
    PlanRule("wires are made before they are read", _made_before_read),
    PlanRule("steps read their own states only", _own_states),
    PlanRule("operators have the outputs that are read", _outputs_in_range),
    PlanRule("what is scheduled is numbers", _scheduled),
    PlanRule("windows are of what has come", _come),
)
"""In the order in which they are asked."""
