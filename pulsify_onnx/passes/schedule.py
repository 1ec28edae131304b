"""When everything happens: the least delay of every wire, for a pulse and for streams that end or go on for ever.

The plan of the analysis says which frames a result reads. Here its unknowns get their least values, what depends on
them is decided, and every window, mask and position becomes one of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeVar, cast

import numpy as np

from pulsify_onnx.algebra.delay import Delay, DelayLike, Solution, Timing
from pulsify_onnx.algebra.facts import (
    Deferred,
    Fact,
    Mirror,
    PaddingFrames,
    QueryKey,
    RelativeScores,
    Running,
    Stream,
    Wait,
)
from pulsify_onnx.algebra.hidden import Mask, TimedMask
from pulsify_onnx.algebra.periods import long_streams, run_ahead
from pulsify_onnx.algebra.plan import (
    Dims,
    Expr,
    Frames,
    Merged,
    Number,
    Plan,
    Position,
    QueryKeyRead,
    Start,
    Step,
    Test,
    Unsigned,
    When,
    Window,
    rebuilt,
)
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker
from pulsify_onnx.passes.merged_time import set_apart
from pulsify_onnx.passes.unread import first_of, first_read

Kind = TypeVar("Kind", bound=Fact)


def schedule(plan: Plan, timing: Timing, sooner: Plan | None = None) -> Plan:
    """`plan` at its least delays; what can't be so timed is among its blockers.

    `sooner`: what it was before some of its wires were made to come later. Its unknowns have the values that they have
    there.
    """
    first = first_read(sooner or plan)
    at = _Schedule(timing, Solution(timing, first_of(sooner or plan, first)), plan.least)
    steps = tuple(map(at.step, plan.steps))
    steps, renamed = _without_copies(steps)
    named = _Renamed(renamed)
    facts = {name: named.fact(at.fact(fact)) for name, fact in plan.facts.items()}
    wires = {name: at.fact(fact) for name, fact in plan.wires.items() if name not in renamed}
    blockers = tuple(dict.fromkeys([*plan.blockers, *at.blockers(plan)]))
    unread = {wire: index for wire, index in first.items() if index > 0 and wire in wires}
    return set_apart(
        replace(
            plan,
            facts=facts,
            wires=wires,
            steps=tuple(map(named.step, steps)),
            blockers=blockers,
            timing=timing,
            unread=unread,
        )
    )


@dataclass
class _Schedule:
    timing: Timing
    value: Solution
    least: int = 1
    """Base frames from which on something is promised."""
    _facts: dict[int, tuple[Fact, Fact]] = field(default_factory=dict)
    """What facts have become, by the identity of what they were."""

    def holds(self, test: Test) -> bool:
        """Whether a test does."""
        return test.always or (test.ends and self.timing.end_of_stream) or self.value(test.late) > 0

    def blockers(self, plan: Plan) -> list[Blocker]:
        """What steps require and do not have."""
        found = []
        for step in plan.steps:
            for need in step.requires:
                if self.holds(need.test):
                    blame = need.blame or Blocker(step.node, step.op_type, need.reason, need.hint)
                    found.append(replace(blame, reason=need.reason.format(self.value(need.test.late))))
        return found

    def step(self, step: Step) -> Step:
        """A step whose expressions have numbers."""
        done: dict[int, Expr] = {}

        def timed(expr: Expr) -> Expr:
            if id(expr) not in done:
                done[id(expr)] = self._expr(expr, timed)
            return done[id(expr)]

        states = tuple(
            replace(s, next=timed(s.next), test=None) for s in step.states if s.test is None or self.holds(s.test)
        )
        unsigned = step.unsigned and Unsigned(
            timed(step.unsigned.expr), step.unsigned.undo and timed(step.unsigned.undo)
        )
        return replace(
            step,
            exprs=tuple(map(timed, step.exprs)),
            facts=tuple(map(self.fact, step.facts)),
            states=states,
            undo=step.undo and timed(step.undo),
            unsigned=unsigned,
            requires=(),
        )

    def _expr(self, expr: Expr, timed: Callable[[Expr], Expr]) -> Expr:
        if isinstance(expr, When):
            return timed(expr.yes if self.holds(expr.test) else expr.no)
        if isinstance(expr, Window):
            back = self.value(expr.back)
            mask = self.mask(expr.mask, back) if isinstance(expr.mask, Mask) else expr.mask
            frames = self.frames(expr.frames)
            same = back == expr.back and frames is expr.frames and mask is expr.mask
            return expr if same else replace(expr, back=back, frames=frames, mask=mask)
        if isinstance(expr, QueryKeyRead):
            (a, b), (c, d) = expr.a, expr.b
            return replace(expr, a=(self.value(a), self.value(b)), b=(self.value(c), self.value(d)))
        if isinstance(expr, Position):
            return replace(expr, delay=self.value(expr.delay), extra=self.value(expr.extra))
        if isinstance(expr, Start):
            return replace(expr, delay=self.value(expr.delay))
        if isinstance(expr, Number):
            return Const(np.asarray([self.value(expr.value)], np.int64))
        if isinstance(expr, Dims):
            return Dims(
                tuple(
                    self.frames(d)
                    if isinstance(d, Frames)
                    else replace(d, frames=self.frames(d.frames))
                    if isinstance(d, Merged)
                    else d
                    for d in expr.dims
                )
            )
        return rebuilt(expr, timed)

    def frames(self, frames: Frames) -> Frames:
        """A number of frames more than a pulse."""
        return frames if isinstance(frames.extra, int) else replace(frames, extra=self.value(frames.extra))

    def mask(self, mask: Mask, back: int) -> TimedMask | None:
        """Where a mask tests positions at all, and where it stands."""
        delay, border = self.value(mask.delay), mask.border
        low, high = mask.first + delay, mask.end + delay
        zeros = isinstance(border, Const) and not border.array.any()
        reader = None if mask.reader is None else self.value(mask.reader)
        nothing = (
            (low if reader is None else mask.first + reader) > 0
            or mask.computed
            or (not zeros and not mask.sealed)
            or isinstance(border, (Mirror, PaddingFrames))
        )
        start = mask.before and (nothing or (mask.guard and back > 0))
        end = (
            mask.after
            and self.timing.end_of_stream
            and (reader is None or run_ahead(mask.end, mask.rate, self.timing.step) <= reader)
        )
        if not start and not end:
            return None
        arrival = zeros and not mask.sealed and (not end or run_ahead(mask.end, mask.rate, self.timing.step) <= delay)
        within = None if mask.infinite is None else (delay, mask.infinite + delay)
        return TimedMask(low, high, border, start, end, arrival, mask.reach if end else 0, within)

    def fact(self, fact: Kind) -> Kind:
        """A fact with numbers."""
        if id(fact) not in self._facts:
            self._facts[id(fact)] = fact, self._timed(fact)
        return cast(Kind, self._facts[id(fact)][1])

    def _timed(self, fact: Fact) -> Fact:
        if isinstance(fact, (Stream, RelativeScores)):
            return replace(fact, delay=self.delay(fact.delay)) if fact.delay.terms else fact
        if isinstance(fact, QueryKey):
            return replace(fact, delays=(self.delay(fact.delays[0]), self.delay(fact.delays[1])))
        if isinstance(fact, Running):
            waits = tuple(replace(w, delay=self.delay(w.delay)) for w in fact.waits)
            return replace(fact, waits=waits, exact=all(map(self.complete, waits)))
        if isinstance(fact, Deferred):
            return replace(fact, x=self.fact(fact.x), values=None if fact.values is None else self.fact(fact.values))
        return fact

    def delay(self, delay: DelayLike) -> Delay:
        """A delay that is known."""
        return Delay.of(self.value(delay))

    def complete(self, wait: Wait) -> bool:
        """Whether after every pulse all frames that the batch model would have are there."""
        step, extent, rate = self.timing.step, wait.extent, wait.rate
        if extent.constant is not None:
            first = math.ceil(min(Fraction(self.least), extent.constant / rate) / step) * step
            return math.floor(rate * first) - wait.delay.known >= extent.constant
        times = [(n, extent.at(n)) for n in long_streams(extent, rate.denominator, step=step, periods=4)]
        return all(
            math.floor(rate * n) - wait.delay.known == count and (count - 1) / rate + wait.ending < n
            for n, count in times
        )


def _without_copies(steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], dict[str, str]]:
    """Steps that do more than to repeat a wire, and what wire the others repeat."""
    renamed: dict[str, str] = {}
    kept = []
    for step in steps:
        wire = _copied(step)
        if wire:
            renamed[step.wires[0]] = renamed.get(wire, wire)
        elif step.wires or step.states:
            kept.append(step)
    return tuple(kept), renamed


def _copied(step: Step) -> str:
    """The wire that a step only repeats; empty where it does more."""
    if len(step.wires) != 1 or "#" not in step.wires[0] or step.history:
        return ""
    (expr,), (fact,) = step.exprs, step.facts
    if (
        not isinstance(expr, Window)
        or not isinstance(fact, Stream)
        or expr.mask is not None
        or expr.back
        or expr.frames != Frames(fact.rate)
    ):
        return ""
    return expr.wire


@dataclass(frozen=True)
class _Renamed:
    """Steps and facts that name the wire itself in place of what repeats it."""

    wires: dict[str, str]

    def fact(self, fact: Kind) -> Kind:
        """The fact of a tensor of the source."""
        return replace(fact, wire=self.wires[fact.wire]) if fact.wire in self.wires else fact

    def step(self, step: Step) -> Step:
        """A step that reads no copies."""
        if not self.wires:
            return step
        done: dict[int, Expr] = {}

        def named(expr: Expr) -> Expr:
            if id(expr) not in done:
                done[id(expr)] = self._expr(expr, named)
            return done[id(expr)]

        states = tuple(replace(s, next=named(s.next)) for s in step.states)
        return replace(step, exprs=tuple(map(named, step.exprs)), states=states)

    def _expr(self, expr: Expr, named: Callable[[Expr], Expr]) -> Expr:
        return (
            replace(expr, wire=self.wires[expr.wire])
            if isinstance(expr, Window) and expr.wire in self.wires
            else rebuilt(expr, named)
        )
