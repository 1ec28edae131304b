"""Running values: accumulators over the frames so far.

A `Feed` is the pulse of one or more streams about to be reduced: frames that are not real are hidden by a fill, and
only real frames are counted. An `Accumulator` is a state that starts as zeros: where zero is not neutral, the past
counts only once a real frame came before this pulse. Half floats accumulate in float32; a float32 `running_sum` has a
second state for what every addition loses, as it would stop growing after 2^24 frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Running, Shape, Stream, Wait
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import materialise_padding
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Options, Past, State, Step, Test, When, Window
from pulsify_onnx.algebra.windows import kept_real
from pulsify_onnx.arrays import Const
from pulsify_onnx.rules.kit.combinators import const, onnx_op
from pulsify_onnx.rules.kit.gating import along
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import begins, real_of, started, where_real
from pulsify_onnx.rules.kit.views import by_axes

_WIDE = {
    ir.DataType.FLOAT16: ir.DataType.FLOAT,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
    ir.DataType.INT8: ir.DataType.INT32,
    ir.DataType.UINT8: ir.DataType.INT32,
    ir.DataType.INT16: ir.DataType.INT32,
    ir.DataType.UINT16: ir.DataType.INT32,
    ir.DataType.BOOL: ir.DataType.INT32,
}


def wide(dtype: ir.DataType) -> ir.DataType:
    """The type that values of `dtype` accumulate in."""
    return _WIDE.get(dtype, dtype)


def cast(value: Expr, old: ir.DataType, new: ir.DataType) -> Expr:
    """`value` as `new`."""
    return value if old == new else onnx_op("Cast", value, to=int(new))


def number(value: object, dtype: ir.DataType) -> Const:
    """A scalar of `dtype`."""
    return Const(np.asarray(value, dtype.numpy()))


def lowest(dtype: ir.DataType, sign: int = 1) -> Const:
    """The neutral element of a maximum over `dtype` (with `sign` -1, of a minimum)."""
    if dtype.is_floating_point():
        return number(-sign * np.inf, dtype)
    info = np.iinfo(dtype.numpy())
    return number(info.min if sign > 0 else info.max, dtype)


@dataclass(frozen=True)
class Feed:
    """The pulses of streams that share one time and one delay, about to be reduced."""

    streams: tuple[Stream, ...]
    windows: tuple[Window, ...]
    options: Options

    @property
    def x(self) -> Stream:
        """The first of the streams, whose time all of them share."""
        return self.streams[0]

    @property
    def frames(self) -> Expr:
        """int64 [1]: frames in a pulse."""
        return Dims((Frames(self.x.rate),))

    @property
    def start(self) -> Expr:
        """int64 scalar: index of the first frame of this pulse."""
        return begins(self.x)

    def value(self, index: int = 0) -> Expr:
        """The pulse of stream `index` in the type it accumulates in."""
        dtype = self.streams[index].dtype
        return cast(self.windows[index], dtype, wide(dtype))

    def only_real(self, value: Expr, fill: Const, index: int = 0) -> Expr:
        """`value`, whose frames run along the axis of stream `index`, with `fill` where a frame is not real."""
        return where_real(
            self.x, True, lambda real: onnx_op("Where", along(real, self.streams[index]), value, fill), value
        )

    def settled(self, value: Expr, dtype: ir.DataType) -> Expr:
        """A running value of `dtype`, 0 while no real frame has come: the neutral element is not finite."""
        if not dtype.is_floating_point():
            return value
        return When(
            Test(ends=True, late=self.x.delay),
            onnx_op("Where", onnx_op("Less", const([0]), self.seen()), value, number(0, dtype)),
            value,
        )

    def before(self) -> Expr:
        """int64 [1]: real frames before this pulse."""
        return self._real(self.start)

    def seen(self) -> Expr:
        """int64 [1]: real frames up to and with this pulse."""
        return self._real(onnx_op("Add", self.start, self.frames))

    def _real(self, count: Expr) -> Expr:
        return onnx_op("Reshape", real_of(self.x, count), const([1]))

    def fact(self, wire: str, dtype: ir.DataType, shape: Shape) -> Running:
        """The running value `wire`."""
        return Running(wire, dtype, shape, (Wait.of(self.x),))


def feed(xs: Sequence[Stream], options: Options, steps: list[Step]) -> Feed:
    """`xs` at the least delay at which a frame that has come is real, however the stream goes on."""
    whole = [materialise_padding(x, options, steps) for x in xs]
    windows, streams = kept_real(whole, options)
    return Feed(tuple(streams), tuple(windows), options)


@dataclass(frozen=True)
class Accumulator:
    """A state of `shape` that a reduction carries; ``initial``: what it starts from where that is not zeros."""

    feed: Feed
    name: str
    dtype: ir.DataType
    shape: Shape
    role: str
    initial: Const | None = None

    @property
    def past(self) -> Expr:
        """Its value before this pulse."""
        past: Expr = Past(self.name)
        return past if self.initial is None else onnx_op("Where", started(self.feed.x), past, self.initial)

    def becomes(self, value: Expr) -> State:
        """Its state, with the value after this pulse."""
        return State(self.name, self.dtype, self.shape, value, self.role)


def running_sum(held: Accumulator, added: Expr, scale: Expr | None = None) -> tuple[Expr, tuple[State, ...]]:
    """``past * scale + added``: the accumulator after this pulse, and its states.

    In float32 what the addition rounds off is found exactly (Knuth's two-sum), kept, and part of what the next pulse
    adds. Past the range of floats nothing is kept, so that an infinite sum stays infinite.
    """
    past = held.past if scale is None else onnx_op("Mul", held.past, scale)
    if held.dtype != ir.DataType.FLOAT:
        after = onnx_op("Add", past, added)
        return after, (held.becomes(after),)
    lost = replace(held, name=f"{held.name}.lost", role="lost")
    whole = onnx_op("Add", added, lost.past if scale is None else onnx_op("Mul", lost.past, scale))
    after = onnx_op("Add", past, whole)
    moved = onnx_op("Sub", after, past)
    rest = onnx_op("Add", onnx_op("Sub", past, onnx_op("Sub", after, moved)), onnx_op("Sub", whole, moved))
    finite = onnx_op("Less", onnx_op("Abs", rest), number(np.inf, held.dtype))
    return after, (held.becomes(after), lost.becomes(onnx_op("Where", finite, rest, number(0, held.dtype))))


def reduced(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """`shape` without `axes`, or with one element along them."""
    return tuple(Length.of(1) if k in axes else d for k, d in enumerate(shape) if keepdims or k not in axes)


def reduce_by(node: Node, op_type: str, value: Expr, axes: Sequence[int]) -> Expr:
    """A Reduce operator that keeps its axes, in the form of the node's opset."""
    return by_axes(node, op_type, value, axes, keepdims=1)


def squeeze_by(node: Node, value: Expr, axes: Sequence[int]) -> Expr:
    """`value` without `axes`, in the form of the node's opset."""
    return by_axes(node, "Squeeze", value, axes)
