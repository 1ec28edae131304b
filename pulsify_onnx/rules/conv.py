"""Convolutions along any spatial axis: window readers with a border of zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.delay import Delay, DelayLike
from pulsify_onnx.algebra.facts import Static, Stream
from pulsify_onnx.algebra.length import Length, larger
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Number, Op, Outcome, Step
from pulsify_onnx.algebra.upsampling import upsampled
from pulsify_onnx.algebra.windows import crop, pad, solid, windowed, zero
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE, call, const, kept, op, static, step, the_stream
from pulsify_onnx.rules.kit.infer import infer
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.views import EXPLICIT, Spatial, shorter, spatial

CHANNELS = "the stream runs along the channels, which every output value sums over"
CHANNELS_HINT = "transpose time to a spatial axis before the convolution, or name another axis with --axis"


def kernel_of(node: Node, index: int = 1) -> list[int]:
    """Spatial kernel sizes from the attribute or the weights' shape."""
    found = node.ints("kernel_shape")
    if found is not None:
        return found
    weights = node.fact(index)
    if not isinstance(weights, Static):
        refuse("its weights change with the stream", hint="use constant weights")
    sizes = [d.constant for d in weights.shape[2:]]
    if any(s is None for s in sizes):
        refuse("the kernel size is not known", hint=UNKNOWN_SHAPE)
    return [int(s) for s in sizes if s is not None]


