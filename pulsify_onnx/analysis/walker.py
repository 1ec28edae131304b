"""The walker: seeds the stream axis, reads nodes in topological order, attaches them to refusals.

Pure and total: nothing is built here, every node gets a fact, and every root cause of a refusal is reported.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.cached import with_data
from pulsify_onnx.algebra.facts import (
    Blocked,
    Deferred,
    Fact,
    Nothing,
    QueryKey,
    RelativeScores,
    Shape,
    ShapeTensor,
    Static,
    Stream,
)
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.multiples import base_frames, promised
from pulsify_onnx.algebra.ordering import assuming
from pulsify_onnx.algebra.padding import as_output
from pulsify_onnx.algebra.plan import Options, Outcome, Plan, Requirement, Step
from pulsify_onnx.algebra.windows import RateMismatch
from pulsify_onnx.analysis import source_states
from pulsify_onnx.analysis.branches import branches
from pulsify_onnx.analysis.readings import READINGS, Reading, apply_readings
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import Blocker, CannotStream, Refusal, refuse, unexpected
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.schema import since_version
from pulsify_onnx.model.subgraphs import outer_names, subgraphs
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.outputs import unfit_output


def analyze(
    source: Source,
    axes: Mapping[str, int],
    options: Options,
    shapes: Mapping[str, Shape] | None = None,
    readings: tuple[Reading, ...] = READINGS,
) -> Plan:
    """The plan of a model whose stream inputs run along `axes`; refusals are in its ``blockers``.

    Inputs are taken to have `shapes`, where these are given, instead of those that they declare. `readings`: in what
    ways nodes may be understood.

    Rates of the inputs come from the graph: where two streams meet at different rates, their inputs run at these
    rates, and the analysis starts again with that knowledge.
    """
    rates = {name: Fraction(1) for name in axes}
    settled: set[frozenset[str]] = set()
    while True:
        low = min(rates.values(), default=Fraction(1))
        walker = Walker(
            source, axes, {name: rate / low for name, rate in rates.items()}, options, settled, readings, shapes or {}
        )
        try:
            with assuming() as found:
                plan = walker.plan()
            return replace(plan, least=found.least)
        except RateMismatch as meeting:
            walker.settle_rates(meeting, rates)


class Visitor(Protocol):
    """Is shown every node of the main graph before it is read, and may rewrite it then, and after. A `Refusal` of
    its is the node's.
    """

    def before(self, raw: ir.Node, node: Node) -> None:
        """`raw` is about to be read as `node`."""

    def after(self, raw: ir.Node, node: Node) -> None:
        """`raw` was read as `node`, and its results are known."""


@dataclass
class Walker:
    """One walk over the graph; `plan` gives what it found. ``readings``: in what ways nodes may be understood."""

    source: Source
    axes: Mapping[str, int]
    rates: Mapping[str, Fraction]
    options: Options
    settled: set[frozenset[str]]
    readings: tuple[Reading, ...] = READINGS
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    wires: dict[str, Fact] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)
    values: dict[str, Const] = field(default_factory=dict)
    groups: dict[str, set[str]] = field(default_factory=dict)
    producers: dict[str, Step] = field(default_factory=dict)
    multiple: int = 1
    length_multiple: int = 1
    order: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readings = (branches(self._branch, self._settle), *self.readings)

    def plan(self, visitor: Visitor | None = None) -> Plan:
        """The facts of every wire, and the steps that make them."""
        graph = self.source.model.graph
        for value in self.source.inputs:
            self._input(value)
        for name, value in graph.initializers.items():
            self.learn(name, value)
        for raw in graph:
            if visitor is None:
                self.visit(raw)
            else:
                self._visit_shown(raw, visitor)
        self._outputs()
        for blocker in source_states.check_states(
            self.options.states, self.facts, self.steps, self, [v.name or "" for v in graph.outputs]
        ):
            self._blame(blocker)
        multiple = math.lcm(self.multiple, *(f.rate.denominator for f in self.wires.values() if isinstance(f, Stream)))
        blockers = sorted(self.blockers, key=lambda b: self.order.get(b.node, len(self.order)))
        return Plan(
            tuple(v.name or "" for v in self.source.inputs),
            tuple(v.name or "" for v in graph.outputs),
            self.facts,
            self.wires,
            tuple(self.steps),
            tuple(blockers),
            multiple,
            self.options,
            length_multiple=self.length_multiple,
        )

    def visit(self, raw: ir.Node) -> None:
        """Read a node: its results get facts, also where it is refused."""
        node = self.node(raw)
        self.order.setdefault(node.name, len(self.order))
        try:
            self._settle(apply_readings(node, self.readings), node)
        except RateMismatch as meeting:
            a, b = meeting.a.source, meeting.b.source
            if frozenset((a, b)) not in self.settled and a and b and b not in self.groups.get(a, ()):
                raise
            self._refused(node, meeting)
        except Refusal as refusal:
            self._refused(node, refusal)
        except Exception as problem:  # a node that is not as its schema says
            self._refused(node, unexpected(problem))

    def _visit_shown(self, raw: ir.Node, visitor: Visitor) -> None:
        node = self.node(raw)
        try:
            visitor.before(raw, node)
            self.visit(raw)
            visitor.after(raw, self.node(raw))
        except Refusal as refusal:
            self._refused(node, refusal)

    def settle_rates(self, meeting: RateMismatch, rates: dict[str, Fraction]) -> None:
        """Take down in `rates` what two streams that met say of those of their inputs."""
        self.settled.add(frozenset((meeting.a.source, meeting.b.source)))
        for name in self.groups[meeting.b.source]:
            rates[name] *= meeting.a.rate / meeting.b.rate

    def _input(self, value: ir.Value) -> None:
        name = value.name or ""
        if value.shape is None or value.dtype is None:
            self._block(name, "input", Refusal("its shape is not known", hint="export it with a shape"))
            self.facts[name] = Blocked(name, name)
            return
        shape: list[Length] = []
        for k, d in enumerate(value.shape):
            if isinstance(d, int):
                shape.append(Length.of(d))
            else:
                label = f"{d.value}" if d.value else f"{name}.{k}"
                shape.append(Length.symbol(f"{label}_" if label == TIME else label))
        shape = list(self.shapes.get(name, shape))
        if name in self.axes:
            rate = self.rates[name]
            shape[self.axes[name]] = Length.symbol(TIME) * rate
            self.facts[name] = Stream(name, value.dtype, tuple(shape), self.axes[name], rate, source=name)
            self.groups[name] = {name}
        else:
            self.facts[name] = Static(name, value.dtype, tuple(shape), own=name in dict(self.options.states))
        self.wires[name] = self.facts[name]

    def learn(self, name: str, value: ir.Value) -> None:
        """An initializer."""
        tensor = value.const_value
        if tensor is None:
            return
        small = tensor.size <= evaluate.FOLDED_ELEMENTS and tensor.dtype != ir.DataType.STRING
        const = Const(np.asarray(tensor.numpy())) if small else None
        self.facts[name] = Static(name, tensor.dtype, tuple(Length.of(d) for d in tensor.shape.numpy()), const)
        self.wires[name] = self.facts[name]

    def node(self, node: ir.Node) -> Node:
        """A node with what is known of its inputs."""
        facts = tuple(None if v is None or not v.name else self.facts.get(v.name) for v in node.inputs)
        domain = "" if node.domain == "ai.onnx" else node.domain
        opset = self.source.opset if domain == "" else self.source.model.opset_imports.get(domain, 1)
        since = since_version(node.op_type, opset, domain) or 1
        return Node(
            node.name or "",
            node.op_type,
            domain,
            since,
            opset,
            tuple(None if v is None else v.name for v in node.inputs),
            tuple(v.name or "" for v in node.outputs),
            node.attributes,
            facts,
            self.options,
            self,
            self._captured(node),
        )

    def _refused(self, node: Node, refusal: Refusal) -> None:
        streams = (f.wire for f in (*node.facts, *node.outer.values()) if isinstance(f, Stream))
        blame = refusal.blame or Blocker(node.name, node.op_type, refusal.reason, refusal.hint, next(streams, ""))
        self._blame(blame)
        self._settle(Outcome(tuple(Blocked(o, blame.node) for o in node.outputs)), node)

    def _blame(self, blocker: Blocker) -> None:
        if blocker not in self.blockers:
            self.blockers.append(blocker)

    def _block(self, name: str, op_type: str, refusal: Refusal) -> None:
        self.blockers.append(Blocker(name, op_type, refusal.reason, refusal.hint))

    def _branch(self, graph: ir.Graph) -> list[Fact]:
        """Visit the nodes of a branch; the facts of its outputs."""
        for inner in graph:
            self.visit(inner)
        return [self.facts[v.name or ""] for v in graph.outputs]

    def _captured(self, node: ir.Node) -> dict[str, Fact]:
        """Outer values that a node's subgraphs read."""
        found: set[str] = set()
        for graph in subgraphs(node.attributes.values()):
            found |= outer_names(graph)
        return {name: self.facts[name] for name in sorted(found) if name in self.facts}

    @property
    def opset(self) -> int:
        """The opset of ai.onnx."""
        return self.source.opset

    @property
    def symbols(self) -> frozenset[str]:
        """Names of the lengths that the sizes of the graph's inputs are made of."""
        facts = (self.facts[v.name or ""] for v in self.source.inputs)
        return frozenset(
            {TIME}.union(*(d.symbols() for f in facts if isinstance(f, (Static, Stream)) for d in f.shape))
        )

    @property
    def promised_multiple(self) -> int:
        """What the base frames of the stream are a multiple of, as the names of the inputs' dimensions say."""
        found = 1
        for value in self.source.inputs:
            axis = self.axes.get(value.name or "")
            label = None if axis is None or value.shape is None else value.shape[axis]
            if isinstance(label, ir.SymbolicDim):
                found = math.lcm(found, base_frames(promised(label.value), self.rates[value.name or ""]))
        return found

    def fact_of(self, wire: str) -> Fact | None:
        """The fact of a tensor that flows."""
        return self.wires.get(wire)

    def step_of(self, wire: str) -> Step | None:
        """The step that computes it."""
        return self.producers.get(wire)

    def value_of(self, wire: str) -> Const | None:
        """Its value, where it is a constant."""
        fact = self.facts.get(wire)
        if isinstance(fact, Static) and fact.value is not None:
            return fact.value
        if wire not in self.values:
            array = self.source.constant(wire)
            if array is None:
                return None
            self.values[wire] = Const(array)
        return self.values[wire]

    def weights_of(self, wire: str) -> Array | None:
        """Its value, where it is a constant that no step computes: weights are not copied."""
        fact = self.facts.get(wire)
        if wire in self.producers or not isinstance(fact, Static):
            return None
        return fact.value.array if fact.value is not None else self.source.constant(wire)

    def declared_rank(self, wire: str) -> int | None:
        """How many dimensions it has as an output of the graph, where that says so."""
        shapes = (v.shape for v in self.source.model.graph.outputs if v.name == wire)
        return next((len(shape) for shape in shapes if shape is not None), None)

    def within(self, graph: ir.Graph, inputs: Mapping[str, Fact]) -> tuple[list[Fact], list[Step]]:
        """Facts of the outputs of a subgraph on `inputs`, and the steps that make them. Raises `Refusal` where its
        nodes can't stream.
        """
        inner = replace(
            self,
            facts={**self.facts, **inputs},
            wires={**self.wires, **inputs},
            steps=[],
            blockers=[],
            groups=defaultdict(set),
            producers=dict(self.producers),
            order={},
            multiple=1,
            readings=self.readings[1:],
        )
        for name, value in graph.initializers.items():
            inner.learn(name, value)
        found = inner._branch(graph)
        self.length_multiple = math.lcm(self.length_multiple, inner.length_multiple)
        if inner.blockers:
            refuse(inner.blockers[0].reason, hint=inner.blockers[0].hint)
        return found, inner.steps

    def _settle(self, outcome: Outcome, node: Node) -> None:
        """Take down what a node has become."""
        for step in outcome.steps:
            if step.requires:
                step = replace(step, requires=tuple(replace(r, blame=_blamed(node, r)) for r in step.requires))
            if any(w in self.wires for w in step.wires):
                continue  # a help step that another reader of the same wire has asked for already
            self.steps.append(step)
            self.wires.update(zip(step.wires, step.facts))
            self.producers.update(dict.fromkeys(step.wires, step))
        self.multiple = math.lcm(self.multiple, outcome.pulse_multiple)
        self.length_multiple = math.lcm(self.length_multiple, outcome.length_multiple)
        sources = [f.source for f in node.facts if isinstance(f, (Stream, QueryKey, RelativeScores)) and f.source]
        for source in sources[1:]:
            self.groups[sources[0]] |= self.groups[source]
            for name in self.groups[sources[0]]:
                self.groups[name] = self.groups[sources[0]]
        for wire, fact in zip(node.outputs, outcome.facts):
            if wire:
                if isinstance(fact, (Static, ShapeTensor)) and fact.wire == wire:
                    self.wires.setdefault(wire, fact)
                self.facts[wire] = fact

    def _outputs(self) -> None:
        """Every stream as it leaves the graph."""
        for value in self.source.model.graph.outputs:
            name = value.name or ""
            fact = self.facts.get(name)
            unfit = unfit_output(fact)
            if unfit is not None:
                self._block(name, "output", unfit)
            elif isinstance(fact, (Deferred, Nothing)):
                self._blame(fact.blame)
            elif isinstance(fact, Stream):
                before: list[Step] = []
                self.facts[name] = as_output(fact, self.options, before)
                for step in before:
                    if step.wires[0] not in self.wires:
                        self.steps.append(step)
                        self.wires.update(zip(step.wires, step.facts))
        self.steps = with_data([self.facts.get(v.name or "") for v in self.source.model.graph.outputs], self.steps)


def _blamed(node: Node, need: Requirement) -> Blocker:
    """What a requirement says of the node that has it."""
    return Blocker(node.name, node.op_type, need.reason, need.hint, node.streams[0].wire if node.streams else "")


def require(plan: Plan) -> Plan:
    """The plan, if it streams; raises `CannotStream` with all blockers if not."""
    if plan.blockers:
        raise CannotStream(plan.blockers, read_axes(plan))
    return plan


def read_axes(plan: Plan) -> dict[str, int]:
    """The axis of every input that streams."""
    facts = {name: plan.facts.get(name) for name in plan.inputs}
    return {name: fact.axis for name, fact in facts.items() if isinstance(fact, Stream)}
