"""Frames that are not real, kept away from the states of RNN, GRU and LSTM, without sequence_lens: many runtimes ignore
it.

While a delayed stream warms up, the frames of a pulse are moved so that frame 0 comes first, and the outputs are moved
back: frames that are not real, those past the end too, then follow the real ones. The hidden state is the output at the
last real frame. The cell of an LSTM is no output: a further input channel, 0 at real frames, shuts its input gate and
opens its forget gate at all others. A cell of zeros gives outputs of zeros, so that an LSTM that begins with zeros
needs no moving. Where these gates do not saturate, the LSTM runs in a Scan, frame by frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.facts import Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Op
from pulsify_onnx.algebra.windows import indices
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import const, onnx_op, static
from pulsify_onnx.rules.kit.gating import select, starts_as_zeros
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import Valid, before_end, before_first, begins
from pulsify_onnx.rules.scan import carry_or_keep, with_unit_axes

OPEN = 8192
"""What the further channel adds to a gate: a sigmoid of it is exactly 0 or 1 in any type, whatever else is added up
to `REST`.
"""

REST = 4096


class Gate:
    """Which frames of a pulse of `x` are real, and what a recurrence makes of that."""

    def __init__(self, node: Node, x: Stream, late: bool, ended: bool):
        self.x, self.warm, self.ends = x, late, ended
        self.channel = node.op_type == "LSTM" and _saturates(node)
        self.moves = self.warm and not (self.channel and all(starts_as_zeros(node, node.fact(k)) for k in (5, 6)))
        self.count = onnx_op("Gather", Dims((Frames(x.rate),)), const(0), axis=0)
        self.frame = onnx_op("Sub", indices(x), begins(x))
        self.late = before_first(x)
        self.offset = onnx_op("Min", self.late, onnx_op("Sub", self.count, const(1)))

    @property
    def needed(self) -> bool:
        """Whether a pulse may have frames that are not real and must not change the state."""
        return self.warm or self.ends

    def shifted(self, feed: Expr) -> Expr:
        """`feed` ([frames, B, I]) with its first real frame in front, where they are moved."""
        if not self.moves:
            return feed
        at = onnx_op("Min", onnx_op("Add", self.frame, self.offset), onnx_op("Sub", self.count, const(1)))
        return onnx_op("Gather", feed, at, axis=0)

    def unshifted(self, out: Expr) -> Expr:
        """Outputs at their own frames again."""
        return (
            onnx_op("Gather", out, onnx_op("Max", onnx_op("Sub", self.frame, self.offset), const(0)), axis=0)
            if self.moves
            else out
        )

    def real(self) -> Expr:
        """int64 scalar: frames of this pulse that are real, counted from its first real one; not above 0 without
        one.
        """
        total = before_end(self.x, self.count) if self.ends else self.count
        return onnx_op("Sub", total, self.late) if self.warm else total

    def flags(self) -> Expr:
        """Bool [frames]: which frames are real, where they have been moved to."""
        if self.moves:
            return onnx_op("Less", self.frame, self.real())
        found = Valid.of(self.x).flags(self.warm, self.ends)
        assert found is not None
        return found

    def last(self, out: Expr) -> Expr:
        """The last real frame of `out`."""
        count = self.real() if self.moves or not self.warm else onnx_op("Add", self.real(), self.late)
        return onnx_op("Gather", out, onnx_op("Sub", onnx_op("Max", count, const(1)), const(1)), axis=0)

    def kept(self, new: Expr, start: Expr) -> Expr:
        """A state after this pulse: as it was where no frame of it was real."""
        return onnx_op("Where", onnx_op("Less", const(0), self.real()), new, start)


def gated(
    node: Node, gate: Gate, feed: Expr, starts: Sequence[Expr], sizes: tuple[Length, Length, Length]
) -> list[Expr]:
    """Y, and h (and c) after this pulse, of a recurrence over `feed` ([frames, B, I]) from `starts`; `sizes` are B,
    H, I.
    """
    weights = [static(node, k) for k in (1, 2, 3)]
    lstm = node.op_type == "LSTM"
    more = [static(node, 7)] if lstm else []
    if gate.needed and lstm and not gate.channel:
        return _frame_by_frame(node, gate, feed, starts, sizes)
    x = gate.shifted(feed)
    if gate.needed and lstm:
        x, weights[0] = _with_channel(node, gate, x, sizes)
    count = 1 + len(starts)
    outs: list[Expr] = [
        Op(node.op_type, (x, *weights, None, *starts, *more), node.replaced(layout=None), node.domain, count, k)
        for k in range(count)
    ]
    if not gate.needed or (not gate.moves and not gate.ends):
        return outs
    after = [gate.last(outs[0]), *outs[2:]]
    return [gate.unshifted(outs[0]), *(gate.kept(new, start) for new, start in zip(after, starts))]


def _saturates(node: Node) -> bool:
    """Whether `OPEN` decides the gates of an LSTM alone: sigmoids of what stays below `REST`, as its output is a
    tanh.
    """
    activations = node.attr("activations")
    usual = activations is None or [str(a).lower() for a in activations] == ["sigmoid", "tanh", "tanh"]
    if not usual or node.attr("clip") is not None or node.fact(7) is not None:
        return False
    total = 0.0
    for k in (2, 3):
        fact = node.fact(k)
        known = node.world.value_of(fact.wire) if isinstance(fact, Static) else None
        if fact is not None and known is None:
            return False
        if known is not None:
            total += float(np.abs(known.array.astype(np.float64)).reshape(-1, known.array.shape[-1]).sum(-1).max())
    return total < REST


def _with_channel(node: Node, gate: Gate, x: Expr, sizes: tuple[Length, Length, Length]) -> tuple[Expr, Expr]:
    """`x` and the weights of an LSTM with the further channel."""
    fact, inner, hidden = node.fact(1), sizes[2].constant, sizes[1].constant
    assert isinstance(fact, Static) and hidden is not None
    if inner is None:
        inner = fact.shape[2].constant
    if inner is None:
        refuse("the number of its features is not known", hint="export with fixed channel sizes")
    kind = fact.dtype.numpy()
    column = np.zeros((1, 4 * hidden, 1), kind)
    column[:, :hidden], column[:, 2 * hidden : 3 * hidden] = -1, 1  # gates are in the order i, o, f, c
    known = node.world.value_of(fact.wire)
    weights: Expr = (
        Const(np.concatenate([known.array, column], 2))
        if known is not None
        else onnx_op("Concat", static(node, 1), Const(column), axis=2)
    )
    outside = np.zeros((1, 1, inner + 1), kind)
    outside[..., -1] = OPEN
    flags = onnx_op("Reshape", gate.flags(), const([-1, 1, 1]))
    wider = onnx_op("Pad", x, const([0, 0, 0, 0, 0, 1]))
    return select(flags, wider, Const(outside), fact.dtype), weights


def _frame_by_frame(
    node: Node, gate: Gate, feed: Expr, starts: Sequence[Expr], sizes: tuple[Length, Length, Length]
) -> list[Expr]:
    """An LSTM as a Scan that keeps its states at frames that are not real."""
    fact = node.fact(1)
    assert isinstance(fact, Static)
    batch, hidden, inner = sizes
    state = (Length.of(1), batch, hidden)
    tag = next(o for o in node.outputs if o)
    names = [f"{tag}/frame_{k}" for k in ("h", "c", "x")]
    h, c, x = (
        ir.Value(name=name, type=ir.TensorType(fact.dtype), shape=ir.Shape([d.constant for d in shape]))
        for name, shape in zip(names, (state, state, (batch, inner)))
    )
    outer = [ir.Value(name=f.wire) if isinstance(f := node.fact(k), Static) else None for k in (1, 2, 3, 7)]
    body = ir.Graph([h, c, x], [], nodes=[], opset_imports={"": node.opset}, name="frame")
    wide = with_unit_axes(body, x, [0], node.opset, f"{tag}/frame")
    cell = ir.Node(
        "",
        "LSTM",
        [wide, *outer[:3], None, h, c, *outer[3:]],
        [v for k, v in node.attributes.items() if k != "layout"],
        num_outputs=3,
        name=f"{tag}/frame_lstm",
    )
    for out, name in zip(cell.outputs, ("y", "new_h", "new_c")):
        out.name, out.type = f"{tag}/frame_{name}", ir.TensorType(fact.dtype)
    body.append(cell)
    body.outputs.extend([*cell.outputs[1:], cell.outputs[1]])
    flags = Valid.of(gate.x).flags(gate.warm, gate.ends)
    assert flags is not None
    seen = carry_or_keep(body, [(fact.dtype, state)] * 2, node.opset, tag)(flags, gate.x)
    attributes = (("body", Attribute(ir.AttrGraph("body", body))), ("num_scan_inputs", 2))
    outs = [Op("Scan", (*starts, feed, seen.expr), attributes, "", 3, k) for k in range(3)]
    return [outs[2], outs[0], outs[1]]
