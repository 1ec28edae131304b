"""Recurrences that carry a state from frame to frame: RNN, GRU, LSTM, CumSum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.errors import refuse
from pulsify_onnx.extent import Length
from pulsify_onnx.facts import Const, Fact, Prefix, Reach, Static, Stream
from pulsify_onnx.node import Node
from pulsify_onnx.plan import Count, Dim, Dims, Expr, Frames, Op, Outcome, Past, Position, Start, State, Step, Window
from pulsify_onnx.rules.combine import UNKNOWN_SHAPE, call, const, kept, static, step, the_stream
from pulsify_onnx.rules.gating import fed
from pulsify_onnx.rules.registry import rule
from pulsify_onnx.windows import align, complete, solid


def no_future(node: Node) -> None:
    """Refuse directions that run from the end of the stream."""
    direction = node.attr("direction", "forward")
    if direction != "forward":
        refuse(f"it runs from the last frame to the first (direction {direction})",
               hint="retrain with a forward recurrence, or run the backward pass over chunks")


def seen_before(x: Stream) -> Expr:
    """bool scalar: frame 0 of `x` came before this pulse, so the state is its own and not the initial one."""
    return call("Less", const(0), Start(x.rate, x.delay))


@rule("RNN", versions=(7, 14, 22))
@rule("GRU", versions=(7, 14, 22))
@rule("LSTM", versions=(7, 14, 22))
def recurrent(node: Node) -> Outcome:
    """Along time forward, with any initial state; across another axis, in any direction, with time as the batch.

    State: h (and c).  Prefix: Y_h, Y_c.  Refuses: reverse and bidirectional over the stream.
    """
    x = next((f for f in node.facts[:1] if isinstance(f, Stream)), None)
    if x is None:
        refuse("its weights or its initial state change with the stream", hint="pass them as constants or as inputs without time")
    layout = int(node.attr("layout", 0))
    time_axis, batch_axis = (1, 0) if layout else (0, 1)
    if x.axis == 2:
        refuse("the stream runs along its features", hint="transpose time to the first axis, or name another with --axis")
    if x.axis == batch_axis:
        return _across(node, x, layout)
    no_future(node)
    if node.fact(4) is not None:
        refuse("sequence_lens ends the stream inside the model", hint="export without sequence lengths")
    return _along(node, x, layout)


def _across(node: Node, x: Stream, layout: int) -> Outcome:
    """Every frame is a sequence of its own: time is the batch."""
    if node.fact(4) is not None:
        refuse("sequence_lens gives each frame another length", hint="export without sequence lengths")
    if layout:
        refuse("layout 1 with time as the batch", hint="export with layout 0 (batch second)")
    axes: list[int | None] = []
    for k, fact in enumerate(node.facts):
        if not isinstance(fact, Stream):
            axes.append(None)
        elif k in (5, 6) and fact.axis != 1:
            refuse("its initial state streams along another axis than its input", hint="give every frame the same initial state")
        else:
            axes.append(2)
    return kept(node, axes, out_axes=[2, 1, 1])


def _along(node: Node, x: Stream, layout: int) -> Outcome:
    steps: list[Step] = []
    x = solid(x, node.options, steps)
    wants_state = any(node.outputs[k] for k in range(1, len(node.outputs)))
    (window,), y = fed([x], node.options, wants_state, steps)
    hidden = int(node.attr("hidden_size") or _hidden(node))
    batch = x.shape[0 if layout else 1]
    batch_dim: Dim = batch.constant if batch.constant is not None else batch
    names = ["h", "c"][: 2 if node.op_type == "LSTM" else 1]
    tag = next(o for o in node.outputs if o)
    pasts = [call("Transpose", Past(f"{tag}.{name}"), perm=[1, 0, 2]) for name in names]
    initial = [_initial(node, k, layout) for k in range(5, 5 + len(names))]
    started = seen_before(y)
    starts = [past if init is None else call("Where", started, past, init) for past, init in zip(pasts, initial)]
    feed: Expr = call("Transpose", window, perm=[1, 0, 2]) if layout else window
    gate = _Gate(node, y, wants_state)
    inputs: list[Expr | None] = [gate.shifted(feed), static(node, 1), static(node, 2), static(node, 3), gate.lengths(batch_dim), *starts]
    if node.op_type == "LSTM":
        inputs.append(static(node, 7))
    attributes = node.replaced(layout=None)
    count = 1 + len(names)
    outs = [Op(node.op_type, tuple(inputs), attributes, node.domain, count, k) for k in range(count)]
    states = []
    after: list[Expr] = []
    for name, past, start, out in zip(names, pasts, starts, outs[1:]):
        value = gate.held(out, start, past)
        after.append(value)
        states.append(State(f"{tag}.{name}", x.dtype, (batch_dim, 1, hidden),
                            call("Transpose", value, perm=[1, 0, 2]), "recurrent"))
    exprs: list[Expr] = [gate.unshifted(outs[0])]
    shape = (x.extent, Length.of(1), batch, Length.of(hidden))
    final = (Length.of(1), batch, Length.of(hidden))
    facts: list[Fact] = [y.placed(node.outputs[0], x.dtype, shape, 0)]
    for k in range(1, len(node.outputs)):
        exprs.append(after[k - 1])
        facts.append(Prefix(node.outputs[k], x.dtype, final, complete(y, node.options), ((y.extent, y.rate, y.delay),)))
    if layout:
        exprs = [call("Transpose", exprs[0], perm=[2, 0, 1, 3]), *(call("Transpose", e, perm=[1, 0, 2]) for e in exprs[1:])]
        facts[0] = y.placed(node.outputs[0], x.dtype, (batch, x.extent, shape[1], shape[3]), 1)
        facts[1:] = [replace(f, shape=(f.shape[1], f.shape[0], f.shape[2])) for f in facts[1:] if isinstance(f, Prefix)]
    return step(node, exprs, facts, states, steps)


def _hidden(node: Node) -> int:
    weights = node.fact(2)
    size = weights.shape[-1].constant if isinstance(weights, Static) else None
    if size is None:
        refuse("the size of its state is not known", hint=UNKNOWN_SHAPE)
    return size


def _initial(node: Node, index: int, layout: int) -> Expr | None:
    """Initial state [1, B, H] where it is not zeros."""
    fact = node.fact(index)
    if fact is None or isinstance(fact, Static) and fact.value is not None and not fact.value.array.any():
        return None
    expr = static(node, index)
    return call("Transpose", expr, perm=[1, 0, 2]) if layout and expr is not None else expr


class _Gate:
    """Keeps the frames that are not real away from a recurrence.

    While a delayed stream warms up, the frames of a pulse are moved so that frame 0 comes first, sequence_lens ends
    after the last real one, and the outputs are moved back. onnxruntime takes no empty sequence, hence one frame at least.
    """

    def __init__(self, node: Node, x: Stream, wants_state: bool):
        self.x = x
        self.warm = x.delay > 0
        self.ends = wants_state and node.options.end_of_stream
        self.start = Start(x.rate, x.delay)
        self.index = Position(x.rate, x.delay)
        self.frame = call("Sub", self.index, self.start)
        self.count = call("Gather", call("Shape", Window(x.wire, 0, Frames(x.rate))), const(x.axis), axis=0)
        late = call("Max", call("Neg", self.start), const(0))
        self.offset = call("Min", late, call("Sub", self.count, const(1)))

    def shifted(self, feed: Expr) -> Expr:
        """`feed` ([frames, B, I]) with its first real frame in front."""
        if not self.warm:
            return feed
        at = call("Min", call("Add", self.frame, self.offset), call("Sub", self.count, const(1)))
        return call("Gather", feed, at, axis=0)

    def unshifted(self, out: Expr) -> Expr:
        """Outputs at their own frames again."""
        return call("Gather", out, call("Max", call("Sub", self.frame, self.offset), const(0)), axis=0) if self.warm else out

    def _real(self) -> Expr:
        """int64 scalar: frames of this pulse that are real, counted from its first real one; not above 0 without one."""
        total: Expr = self.count
        if self.ends:
            total = call("Min", total, call("Sub", Count(self.x.extent), self.start))
        if self.warm:
            late = call("Max", call("Neg", self.start), const(0))
            total = call("Sub", total, late)
        return total

    def lengths(self, batch: Dim) -> Expr | None:
        """sequence_lens, where it is needed."""
        if not self.warm and not self.ends:
            return None
        clipped = call("Max", self._real(), const(1))
        return call("Expand", call("Cast", clipped, to=6), Dims((batch,)))

    def held(self, new: Expr, start: Expr, past: Expr) -> Expr:
        """The state after this pulse: as it was where no frame of it was real."""
        if not self.warm and not self.ends:
            return new
        return call("Where", call("Less", const(0), self._real()), new, start)


@rule("CumSum", versions=(11, 14))
def cumsum(node: Node) -> Outcome:
    """Any axis; along the stream forward, inclusive or exclusive.

    State: the sum so far.  Refuses: reverse along the stream.
    """
    x = the_stream(node)
    found = node.const(1, "the axis")
    assert found is not None
    axis = int(found.reshape(-1)[0]) % x.rank
    if axis != x.axis:
        return kept(node, [x.axis, None])
    if node.attr("reverse", 0):
        refuse("it sums from the last frame backwards", hint="sum forwards, or over a window by a convolution")
    return running(node, x, "CumSum", "ReduceSum", "Add")


def running(node: Node, x: Stream, op_type: str, total: str, combine: str) -> Outcome:
    """A forward cumulative operator: the pulse's own plus what came before."""
    steps: list[Step] = []
    x = solid(x, node.options, steps)
    (window,), y = align([x], node.options)
    feed: Expr = window
    if y.delay:
        feed = call("Where", along(call("Less", Position(y.rate, y.delay), const(0)), x), Const(np.zeros((), x.dtype.numpy())), window)
    name = f"{node.outputs[0]}.sum"
    shape = [d.constant if d.constant is not None else d for d in x.shape]
    shape[x.axis] = 1
    past = Past(name)
    inclusive = call(op_type, feed, const(x.axis))
    expr = call(combine, call(op_type, feed, const(x.axis), exclusive=1) if node.attr("exclusive", 0) else inclusive, past)
    last = call("Gather", inclusive, const([-1]), axis=x.axis)
    state = State(name, x.dtype, tuple(shape), call(combine, past, last), "sum")
    y = replace(y, reach=Reach(None, y.reach.future), positional=False)
    return step(node, [expr], [y.placed(node.outputs[0], x.dtype, x.shape, x.axis)], [state], steps)


def along(flags: Expr, x: Stream) -> Expr:
    """A vector of one value per frame, shaped to broadcast against `x`."""
    shape = [1] * x.rank
    shape[x.axis] = -1
    return call("Reshape", flags, const(shape))
