"""Streams that go on from a cache of the source: its frames come before the first one of the pulse."""

from __future__ import annotations

from dataclasses import replace

from pulsify_onnx.errors import refuse
from pulsify_onnx.extent import Length
from pulsify_onnx.facts import Prefix, Static, Stream
from pulsify_onnx.node import Node
from pulsify_onnx.plan import Carry, Frames, Outcome, Step, Window
from pulsify_onnx.rules.combine import call, const, step
from pulsify_onnx.views import FAR
from pulsify_onnx.windows import NONE, solid


def resumed(node: Node, axis: int) -> Outcome:
    """``Concat(cache, x)``: the cache is the history of the result, at every pulse."""
    cache, x = node.facts[0], node.facts[-1]
    if len(node.facts) != 2 or not isinstance(cache, Static) or not isinstance(x, Stream) or not cache.shape[axis].constant:
        refuse("it puts a state of the source before the stream together with something else, or of unknown size",
               hint="concatenate a cache of fixed size and the stream, in this order")
    if node.options.end_of_stream:
        refuse("its cache would hold frames from past the end", hint="convert without --end-of-stream: the model streams by its own caches")
    count = cache.shape[axis].constant or 0
    steps: list[Step] = []
    x = solid(x, node.options, steps)
    if x.delay > 0:
        refuse(f"its cache goes on with a stream that comes {x.delay} frames late, so it would hold frames from before the first one",
               hint="leave the cache out of the export, so that it becomes a state by itself")
    wire = node.outputs[0]
    shape = (*x.shape[:axis], x.extent + count, *x.shape[axis + 1:])
    y = replace(x, wire=wire, shape=shape, delay=-count, border=None, lead=0, trail=NONE, reach=x.reach.shifted(-count / x.rate), positional=False)
    made = Step(node.name, node.op_type, (wire,), (Window(x.wire, 0, Frames(x.rate)),), (y,), history=cache.wire)
    return Outcome((y,), (*steps, made))


def newest(node: Node, x: Stream, start: Length, end: Length, by: int) -> Outcome | None:
    """As many of the last frames as a cache had: what the cache is at the next pulse. None for other slices."""
    made, whole = node.world.step_of(x.wire), node.world.fact_of(x.wire)
    if made is None or not made.history or not isinstance(whole, Stream) or x != whole or by != 1 or end != x.extent:
        return None
    count = -x.delay
    if (x.extent - start).constant != count:
        return None
    line = Window(x.wire, count, Frames(x.rate, count))
    last = call("Slice", line, const([-count]), const([FAR]), const([x.axis]))
    shape = (*x.shape[: x.axis], Length.of(count), *x.shape[x.axis + 1:])
    fact = Prefix(node.outputs[0], x.dtype, shape, True, ((x.extent, x.rate, x.delay),))
    return step(node, [last], [fact], carries=[Carry(made.history, node.outputs[0], x.wire)])
