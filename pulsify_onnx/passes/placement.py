"""Where streams wait: what waits for a slower branch does so where the fewest bytes are remembered.

The delays of the outputs are the least ones. How much later wires come, and up to where they are read, are numbers with
least differences, and what is remembered is a weighted sum of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from pulsify_onnx.algebra.delay import Timing
from pulsify_onnx.algebra.facts import Deferred, Running, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.hidden import TimedMask
from pulsify_onnx.algebra.plan import Plan, Ref, Step, Window, leaves
from pulsify_onnx.passes.histories import Histories
from pulsify_onnx.passes.later import copies, later, shiftable
from pulsify_onnx.passes.liveness import outer_wires
from pulsify_onnx.passes.potentials import Difference, least_sum
from pulsify_onnx.passes.schedule import schedule

NODE = 32
"""Bytes that one more node must save: it is computed in every pulse."""

HISTORY, MASK = 2 * NODE, 4 * NODE
CLOCK = 8
"""Bytes of the state that a mask asks for."""

MOST_PARTS = 8
"""Parts of a network that are tried one by one where all of them together do not pay."""


def place(plan: Plan, timing: Timing) -> Plan:
    """`plan` at its least output delays, and what waits where that takes the least state."""
    least = schedule(plan, timing)
    if least.blockers or _fixed(plan):
        return least
    parts = list(_Places(plan, least).parts())
    if not parts:
        return least
    found = _placed(plan, least, parts)
    if _pays(found, least):
        return found
    best = least
    taken: list[dict[str, int]] = []
    for part in parts if 1 < len(parts) <= MOST_PARTS else ():
        found = _placed(plan, least, [*taken, part])
        if _pays(found, best):
            best, taken = found, [*taken, part]
    return best


def _placed(plan: Plan, least: Plan, parts: Iterable[Mapping[str, int]]) -> Plan:
    """`plan` with these parts of it later than in the `least` one."""
    waits = {wire: wait for part in parts for wire, wait in part.items()}
    assert least.timing is not None
    return replace(schedule(later(plan, least.wires.keys(), waits), least.timing, sooner=plan), waits=waits)


def _fixed(plan: Plan) -> bool:
    """Whether something asks a wire to be on time, or goes on with what a caller carries."""
    return bool(plan.options.states) or any(
        s.history or s.carries or any(need.test.late.terms for need in s.requires) for s in plan.steps
    )


def _pays(plan: Plan, than: Plan) -> bool:
    """Whether a plan is cheaper, and never larger."""
    (size, price), (before, price_before) = _costs(plan), _costs(than)
    return size <= before and size + price < before + price_before


def _costs(plan: Plan) -> tuple[int, int]:
    """Bytes of what is remembered for windows; and what these bytes must be weighed against, histories and masks."""
    bytes_of = _frame_bytes(plan)
    found = list(Histories(plan))
    masks = {
        (w.wire, w.mask, None if w.mask.arrival else (w.back, w.frames.extra))
        for step in plan.steps
        for w in leaves(step)
        if isinstance(w, Window) and isinstance(w.mask, TimedMask) and (w.mask.start or w.mask.end)
    }
    size = sum(bytes_of[h.wire] * h.frames for h in found) + CLOCK * bool(masks)
    return size, HISTORY * len(found) + MASK * len(masks)


def _frame_bytes(plan: Plan) -> dict[str, int]:
    """Bytes of a frame of every stream, for one row of a batch.

    Of what can be undone, those of what it is made from: this is remembered.
    """
    found: dict[str, int] = {}
    for wire, fact in plan.wires.items():
        if isinstance(fact, Stream):
            many = math.prod(d.constant or 1 for k, d in enumerate(fact.shape) if k != fact.axis)
            found[wire] = many * int(fact.dtype.numpy().itemsize)
    for step in plan.steps:
        for leaf in leaves(step) if step.undo is not None else ():
            if isinstance(leaf, Window) and step.wires[0] in found:
                found[step.wires[0]] = min(found[step.wires[0]], found[leaf.wire])
    return found


@dataclass(frozen=True)
class _Read:
    """`reader` reads a wire from `back` frames before the pulse; it could do so from `least` frames on."""

    reader: str
    wire: str
    back: int
    least: int


class _Places:
    """What may wait, in a plan that is at its least delays; steps are named by their first wires."""

    def __init__(self, plan: Plan, least: Plan):
        self.least = least
        self.streams = {wire: x for wire, x in least.wires.items() if isinstance(x, Stream) and not x.positional}
        self.made = {step.wires[0]: step.wires for step in least.steps if step.wires}
        self.maker = {wire: step for step, wires in self.made.items() for wire in wires}
        self.reads: list[_Read] = []
        self.held = set(_held(plan, least))
        unscheduled = {step.wires: step for step in plan.steps}
        for step in least.steps:
            self._read(step, unscheduled.get(step.wires))
        # pulses of whole chunks, where a node asks for these: what is in phase with them stays so
        self.chunk = 1 if plan.pulse_multiple == self.together(self.streams) else plan.pulse_multiple
        self.room = self._rooms()

    def _read(self, step: Step, unscheduled: Step | None) -> None:
        """The reads of a step; where it knows more than what it reads, it and that are held."""
        found = [leaf for leaf in leaves(step) if isinstance(leaf, Window)]
        windows = [w for w in found if w.wire in self.streams]
        changing = {leaf.wire for leaf in leaves(step) if isinstance(leaf, Ref) and not self._static(leaf.wire)}
        moves = (
            unscheduled is not None
            and shiftable(unscheduled)
            and not changing
            and self.streams.keys() >= set(step.wires)
        )
        moves = moves and not any(self.streams[w].merged for w in (*step.wires, *(w.wire for w in windows)))
        moves = moves and all(int(w.back) >= int(w.frames.extra) for w in windows)
        # what is computed where it is read is so for any frame, but for no part of one
        moves = moves and all(
            self.streams[step.wires[0]].rate.denominator % w.frames.rate.denominator == 0
            for w in found
            if w.wire not in self.streams
        )
        if not moves:
            self.held.update(step.wires, changing, (w.wire for w in windows))
        self.reads += [
            _Read(step.wires[0] if step.wires else "", w.wire, int(w.back), int(w.frames.extra)) for w in windows
        ]

    def _static(self, wire: str) -> bool:
        """Whether a tensor is the same in every pulse."""
        return isinstance(self.least.wires.get(wire, self.least.facts.get(wire)), (Static, ShapeTensor, type(None)))

    def together(self, wires: Iterable[str]) -> int:
        """The fewest base frames that are whole numbers of frames of all `wires`."""
        return math.lcm(*(self.streams[w].rate.denominator for w in wires))

    def _rooms(self) -> dict[str, int]:
        """Steps that may come later, and by how much at most, in parts of base frames."""
        part = math.lcm(*(x.rate.numerator for x in self.streams.values()))
        parts = {wire: part // x.rate.numerator * x.rate.denominator for wire, x in self.streams.items()}
        readers: dict[str, list[_Read]] = {}
        for read in self.reads:
            readers.setdefault(read.wire, []).append(read)
        rooms: dict[str, int] = {}
        for step, wires in reversed(self.made.items()):
            found = [rooms.get(r.reader, 0) + (r.back - r.least) * parts[w] for w in wires for r in readers.get(w, ())]
            if found and min(found) > 0 and not self.held & set(wires):
                rooms[step] = min(found)
        return rooms

    def parts(self) -> Iterator[dict[str, int]]:
        """For every part of the network that pays, by how many base frames its wires come later."""
        if not self.room:
            return
        size = _frame_bytes(self.least)
        longest: dict[str, int] = {}
        for history in Histories(self.least):
            longest[history.wire] = max(longest.get(history.wire, 0), history.frames)
        for reads in self._regions():
            region = _Region(self, reads, size, longest)
            waits = region.solved()
            if any(waits.values()) and region.cost(waits) < region.cost({}):
                yield {wire: wait for step, wait in waits.items() if wait for wire in self.made[step]}

    def _regions(self) -> list[list[_Read]]:
        """The reads that may move, together with all others of their wires, and apart where nothing moves both."""
        moving = {r.wire for r in self.reads if r.reader in self.room or self.maker.get(r.wire) in self.room}
        reads = [r for r in self.reads if r.wire in moving]
        root = {r.wire: r.wire for r in reads}

        def of(wire: str) -> str:
            while root[wire] != wire:
                root[wire] = root[root[wire]]
                wire = root[wire]
            return wire

        first: dict[str, str] = {}
        for r in reads:
            for step in (r.reader, self.maker.get(r.wire, "")):
                if step in self.room:
                    root[of(first.setdefault(step, r.wire))] = of(r.wire)
        regions: dict[str, list[_Read]] = {}
        for r in reads:
            regions.setdefault(of(r.wire), []).append(r)
        return list(regions.values())


class _Region:
    """Steps that move each other, and all that they remember or could."""

    def __init__(self, places: _Places, reads: list[_Read], size: Mapping[str, int], longest: Mapping[str, int]):
        self.places, self.reads, self.size = places, reads, size
        self.steps = [
            s for s in dict.fromkeys(s for r in reads for s in (self._maker(r.wire), r.reader)) if s in places.room
        ]
        self.wires = list(dict.fromkeys(r.wire for r in reads))
        self.tick = math.lcm(
            places.chunk, places.together([*self.wires, *(w for s in self.steps for w in places.made[s])])
        )
        self.backs: dict[str, int] = {}
        for r in reads:
            self.backs[r.wire] = max(self.backs.get(r.wire, 0), r.back)
        # a longer history is that of pairs of frames, which are evaluated elsewhere
        self.kept = {w: longest.get(w, 0) if longest.get(w, 0) > self.backs[w] else 0 for w in self.wires}

    def _maker(self, wire: str) -> str:
        return self.places.maker.get(wire, "")

    def _rate(self, wire: str) -> Fraction:
        return self.places.streams[wire].rate

    def cost(self, waits: Mapping[str, int]) -> int:
        """What is remembered where steps come so many base frames later, in bytes."""
        longest = dict(self.kept)
        for r in self.reads:
            rate, more = self._rate(r.wire), waits.get(r.reader, 0) - waits.get(self._maker(r.wire), 0)
            longest[r.wire] = max(longest[r.wire], r.back + more * rate.numerator // rate.denominator)
        return sum(frames * self.size[w] + HISTORY * (frames > 0) for w, frames in longest.items())

    def solved(self) -> dict[str, int]:
        """By how many base frames steps come later where the least is remembered; of places that are as good, the
        earliest.
        """
        number = {step: k for k, step in enumerate(self.steps, 1)}  # 0 is everything that does not move
        last = {wire: k for k, wire in enumerate(self.wires, 1 + len(self.steps))}  # up to where it is read
        many = 1 + sum(self.places.room[step] for step in self.steps)
        weights = [0] + [1] * len(number) + [0] * len(last)
        start = [0] * len(weights)
        differences: list[Difference] = [(0, k, 0) for k in number.values()]
        for wire, k in last.items():
            maker = number.get(self._maker(wire), 0)
            price = int(self.size[wire] * self._rate(wire) * self.tick) * many
            weights[k] += price
            weights[maker] -= price
            start[k] = self._ticks(max(self.kept[wire], self.backs[wire]), wire)
            differences += [(maker, k, 0), (0, k, self._ticks(self.kept[wire], wire))]
        for r in self.reads:
            reader, maker = number.get(r.reader, 0), number.get(self._maker(r.wire), 0)
            differences += [
                (reader, last[r.wire], self._ticks(r.back, r.wire)),
                (maker, reader, self._ticks(r.least - r.back, r.wire)),
            ]
        found = least_sum(weights, [d for d in differences if d[0] != d[1]], start)
        return {step: found[k] * self.tick for step, k in number.items()}

    def _ticks(self, frames: int, wire: str) -> int:
        """So many frames in what all waits are multiples of, rounded up."""
        rate = self._rate(wire)
        return -(-frames * rate.denominator // (rate.numerator * self.tick))


def _held(plan: Plan, least: Plan) -> Iterator[str]:
    """Wires that stay: what enters and leaves the graph, and what is read otherwise than by the windows of steps."""
    yield from (least.facts[name].wire for name in (*plan.inputs, *plan.outputs))
    for fact in least.facts.values():
        if isinstance(fact, Deferred):
            yield from (x.wire for x in (fact.x, fact.values) if x is not None)
        if isinstance(fact, Running):
            yield from (known[0].wire for known in (fact.mean, fact.maximum) if known is not None)
    for step in plan.steps:
        if not set(step.wires) <= least.wires.keys() and not copies(step):
            yield from (leaf.wire for leaf in leaves(step) if isinstance(leaf, Window))
        yield from outer_wires(step, plan)
