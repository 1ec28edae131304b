"""Scan: a subgraph that runs once per frame and carries states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import Fact, Running, ShapeTensor, Static, Stream, Wait
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Op, Outcome, Past, State, Step
from pulsify_onnx.errors import refuse
from pulsify_onnx.model.schema import axes_are_input
from pulsify_onnx.model.subgraphs import all_nodes
from pulsify_onnx.ort import carrier
from pulsify_onnx.rules.across import OTHER_AXIS_HINT, scan_across
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE, as_outcome, carried, const, onnx_op, own, static_value
from pulsify_onnx.rules.kit.gating import recurrence_inputs, select, starts_as_zeros
from pulsify_onnx.rules.kit.graph_types import Typed, infer_graph
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import Valid, cases, started
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares, has


@declares(Trait.CARRIES, lambda attributes, count: range(count - attributes["num_scan_inputs"].as_int()))
@rule("Scan", versions=(9, 11, 16, 19, 21, 23, 24, 25))
def scan(node: Node) -> Outcome:
    """Along the stream forward: any number of states, streams and results, along any axes; the body may read static
    outer values.

    Over another axis, in any direction, where its body keeps the frames of the stream apart.
    State: the scan's own.  Prefix: the final states.  Refuses: scans backwards, inputs of fixed length, bodies that
    read an outer stream.
    """
    body = node.attributes["body"].as_graph().clone(allow_outer_scope_values=True)
    count = int(node.attr("num_scan_inputs"))
    carried = len(node.facts) - count
    if _over_another_axis(node, carried):
        check_body(node, body)
        return scan_across(node, body, carried)
    backwards = [*(node.ints("scan_input_directions") or []), *(node.ints("scan_output_directions") or [])]
    if any(backwards):
        refuse("it scans from the last frame to the first", hint="scan forwards, or run the backward pass over chunks")
    axes = node.ints("scan_input_axes") or [0] * count
    xs = [_scanned(fact, axes[k], k) for k, fact in enumerate(node.facts[carried:])]
    check_body(node, body)
    steps: list[Step] = []
    windows, y = recurrence_inputs(xs, node.options, any(node.outputs[:carried]), any(node.outputs[carried:]), steps)
    frames = [
        ScannedInput(v.name or "", w, x.axis, (x.dtype, x.shape[: x.axis] + x.shape[x.axis + 1 :]))
        for v, w, x in zip(body.inputs[carried:], windows, xs)
    ]
    out_axes = node.ints("scan_output_axes") or [0] * (len(body.outputs) - carried)
    return per_frame(node, Body(body, carried, tuple(frames), tuple(out_axes)), list(node.facts[:carried]), y, steps)


def _over_another_axis(node: Node, carried: int) -> bool:
    """Whether no scan input streams along the axis that is scanned."""
    axes = node.ints("scan_input_axes") or [0] * (len(node.facts) - carried)
    streams = [(f.axis, axis % f.rank) for f, axis in zip(node.facts[carried:], axes) if isinstance(f, Stream)]
    return bool(streams) and all(own != scanned for own, scanned in streams)


def _scanned(fact: Fact | None, axis: int, k: int) -> Stream:
    if not isinstance(fact, Stream):
        refuse(
            f"its scan input {k} has a fixed number of frames beside a stream",
            hint="make it a constant that the body reads, or give it the length of the stream",
        )
    if axis % fact.rank != fact.axis:
        refuse(
            "it scans another axis than the stream's, and what its body does along the stream is not known",
            hint=OTHER_AXIS_HINT,
        )
    return fact


def check_body(node: Node, body: ir.Graph) -> None:
    """Refuse bodies whose outer values or operators are not the same for all frames."""
    for fact in node.outer.values():
        if isinstance(fact, Stream):
            refuse(
                f"its body reads the whole of the stream {fact.source or fact.wire!r} at every frame",
                hint="pass the stream as a scan input, so that the body sees one frame of it",
            )
        if isinstance(fact, ShapeTensor) or not isinstance(fact, Static):
            static_value(fact)
    if any(has(inner, Trait.RANDOM) for inner in all_nodes(body)):
        refuse("it draws random numbers, so no two runs agree", hint="pass the noise as an input")


@dataclass(frozen=True)
class ScannedInput:
    """A tensor of which the body sees a frame at a time as its input `name`."""

    name: str
    expr: Expr
    axis: int
    typed: Typed


@dataclass(frozen=True)
class Body:
    """A Scan body: its first `carried` inputs and outputs are states, then come `frames` and the results along
    `out_axes`.
    """

    graph: ir.Graph
    carried: int
    frames: tuple[ScannedInput, ...]
    out_axes: tuple[int, ...]


def per_frame(
    node: Node, body: Body, initial: Sequence[Fact | None], y: Stream, before: Sequence[Step], exact: bool = True
) -> Outcome:
    """A Scan of `body` over the frames of every pulse, its states carried from pulse to pulse.

    `exact`: states whose shape after a frame is not known are taken to keep it, as Scan promises.
    """
    typed = _types(node, body, initial, exact)
    tag = next(o for o in node.outputs if o)
    names = [f"{tag}.{v.name}" for v in body.graph.inputs[: body.carried]]
    ends = any(node.outputs[: body.carried])
    starts = []
    for name, fact in zip(names, initial):
        assert isinstance(fact, Static)
        past = Past(name)
        starts.append(
            static_value(fact)
            if fact.own
            else past
            if starts_as_zeros(node, fact)
            else select(started(y), past, static_value(fact), fact.dtype)
        )
    kept = replace(body, graph=body.graph.clone(allow_outer_scope_values=True)) if body.carried else body
    gate = carry_or_keep(kept.graph, typed[: body.carried], node.opset, tag) if body.carried else None

    def scanned(flags: Expr | None) -> list[Expr]:
        graph, feeds = body.graph, list(body.frames)
        if gate is not None and flags is not None:
            graph, feeds = kept.graph, [*feeds, gate(flags, y)]
        attributes = (
            ("body", Attribute(ir.AttrGraph("body", graph))),
            ("num_scan_inputs", len(feeds)),
            ("scan_input_axes", tuple(f.axis for f in feeds)),
            ("scan_output_axes", body.out_axes),
        )
        count = len(graph.outputs)
        return [Op("Scan", (*starts, *(f.expr for f in feeds)), attributes, "", count, k) for k in range(count)]

    outs = cases(y, ends, lambda late, ended: scanned(Valid.of(y).flags(late, ended)))
    states = [
        State(name, dtype, shape, out, "scan")
        for name, (dtype, shape), out, fact in zip(names, typed, outs, initial)
        if not own(fact)
    ]
    carries = [carried(node, fact, k) for k, fact in enumerate(initial) if own(fact)]
    facts: list[Fact] = []
    for k, (wire, (dtype, shape)) in enumerate(zip(node.outputs, typed)):
        if k < body.carried:
            facts.append(Running(wire, dtype, shape, (Wait.of(y),)))
        else:
            axis = body.out_axes[k - body.carried] % (len(shape) + 1)
            facts.append(y.placed(wire, dtype, (*shape[:axis], y.extent, *shape[axis:]), axis))
    return as_outcome(node, outs[: len(node.outputs)], facts, states, before, carries)


def _types(node: Node, body: Body, initial: Sequence[Fact | None], exact: bool) -> list[Typed]:
    outer = {name: fact for name, fact in node.outer.items() if isinstance(fact, Static)}
    constants = {name: fact.value for name, fact in outer.items() if fact.value is not None}
    inputs: dict[str, Typed] = {name: (fact.dtype, fact.shape) for name, fact in outer.items() if name not in constants}
    kept: list[Typed] = []
    for value, fact in zip(body.graph.inputs, initial):
        if not isinstance(fact, Static):
            if isinstance(fact, Stream):
                refuse(
                    "a state that it carries begins as the whole stream",
                    hint="carry one frame, or a history of fixed length",
                )
            assert fact is not None
            static_value(fact)
        assert isinstance(fact, Static)
        if fact.dtype == ir.DataType.UNDEFINED:
            refuse(
                "it carries a sequence of tensors, which grows with the stream",
                hint="collect one tensor of known shape per round and stack them once after the loop, or give them "
                "as a scan output",
            )
        if sum(d.constant is None for d in fact.shape) > 1 or any(d.constant == 0 for d in fact.shape):
            refuse("the shape of its state is not known", hint=UNKNOWN_SHAPE)
        kept.append((fact.dtype, fact.shape))
        inputs[value.name or ""] = kept[-1]
    for feed in body.frames:
        inputs[feed.name] = feed.typed
    try:
        found = infer_graph(body.graph, inputs, constants, node.opset)
    except ValueError as problem:
        refuse(f"the shapes inside its body are not known ({problem})"[:300], hint=UNKNOWN_SHAPE)
    typed = []
    for k, (dtype, shape) in enumerate(found):
        if k < body.carried:
            before = kept[k][1]
            if shape is None or any(d is None for d in shape):
                if not exact:
                    refuse("the shape of what it carries is not known", hint=UNKNOWN_SHAPE)
                shape = before
            if shape != before:
                refuse(
                    f"what it carries changes its shape from {_show(before)} to {_show(shape)}, so its state grows "
                    "with the stream or is not known",
                    hint="carry a state of fixed shape",
                )
        if shape is None or any(d is None for d in shape):
            refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
        typed.append((dtype, tuple(d for d in shape if d is not None)))
    return typed


def _show(shape: Sequence[Length | None]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def carry_or_keep(
    graph: ir.Graph, states: Sequence[Typed], opset: int, tag: str
) -> Callable[[Expr, Stream], ScannedInput]:
    """Make a body keep its states at frames that are not real; gives what makes the further scan input from flags
    that say which are, row by row.
    """
    batches = [[k for k, d in enumerate(shape) if d.constant is None] for _, shape in states]
    labels = {shape[at[0]] if at else None for (_, shape), at in zip(states, batches)}
    batch = labels.pop() if len(labels) == 1 else None
    flag = ir.Value(
        name=f"{tag}/real", shape=ir.Shape([] if batch is None else [None]), type=ir.TensorType(ir.DataType.BOOL)
    )
    graph.inputs.append(flag)
    for k, (dtype, shape) in enumerate(states):
        old, new, mine = graph.inputs[k], graph.outputs[k], flag
        if batch is not None and len(shape) > 1:
            mine = with_unit_axes(
                graph, flag, [at for at in range(len(shape)) if at != batches[k][0]], opset, f"{tag}/real_{k}"
            )
        graph.outputs[k] = _chosen(graph, mine, new, old, dtype, f"{tag}/held_{k}")

    def feed(flags: Expr, y: Stream) -> ScannedInput:
        if batch is None:
            return ScannedInput(flag.name or "", flags, 0, (ir.DataType.BOOL, ()))
        flags = onnx_op("Expand", onnx_op("Reshape", flags, const([-1, 1])), Dims((Frames(y.rate), batch)))
        return ScannedInput(flag.name or "", flags, 0, (ir.DataType.BOOL, (batch,)))

    return feed


def _chosen(graph: ir.Graph, flag: ir.Value, yes: ir.Value, no: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
    wide = carrier(dtype)
    if wide != dtype:
        yes, no = (
            _added(graph, "Cast", [yes], f"{name}_new", to=int(wide)),
            _added(graph, "Cast", [no], f"{name}_old", to=int(wide)),
        )
    out = _added(graph, "Where", [flag, yes, no], name if wide == dtype else f"{name}_wide")
    if wide != dtype:
        out = _added(graph, "Cast", [out], name, to=int(dtype))
    out.type = ir.TensorType(dtype)
    return out


def with_unit_axes(
    graph: ir.Graph, value: ir.Value, axes: Sequence[int], opset: int, name: str, before: ir.Node | None = None
) -> ir.Value:
    """`value` with dimensions of 1 at `axes`, computed `before` a node, or last."""
    if not axes_are_input("Unsqueeze", opset):
        return _added(graph, "Unsqueeze", [value], name, before, axes=axes)
    given = ir.Value(name=f"{name}_axes", const_value=ir.tensor(np.asarray(axes, np.int64)))
    graph.initializers.add(given)
    return _added(graph, "Unsqueeze", [value, given], name, before)


def _added(
    graph: ir.Graph,
    op_type: str,
    inputs: Sequence[ir.Value],
    name: str,
    before: ir.Node | None = None,
    **attributes: int | Sequence[int],
) -> ir.Value:
    made = [ir.AttrInt64(k, v) if isinstance(v, int) else ir.AttrInt64s(k, v) for k, v in attributes.items()]
    node = ir.Node("", op_type, inputs, made, num_outputs=1, name=name)
    node.outputs[0].name = name
    if before is None:
        graph.append(node)
    else:
        graph.insert_before(before, node)
    return node.outputs[0]
