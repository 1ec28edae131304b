"""Scan and Loop over something else than the frames of a stream: every frame has rounds of its own, if the body
treats all frames alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import Fact, Static, Stream
from pulsify_onnx.algebra.frame_by_frame import all_apart
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Expr, Op, Outcome
from pulsify_onnx.errors import Refusal, refuse
from pulsify_onnx.model.subgraphs import all_nodes
from pulsify_onnx.rules.kit.combinators import aligned_inputs, as_outcome, same_op, static_value
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node

OTHER_AXIS_HINT = "write the recurrence over that axis as RNN, GRU or LSTM, or as unrolled operators"


def scan_across(node: Node, body: ir.Graph, carried: int) -> Outcome:
    """A Scan whose inputs stream along other axes than those it scans."""
    axes = node.ints("scan_input_axes") or [0] * (len(node.facts) - carried)
    inner = {
        v.name or "": _inside(fact, v.name or "", None if k < carried else axes[k - carried])
        for k, (v, fact) in enumerate(zip(body.inputs, node.facts))
    }
    found = _rounds(
        node, body, inner, [v.name or "" for v in body.inputs[:carried]], "it scans another axis than the stream's"
    )
    exprs, y, _ = aligned_inputs(node, [0 if isinstance(f, Stream) else None for f in node.facts])
    out_axes = node.ints("scan_output_axes") or [0] * (len(found) - carried)
    count = next(shape_of(f)[axis % len(shape_of(f))] for f, axis in zip(node.facts[carried:], axes) if f is not None)
    facts = [
        y.placed(wire, x.dtype, x.shape, x.axis) if k < carried else _stacked(y, wire, x, out_axes[k - carried], count)
        for k, (wire, x) in enumerate(zip(node.outputs, found))
    ]
    return as_outcome(node, [same_op(node, exprs, k) for k in range(len(node.outputs))], facts)


def _rounds(node: Node, body: ir.Graph, inner: Mapping[str, Fact], carried: Sequence[str], what: str) -> list[Stream]:
    """What the outputs of a body are in every round on `inner`, of which the states `carried` come first; refuses,
    saying `what` it is, where frames are not apart.
    """
    try:
        found, steps = node.world.within(body, inner)
    except Refusal as refusal:
        refuse(f"{what}, and inside its body: {refusal.reason}", refusal.hint)
    x = next(f for f in inner.values() if isinstance(f, Stream))
    if not all_apart(steps, found, x.extent * (1 / x.rate)):
        refuse(f"{what}, and its body does not keep the frames of the stream apart", hint=OTHER_AXIS_HINT)
    streams = [f for f in found if isinstance(f, Stream)]
    if len(streams) < len(found):
        refuse(
            f"{what}, and one of its results or states is the same for all frames",
            hint="take what is the same for all frames out of the loop",
        )
    for name, after in zip(carried, streams):
        before = inner[name]
        if not isinstance(before, Stream) or (before.axis, before.shape, before.dtype) != (
            after.axis,
            after.shape,
            after.dtype,
        ):
            refuse(
                f"{what}, and its state {name!r} does not begin as it goes on: with every frame of the stream, on "
                "one axis",
                hint=OTHER_AXIS_HINT,
            )
    return streams


def _inside(fact: Fact | None, name: str, scanned: int | None) -> Fact:
    """What a body sees of an input in a round: all of it, or what is beside the axis that is `scanned`."""
    if not isinstance(fact, (Static, Stream)):
        static_value(fact)  # type: ignore[arg-type]
    assert isinstance(fact, (Static, Stream))
    cut = None if scanned is None else scanned % len(fact.shape)
    shape = tuple(d for k, d in enumerate(fact.shape) if k != cut)
    if isinstance(fact, Static):
        return Static(name, fact.dtype, shape)
    return Stream(
        name, fact.dtype, shape, fact.axis - (cut is not None and cut < fact.axis), fact.rate, source=fact.source
    )


def _stacked(y: Stream, wire: str, x: Stream, axis: int, count: Length) -> Stream:
    """What `count` rounds give that make an `x` each, one after the other along `axis`."""
    at = axis % (x.rank + 1)
    return y.placed(wire, x.dtype, (*x.shape[:at], count, *x.shape[at:]), x.axis + (at <= x.axis))


def loop_across(node: Node, body: ir.Graph, walked: ir.Graph, rounds: int) -> Outcome:
    """A Loop of so many `rounds`, which may carry and read streams; `walked` is a copy of its `body` without the
    condition that ends it.
    """
    carried = len(node.facts) - 2
    outer = [(name, fact) for name, fact in node.outer.items() if isinstance(fact, Stream)]
    for name, _ in outer:
        for graph, before in ((body, 1), (walked, 0)):
            _hand_in(graph, name, before + carried)
    facts = [*node.facts[2:], *(fact for _, fact in outer)]
    names = [v.name or "" for v in walked.inputs[2:]]
    inner: dict[str, Fact] = {name: _inside(fact, name, None) for name, fact in zip(names, facts)}
    for value, dtype in zip(walked.inputs[:2], (ir.DataType.INT64, ir.DataType.BOOL)):
        inner[value.name or ""] = Static(value.name or "", dtype, ())
    found = _rounds(node, walked, inner, names, f"it runs {rounds} times, whatever the length of the stream")
    again = replace(node, facts=(*node.facts, *(fact for _, fact in outer)))
    exprs, y, _ = aligned_inputs(again, [0 if isinstance(f, Stream) else None for f in again.facts])
    made = [
        y.placed("", x.dtype, x.shape, x.axis) if k < len(names) else _stacked(y, "", x, 0, Length.of(rounds))
        for k, x in enumerate(found)
    ]
    own = [k for k in range(len(found)) if not carried <= k < len(names)]
    attributes = node.replaced(body=Attribute(ir.AttrGraph("body", body)))
    outs: list[Expr] = [Op(node.op_type, tuple(exprs), attributes, node.domain, len(found), k) for k in own]
    return as_outcome(node, outs, [replace(made[k], wire=wire) for k, wire in zip(own, node.outputs)])


def _hand_in(body: ir.Graph, name: str, at: int) -> None:
    """What a body reads from outside by `name` becomes a state that it carries, output `at` of its own, and never
    changes.
    """
    inside = ir.Value(name=f"{name}/carried")
    for reader in all_nodes(body):
        for k, value in enumerate(reader.inputs):
            if value is not None and value.name == name:
                reader.replace_input_with(k, inside)
    kept = ir.Node("", "Identity", [inside], num_outputs=1, name=f"{name}/carried_on")
    kept.outputs[0].name = f"{name}/carried_on"
    body.append(kept)
    for k, value in enumerate(body.outputs):
        if value.name == name:
            body.outputs[k] = kept.outputs[0]
    body.inputs.append(inside)
    body.outputs.insert(at, kept.outputs[0])
