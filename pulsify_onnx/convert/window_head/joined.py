"""Body and head as one plan: the streams that the head reads become windows of fixed length, aligned to one another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import onnx_ir as ir

from pulsify_onnx.algebra.clips import clipped, frames_back
from pulsify_onnx.algebra.facts import Clip, Fact, Sizes, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Options, Outcome, Plan, Ref, Step, leaves
from pulsify_onnx.analysis.readings import READINGS, Next, Reading
from pulsify_onnx.analysis.walker import Walker
from pulsify_onnx.arrays import Const
from pulsify_onnx.convert.batch import Rowed, static_batch
from pulsify_onnx.lowering.lower import lower
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.subgraphs import outer_names, subgraphs
from pulsify_onnx.prepare.split_head import Halves, target_of, window_of
from pulsify_onnx.rules.kit.node import Node


def joined(halves: Halves, body: Plan, pulse: int | None) -> tuple[Plan, Source, dict[str, Any]]:
    """The plan of the whole for pulses of `pulse` base frames (None: any), what to lower it from, and the sidecar's ``head``.

    `body` is the plan of ``halves.body``. After `n` base frames, the head sees those from ``n - delay - frames`` on.
    """
    head = _late(_analysed(halves.head), halves)
    read = _read(head, halves)
    streams = {wire: _stream(body.facts[wire]) for wire in halves.windows if window_of(wire) in read}
    back = frames_back(halves.frames, streams.values(), body.pulse_multiple)
    source = _whole(halves)
    steps = [*body.steps, *(_window(wire, x, halves.frames, back, pulse, body.pulse_multiple) for wire, x in streams.items())]
    wires = {**body.wires, **{step.wires[0]: step.facts[0] for step in steps[len(body.steps):]}}
    for step in head.steps:
        if not set(step.wires) & set(wires):  # what does not depend on the stream may be in both
            steps.append(step)
            wires.update(zip(step.wires, step.facts))
    plan = replace(body, outputs=halves.outputs, facts={**head.facts, **body.facts}, wires={**head.wires, **wires}, steps=tuple(steps),
                   blockers=(*body.blockers, *head.blockers))
    return plan, source, _told(halves, streams, back, pulse, source, body)


def _analysed(head: Source) -> Plan:
    """The plan of a head, in which nothing streams. A shape with the batch in it becomes one with a -1 there."""
    def run(node: Node, then: Next) -> Outcome | None:
        data, target = (node.fact(k) for k in (0, 1))
        known = target_of(data.shape, target.values, 0) if isinstance(data, Static) and isinstance(target, Sizes) else None
        if known is None:
            return None
        name = f"{node.name}#shape"
        walker.facts[name] = Static(name, ir.DataType.INT64, (Length.of(known.size),), Const(known))
        return then(replace(node, facts=(data, walker.facts[name])))

    reading = Reading("shape of a clip", lambda node: node.op_type == "Reshape" and not node.domain, run)
    walker = Walker(head, {}, {}, Options(), set(), (reading, *READINGS))
    return walker.plan()


def pulsed(halves: Halves, source: Source, plan: Plan, pulse: int | None) -> Rowed:
    """The pulsed graph of a joined plan; a fixed number of rows counts as one stream, since nothing is known of what the head does with them."""
    lowered = lower(plan, source, pulse)
    rows = () if static_batch(plan) is None else tuple(node.name or "" for node in halves.head.model.graph)
    return Rowed(source, plan, replace(lowered, shared=rows) if rows else lowered)


def _stream(fact: Fact) -> Stream:
    assert isinstance(fact, Stream)
    return fact


def _window(wire: str, x: Stream, frames: int, back: int, pulse: int | None, multiple: int) -> Step:
    """As many frames of a stream as a clip has, from `back` base frames before the end of the pulse on."""
    expr = clipped(x, frames, back, pulse, multiple)
    shape = tuple(Length.of(x.extent.at(frames)) if k == x.axis else d for k, d in enumerate(x.shape))
    return Step(wire, "Window", (window_of(wire),), (expr,), (Clip(window_of(wire), x.dtype, shape),))


def _read(head: Plan, halves: Halves) -> set[str]:
    """What the head reads as values; of other windows it takes the shape only, which is known."""
    captured = (name for node in halves.head.model.graph for graph in subgraphs(node.attributes.values()) for name in outer_names(graph))
    return {*captured, *(head.facts[name].wire for name in head.outputs), *(leaf.wire for step in head.steps for leaf in leaves(step) if isinstance(leaf, Ref))}


def _late(head: Plan, halves: Halves) -> Plan:
    """The plan of the head, in which all that follows from a window is told apart from what does not depend on the stream."""
    late = {window_of(wire) for wire in halves.windows}
    for node in halves.head.model.graph:
        reads = {v.name for v in node.inputs if v is not None}.union(*(outer_names(g) for g in subgraphs(node.attributes.values())))
        if reads & late:
            late |= {out.name for out in node.outputs if out.name}
    def told(wire: str, fact: Fact) -> Fact:
        return Clip(fact.wire, fact.dtype, fact.shape) if wire in late and isinstance(fact, Static) and fact.value is None else fact
    return replace(head, facts={n: told(n, f) for n, f in head.facts.items()}, wires={n: told(n, f) for n, f in head.wires.items()},
                   steps=tuple(replace(s, facts=tuple(map(told, s.wires, s.facts))) for s in head.steps))


def _whole(halves: Halves) -> Source:
    """The body with the constants of the head."""
    model = halves.body.source.model.clone()
    for name, value in halves.head.model.graph.initializers.items():
        if name not in model.graph.initializers and value.const_value is not None:
            model.graph.register_initializer(ir.Value(name=name, const_value=value.const_value, shape=value.shape, type=value.type))
    return replace(halves.body.source, model=model)


def _told(halves: Halves, streams: Mapping[str, Stream], back: int, pulse: int | None, source: Source, body: Plan) -> dict[str, Any]:
    """The ``head`` of the sidecar."""
    edges, padding = _edges(source, body, halves.frames)
    return {
        "kind": "window",
        "frames": halves.frames,
        "delay": back - halves.frames,
        "full_after": None if pulse is None else math.ceil(Fraction(back, pulse)),
        "exact": not padding,
        "padding": padding,
        "windows": [{"wire": wire, "axis": x.axis, "frames": x.extent.at(halves.frames), "rate": [x.rate.numerator, x.rate.denominator],
                     "edges": list(edges.get(wire, (0, 0)))} for wire, x in streams.items()],
        "nodes": [node.name for node in halves.head.model.graph],
    }


def _edges(source: Source, plan: Plan, frames: int) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """How many frames at the start and at the end of a clip padding may change, by wire; and the nodes of the body that pad.

    Padding is what a node reads beyond the frames of its input: in the stream there are real ones.
    """
    edges: dict[str, tuple[int, int]] = {}
    padding = []
    for node in source.model.graph:
        ins = {v.name: f for v in node.inputs if v is not None and v.name and isinstance(f := plan.facts.get(v.name), Stream)}
        for name, y in ((out.name, plan.facts.get(out.name or "")) for out in node.outputs):
            if not name or not isinstance(y, Stream) or not ins:
                continue
            if any(_spread(list(ins.values()), [(0, 0)] * len(ins), y, frames)) and node.name not in padding:
                padding.append(node.name or "")
            edges[name] = _spread(list(ins.values()), [edges.get(n, (0, 0)) for n in ins], y, frames)
    return edges, padding


def _spread(ins: list[Stream], changed: list[tuple[int, int]], y: Stream, frames: int) -> tuple[int, int]:
    """Frames of `y` at the start and at the end that read beyond the inputs or frames of theirs that are `changed`."""
    coarser = max(Fraction(0), *(1 / x.rate - 1 / y.rate for x in ins))  # several frames of `y` are at one place of such an input
    before, after = _past(y) - min(map(_past, ins)), y.reach.future - max(x.reach.future for x in ins)
    start = max(Fraction(first) / x.rate for x, (first, _) in zip(ins, changed))
    end = min(Fraction(x.extent.at(frames) - 1 - last) / x.rate for x, (_, last) in zip(ins, changed))
    slack = coarser if before < 0 or start else Fraction(0)
    count = y.extent.at(frames)  # frame i is at i / rate
    first, last = math.ceil((start + slack - before) * y.rate), count - 1 - math.floor((end + coarser - after) * y.rate)
    return min(max(first, 0), count), min(max(last, 0), count)


def _past(x: Stream) -> Fraction:
    assert x.reach.past is not None  # else its node would be in the head
    return x.reach.past


__all__ = ["joined", "pulsed"]
