"""Quantised operators with static scales: as their float twins, padded with the zero point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Fact, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.padding import pad
from pulsify_onnx.algebra.plan import Expr, Frames, Op, Outcome, Step, Unsigned, Window
from pulsify_onnx.algebra.windows import windowed
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.conv import convolution, kernel_of, other_pads
from pulsify_onnx.rules.kit.combinators import (
    as_outcome,
    keep_unless,
    onnx_op,
    passthrough,
    same_op,
    static,
    the_stream,
)
from pulsify_onnx.rules.kit.infer import infer, shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import CONTRIB, rule
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.kit.views import normalised_axes, spatial
from pulsify_onnx.rules.matmul import SUMMED, SUMMED_HINT, product_axes

PER_FRAME = "it has one scale per frame"
PER_FRAME_HINT = "quantise per tensor, or per channel"
RUN_TIME = "its scales change with the stream"
RUN_TIME_HINT = "use static quantisation, with scales fixed by calibration"


def static_scales(node: Node, data: Sequence[int]) -> None:
    """Refuse a node with streams among its inputs other than `data`."""
    if any(isinstance(f, Stream) and k not in data for k, f in enumerate(node.facts)):
        refuse(RUN_TIME, RUN_TIME_HINT)


def zero_point(node: Node, index: int, x: Stream) -> Const:
    """A border of the zero point in input `index`, zeros where it is left out; refuses one that is not a known
    scalar.
    """
    found = node.const(index, "the zero point")
    if found is None:
        return Const(np.zeros([1] * x.rank, x.dtype.numpy()))
    if found.size != 1:
        refuse("it pads with one zero point per channel", hint="quantise the activations per tensor")
    return Const(np.full([1] * x.rank, found.reshape(-1)[0], x.dtype.numpy()))


@declares(Trait.FRAMES_APART)
@declares(Trait.STAYS, only="DequantizeLinear")
@rule("QuantizeLinear", versions=(10, 13, 19, 21, 23, 24, 25, 28))
@rule("DequantizeLinear", versions=(10, 13, 19, 21, 23, 24, 25, 28))
@rule("QuantizeLinear", versions=(1,), domain=CONTRIB)
@rule("DequantizeLinear", versions=(1,), domain=CONTRIB)
def quantize(node: Node) -> Outcome:
    """Any axis, with a static scale and zero point, per tensor or per channel.

    Refuses: scales that belong to the frames (also in blocks, which have one for every entry of the other axes), or
    that change with the stream.
    """
    x = node.facts[0]
    if not isinstance(x, Stream):
        refuse(RUN_TIME, RUN_TIME_HINT)
    static_scales(node, (0,))
    scale = node.facts[1]
    assert isinstance(scale, Static)
    per_axis = len(scale.shape) == 1 and scale.shape[0].constant != 1
    if node.attr("block_size", 0) or (per_axis and (x.rank == 1 or node.axis(x.rank, default=1) == x.axis)):
        refuse(PER_FRAME, PER_FRAME_HINT)
    outcome = passthrough(node, [x.axis, *[None] * (len(node.facts) - 1)])
    return replace(outcome, steps=tuple(_both_ways(node, made) for made in outcome.steps))


def _both_ways(node: Node, made: Step) -> Step:
    """The step of a node, with what undoes it and with its form for unsigned integers.

    Not with a scale per channel, which onnxruntime's integer kernels do not take for activations though it puts them
    together.
    """
    forward, zero, scale = node.op_type == "QuantizeLinear", node.fact(2), node.fact(1)
    (expr,), x = made.exprs, made.facts[0] if forward else node.facts[0]
    assert isinstance(expr, Op) and isinstance(x, Stream) and isinstance(scale, Static)
    one = all(d == Length.of(1) for d in scale.shape)
    if not one or (zero is not None and not (isinstance(zero, Static) and zero.value is not None)):
        return made
    at = Const(np.zeros([1] * len(scale.shape), x.dtype.numpy())) if zero is None else zero.value
    assert at is not None
    undo, unsigned = None if forward else _quantised(node, made.wires[0], x, at), None
    if x.dtype == ir.DataType.INT8 and (
        zero is not None or not forward
    ):  # onnxruntime leaves those without a zero point
        at = Const((at.array.astype(np.int16) + 128).astype(np.uint8))
        unsigned = Unsigned(
            Op(expr.op_type, (*expr.inputs[:2], at), node.replaced(output_dtype=None), expr.domain),
            None if forward else _quantised(node, made.wires[0], x, at),
        )
    return replace(made, undo=undo, unsigned=unsigned)


def _quantised(node: Node, wire: str, x: Stream, zero: Const) -> Expr:
    """The integers again of which a node makes `wire`."""
    axis = {"axis": int(node.attr("axis", 1))} if zero.array.ndim else {}
    return onnx_op("QuantizeLinear", Window(wire, 0, Frames(x.rate)), static(node, 1), zero, domain=node.domain, **axis)


@rule("ConvInteger", versions=(10,))
def conv_integer(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride, dilation and groups; padded with the zero point.

    State: span - stride frames of integers.  Refuses: a stream along the channels, a zero point that changes with the
    stream.
    """
    static_scales(node, (0,))
    return convolution(node, 0, 1, zero_point(node, 2, the_stream(node)))


