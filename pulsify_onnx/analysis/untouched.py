"""Nodes in which no frame moves: folded where all is constant, else run as they are, once or after every pulse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.facts import Fact, Running, Shape, ShapeTensor, Static
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Op, Outcome, Step
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Refusal, refuse
from pulsify_onnx.model.subgraphs import all_nodes, subgraphs
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE, running_value
from pulsify_onnx.rules.kit.infer import infer, vast
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import never
from pulsify_onnx.rules.kit.traits import Trait, has


def fold_static(node: Node) -> Outcome:
    """Nothing streams: fold what is constant and small, keep the rest as it is."""
    _no_chance(node)
    values = [f.value if isinstance(f, Static) else None for f in node.facts]
    known = all(v is not None or f is None for v, f in zip(values, node.facts))
    has_graph = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    if (
        known
        and not has_graph
        and not vast(node)
        and sum(v.array.size for v in values if v is not None) <= evaluate.FOLDED_ELEMENTS
    ):
        found = evaluate.evaluate(
            node.op_type,
            [None if v is None else v.array for v in values],
            node.attributes,
            opset=node.opset,
            domain=node.domain,
            outputs=len(node.outputs),
        )
        if found is not None and all(v.size <= evaluate.FOLDED_ELEMENTS for v in found):
            facts = tuple(
                Static(o, ir.DataType.from_numpy(v.dtype), tuple(Length.of(d) for d in v.shape), Const(v))
                for o, v in zip(node.outputs, found)
            )
            if not has(node, Trait.STAYS):
                return Outcome(facts)
            return Outcome(facts, tuple(replace(step, facts=facts) for step in _untouched(node, Static).steps))
    derived = any(isinstance(f, Static) and f.own for f in (*node.facts, *node.outer.values()))
    return _untouched(node, lambda o, dtype, shape: Static(o, dtype, shape, own=derived))


def running(node: Node) -> Outcome:
    """Values over the frames so far, and nothing else that moves: the operator runs as it is after every pulse."""
    values = [f for f in (*node.facts, *node.outer.values()) if isinstance(f, Running)]
    waits = tuple(dict.fromkeys(w for f in values for w in f.waits))
    _no_chance(node)
    first = node.facts[0]
    kept = first if isinstance(first, Running) and has(node, Trait.SAME_ORDER) else Running("", ir.DataType.FLOAT, ())
    return _untouched(
        node, lambda o, dtype, shape: Running(o, dtype, shape, waits, mean=kept.mean, maximum=kept.maximum)
    )


def _untouched(node: Node, fact: Callable[[str, ir.DataType, Shape], Fact]) -> Outcome:
    """The operator as it is; `fact` of each output."""
    if any(isinstance(f, ShapeTensor) for f in node.outer.values()):
        refuse(
            "its subgraph uses the length of the whole stream, which is not known while the stream runs",
            hint="count the frames so far instead, for example by CumSum of ones",
        )
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
    made = Step(
        node.name, node.op_type, tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows)
    )
    return Outcome(tuple(facts), (made,))


def _no_chance(node: Node) -> None:
    inside = (inner for graph in subgraphs(node.attributes.values()) for inner in all_nodes(graph))
    if has(node, Trait.RANDOM) or any(has(inner, Trait.RANDOM) for inner in inside):
        refuse("it draws random numbers, so no two runs agree", hint="pass the noise as an input")
