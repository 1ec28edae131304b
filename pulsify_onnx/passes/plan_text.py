"""A plan in words: one line for every step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from pulsify_onnx.algebra.facts import Fact, QueryKey, RelativeScores, Running, Static, Stream
from pulsify_onnx.algebra.hidden import Mask, TimedMask
from pulsify_onnx.algebra.plan import (
    Dim,
    Expr,
    Frames,
    Merged,
    Past,
    Plan,
    QueryKeyRead,
    Ref,
    State,
    Step,
    Window,
    leaves,
)
from pulsify_onnx.errors import one_line
from pulsify_onnx.passes.histories import Histories


def lines(plan: Plan) -> list[str]:
    """A line a step: its node and operator, the wires that it makes and their facts, what it reads, its states.

    A plan that is scheduled and streams has the histories of the wires that a step makes, too; those of inputs stand
    first.
    """
    histories: dict[str, list[str]] = {}
    if plan.timing is not None and not plan.blockers:
        for h in Histories(plan):
            histories.setdefault(h.wire, []).append(
                f"history of {h.wire}: {h.frames}{' masked' if h.mask is not None else ''}"
            )
    made = {wire for step in plan.steps for wire in step.wires}
    found = [
        _line(name, "input", [_fact(name, plan.wires[name])], [], histories.get(name, []))
        for name in plan.inputs
        if name in plan.wires and name not in made
    ]
    for step in plan.steps:
        kept = [note for wire in step.wires for note in histories.get(wire, [])]
        found.append(
            _line(
                step.node,
                step.op_type,
                list(map(_fact, step.wires, step.facts)),
                list(_reads(step)),
                [*map(_state, step.states), *kept],
            )
        )
    return found


def _line(node: str, op_type: str, wires: list[str], reads: list[str], notes: list[str]) -> str:
    text = f"{node} {op_type} -> {', '.join(wires) or 'nothing'}"
    return one_line("; ".join([text + (f" <- {', '.join(reads)}" if reads else ""), *notes]))


def _fact(wire: str, fact: Fact) -> str:
    """A wire with what is known of it."""
    shape = f"{wire}[{','.join(map(str, fact.shape))}]" if hasattr(fact, "shape") else wire
    if isinstance(fact, Stream):
        pad_before = f" pad_before {fact.pad_before}" if fact.pad_before else ""
        pad_after = f" pad_after {fact.pad_after}" if fact.pad_after.terms else ""
        return (
            f"{shape} stream axis {fact.axis} rate {fact.rate} extent {fact.extent} delay "
            f"{fact.delay}{pad_before}{pad_after}{' positional' if fact.positional else ''}"
        )
    if isinstance(fact, (QueryKey, RelativeScores)):
        delays = " and ".join(map(str, fact.delays if isinstance(fact, QueryKey) else (fact.delay,)))
        return f"{shape} {_kind(fact)} axes {fact.axes[0]} and {fact.axes[1]} rate {fact.rate} delay {delays}"
    if isinstance(fact, Running):
        return f"{shape} prefix{' exact' if fact.exact else ''}"
    return f"{shape} {_kind(fact)}{' of its own' if isinstance(fact, Static) and fact.own else ''}"


def _reads(step: Step) -> Iterator[str]:
    """Every wire that a step reads, each way once."""
    yield from dict.fromkeys(text for leaf in leaves(step) if (text := _read(leaf)))


def _read(leaf: Expr) -> str:
    if isinstance(leaf, Window):
        back = f"from {-leaf.back}, " if leaf.back else ""
        return f"{leaf.wire}{{{back}{_frames(leaf.frames)}{_mask(leaf.mask)}}}"
    if isinstance(leaf, QueryKeyRead):
        (a, b), (c, d) = leaf.a, leaf.b
        sides = (f"from {-back}, {_frames(Frames(Fraction(1), extra))}" for back, extra in ((a, b), (c, d)))
        return f"{leaf.wire}{{{' by '.join(sides)}}}"
    return leaf.wire if isinstance(leaf, Ref) else f"past {leaf.state}" if isinstance(leaf, Past) else ""


def _frames(frames: Frames) -> str:
    extra = f"+{frames.extra}".replace("+-", "-") if frames.extra else ""
    return f"{'' if frames.rate == 1 else f'{frames.rate}*'}pulse{extra}"


def _mask(mask: Mask | TimedMask | None) -> str:
    if isinstance(mask, TimedMask):
        return f", real from {mask.low if mask.start else '..'} to {mask.high if mask.end else '..'}"
    return "" if mask is None else f", real from {mask.first} to {mask.end} at {mask.delay}"


def _state(state: State) -> str:
    return f"state {state.name}[{','.join(map(_dim, state.shape))}] {state.role}"


def _dim(dim: Dim) -> str:
    if isinstance(dim, Merged):
        return f"{dim.slower}*({_frames(dim.frames)})*{dim.faster}"
    return _frames(dim) if isinstance(dim, Frames) else str(dim)


def _kind(fact: Fact) -> str:
    """What a fact is, in words."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(fact).__name__).lower()
