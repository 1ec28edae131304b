"""First frames that nobody reads, because they are cropped: a wire need not have come in time for them.

Only the start of a stream is asked about: there frames that are mirrored, or padding made of real frames, come late and
no others do.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from pulsify_onnx.algebra.bounds import SeenInwards
from pulsify_onnx.algebra.delay import AtLeast, Delay, Time
from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.hidden import Mask
from pulsify_onnx.algebra.plan import Plan, QueryKeyRead, Ref, Step, Window, leaves
from pulsify_onnx.passes.liveness import outer_wires

ALL = -(10**9)
"""As the first frame that is read: every one may be."""


def first_read(plan: Plan) -> dict[str, int]:
    """By wire that flows, the index of the first frame that is read of it, or `ALL`; wires that nobody reads are
    left out.
    """
    reads = _Reads(plan)
    for name in plan.outputs:
        reads.output(name)
    for step in reversed(plan.steps):
        reads.step(step)
    return reads.first


def first_of(plan: Plan, first: dict[str, int]) -> dict[Time, int]:
    """By unknown, the first frame that is read of the wire that comes so late (of several wires, the first of any),
    where that is not 0.
    """
    found: dict[Time, int] = {}

    def note(delay: Delay, index: int) -> None:
        for unknown, factor in delay.terms:
            value = (index + delay.constant) // factor if index > ALL and len(delay.terms) == 1 and factor > 0 else ALL
            found[unknown] = min(found.get(unknown, value), value)

    for wire, index in first.items():
        fact = plan.wires.get(wire)
        if isinstance(fact, Stream):
            note(fact.delay, index)
    for unknown in _newest_first(found):
        index = found.get(unknown, ALL)
        for bound in unknown.bounds:  # streams that a rule aligned first, and delayed then, are no wires
            if isinstance(bound, AtLeast):
                note(bound.delay, index * bound.stride if index > ALL else ALL)
            elif not isinstance(bound, SeenInwards):
                for delay in bound.delays():
                    note(delay, ALL)
    return {unknown: index for unknown, index in found.items() if index > 0}


def _newest_first(unknowns: Iterable[Time]) -> list[Time]:
    """`unknowns` and those that they follow from, each before those that it follows from."""
    seen, todo = set(unknowns), list(unknowns)
    while todo:
        for bound in todo.pop().bounds:
            for delay in bound.delays():
                new = {t for t, _ in delay.terms} - seen
                seen |= new
                todo += new
    return sorted(seen, key=lambda t: t.serial, reverse=True)


class _Reads:
    """What is read of every wire, found from the outputs on."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.first: dict[str, int] = {}

    def need(self, wire: str, index: int = ALL) -> None:
        """Frame `index` of a wire is read, and no earlier one by this reader."""
        self.first[wire] = min(self.first.get(wire, index), index)

    def output(self, name: str) -> None:
        """An output, all of whose frames are."""
        fact = self.plan.facts[name]
        carrier = self.plan.wires.get(fact.wire)
        shift = fact.delay - carrier.delay if isinstance(fact, Stream) and isinstance(carrier, Stream) else None
        self.need(fact.wire, ALL if shift is None or shift.terms else shift.constant)

    def step(self, step: Step) -> None:
        """A step whose readers are known: what it reads itself."""
        if not step.states and not step.carries and not any(w in self.first for w in step.wires):
            return
        whole = (
            step.states or step.carries or step.history or any(isinstance(leaf, QueryKeyRead) for leaf in leaves(step))
        )
        for wire in step.wires if whole else ():
            self.need(wire)
        for name in outer_wires(step, self.plan):
            self.need(name)
        y = step.facts[0] if len(set(map(_time, step.facts))) == 1 and not whole else None
        index = min((self.first[w] for w in step.wires if w in self.first), default=ALL)
        for leaf in leaves(step):
            if isinstance(leaf, (Ref, QueryKeyRead)):
                self.need(leaf.wire)
            elif isinstance(leaf, Window):
                x = self.plan.wires[leaf.wire]
                self.need(
                    leaf.wire,
                    _earliest(leaf, x, y, index)
                    if isinstance(x, Stream) and isinstance(y, Stream) and index > ALL
                    else ALL,
                )


def _time(fact: object) -> tuple[Delay, Fraction] | None:
    return (fact.delay, fact.rate) if isinstance(fact, Stream) else None


def _earliest(window: Window, x: Stream, y: Stream, index: int) -> int:
    """The first frame of `x` that frame `index` of `y` and later ones read."""
    back = Delay.of(window.back)
    stride, factor = x.rate / y.rate, y.rate / x.rate
    if window.role:
        return ALL
    if stride.denominator == 1:
        shift = y.delay * int(stride) - back - x.delay
        found = int(stride) * index + shift.constant
    elif factor.denominator == 1:
        shift = y.delay - (back + x.delay) * int(factor)
        found = (index + shift.constant) // int(factor)
    else:
        return ALL
    if shift.terms:
        return ALL
    if isinstance(window.mask, Mask) and window.mask.before:
        low = window.mask.delay + window.mask.first - x.delay
        found = found if low.terms else max(found, low.constant)
    return found
