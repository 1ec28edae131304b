"""Where the delay of an output comes from: the chain of nodes on its critical path, with what each adds.

Delays are compared in base frames, so that the numbers of a chain add up to the delay of the output. A wire that waits
for others where that takes the least state counts as if it came as early as it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Fact, QueryKey, Stream
from pulsify_onnx.algebra.plan import Plan, Window, leaves
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.subgraphs import outer_names, subgraphs
from pulsify_onnx.rules.kit.traits import Trait, has


@dataclass(frozen=True)
class Link:
    """``node`` adds ``frames`` base frames of delay (negative: it takes some back) on the way to the output."""

    node: str
    op_type: str
    frames: Fraction


def chain(plan: Plan, source: Source, output: str) -> tuple[Link, ...]:
    """The nodes between input and `output` that change the delay, input first; they sum up to the output's delay."""
    return _Walk(plan, source).chain(output)


class _Walk:
    def __init__(self, plan: Plan, source: Source):
        self.plan = plan
        self.made: dict[str, ir.Node] = {}
        self._collect(source.model.graph)
        self.steps = {step.wires[k]: step for step in plan.steps for k in range(len(step.wires))}

    def _collect(self, graph: ir.Graph) -> None:
        for node in graph:
            self.made.update((out.name, node) for out in node.outputs if out.name)
            for inner in subgraphs(node.attributes.values()):
                self._collect(inner)

    def chain(self, output: str) -> tuple[Link, ...]:
        links = []
        name: str | None = output
        while name is not None:
            fact, node = self.plan.facts[name], self.made.get(name)
            before = self._critical(name, fact, node)
            added = self._delay(fact) - (self._delay(self.plan.facts[before]) if before is not None else 0)
            if added:
                links.append(
                    Link(node.name or name, node.op_type, added) if node is not None else Link(name, "input", added)
                )
            name = before
        return tuple(reversed(links))

    def _critical(self, name: str, fact: Fact, node: ir.Node | None) -> str | None:
        """The input of `node` that makes its output wait."""
        if node is None:
            return None
        if has(node, Trait.BRANCHES):
            return next((inner for inner in self._branches(node, name) if inner in self.plan.facts), None)
        reads = list(
            dict.fromkeys(
                n for n in self._reads(node) if isinstance(self.plan.facts.get(n), (Stream, QueryKey)) and n != name
            )
        )
        backs = self._backs(fact)

        def spare(read: str) -> tuple[int, Fraction]:
            wire = self.plan.facts[read].wire
            return backs.get(
                wire, min((b for w, b in backs.items() if w.startswith(wire + "#")), default=0)
            ), -self._delay(self.plan.facts[read])

        return min(reads, key=spare, default=None)

    def _reads(self, node: ir.Node) -> Iterator[str]:
        yield from (v.name for v in node.inputs if v is not None and v.name)
        for inner in subgraphs(node.attributes.values()):
            yield from sorted(outer_names(inner))

    def _branches(self, node: ir.Node, name: str) -> Iterator[str]:
        index = [out.name for out in node.outputs].index(name)
        for inner in subgraphs(node.attributes.values()):
            yield inner.outputs[index].name or ""

    def _backs(self, fact: Fact) -> dict[str, int]:
        """How far back the step of a wire reads each stream: the one it reads latest is the one it waits for."""
        step = self.steps.get(fact.wire)
        backs: dict[str, int] = {}
        for leaf in leaves(step) if step is not None else ():
            if isinstance(leaf, Window):
                waited = self.plan.waits.get(fact.wire, 0) - self.plan.waits.get(leaf.wire, 0)
                back = int(leaf.back) - int(leaf.frames.rate * waited)
                backs[leaf.wire] = min(back, backs.get(leaf.wire, back))
        return backs

    def _delay(self, fact: Fact) -> Fraction:
        """The least delay in base frames."""
        if isinstance(fact, Stream):
            return Fraction(int(fact.delay)) / fact.rate - self.plan.waits.get(fact.wire, 0)
        if isinstance(fact, QueryKey):
            return Fraction(max(map(int, fact.delays))) / fact.rate
        return Fraction(0)
