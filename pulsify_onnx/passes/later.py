"""A plan of which some wires come later: what may be moved so, and how.

A wire that comes `n` base frames later is the same wire, read so many frames later: only indices move. That is done on
a plan whose delays are unknowns still, so that the schedule finds again what depends on them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import Fact, Mirror, Stream
from pulsify_onnx.algebra.hidden import Mask
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Merged, Op, Plan, Ref, Step, Window, leaves, rebuilt, walk
from pulsify_onnx.arrays import Const

Kind = TypeVar("Kind", bound=Fact)

SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def copies(step: Step) -> bool:
    """Whether a step that the schedule left out repeats a wire wherever that waits."""
    return len(step.exprs) == 1 and isinstance(step.exprs[0], Window) and step.exprs[0].mask is None


def shiftable(step: Step) -> bool:
    """Whether a step may come later with what it reads: it knows nothing but the frames of its windows."""
    if step.states or step.carries or step.history or step.requires or not step.wires:
        return False
    return not any(map(_knows_more, walk(*step.exprs, step.unsigned.expr if step.unsigned is not None else None)))


def _knows_more(expr: Expr) -> bool:
    if isinstance(expr, Op):
        return any(
            isinstance(value, ir.Graph) or (isinstance(value, Attribute) and value.attr.type in SUBGRAPHS)
            for _, value in expr.attributes
        )
    if isinstance(expr, Window):
        return (
            expr.role != 0
            or not isinstance(expr.frames.extra, int)
            or isinstance(expr.border, Mirror)
            or (expr.mask is not None and isinstance(expr.mask.border, Mirror))
        )
    if isinstance(expr, Dims):
        frames = [d.frames if isinstance(d, Merged) else d for d in expr.dims if isinstance(d, (Frames, Merged))]
        return any(f.role != 0 or not isinstance(f.extra, int) for f in frames)
    return not isinstance(expr, (Const, Ref))


def later(plan: Plan, kept: Collection[str], waits: Mapping[str, int]) -> Plan:
    """`plan`, of which wires come so many base frames later; those that are not `kept` repeat what they read."""
    moved = _Later(plan, kept, dict(waits))
    steps = tuple(map(moved.step, plan.steps))
    wires = {name: moved.fact(fact) for name, fact in plan.wires.items()}
    return replace(plan, steps=steps, wires=wires, facts={name: moved.fact(fact) for name, fact in plan.facts.items()})


@dataclass(frozen=True)
class _Later:
    plan: Plan
    kept: Collection[str]
    waits: dict[str, int]

    def fact(self, fact: Kind) -> Kind:
        """What holds of a wire that comes later."""
        wait = self.waits.get(fact.wire)
        return replace(fact, delay=fact.delay + int(fact.rate * wait)) if wait and isinstance(fact, Stream) else fact

    def step(self, step: Step) -> Step:
        """A step that reads such wires; one that repeats a wire comes when that does."""
        read = [leaf.wire for leaf in leaves(step) if isinstance(leaf, Window)]
        if not any(wire in self.waits for wire in (*read, *step.wires)):
            return step
        if step.wires[0] not in self.kept:
            self.waits[step.wires[0]] = self.waits[read[0]]
        own = self.waits.get(step.wires[0], 0)
        done: dict[int, Expr] = {}

        def moved(expr: Expr) -> Expr:
            if id(expr) not in done:
                done[id(expr)] = self._window(expr, own) if isinstance(expr, Window) else rebuilt(expr, moved)
            return done[id(expr)]

        unsigned = step.unsigned and replace(step.unsigned, expr=moved(step.unsigned.expr))
        return replace(
            step, exprs=tuple(map(moved, step.exprs)), facts=tuple(map(self.fact, step.facts)), unsigned=unsigned
        )

    def _window(self, window: Window, own: int) -> Window:
        """The same frames, for a reader that itself comes later."""
        x = self.plan.wires[window.wire]
        assert isinstance(x, Stream)
        wait = int(x.rate * self.waits.get(window.wire, 0))
        back, mask = window.back + (int(x.rate * own) - wait), window.mask
        if isinstance(mask, Mask):
            mask = replace(
                mask, delay=mask.delay + wait, reader=None if mask.reader is None else mask.reader + int(x.rate * own)
            )
        return replace(window, back=back, mask=mask)
