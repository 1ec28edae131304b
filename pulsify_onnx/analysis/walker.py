"""The walker: seeds the stream axis, applies rules in topological order, attaches nodes to refusals.

Pure and total: nothing is built here, every node gets a fact, and every root cause of a refusal is reported.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra import evaluate, padding_fold
from pulsify_onnx.algebra.facts import Blocked, Fact, Pair, Pending, Prefix, Shape, Sizes, Skew, Static, Stream
from pulsify_onnx.algebra.length import TIME, Length, assuming
from pulsify_onnx.algebra.plan import Op, Options, Outcome, Plan, Requirement, Step
from pulsify_onnx.algebra.windows import RateMismatch, leaving, solid
from pulsify_onnx.analysis import shape_arithmetic, source_states
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker, CannotStream, Refusal, refuse, unexpected
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.schema import since_version
from pulsify_onnx.model.subgraphs import all_nodes, outer_names, subgraphs
from pulsify_onnx.rules import lookup
from pulsify_onnx.rules.arithmetic import ELEMENTWISE
from pulsify_onnx.rules.branch import choosable
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE
from pulsify_onnx.rules.kit.domains import total
from pulsify_onnx.rules.kit.infer import infer, vast
from pulsify_onnx.rules.kit.merged_time import all_rows, merged
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import never
from pulsify_onnx.rules.kit.views import never_empty
from pulsify_onnx.rules.outputs import unfit_output
from pulsify_onnx.rules.pending import closed
from pulsify_onnx.rules.relative import applied
from pulsify_onnx.rules.resumed import carried_on

KEPT = {"DequantizeLinear"}
"""Written as operators though their values are known: onnxruntime quantises float weights behind a DequantizeLinear anew."""

RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def analyze(source: Source, axes: Mapping[str, int], options: Options, shapes: Mapping[str, Shape] | None = None,
            walk: type[Walker] | None = None) -> Plan:
    """The plan of a model whose stream inputs run along `axes`; refusals are in its ``blockers``.

    Inputs are taken to have `shapes`, where these are given, instead of those that they declare. `walk`: a walker of another kind.

    Rates of the inputs come from the graph: where two streams meet at different rates, their inputs run at these
    rates, and the analysis starts again with that knowledge.
    """
    rates = {name: Fraction(1) for name in axes}
    settled: set[frozenset[str]] = set()
    while True:
        low = min(rates.values(), default=Fraction(1))
        walker = (walk or Walker)(source, axes, {name: rate / low for name, rate in rates.items()}, options, settled, shapes or {})
        try:
            with assuming() as found:
                plan = walker.plan()
            return replace(plan, least=found.least)
        except RateMismatch as meeting:
            settled.add(frozenset((meeting.a.source, meeting.b.source)))
            group = walker.groups[meeting.b.source]
            for name in group:
                rates[name] *= meeting.a.rate / meeting.b.rate


@dataclass
class Walker:
    """One walk over the graph; `plan` gives what it found."""
    source: Source
    axes: Mapping[str, int]
    rates: Mapping[str, Fraction]
    options: Options
    settled: set[frozenset[str]]
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    wires: dict[str, Fact] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)
    values: dict[str, Const] = field(default_factory=dict)
    groups: dict[str, set[str]] = field(default_factory=dict)
    producers: dict[str, Step] = field(default_factory=dict)
    multiple: int = 1
    order: dict[str, int] = field(default_factory=dict)

    def plan(self) -> Plan:
        """The facts of every wire, and the steps that make them."""
        graph = self.source.model.graph
        for value in self.source.inputs:
            self._input(value)
        for name, value in graph.initializers.items():
            self._initializer(name, value)
        for node in graph:
            self._visit(node)
        self._outputs()
        for blocker in source_states.check(self.options.states, self.facts, self.steps, self, [v.name or "" for v in graph.outputs]):
            self._blame(blocker)
        multiple = math.lcm(self.multiple, *(f.rate.denominator for f in self.wires.values() if isinstance(f, Stream)))
        blockers = sorted(self.blockers, key=lambda b: self.order.get(b.node, len(self.order)))
        return Plan(tuple(v.name or "" for v in self.source.inputs), tuple(v.name or "" for v in graph.outputs), self.facts,
                    self.wires, tuple(self.steps), tuple(blockers), multiple, self.options)

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

    def _initializer(self, name: str, value: ir.Value) -> None:
        tensor = value.const_value
        if tensor is None:
            return
        small = tensor.size <= evaluate.LIMIT and tensor.dtype != ir.DataType.STRING
        const = Const(np.asarray(tensor.numpy())) if small else None
        self.facts[name] = Static(name, tensor.dtype, tuple(Length.of(d) for d in tensor.shape.numpy()), const)
        self.wires[name] = self.facts[name]

    def _node(self, node: ir.Node) -> Node:
        facts = tuple(None if v is None or not v.name else self.facts.get(v.name) for v in node.inputs)
        domain = "" if node.domain == "ai.onnx" else node.domain
        opset = self.source.opset if domain == "" else self.source.model.opset_imports.get(domain, 1)
        since = since_version(node.op_type, opset, domain) or 1
        return Node(node.name or "", node.op_type, domain, since, opset, tuple(None if v is None else v.name for v in node.inputs),
                    tuple(v.name or "" for v in node.outputs), node.attributes, facts, self.options, self, self._captured(node))

    def _visit(self, raw: ir.Node) -> None:
        node = self._node(raw)
        self.order.setdefault(node.name, len(self.order))
        behind = next((f for f in (*node.facts, *node.outer.values()) if isinstance(f, Blocked)), None)
        try:
            if node.op_type == "If" and node.domain == "" and self._branch(raw, node):
                return
            if behind is not None:
                self._set(Outcome(tuple(Blocked(o, behind.by) for o in node.outputs)), node)
            else:
                self._set(never_empty(node, self._apply(node)), node)
        except RateMismatch as meeting:
            a, b = meeting.a.source, meeting.b.source
            if frozenset((a, b)) in self.settled or not a or not b or b in self.groups.get(a, ()):
                self._refused(node, meeting)
            else:
                raise
        except Refusal as refusal:
            self._refused(node, refusal)
        except Exception as problem:  # a node that is not as its schema says
            self._refused(node, unexpected(problem))

    def _refused(self, node: Node, refusal: Refusal) -> None:
        streams = (f.wire for f in (*node.facts, *node.outer.values()) if isinstance(f, Stream))
        blame = refusal.blame or Blocker(node.name, node.op_type, refusal.reason, refusal.hint, next(streams, ""))
        self._blame(blame)
        self._set(Outcome(tuple(Blocked(o, blame.node) for o in node.outputs)), node)

    def _blame(self, blocker: Blocker) -> None:
        if blocker not in self.blockers:
            self.blockers.append(blocker)

    def _block(self, name: str, op_type: str, refusal: Refusal) -> None:
        self.blockers.append(Blocker(name, op_type, refusal.reason, refusal.hint))

    def _branch(self, raw: ir.Node, node: Node) -> bool:
        """Walk the branches of an If in place of the node: the taken one where that is known, else both."""
        condition = node.facts[0]
        if not isinstance(condition, Static):
            return False
        if condition.value is not None:
            facts = self._walk(raw.attributes["then_branch" if condition.value.array.reshape(-1)[0] else "else_branch"].as_graph())
            self.facts.update({out: fact for out, fact in zip(node.outputs, facts) if out})
            return True
        if all(isinstance(f, Static) for f in node.outer.values()):
            return False
        branches = [self._walk(raw.attributes[name].as_graph()) for name in ("then_branch", "else_branch")]
        for out, yes, no in zip(node.outputs, *branches):
            if not out:
                continue
            choice = replace(node, op_type="Where", since=since_version("Where", node.opset, "") or 1, attributes={}, outer={},
                             inputs=(node.inputs[0], yes.wire, no.wire), outputs=(out,), facts=(condition, yes, no))
            behind = next((f for f in (yes, no) if isinstance(f, Blocked)), None)
            if behind is None:
                choosable(yes, no)
            self._set(Outcome((Blocked(out, behind.by),)) if behind is not None else Outcome((yes,)) if yes == no else self._apply(choice), choice)
        return True

    def _walk(self, graph: ir.Graph) -> list[Fact]:
        """Visit the nodes of a branch; the facts of its outputs."""
        for inner in graph:
            self._visit(inner)
        return [self.facts[v.name or ""] for v in graph.outputs]

    def _apply(self, node: Node) -> Outcome:
        kinds = {type(f) for f in (*node.facts, *node.outer.values()) if f is not None}
        if not shape_arithmetic.told(node, [self.facts[v.name or ""] for v in self.source.inputs]):
            return self._static(node) if kinds == {Static} else self._running(node)
        if node.op_type in ("Shape", "Size") and node.domain == "" or (kinds <= {Static, Sizes} and Sizes in kinds):
            fact = shape_arithmetic.evaluate(node)
            if fact is not None:
                return Outcome((fact,))
            if node.op_type in ("Shape", "Size"):
                refuse("the shape of its input is not known", hint=UNKNOWN_SHAPE)
        if node.op_type == "Identity" and node.domain == "" and node.facts[0] is not None:
            return Outcome((node.facts[0],))
        if kinds <= {Static}:
            return self._static(node)
        source_states.check_use(node)
        if any(map(merged, (*node.facts, *node.outer.values()))):
            return all_rows(node, self._ruled)
        if Pending in kinds or (Stream in kinds and Prefix in kinds) or _spreads(node):
            return closed(node)
        if Prefix in kinds or (kinds <= {Static, Sizes} and node.domain == "" and node.op_type in ELEMENTWISE):
            return self._running(node)
        return carried_on(node, self._ruled) or self._ruled(node)

    def _ruled(self, node: Node) -> Outcome:
        return total(self._bordered(node, applied(node, lookup(node))), self)

    def _captured(self, node: ir.Node) -> dict[str, Fact]:
        """Outer values that a node's subgraphs read."""
        found: set[str] = set()
        for graph in subgraphs(node.attributes.values()):
            found |= outer_names(graph)
        return {name: self.facts[name] for name in sorted(found) if name in self.facts}

    def _static(self, node: Node) -> Outcome:
        """Nothing streams: fold what is constant and small, keep the rest as it is."""
        _no_chance(node)
        values = [f.value if isinstance(f, Static) else None for f in node.facts]
        known = all(v is not None or f is None for v, f in zip(values, node.facts))
        has_graph = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
        if known and not has_graph and not vast(node) and sum(v.array.size for v in values if v is not None) <= evaluate.LIMIT:
            found = evaluate.evaluate(node.op_type, [None if v is None else v.array for v in values], node.attributes,
                                  opset=node.opset, domain=node.domain, outputs=len(node.outputs))
            if found is not None and all(v.size <= evaluate.LIMIT for v in found):
                facts = tuple(Static(o, ir.DataType.from_numpy(v.dtype), tuple(Length.of(d) for d in v.shape), Const(v))
                              for o, v in zip(node.outputs, found))
                if node.op_type not in KEPT:
                    return Outcome(facts)
                return Outcome(facts, tuple(replace(step, facts=facts) for step in self._untouched(node, Static).steps))
        derived = any(isinstance(f, Static) and f.own for f in (*node.facts, *node.outer.values()))
        return self._untouched(node, lambda o, dtype, shape: Static(o, dtype, shape, own=derived))

    def _running(self, node: Node) -> Outcome:
        """Values over the frames so far, and nothing else that moves: the operator runs as it is after every pulse."""
        running = [f for f in (*node.facts, *node.outer.values()) if isinstance(f, Prefix)]
        waits = tuple(dict.fromkeys(w for f in running for w in f.waits))
        _no_chance(node)
        first = node.facts[0]
        mean = first.mean if isinstance(first, Prefix) and node.op_type in ("Squeeze", "Unsqueeze", "Reshape", "Flatten") else None
        return self._untouched(node, lambda o, dtype, shape: Prefix(o, dtype, shape, waits, mean=mean))

    def _untouched(self, node: Node, fact) -> Outcome:  # type: ignore[no-untyped-def]
        from pulsify_onnx.rules.kit.combinators import running_value
        if any(isinstance(f, Sizes) for f in node.outer.values()):
            refuse("its subgraph uses the length of the whole stream, which is not known while the stream runs",
                   hint="count the frames so far instead, for example by CumSum of ones")
        try:
            types = infer(node)
        except Exception as problem:
            never(node)
            raise Refusal(f"the type of its result is not known ({problem})"[:300], hint=UNKNOWN_SHAPE) from problem
        inputs = tuple(None if f is None else running_value(f) for f in node.facts)
        facts, rows = [], []
        for k, (wire, (dtype, shape)) in enumerate(zip(node.outputs, types)):
            if wire and shape is None:
                refuse("how many dimensions its result has is not known", hint=UNKNOWN_SHAPE)
            full: Shape = tuple(Length.symbol(f"{wire}.{i}") if d is None else d for i, d in enumerate(shape or ()))
            facts.append(fact(wire, dtype, full))
            if wire:
                rows.append((wire, Op(node.op_type, inputs, node.kept, node.domain, len(node.outputs), k), facts[-1]))
        made = Step(node.name, node.op_type, tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))
        return Outcome(tuple(facts), (made,))

    def _bordered(self, node: Node, outcome: Outcome) -> Outcome:
        """Fold the border of every result; where that can't be done, run the rule again on solid inputs."""
        facts: dict[str, Fact] = {}
        steps = []
        for step in outcome.steps:
            named = []
            for wire, expr, fact in zip(step.wires, step.exprs, step.facts):
                if isinstance(fact, Stream) and (fact.lead or fact.trail.terms):
                    border = padding_fold.fold_border(expr, fact, {**self.wires, **{f.wire: f for f in node.streams}, **facts}, self.value_of, self.source.opset)
                    if border is None:
                        return self._on_solid(node)
                    fact = replace(fact, border=border)
                if isinstance(fact, Stream) and fact.positional and not padding_fold.movable(step, fact):
                    fact = replace(fact, positional=False)
                facts[wire] = fact
                named.append(fact)
            steps.append(replace(step, facts=tuple(named)))
        return replace(outcome, facts=tuple(facts.get(f.wire, f) if isinstance(f, Stream) and f.wire in facts and _same_view(f, facts[f.wire])
                             else f for f in outcome.facts), steps=tuple(steps))

    def _on_solid(self, node: Node) -> Outcome:
        before: list[Step] = []
        again = replace(node, facts=tuple(solid(f, self.options, before) if isinstance(f, Stream) else f for f in node.facts))
        if again.facts == node.facts:
            refuse("what it pads with can't be told before the stream runs", hint="pad with a constant")
        outcome = lookup(again)(again)
        return self._bordered(again, replace(outcome, steps=(*before, *outcome.steps)))

    @property
    def opset(self) -> int:
        """The opset of ai.onnx."""
        return self.source.opset

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

    def within(self, graph: ir.Graph, inputs: Mapping[str, Fact]) -> tuple[list[Fact], list[Step]]:
        """Facts of the outputs of a subgraph on `inputs`, and the steps that make them. Raises `Refusal` where its nodes can't stream."""
        inner = replace(self, facts={**self.facts, **inputs}, wires={**self.wires, **inputs}, steps=[], blockers=[], groups=defaultdict(set),
                        producers=dict(self.producers), order={}, multiple=1)
        for name, value in graph.initializers.items():
            inner._initializer(name, value)
        found = inner._walk(graph)
        if inner.blockers:
            refuse(inner.blockers[0].reason, hint=inner.blockers[0].hint)
        return found, inner.steps

    def _set(self, outcome: Outcome, node: Node) -> None:
        for step in outcome.steps:
            step = replace(step, requires=tuple(replace(r, blame=_blamed(node, r)) for r in step.requires))
            if any(w in self.wires for w in step.wires):
                continue  # a help step that another reader of the same wire has asked for already
            self.steps.append(step)
            self.wires.update(zip(step.wires, step.facts))
            self.producers.update(dict.fromkeys(step.wires, step))
        self.multiple = math.lcm(self.multiple, outcome.pulse_multiple)
        sources = [f.source for f in node.facts if isinstance(f, (Stream, Pair, Skew)) and f.source]
        for source in sources[1:]:
            self.groups[sources[0]] |= self.groups[source]
            for name in self.groups[sources[0]]:
                self.groups[name] = self.groups[sources[0]]
        for wire, fact in zip(node.outputs, outcome.facts):
            if wire:
                if isinstance(fact, (Static, Sizes)) and fact.wire == wire:
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
            elif isinstance(fact, Pending):
                self._blame(fact.blame)
            elif isinstance(fact, Stream):
                before: list[Step] = []
                self.facts[name] = leaving(fact, self.options, before)
                for step in before:
                    if step.wires[0] not in self.wires:
                        self.steps.append(step)
                        self.wires.update(zip(step.wires, step.facts))


def _blamed(node: Node, need: Requirement) -> Blocker:
    """What a requirement says of the node that has it."""
    return Blocker(node.name, node.op_type, need.reason, need.hint, node.streams[0].wire if node.streams else "")


def _spreads(node: Node) -> bool:
    """Whether a running value is given the length of the stream."""
    return node.op_type in ("Expand", "Tile") and isinstance(node.facts[0], Prefix) and any(
        isinstance(f, Sizes) and any(v.moves for v in f.values) for f in node.facts[1:])


def _same_view(a: Stream, b: Fact) -> bool:
    return isinstance(b, Stream) and (a.delay, a.lead, a.trail, a.shape) == (b.delay, b.lead, b.trail, b.shape)


def _no_chance(node: Node) -> None:
    inside = (inner.op_type for graph in subgraphs(node.attributes.values()) for inner in all_nodes(graph))
    if any(op_type in RANDOM for op_type in (node.op_type, *inside)):
        refuse("it draws random numbers, so no two runs agree", hint="pass the noise as an input")


def require(plan: Plan) -> Plan:
    """The plan, if it streams; raises `CannotStream` with all blockers if not."""
    if plan.blockers:
        raise CannotStream(plan.blockers)
    return plan
