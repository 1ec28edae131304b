"""What is true of every pulsed graph, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.errors import BrokenRule
from pulsify_onnx.lowering.emitter import serves
from pulsify_onnx.lowering.states import Lowered


@dataclass(frozen=True)
class GraphRule:
    """A rule that every graph keeps: ``broken`` says in words where it does not."""

    name: str
    broken: Callable[[Lowered, Plan], Iterator[str]]


def check_graph(lowered: Lowered, plan: Plan) -> Lowered:
    """`lowered`, which is made of `plan`. Raises `BrokenRule` where its graph is not as every pulsed graph is.

    Time is linear in the size of both.
    """
    for rule in GRAPH_RULES:
        for problem in rule.broken(lowered, plan):
            raise BrokenRule(rule.name, "lowering", problem)
    return lowered


def _alive(lowered: Lowered, _: Plan) -> Iterator[str]:
    graph = lowered.model.graph
    outputs = set(graph.outputs)
    yield from (
        f"nothing reads {node.name}" for node in graph if not any(out.uses() or out in outputs for out in node.outputs)
    )
    yield from (
        f"nothing reads {name}"
        for name, value in graph.initializers.items()
        if not value.uses() and value not in graph.outputs
    )


def _named(lowered: Lowered, plan: Plan) -> Iterator[str]:
    tensors = {*plan.inputs, *plan.wires, *plan.outputs}
    known = {*tensors, *(step.node for step in plan.steps), *(state.node for state in lowered.states)}
    yield from (
        f"{node.name or 'a node without a name'} ({node.op_type}) serves none"
        for node in lowered.model.graph
        if node.name not in known and not known & set(serves(node.name or ""))
    )


def _once(lowered: Lowered, _: Plan) -> Iterator[str]:
    graph = lowered.model.graph
    nodes = Counter(node.name for node in graph)
    initializers = [v for v in graph.initializers.values() if v not in graph.inputs]
    values = Counter(
        v.name for v in (*graph.inputs, *initializers, *(out for node in graph for out in node.outputs)) if v.name
    )
    yield from (f"{count} nodes are called {name}" for name, count in nodes.items() if count > 1)
    yield from (f"{count} tensors are called {name}" for name, count in values.items() if count > 1)


def _states(lowered: Lowered, _: Plan) -> Iterator[str]:
    for s in lowered.states:
        for value in (s.input, s.output):
            declared = None if value.shape is None else tuple(d if isinstance(d, int) else d.value for d in value.shape)
            if declared != s.shape or value.dtype != s.dtype:
                yield f"{value.name} is {value.dtype}{list(declared or ())}, its state {s.dtype}{list(s.shape)}"


GRAPH_RULES = (
    GraphRule("everything is read", _alive),
    GraphRule("every node says which one of the source it serves", _named),
    GraphRule("every name is there once", _once),
    GraphRule("states come back as they went in", _states),
)
"""In the order in which they are asked."""