def same_pads(x: Stream, view: Spatial, k: int) -> tuple[int, Length]:
    """(before, after) that auto_pad SAME_* puts at the stream axis `k`; refuses where they move with the length."""
    span, stride = view.spans[k], view.strides[k]
    if span - stride < view.least:
        shorter(view, k)
    wanted = (-((-x.extent).floordiv(stride)) - 1) * stride + span
    if stride == 1:
        total = Length.of(span - 1)
    elif span <= stride:
        total = larger(0, wanted - x.extent)
    else:
        total = wanted - x.extent
    befores = {(total.at(n) + (view.auto_pad == "SAME_LOWER")) // 2 for n in range(10 * stride * 64, 10 * stride * 64 + 4 * stride * max(1, x.rate.denominator))}
    if len(befores) > 1:
        refuse(f"auto_pad {view.auto_pad} with stride {stride} pads another number of frames at the start for every length of the stream",
               hint=EXPLICIT)
    before = befores.pop()
    return before, total - before


def border_pads(x: Stream, view: Spatial) -> tuple[int, Length]:
    """(before, after) at the stream axis."""
    k = x.axis - 2
    if view.same:
        return same_pads(x, view, k)
    return view.pads[k], Length.of(view.pads[k + len(view.strides)])


def other_pads(x: Stream, view: Spatial) -> list[int]:
    """Explicit pads of all spatial axes, none at the stream axis."""
    n = len(view.strides)
    pads = list(view.pads)
    for k in range(n):
        if k == x.axis - 2:
            pads[k] = pads[k + n] = 0
        elif view.same:
            size = x.shape[k + 2].constant
            if size is None:
                refuse("auto_pad on an axis of unknown size", hint=EXPLICIT)
            wanted = (-(-size // view.strides[k]) - 1) * view.strides[k] + view.spans[k] - size
            if wanted < view.least:
                shorter(view, k)
            total = max(wanted, 0)
            half = total // 2
            pads[k], pads[k + n] = (half, total - half) if view.auto_pad == "SAME_UPPER" else (total - half, half)
    return pads


@rule("Conv", versions=(1, 11, 22))
def conv(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride, dilation and groups; state: span - stride frames and those waited for.

    Refuses: a stream along the channels; SAME padding that moves with the length, or that onnxruntime computes in its own way.
    """
    return convolution(node, 0, 1)


def convolution(node: Node, index: int, weights: int, border: Const | None = None) -> Outcome:
    """A convolution whose data is input `index` and whose weights are input `weights`; pads with `border` (zeros)."""
    x = the_stream(node, index)
    if x.axis == 0:
        return kept(node, [0 if k == index else None for k in range(len(node.facts))])
    if x.axis == 1:
        refuse(CHANNELS, CHANNELS_HINT)
    view = spatial(node, kernel_of(node, weights))
    steps: list[Step] = []
    before, after = border_pads(x, view)
    padded = pad(x, before, after, border or zero(x), node.options, steps)
    window, y = windowed(padded, view.spans[x.axis - 2], view.strides[x.axis - 2], node.options, through=True)
    ((dtype, shape),) = infer(node)
    if shape is None or any(d is None for k, d in enumerate(shape) if k != x.axis):
        refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
    inputs: list[Expr | None] = [window if k == index else static(node, k) for k in range(len(node.facts))]
    expr = op(node, inputs, auto_pad=None, pads=other_pads(x, view))
    return step(node, [expr], [y.placed(node.outputs[0], dtype, shape, x.axis)], before=steps)


@rule("ConvTranspose", versions=(1, 11, 22))
def conv_transpose(node: Node) -> Outcome:
    """Any spatial axis, any stride, kernel, pads and output padding; state: the input frames that overlap.

    Refuses: a stream along the channels; an output_shape that fixes the length.
    """
    x = the_stream(node)
    if x.axis == 0:
        return kept(node, [0, None, None][: len(node.facts)])
    if x.axis == 1:
        refuse(CHANNELS, CHANNELS_HINT)
    steps: list[Step] = []
    if x.lead:
        x = solid(x, node.options, steps)
    weights = node.fact(1)
    if isinstance(weights, Static) and weights.value is not None and not np.isfinite(weights.value.array).all():
        refuse("its weights are not all finite, and frames before the first would not add nothing", hint="the model seems broken: check its weights")
    view = spatial(node, kernel_of(node))
    k, n = x.axis - 2, len(view.strides)
    stride, span = view.strides[k], view.spans[k]
    extra = list(node.ints("output_padding") or [0] * n)
    if node.attr("output_shape") is not None:
        refuse("output_shape fixes the length of the result", hint="export with pads and output_padding instead")
    before, after = view.pads[k], view.pads[k + n]
    if view.same:
        total = span + extra[k] - stride
        if total < 0:
            refuse("auto_pad SAME with a kernel shorter than the stride", hint=EXPLICIT)
        before = total // 2 if view.auto_pad == "SAME_UPPER" else total - total // 2
        after = total - before
    tail = max(0, -(-(span - stride + extra[k]) // stride))
    window, up = upsampled(x, [(-((span - 1 - r) // stride), 0) if r < span else None for r in range(stride)], tail, zero(x), node.options, steps)
    pads = list(view.pads)
    if view.same:
        pads = _transposed_same(x, view, extra)
    pads[k] = pads[k + n] = 0
    extra[k] = max(0, stride - span)
    ((dtype, shape),) = infer(node)
    if shape is None:
        refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
    whole = Op("ConvTranspose", (window, *(static(node, i) for i in range(1, len(node.facts)))),
               node.replaced(auto_pad=None, output_shape=None, pads=pads, output_padding=extra))
    wire = node.outputs[0]
    raw = up.y.placed(wire, dtype, shape, x.axis)
    expr = cut(whole, x.axis, up.start, Frames(raw.rate))
    length = (x.extent - 1) * stride + span + (node.ints("output_padding") or [0] * n)[k] - before - after
    full = (*raw.shape[: x.axis], length + before, *raw.shape[x.axis + 1:])
    raw = replace(raw, shape=full)
    made = Step(node.name, node.op_type, (wire,), (expr,), (raw,))
    return Outcome((crop(raw, start=before),), (*steps, made))


def _transposed_same(x: Stream, view: Spatial, extra: list[int]) -> list[int]:
    n = len(view.strides)
    pads = [0] * (2 * n)
    for k in range(n):
        total = max(0, view.spans[k] + extra[k] - view.strides[k])
        half = total // 2
        pads[k], pads[k + n] = (half, total - half) if view.auto_pad == "SAME_UPPER" else (total - half, half)
    return pads


def cut(x: Expr, axis: int, start: DelayLike, frames: Frames) -> Expr:
    """`frames` frames of `x` along `axis`, from frame `start`."""
    ends = Dims((Frames(frames.rate, frames.extra + start),))
    return call("Slice", x, Number(Delay.of(start)), ends, const([axis]))


