"""Body and head as one plan: the streams that the head reads become windows of fixed length, aligned to one another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import onnx_ir as ir

from pulsify_onnx.algebra.clips import clipped, frames_back
from pulsify_onnx.algebra.facts import Fact, ShapeTensor, Static, Stream, WindowValue
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Options, Outcome, Plan, Ref, Step, leaves
from pulsify_onnx.analysis.batch_axis import mixing
from pulsify_onnx.analysis.readings import READINGS, Next, Reading
from pulsify_onnx.analysis.walker import Walker
from pulsify_onnx.arrays import Const
from pulsify_onnx.convert.batch import BatchedGraph, static_batch
from pulsify_onnx.lowering.lower import lower
from pulsify_onnx.model.load import Source
from pulsify_onnx.model.subgraphs import outer_names, subgraphs
from pulsify_onnx.prepare.passes import Head, window_of
from pulsify_onnx.prepare.split_head import target_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.traits import Trait, has
from pulsify_onnx.runtime.sidecar import Head as HeadEntry
from pulsify_onnx.runtime.sidecar import HeadWindow


def attach_head(source: Source, cut: Head, body: Plan, pulse: int | None) -> tuple[Plan, Source, HeadEntry]:
    """The plan of the whole for pulses of `pulse` base frames (None: any), what to lower it from, and the sidecar's
    ``head``.

    `source` is the body, of which `body` is the plan, and `cut` what was cut off it. After `n` base frames, the head
    sees those from ``n - delay - frames`` on.
    """
    head = _late(_analysed(cut.source), cut)
    read = _read(head, cut)
    streams = {wire: _stream(body.facts[wire]) for wire in cut.windows if window_of(wire) in read}
    back = frames_back(cut.frames, streams.values(), body.pulse_multiple)
    source = _whole(source, cut)
    steps = [
        *body.steps,
        *(_window(wire, x, cut.frames, back, pulse, body.pulse_multiple) for wire, x in streams.items()),
    ]
    wires = {**body.wires, **{step.wires[0]: step.facts[0] for step in steps[len(body.steps) :]}}
    for step in head.steps:
        if not set(step.wires) & set(wires):  # what does not depend on the stream may be in both
            steps.append(step)
            wires.update(zip(step.wires, step.facts))
    plan = replace(
        body,
        outputs=cut.outputs,
        facts={**head.facts, **body.facts},
        wires={**head.wires, **wires},
        steps=tuple(steps),
        blockers=(*body.blockers, *head.blockers),
    )
    return plan, source, _told(cut, streams, back, pulse, source, body)


def _analysed(head: Source) -> Plan:
    """The plan of a head, in which nothing streams. A shape with the batch in it becomes one with a -1 there."""

    def run(node: Node, then: Next) -> Outcome | None:
        data, target = (node.fact(k) for k in (0, 1))
        known = (
            target_of(data.shape, target.values, 0)
            if isinstance(data, Static) and isinstance(target, ShapeTensor)
            else None
        )
        if known is None:
            return None
        name = f"{node.name}#shape"
        walker.facts[name] = Static(name, ir.DataType.INT64, (Length.of(known.size),), Const(known))
        return then(replace(node, facts=(data, walker.facts[name])))

    reading = Reading("shape of a clip", lambda node: has(node, Trait.RESHAPES), run)
    walker = Walker(head, {}, {}, Options(), set(), (reading, *READINGS))
    return walker.plan()


def pulsed(cut: Head, source: Source, plan: Plan, pulse: int | None) -> BatchedGraph:
    """The pulsed graph of a joined plan; a fixed number of rows counts as one stream, since nothing is known of what
    the head does with them.
    """
    lowered = lower(plan, source, pulse)
    if static_batch(plan) is not None:
        return BatchedGraph(
            source, plan, replace(lowered, shared=tuple(node.name or "" for node in cut.source.model.graph))
        )
    mixed = [*mixing(source, plan), *mixing(cut.source, plan), *lowered.shared]
    return BatchedGraph(source, plan, replace(lowered, shared=tuple(dict.fromkeys(mixed))))


def _stream(fact: Fact) -> Stream:
    assert isinstance(fact, Stream)
    return fact


def _window(wire: str, x: Stream, frames: int, back: int, pulse: int | None, multiple: int) -> Step:
    """As many frames of a stream as a clip has, from `back` base frames before the end of the pulse on."""
    expr = clipped(x, frames, back, pulse, multiple)
    shape = tuple(Length.of(x.extent.at(frames)) if k == x.axis else d for k, d in enumerate(x.shape))
    return Step(wire, "Window", (window_of(wire),), (expr,), (WindowValue(window_of(wire), x.dtype, shape),))


def _read(head: Plan, cut: Head) -> set[str]:
    """What the head reads as values; of other windows it takes the shape only, which is known."""
    captured = (
        name
        for node in cut.source.model.graph
        for graph in subgraphs(node.attributes.values())
        for name in outer_names(graph)
    )
    return {
        *captured,
        *(head.facts[name].wire for name in head.outputs),
        *(leaf.wire for step in head.steps for leaf in leaves(step) if isinstance(leaf, Ref)),
    }


def _late(head: Plan, cut: Head) -> Plan:
    """The plan of the head, in which all that follows from a window is told apart from what does not depend on the
    stream.
    """
    late = {window_of(wire) for wire in cut.windows}
    for node in cut.source.model.graph:
        reads = {v.name for v in node.inputs if v is not None}.union(
            *(outer_names(g) for g in subgraphs(node.attributes.values()))
        )
        if reads & late:
            late |= {out.name for out in node.outputs if out.name}

    def told(wire: str, fact: Fact) -> Fact:
        return (
            WindowValue(fact.wire, fact.dtype, fact.shape)
            if wire in late and isinstance(fact, Static) and fact.value is None
            else fact
        )

    return replace(
        head,
        facts={n: told(n, f) for n, f in head.facts.items()},
        wires={n: told(n, f) for n, f in head.wires.items()},
        steps=tuple(replace(s, facts=tuple(map(told, s.wires, s.facts))) for s in head.steps),
    )


def _whole(body: Source, cut: Head) -> Source:
    """The body with the constants of the head."""
    model = body.model.clone()
    for name, value in cut.source.model.graph.initializers.items():
        if name not in model.graph.initializers and value.const_value is not None:
            model.graph.register_initializer(
                ir.Value(name=name, const_value=value.const_value, shape=value.shape, type=value.type)
            )
    return replace(body, model=model)


def _told(
    cut: Head, streams: Mapping[str, Stream], back: int, pulse: int | None, source: Source, body: Plan
) -> HeadEntry:
    """The ``head`` of the sidecar."""
    edges, padding = _edges(source, body, cut.frames)
    windows = tuple(
        HeadWindow(wire=wire, axis=x.axis, frames=x.extent.at(cut.frames), rate=x.rate, edges=edges.get(wire, (0, 0)))
        for wire, x in streams.items()
    )
    return HeadEntry(
        frames=cut.frames,
        delay=back - cut.frames,
        full_after=None if pulse is None else math.ceil(Fraction(back, pulse)),
        exact=not padding,
        padding=tuple(padding),
        windows=windows,
        nodes=tuple(node.name or "" for node in cut.source.model.graph),
    )


def _edges(source: Source, plan: Plan, frames: int) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """How many frames at the start and at the end of a clip padding may change, by wire; and the nodes of the body that
    pad.

    Padding is what a node reads beyond the frames of its input: in the stream there are real ones.
    """
    edges: dict[str, tuple[int, int]] = {}
    padding = []
    for node in source.model.graph:
        ins = {
            v.name: f
            for v in node.inputs
            if v is not None and v.name and isinstance(f := plan.facts.get(v.name), Stream)
        }
        for name, y in ((out.name, plan.facts.get(out.name or "")) for out in node.outputs):
            if not name or not isinstance(y, Stream) or not ins:
                continue
            if any(_spread(list(ins.values()), [(0, 0)] * len(ins), y, frames)) and node.name not in padding:
                padding.append(node.name or "")
            edges[name] = _spread(list(ins.values()), [edges.get(n, (0, 0)) for n in ins], y, frames)
    return edges, padding


def _spread(ins: list[Stream], changed: list[tuple[int, int]], y: Stream, frames: int) -> tuple[int, int]:
    """Frames of `y` at the start and at the end that read beyond the inputs or frames of theirs that are `changed`."""
    coarser = max(
        Fraction(0), *(1 / x.rate - 1 / y.rate for x in ins)
    )  # several frames of `y` are at one place of such an input
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


__all__ = ["attach_head", "pulsed"]
