"""Loop over frames: rewritten as a Scan, whose body is handed the frames that the loop picks by its iteration
number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.facts import ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import holds
from pulsify_onnx.algebra.padding import crop
from pulsify_onnx.algebra.plan import Options, Outcome, Step
from pulsify_onnx.algebra.windows import wait_until_known
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import refuse
from pulsify_onnx.model.subgraphs import all_nodes, prune, subgraphs
from pulsify_onnx.rules.across import loop_across
from pulsify_onnx.rules.kit.combinators import const, onnx_op
from pulsify_onnx.rules.kit.gating import recurrence_inputs
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import nearest
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.kit.views import BEYOND_ANY_SIZE
from pulsify_onnx.rules.scan import Body, ScannedInput, check_body, per_frame, with_unit_axes
from pulsify_onnx.rules.slicing import rate_of

ROUNDS = "how often it runs is decided at run time"
ROUNDS_HINT = (
    "loop over all frames (the trip count taken from the input's shape, the condition constant), or write it as Scan"
)


@declares(Trait.CARRIES, lambda attributes, count: range(2, count))
@rule("Loop", versions=(1, 11, 13, 16, 19, 21, 23, 24, 25))
def loop(node: Node) -> Outcome:
    """Over frames: as many rounds as a stream has frames, each reading frame i (or i plus a constant) of any number of
    streams.

    A fixed number of rounds, where its body keeps the frames of the stream apart.
    State: what the loop carries.  Prefix: its final values.  Refuses: a number of rounds known only at run time, a
    condition that ends the loop, reading a stream otherwise than frame by frame.
    """
    body = node.attributes["body"].as_graph().clone(allow_outer_scope_values=True)
    initial = list(node.facts[2:])
    fixed = _fixed(node)
    if fixed is not None and len(initial) == len(body.inputs) - 2:
        walked = body.clone(allow_outer_scope_values=True)
        _endless(node, walked)
        check_body(replace(node, outer={n: f for n, f in node.outer.items() if not isinstance(f, Stream)}), body)
        return loop_across(node, body, walked, fixed)
    rounds = _rounds(node)
    _endless(node, body)
    for fact in initial:
        if isinstance(fact, Stream):
            refuse(
                "it carries the whole stream from one round to the next",
                hint="read one frame of it in every round, by the iteration number",
            )
    if len(initial) != len(body.inputs) - 2:
        refuse("its body does not fit its inputs", hint="check the model")
    _skip_whole_slices(node, body)
    picks = _picks(node, body)
    check_body(replace(node, outer={n: f for n, f in node.outer.items() if not isinstance(f, Stream)}), body)
    xs = [_read(pick, rounds) for pick in picks]
    carried = len(initial)
    steps: list[Step] = []
    numbers = Stream("", ir.DataType.INT64, (rounds,), 0, rate_of(rounds), positional=True)
    windows, y = recurrence_inputs(
        xs or [numbers], node.options, any(node.outputs[:carried]), any(node.outputs[carried:]), steps
    )
    numbered = bool(body.inputs[0].uses()) or not picks
    if numbered:  # the number of a frame must not be taken for one past the end
        windows, y = wait_until_known(windows, y)
    frames = []
    for pick, x, window in zip(picks, xs, windows):
        body.inputs.append(pick.frame)
        frames.append(
            ScannedInput(pick.frame.name or "", window, x.axis, (x.dtype, x.shape[: x.axis] + x.shape[x.axis + 1 :]))
        )
    if numbered:
        frames.append(_numbered(body, y, node.options))
    del body.inputs[:2]
    return per_frame(
        node, Body(body, carried, tuple(frames), (0,) * (len(body.outputs) - carried)), initial, y, steps, exact=False
    )


def _fixed(node: Node) -> int | None:
    """How often it runs, where that is a number."""
    fact = node.fact(0)
    rounds = int(fact.value.array.reshape(-1)[0]) if isinstance(fact, Static) and fact.value is not None else 2**31
    return rounds if 0 < rounds < 2**31 else None


def _rounds(node: Node) -> Length:
    fact = node.fact(0)
    if not isinstance(fact, ShapeTensor):
        refuse(ROUNDS, hint=ROUNDS_HINT)
    return fact.values[0]


def _endless(node: Node, body: ir.Graph) -> None:
    """Take the condition out of the body; refuses those that may end the loop before its last round."""
    first = node.fact(1)
    if first is not None and not (isinstance(first, Static) and first.value is not None and first.value.array.all()):
        refuse(ROUNDS, hint=ROUNDS_HINT)
    again = body.outputs[0]
    while (
        (made := again.producer()) is not None and made.op_type in ("Identity", "Cast") and made.inputs[0] is not None
    ):
        again = made.inputs[0]
    value = _constant(node, again)
    if again is not body.inputs[1] and (value is None or not value.all()):
        refuse(ROUNDS, hint=ROUNDS_HINT)
    del body.outputs[0]
    prune(body)
    if body.inputs[1].uses():
        true = ir.Value(name=f"{next(o for o in node.outputs if o)}/true", const_value=ir.tensor(np.asarray(True)))
        body.initializers.add(true)
        body.inputs[1].replace_all_uses_with(true)


def _constant(node: Node, value: ir.Value | None) -> Array | None:
    """Value of a constant inside a body or outside it."""
    if value is None:
        return None
    if value.const_value is not None:
        return np.asarray(value.const_value.numpy())
    made = value.producer()
    if made is not None and made.op_type == "Constant" and "value" in made.attributes:
        return np.asarray(made.attributes["value"].as_tensor().numpy())
    if (
        made is not None
        and made.op_type in ("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Concat")
        and value.name not in node.outer
    ):
        inputs = [_constant(node, v) for v in made.inputs]
        found = (
            evaluate.evaluate(made.op_type, inputs, made.attributes, opset=node.opset)
            if all(v is not None for v in inputs)
            else None
        )
        return found[0] if found is not None else None
    fact = node.outer.get(value.name or "")
    return fact.value.array if isinstance(fact, Static) and fact.value is not None else None


def _skip_whole_slices(node: Node, body: ir.Graph) -> None:
    """Take slices that cut nothing off out of the body: exporters write ``x[:, i]`` as a slice over the first axis."""
    for inner in list(body):
        if (
            inner.op_type != "Slice"
            or len(inner.inputs) < 3
            or inner.outputs[0].is_graph_output()
            or inner.inputs[0] is None
        ):
            continue
        starts, ends, _, steps = [_constant(node, v) for v in (*inner.inputs, None, None)[1:5]]
        last = len(inner.inputs) > 4 and inner.inputs[4] is not None
        if (
            starts is not None
            and ends is not None
            and not starts.any()
            and (ends >= BEYOND_ANY_SIZE).all()
            and (not last or (steps is not None and (steps == 1).all()))
        ):
            inner.outputs[0].replace_all_uses_with(inner.inputs[0])
            body.remove(inner, safe=True)


@dataclass(frozen=True)
class _Pick:
    """Frame ``round + offset`` of an outer stream, which the body gets as its input `frame`."""

    x: Stream
    offset: int
    frame: ir.Value


def _picks(node: Node, body: ir.Graph) -> list[_Pick]:
    """Replace every read of an outer stream in the body by a frame that is handed in."""
    picks: dict[tuple[str, int], _Pick] = {}
    for outer, inner in list(_outer_reads(node, body)):
        x = node.outer[outer]
        assert isinstance(x, Stream)
        offset, keeps = _frame_of(node, body, x, inner)
        if (outer, offset) not in picks:
            frame = ir.Value(name=f"{outer}/frame_{len(picks)}", shape=None, type=ir.TensorType(x.dtype))
            picks[outer, offset] = _Pick(x, offset, frame)
        frame = picks[outer, offset].frame
        if keeps:
            frame = _kept(node, body, frame, x, inner)
        out = inner.outputs[0]
        out.replace_all_uses_with(frame, replace_graph_outputs=False)
        if out.is_graph_output():  # a graph output must have a producer inside
            alias = ir.Node("", "Identity", [frame], num_outputs=1, name=f"{inner.name or out.name}/frame")
            alias.outputs[0].name = f"{out.name}/frame"
            body.insert_after(inner, alias)
            for k, value in enumerate(body.outputs):
                if value is out:
                    body.outputs[k] = alias.outputs[0]
        body.remove(inner, safe=True)
    prune(body)
    return list(picks.values())


def _outer_reads(node: Node, body: ir.Graph) -> Iterator[tuple[str, ir.Node]]:
    """(stream, node of the body) of every read; refuses those in subgraphs of the body."""
    for inner in body:
        names = [
            v.name
            for v in inner.inputs
            if v is not None and v.name and v.producer() not in set(body) and _outside(v, body)
        ]
        found = [n for n in names if isinstance(node.outer.get(n), Stream)]
        for name in found:
            if name != names[0] or len(found) > 1 or inner.op_type not in ("Gather", "Slice"):
                refuse(
                    f"its body reads the whole of the stream {name!r} in every round",
                    hint="read one frame in every round, by the iteration number",
                )
            yield name, inner
        for graph in subgraphs(inner.attributes.values()):
            for deep in all_nodes(graph):
                for value in deep.inputs:
                    if value is not None and isinstance(node.outer.get(value.name or ""), Stream):
                        refuse(
                            f"a subgraph of its body reads the stream {value.name!r}",
                            hint="read the frame before the branch or the inner loop",
                        )


def _outside(value: ir.Value, body: ir.Graph) -> bool:
    return value not in set(body.inputs) and value.name not in body.initializers


def _frame_of(node: Node, body: ir.Graph, x: Stream, inner: ir.Node) -> tuple[int, bool]:
    """(offset, whether the dimension stays) of the frame of `x` that a Gather or Slice of the body takes."""
    hint = "read one frame in every round, by the iteration number"
    if inner.op_type == "Gather":
        axis = inner.attributes["axis"].as_int() if "axis" in inner.attributes else 0
        index = _index(node, body, inner.inputs[1])
        if axis % x.rank != x.axis or index is None or index[1] > 1:
            refuse("its body takes frames of a stream by something else than the iteration number", hint=hint)
        return index[0], index[1] == 1
    bounds = [_index(node, body, v) for v in inner.inputs[1:3]]
    axes = _constant(node, inner.inputs[3]) if len(inner.inputs) > 3 else np.zeros(1, np.int64)
    steps = (
        _constant(node, inner.inputs[4])
        if len(inner.inputs) > 4 and inner.inputs[4] is not None
        else np.ones(1, np.int64)
    )
    if (
        len(bounds) < 2
        or bounds[0] is None
        or bounds[1] is None
        or bounds[1][0] != bounds[0][0] + 1
        or axes is None
        or steps is None
    ):
        refuse("its body takes frames of a stream by something else than the iteration number", hint=hint)
    if axes.size != 1 or int(axes.reshape(-1)[0]) % x.rank != x.axis or int(steps.reshape(-1)[0]) != 1:
        refuse("its body takes frames of a stream by something else than the iteration number", hint=hint)
    return bounds[0][0], True


def _index(node: Node, body: ir.Graph, value: ir.Value | None) -> tuple[int, int] | None:
    """(offset, rank) where `value` is the iteration number plus a constant; None where it is not."""
    if value is None:
        return None
    if value is body.inputs[0]:
        return 0, len(value.shape) if value.shape is not None else 0
    made = value.producer()
    if made is None or made not in set(body):
        return None
    if made.op_type in ("Identity", "Cast"):
        return _index(node, body, made.inputs[0])
    if made.op_type in ("Unsqueeze", "Reshape", "Squeeze"):
        inside = _index(node, body, made.inputs[0])
        if inside is None:
            return None
        if made.op_type == "Reshape":
            shape = _constant(node, made.inputs[1])
            return None if shape is None else (inside[0], shape.size)
        return inside[0], inside[1] + 1 if made.op_type == "Unsqueeze" else max(0, inside[1] - 1)
    if made.op_type in ("Add", "Sub"):
        for k in (0, 1) if made.op_type == "Add" else (0,):
            inside, other = _index(node, body, made.inputs[k]), _constant(node, made.inputs[1 - k])
            if inside is not None and other is not None and other.size == 1:
                by = int(other.reshape(-1)[0])
                return inside[0] + (by if made.op_type == "Add" else -by), max(inside[1], other.ndim)
    return None


def _kept(node: Node, body: ir.Graph, frame: ir.Value, x: Stream, inner: ir.Node) -> ir.Value:
    """`frame` with its dimension along the stream, of size 1."""
    return with_unit_axes(body, frame, [x.axis], node.opset, f"{inner.outputs[0].name}/one", inner)


def _read(pick: _Pick, rounds: Length) -> Stream:
    """The frames of a stream that the rounds read, from the first one."""
    rest = pick.x.extent - rounds - pick.offset
    if pick.offset < 0:
        refuse(
            f"its first round reads frame {pick.offset}, which is counted from the end of the whole stream",
            hint="carry the frame before instead",
        )
    if not holds(rest, 0, 0, 1):
        refuse(
            f"its {rounds} rounds do not fit the {pick.x.extent} frames that they read",
            hint="take the trip count from the shape of what the loop reads",
        )
    return crop(pick.x, pick.offset, rest)


def _numbered(body: ir.Graph, y: Stream, options: Options) -> ScannedInput:
    """The iteration number as one more input, kept within the stream: it may be an index."""
    counter = body.inputs[0]
    number = ir.Value(name=f"{counter.name}/frame", shape=counter.shape, type=ir.TensorType(ir.DataType.INT64))
    body.inputs.append(number)
    counter.replace_all_uses_with(number, replace_graph_outputs=True)
    expr = nearest(y)
    rank = len(counter.shape) if counter.shape is not None else 0
    if rank:
        expr = onnx_op("Reshape", expr, const([-1] + [1] * rank))
    return ScannedInput(number.name or "", expr, 0, (ir.DataType.INT64, (Length.of(1),) * rank))
