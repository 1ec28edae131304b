"""Recurrent layers that carry a state from frame to frame: RNN, GRU, LSTM."""

from __future__ import annotations

from dataclasses import replace

from pulsify_onnx.algebra.facts import Fact, Running, ShapeTensor, Static, Stream, Wait
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Expr, Op, Outcome, Past, State, Step
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.held import Gate, gated
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE, aligned_inputs, as_outcome, carried, onnx_op, own, static
from pulsify_onnx.rules.kit.gating import recurrence_inputs, starts_as_zeros
from pulsify_onnx.rules.kit.infer import infer
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import cases, started
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares

LENS, INITIAL = 4, (5, 6)
"""Indices of the inputs sequence_lens, initial_h and initial_c."""


@declares(Trait.RECURRENT)
@declares(Trait.BEGINS, INITIAL)
@rule("RNN", versions=(7, 14, 22))
@rule("GRU", versions=(7, 14, 22))
@rule("LSTM", versions=(7, 14, 22))
def recurrent(node: Node) -> Outcome:
    """Along time forward, with any initial state; across another axis, in any direction, with time as the batch.

    State: h (and c).  Prefix: Y_h, Y_c.  Refuses: reverse and bidirectional over the stream, sequence_lens.
    """
    x = node.fact(0)
    if not isinstance(x, Stream) or any(isinstance(node.fact(k), Stream) for k in (1, 2, 3, 7)):
        refuse(
            "its weights or its initial state change with the stream",
            hint="pass them as constants or as inputs without time",
        )
    lengths = node.fact(LENS)
    if (
        isinstance(lengths, ShapeTensor)
        and x.axis == (1 if node.attr("layout", 0) else 0)
        and all(v == x.extent for v in lengths.values)
    ):
        lengths = None
    if lengths is not None:
        refuse("sequence_lens ends every row at a frame of its own", hint="export without sequence lengths")
    layout = int(node.attr("layout", 0))
    if x.axis == 2:
        refuse(
            "the stream runs along its features", hint="transpose time to the first axis, or name another with --axis"
        )
    if x.axis == (0 if layout else 1):
        return _across(node, layout)
    direction = node.attr("direction", "forward")
    if direction != "forward":
        refuse(
            f"it runs from the last frame to the first (direction {direction})",
            hint="retrain with a forward recurrence, or run the backward pass over chunks",
        )
    return _along(node, x, layout)


def _across(node: Node, layout: int) -> Outcome:
    """Every frame is a sequence of its own: time is the batch."""
    axes: list[int | None] = []
    for k, fact in enumerate(node.facts):
        if k in INITIAL and fact is not None and not (isinstance(fact, Stream) and fact.axis == (0 if layout else 1)):
            refuse(
                "its initial states are for a fixed number of frames, which are its batch",
                hint="leave the initial state out, or give it the length of the stream",
            )
        axes.append((0 if layout else 2) if isinstance(fact, Stream) else None)
    exprs, y, axis = aligned_inputs(node, axes, leads=True)
    if layout:
        exprs = [
            onnx_op("Transpose", e, perm=[1, 0, 2]) if e is not None and k in (0, *INITIAL) else e
            for k, e in enumerate(exprs)
        ]
    facts: list[Fact] = []
    outs: list[Expr] = []
    for k, (wire, (dtype, shape)) in enumerate(zip(node.outputs, infer(node))):
        at = axis if k == 0 or layout else 1
        if wire and (shape is None or any(d is None for i, d in enumerate(shape) if i != at)):
            refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
        facts.append(y.placed(wire, dtype, shape or y.shape, at) if wire else y)
        out = Op(node.op_type, tuple(exprs), node.replaced(layout=None), node.domain, len(node.outputs), k)
        outs.append(onnx_op("Transpose", out, perm=[2, 0, 1, 3] if k == 0 else [1, 0, 2]) if layout else out)
    return as_outcome(node, outs, facts)


def _along(node: Node, x: Stream, layout: int) -> Outcome:
    """Time is the sequence: h (and c) go from pulse to pulse."""
    steps: list[Step] = []
    wants_state = any(node.outputs[1:])
    (window,), y = recurrence_inputs([x], node.options, wants_state, bool(node.outputs[0]), steps)
    hidden = int(node.attr("hidden_size") or _hidden(node))
    batch = x.shape[0 if layout else 1]
    names = ["h", "c"][: 2 if node.op_type == "LSTM" else 1]
    tag = next(o for o in node.outputs if o)
    pasts = [Past(f"{tag}.{name}") for name in names]
    starts: list[Expr] = []
    for past, k in zip(pasts, INITIAL):
        initial = _initial(node, k, layout, (Length.of(1), batch, Length.of(hidden)))
        starts.append(
            past if initial is None else initial if own(node.fact(k)) else onnx_op("Where", started(y), past, initial)
        )
    feed: Expr = onnx_op("Transpose", window, perm=[1, 0, 2]) if layout else window

    def run(late: bool, ended: bool) -> list[Expr]:
        return gated(node, Gate(node, y, late, ended), feed, starts, (batch, Length.of(hidden), x.shape[2]))

    whole, *after = cases(y, wants_state, run)
    states = [
        State(f"{tag}.{name}", x.dtype, (Length.of(1), batch, Length.of(hidden)), value, "recurrent", batch=1)
        for name, value, k in zip(names, after, INITIAL)
        if not own(node.fact(k))
    ]
    carries = [carried(node, node.fact(k), 1 + i) for i, k in enumerate(INITIAL[: len(names)]) if own(node.fact(k))]
    exprs: list[Expr] = [whole, *after]
    shape = (y.extent, Length.of(1), batch, Length.of(hidden))
    last = Running("", x.dtype, (Length.of(1), batch, Length.of(hidden)), (Wait.of(y),))
    facts: list[Fact] = [y.placed(node.outputs[0], x.dtype, shape, 0)]
    if layout:
        exprs = [
            onnx_op("Transpose", exprs[0], perm=[2, 0, 1, 3]),
            *(onnx_op("Transpose", e, perm=[1, 0, 2]) for e in exprs[1:]),
        ]
        facts = [y.placed(node.outputs[0], x.dtype, (batch, y.extent, shape[1], shape[3]), 1)]
        last = replace(last, shape=(batch, Length.of(1), Length.of(hidden)))
    facts += [replace(last, wire=wire) for wire in node.outputs[1:]]
    return as_outcome(node, exprs, facts, states, steps, carries)


def _hidden(node: Node) -> int:
    weights = node.fact(2)
    size = weights.shape[-1].constant if isinstance(weights, Static) else None
    if size is None:
        refuse("the size of its state is not known", hint=UNKNOWN_SHAPE)
    return size


def _initial(node: Node, index: int, layout: int, shape: tuple[Length, Length, Length]) -> Expr | None:
    """Initial state of `shape` [1, B, H] where it is not zeros."""
    fact = node.fact(index)
    wanted = (shape[1], shape[0], shape[2]) if layout else shape
    if isinstance(fact, Static) and (
        len(fact.shape) != 3
        or any(d.constant is not None and n.constant is not None and d != n for d, n in zip(fact.shape, wanted))
    ):
        refuse(
            f"its initial state has shape {[str(d) for d in fact.shape]}, not {[str(d) for d in wanted]}",
            hint="check the model with onnx.checker",
        )
    if starts_as_zeros(node, fact):
        return None
    expr = static(node, index)
    return onnx_op("Transpose", expr, perm=[1, 0, 2]) if layout else expr
