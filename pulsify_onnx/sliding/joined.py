"""Body and head as one plan: the streams that the head reads become windows of fixed length, aligned to one another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.analysis import analyze
from pulsify_onnx.batching import Rowed, static_batch
from pulsify_onnx.bodies import outer_names, subgraphs
from pulsify_onnx.extent import Length
from pulsify_onnx.facts import Clip, Const, Fact, Static, Stream
from pulsify_onnx.lower import lower
from pulsify_onnx.plan import Expr, Frames, Op, Options, Plan, Step, Window
from pulsify_onnx.sliding.halves import Halves, window_of
from pulsify_onnx.source import Source

TO_END = 2**63 - 1


def joined(halves: Halves, body: Plan, pulse: int | None) -> tuple[Plan, Source, dict[str, Any]]:
    """The plan of the whole for pulses of `pulse` base frames (None: any), what to lower it from, and the sidecar's ``head``.

    `body` is the plan of ``halves.body``. After `n` base frames, the head sees those from ``n - delay - frames`` on.
    """
    streams = {wire: _stream(body.facts[wire]) for wire in halves.windows}
    back = _back(halves.frames, streams, body.pulse_multiple)
    source = _whole(halves)
    head = _late(analyze(halves.head, {}, Options()), halves)
    steps = [*body.steps, *(_window(wire, x, halves.frames, back, pulse, body.pulse_multiple) for wire, x in streams.items())]
    wires = {**body.wires, **{step.wires[0]: step.facts[0] for step in steps[len(body.steps):]}}
    for step in head.steps:
        if not set(step.wires) & set(wires):  # what does not depend on the stream may be in both
            steps.append(step)
            wires.update(zip(step.wires, step.facts))
    plan = replace(body, outputs=halves.outputs, facts={**head.facts, **body.facts}, wires={**head.wires, **wires}, steps=tuple(steps),
                   blockers=(*body.blockers, *head.blockers))
    return plan, source, _told(halves, streams, back, pulse, source, body)


def pulsed(halves: Halves, source: Source, plan: Plan, pulse: int | None) -> Rowed:
    """The pulsed graph of a joined plan; a fixed number of rows counts as one stream, since nothing is known of what the head does with them."""
    lowered = lower(plan, source, pulse)
    rows = () if static_batch(plan) is None else tuple(node.name or "" for node in halves.head.model.graph)
    return Rowed(source, plan, replace(lowered, shared=rows) if rows else lowered)


def _stream(fact: Fact) -> Stream:
    assert isinstance(fact, Stream)
    return fact


def _back(frames: int, streams: Mapping[str, Stream], multiple: int) -> int:
    """Base frames from the start of the window to the end of the pulse: the least at which all of its frames have come.

    A multiple of the pulse's, since only windows that start at one have the same frames as the stream.
    """
    least = max([Fraction(frames), *((x.delay + x.extent.at(frames)) / x.rate for x in streams.values())])
    return math.ceil(least / multiple) * multiple


def _window(wire: str, x: Stream, frames: int, back: int, pulse: int | None, multiple: int) -> Step:
    """As many frames of a stream as a clip has, from `back` base frames before the end of the pulse on."""
    count = x.extent.at(frames)
    far = int(x.rate * back) - x.delay  # frames from the first one to the end of the pulse
    if pulse is None:
        reach = max(0, far - int(x.rate * multiple))
        expr: Expr = Op("Slice", (Window(x.wire, reach, Frames(x.rate, reach)), *(Const(np.asarray([v], np.int64)) for v in (
            -far, count - far if count < far else TO_END, x.axis))))
    else:
        whole = int(x.rate * pulse)
        expr = Window(x.wire, far - whole, Frames(x.rate, count - whole))
    shape = tuple(Length.of(count) if k == x.axis else d for k, d in enumerate(x.shape))
    return Step(wire, "Window", (window_of(wire),), (expr,), (Clip(window_of(wire), x.dtype, shape),))


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
    finest = math.lcm(*(f.rate.numerator for name in body.inputs if isinstance(f := body.facts[name], Stream)))
    edges = {wire: _edges(x, halves.frames, finest) for wire, x in streams.items()}
    exact = not any(any(e) for e in edges.values())
    padding = [] if exact else _padding(source, body, halves.frames)
    return {
        "kind": "window",
        "frames": halves.frames,
        "delay": back - halves.frames,
        "full_after": None if pulse is None else math.ceil(Fraction(back, pulse)),
        "exact": exact,
        "padding": padding,
        "windows": [{"wire": wire, "axis": x.axis, "frames": x.extent.at(halves.frames), "rate": [x.rate.numerator, x.rate.denominator],
                     "edges": list(edges[wire])} for wire, x in streams.items()],
        "nodes": [node.name for node in halves.head.model.graph],
    }


def _edges(x: Stream, frames: int, finest: int) -> tuple[int, int]:
    """How many frames at the start and at the end of a window depend on more than the window: padding in a clip, neighbours in the stream.

    What they reach is rounded to frames of the inputs, which are `finest` to a base frame where that is most.
    """
    past, times = x.reach.past, [Fraction(i) / x.rate for i in range(x.extent.at(frames))]
    assert past is not None
    first = sum(math.ceil((t + past) * finest) < 0 for t in times)
    last = sum(math.floor((t + x.reach.future) * finest) > frames * finest - 1 for t in times)
    return first, last


def _padding(source: Source, plan: Plan, frames: int) -> list[str]:
    """The nodes of the body that read more than the frames of their input."""
    found = []
    for node in source.model.graph:
        outs = [f for o in node.outputs if isinstance(f := plan.facts.get(o.name or ""), Stream)]
        ins = [f for v in node.inputs if v is not None and isinstance(f := plan.facts.get(v.name or ""), Stream)]
        if outs and ins and any(_beyond(x, y, frames) for x in ins for y in outs):
            found.append(node.name or "")
    return found


def _beyond(x: Stream, y: Stream, frames: int) -> bool:
    assert x.reach.past is not None and y.reach.past is not None
    last = Fraction(y.extent.at(frames) - 1) / y.rate + y.reach.future - x.reach.future
    return y.reach.past < x.reach.past or last > Fraction(x.extent.at(frames) - 1) / x.rate


__all__ = ["joined", "pulsed"]