@rule("QLinearConv", versions=(10,))
@rule("QLinearConv", versions=(1,), domain=CONTRIB)
def qlinear_conv(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride, dilation and groups; padded with the zero point.

    State: span - stride frames of integers.  Refuses: a stream along the channels, scales that change with the stream.
    """
    static_scales(node, (0,))
    if node.attr("channels_last", 0):
        refuse(
            "its channels come last, a layout of onnxruntime's optimizer",
            hint="convert the model before it is optimized",
        )
    return convolution(node, 0, 3, zero_point(node, 2, the_stream(node)))


@rule("MatMulInteger", versions=(10,))
def matmul_integer(node: Node) -> Outcome:
    """Rows, columns or batch axes.

    Refuses: a sum over the stream, zero points that belong to the frames.
    """
    static_scales(node, (0, 1))
    axes = product_axes(node)
    for k in (0, 1):
        _scalar(node, k, k + 2)
    return passthrough(node, axes)


def _scalar(node: Node, data: int, index: int) -> None:
    """Refuse a scale or zero point `index` of several values where factor `data` streams along its rows or columns."""
    fact = node.fact(index)
    if isinstance(node.fact(data), Stream) and isinstance(fact, Static) and any(d.constant != 1 for d in fact.shape):
        refuse(PER_FRAME, PER_FRAME_HINT)


@rule("QLinearMatMul", versions=(10, 21))
def qlinear_matmul(node: Node) -> Outcome:
    """Rows, columns or batch axes.

    Refuses: a sum over the stream, scales that belong to the frames.
    """
    static_scales(node, (0, 3))
    axes = product_axes(node, 0, 3)
    for data, index in ((0, 1), (0, 2), (3, 4), (3, 5)):
        _scalar(node, data, index)
    return passthrough(node, axes)


@rule("MatMulIntegerToFloat", versions=(1,), domain=CONTRIB)
def matmul_integer_to_float(node: Node) -> Outcome:
    """Rows, columns or batch axes.

    Refuses: a sum over the stream, scales that belong to the frames (as dynamic quantisation has them).
    """
    static_scales(node, (0, 1))
    axes = product_axes(node)
    for data, index in ((0, 2), (0, 4), (1, 3), (1, 5)):
        _scalar(node, data, index)
    if isinstance(node.fact(1), Stream) and node.fact(6) is not None:
        _scalar(node, 1, 6)
    return passthrough(node, axes)


@rule("MatMulNBits", "MatMulBnb4", versions=(1,), domain=CONTRIB)
def matmul_packed(node: Node) -> Outcome:
    """Rows of the activations; the packed weights are static.

    Refuses: a sum over the stream.
    """
    x = the_stream(node)
    return keep_unless(node, [x.rank - 1], SUMMED, SUMMED_HINT)


@rule("QGemm", versions=(1,), domain=CONTRIB)
def qgemm(node: Node) -> Outcome:
    """Rows of the result.

    Refuses: a sum over the stream, weights that stream.
    """
    x = the_stream(node)
    if x.axis != (1 if node.attr("transA", 0) else 0):
        refuse(SUMMED, SUMMED_HINT)
    return passthrough(node, [0, *[None] * (len(node.facts) - 1)])


def _broadcast(node: Node, data: Sequence[int]) -> Outcome:
    """Keep an element-wise operator whose inputs `data` broadcast; the others are static."""
    static_scales(node, data)
    facts: list[Fact] = [f for k in data if (f := node.fact(k)) is not None]
    rank = max(len(shape_of(f)) for f in facts)
    axes: list[int | None] = [None] * len(node.facts)
    for k in data:
        fact = node.fact(k)
        if isinstance(fact, Stream):
            axes[k] = fact.axis + rank - fact.rank
    target = next(a for a in axes if a is not None)
    for fact in facts:
        at = target - rank + len(shape_of(fact))
        if not isinstance(fact, Stream) and at >= 0 and shape_of(fact)[at].constant != 1:
            refuse(
                "one of its inputs has a fixed number of frames along the stream, so it fits one length only",
                hint="compute it from frame positions, or export with a dynamic length",
            )
    return passthrough(node, axes)


@rule("QLinearAdd", "QLinearMul", versions=(1,), domain=CONTRIB)
def qlinear_binary(node: Node) -> Outcome:
    """Any axis, with static scales; several streams are aligned to the largest delay.

    Refuses: scales that change with the stream, streams that meet on different axes.
    """
    return _broadcast(node, (0, 3))


@rule("QLinearWhere", versions=(1,), domain=CONTRIB)
def qlinear_where(node: Node) -> Outcome:
    """Any axis, with static scales; several streams are aligned to the largest delay.

    Refuses: scales that change with the stream, streams that meet on different axes.
    """
    return _broadcast(node, (0, 1, 4))


@rule("QLinearLeakyRelu", "QLinearSigmoid", versions=(1,), domain=CONTRIB)
def qlinear_unary(node: Node) -> Outcome:
    """Any axis, with static scales.

    Refuses: scales that change with the stream.
    """
    static_scales(node, (0,))
    return passthrough(node, [the_stream(node).axis, *[None] * (len(node.facts) - 1)])


@rule("QLinearSoftmax", versions=(1,), domain=CONTRIB)
def qlinear_softmax(node: Node) -> Outcome:
    """Any axis but the one it normalises over.

    Refuses: a softmax over the stream.
    """
    static_scales(node, (0,))
    x = the_stream(node)
    return keep_unless(
        node,
        normalised_axes(node, x.rank),
        "it is taken over the whole stream, so every frame needs the last",
        hint="take it over the channels",
    )


@rule("QLinearConcat", versions=(1,), domain=CONTRIB)
def qlinear_concat(node: Node) -> Outcome:
    """Streams side by side along another axis.

    Refuses: one stream after another, constants beside a stream.
    """
    data = range(2, len(node.facts), 3)
    static_scales(node, tuple(data))
    axes: list[int | None] = [None] * len(node.facts)
    for k in data:
        fact = node.facts[k]
        if not isinstance(fact, Stream):
            refuse(
                f"its input {k} has a fixed number of frames beside a stream",
                hint="expand it to the length of the stream",
            )
        if fact.axis == node.axis(fact.rank):
            refuse(
                "it puts one stream after another, so the second begins when the first has ended",
                hint="concatenate along the channels",
            )
        axes[k] = fact.axis
    return passthrough(node, axes)


@rule("QLinearAveragePool", versions=(1,), domain=CONTRIB)
def qlinear_average_pool(node: Node) -> Outcome:
    """Any spatial axis without padding along the stream, any stride and kernel; any padding elsewhere.

    Refuses: padding or ceil_mode along the stream, where the divisor would change.
    """
    static_scales(node, (0,))
    x = the_stream(node)
    if node.attr("channels_last", 0):
        refuse(
            "its channels come last, a layout of onnxruntime's optimizer",
            hint="convert the model before it is optimized",
        )
    if x.axis < 2:
        return passthrough(node, [x.axis, *[None] * (len(node.facts) - 1)])
    view = spatial(node, kernel_of(node))
    k = x.axis - 2
    if view.same or view.pads[k] or view.pads[k + len(view.strides)] or node.attr("ceil_mode", 0):
        refuse(
            "its divisor changes where it pads the stream",
            hint="pad before the pool, or quantise around a float AveragePool",
        )
    window, y = windowed(x, view.spans[k], view.strides[k], node.options, through=True)
    ((dtype, shape),) = infer(node)
    assert shape is not None
    inputs: list[Expr | None] = [window, *(static(node, i) for i in range(1, len(node.facts)))]
    return as_outcome(
        node,
        [same_op(node, inputs, auto_pad=None, pads=other_pads(x, view))],
        [y.placed(node.outputs[0], dtype, shape, x.axis)],
    )


@rule("QLinearGlobalAveragePool", versions=(1,), domain=CONTRIB)
def qlinear_global_pool(node: Node) -> Outcome:
    """The batch axis and the channels.

    Refuses: a mean over the whole stream.
    """
    static_scales(node, (0,))
    x = the_stream(node)
    channels = x.rank - 1 if node.attr("channels_last", 0) else 1
    if x.axis not in (0, channels):
        refuse(
            "it averages over the whole stream and rounds the result",
            hint="dequantise before the pool, so that it can be a running mean",
        )
    return passthrough(node, [x.axis, *[None] * (len(node.facts) - 1)])


@rule("NhwcMaxPool", versions=(1,), domain=CONTRIB)
def nhwc_max_pool(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride and dilation; channels last.

    Refuses: ceil_mode or SAME padding along the stream.
    """
    x = the_stream(node)
    if x.axis in (0, x.rank - 1):
        return passthrough(node, [x.axis])
    view = spatial(node, kernel_of(node))
    n, k = len(view.strides), x.axis - 1
    if view.same or node.attr("ceil_mode", 0):
        refuse("ceil_mode or SAME padding along the stream", hint="export with explicit pads")
    lowest = Const(np.full([1] * x.rank, np.iinfo(x.dtype.numpy()).min, x.dtype.numpy()))
    steps: list[Step] = []
    padded = pad(x, view.pads[k], view.pads[k + n], lowest, node.options, steps)
    window, y = windowed(padded, view.spans[k], view.strides[k], node.options, through=True)
    ((dtype, shape),) = infer(node)
    assert shape is not None
    pads = list(view.pads)
    pads[k] = pads[k + n] = 0
    return as_outcome(
        node,
        [same_op(node, [window], auto_pad=None, pads=pads)],
        [y.placed(node.outputs[0], dtype, shape, x.axis)],
        before=steps,
    )
