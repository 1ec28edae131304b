"""Convolutions along any spatial axis: window readers with a border of zeros."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pulsify_onnx.algebra.border import foldable, zero
from pulsify_onnx.algebra.delay import Delay, DelayLike
from pulsify_onnx.algebra.facts import Mirror, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import larger
from pulsify_onnx.algebra.padding import crop, lengthened, materialise_padding, pad
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Number, Op, Outcome, Step, Test, When
from pulsify_onnx.algebra.upsampling import spread
from pulsify_onnx.algebra.windows import indices_read, windowed
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.combinators import (
    UNKNOWN_SHAPE,
    as_outcome,
    const,
    onnx_op,
    passthrough,
    same_op,
    static,
    the_stream,
)
from pulsify_onnx.rules.kit.gating import along
from pulsify_onnx.rules.kit.infer import infer
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import Valid
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares
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
    befores = {
        (total.at(n) + (view.auto_pad == "SAME_LOWER")) // 2
        for n in range(10 * stride * 64, 10 * stride * 64 + 4 * stride * max(1, x.rate.denominator))
    }
    if len(befores) > 1:
        refuse(
            f"auto_pad {view.auto_pad} with stride {stride} pads another number of frames at the start for every "
            "length of the stream",
            hint=EXPLICIT,
        )
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


@dataclass(frozen=True)
class TapsRead:
    """The taps of a kernel that are read, from `first` up to `end`: those at its ends that are all zero are not; one
    at least is.
    """

    first: int
    end: int

    @property
    def count(self) -> int:
        """How many there are."""
        return self.end - self.first


def weights_of(node: Node, index: int) -> Array | None:
    """Weights that are known; None for those that an operator gives."""
    return node.world.weights_of(node.inputs[index] or "")


def taps_of(weights: Array, axis: int, most: int | None = None, ends: bool = True) -> TapsRead:
    """The taps along `axis` that are read: not those that are zero at the start (`most` of them) and, with `ends`,
    at the end.
    """
    first, end = 0, weights.shape[axis]
    while ends and end > 1 and not weights.take(end - 1, axis).any():
        end -= 1
    while first + 1 < end and first != most and not weights.take(first, axis).any():
        first += 1
    return TapsRead(first, end)


def sizes_with(node: Node, view: Spatial, k: int, read: TapsRead) -> dict[str, Any]:
    """The attribute that tells the kernel's sizes, where it does, with the taps that are read at spatial axis `k`."""
    return {"kernel_shape": [*view.kernel[:k], read.count, *view.kernel[k + 1 :]]} if node.ints("kernel_shape") else {}


@declares(Trait.WINDOWS)
@rule("Conv", versions=(1, 11, 22))
def conv(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride, dilation and groups; state: span - stride frames and those waited for.

    Refuses: a stream along the channels; SAME padding that moves with the length, or that onnxruntime computes in its
    own way.
    """
    return convolution(node, 0, 1)


def convolution(node: Node, index: int, weights: int, border: Const | None = None) -> Outcome:
    """A convolution whose data is input `index` and whose weights are input `weights`; pads with `border` (zeros)."""
    x = the_stream(node, index)
    if x.axis == 0:
        return passthrough(node, [0 if k == index else None for k in range(len(node.facts))])
    if x.axis == 1:
        refuse(CHANNELS, CHANNELS_HINT)
    view = spatial(node, kernel_of(node, weights))
    steps: list[Step] = []
    before, after = border_pads(x, view)
    k = x.axis - 2
    kernel, read = static(node, weights), TapsRead(0, view.kernel[k])
    found = weights_of(node, weights) if border is None else None
    if found is not None:
        read = taps_of(found, x.axis, ends=after.constant is not None)
        before, after = before - read.first * view.dilations[k], after - (view.kernel[k] - read.end) * view.dilations[k]
        kernel = kernel if read.count == view.kernel[k] else Const(found.take(range(read.first, read.end), x.axis))
    padded = pad(x, before, after, border or zero(x), node.options, steps)
    window, y = windowed(padded, (read.count - 1) * view.dilations[k] + 1, view.strides[k], node.options, through=True)
    ((dtype, shape),) = infer(node)
    if shape is None or any(d is None for k, d in enumerate(shape) if k != x.axis):
        refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
    inputs: list[Expr | None] = [
        window if i == index else kernel if i == weights else static(node, i) for i in range(len(node.facts))
    ]
    expr = same_op(node, inputs, auto_pad=None, pads=other_pads(x, view), **sizes_with(node, view, k, read))
    return as_outcome(node, [expr], [y.placed(node.outputs[0], dtype, shape, x.axis)], before=steps)


@declares(Trait.WINDOWS)
@rule("ConvTranspose", versions=(1, 11, 22))
def conv_transpose(node: Node) -> Outcome:
    """Any spatial axis, any stride, kernel, pads and output padding; state: the input frames that overlap.

    Refuses: a stream along the channels; an output_shape that fixes the length.
    """
    x = the_stream(node)
    if x.axis == 0:
        return passthrough(node, [0, None, None][: len(node.facts)])
    if x.axis == 1:
        refuse(CHANNELS, CHANNELS_HINT)
    steps: list[Step] = []
    _refuse_infinite_weights(node)
    view = spatial(node, kernel_of(node))
    k, n = x.axis - 2, len(view.strides)
    stride, span = view.strides[k], view.spans[k]
    mirrored = x.pad_before > 0 and isinstance(x.border, Mirror) and not x.merged and not x.cached
    if x.pad_before and not foldable(x, stride) and not mirrored:
        x = materialise_padding(x, node.options, steps)
    extra = list(node.ints("output_padding") or [0] * n)
    if node.attr("output_shape") is not None:
        refuse("output_shape fixes the length of the result", hint="export with pads and output_padding instead")
    before, after = _cropped(view, k, extra[k])
    length = (x.extent - 1) * stride + span + extra[k] - before - after
    read, kernel = TapsRead(0, view.kernel[k]), static(node, 1)
    found, bias = weights_of(node, 1), _bias(node, x, 2)
    most = None if bias is not None and (mirrored or not x.pad_before) else before // view.dilations[k]
    if found is not None and (read := taps_of(found, x.axis, most)).count < view.kernel[k]:
        kernel = Const(found.take(range(read.first, read.end), x.axis))
        before, extra[k] = (
            before - read.first * view.dilations[k],
            extra[k] + (view.kernel[k] - read.end) * view.dilations[k],
        )
        span = (read.count - 1) * view.dilations[k] + 1
    overlap = max(0, (span - 1) // stride)
    tail = max(0, -(-(span - stride + extra[k]) // stride))
    frames, y = _between_zeros(node, x, overlap, tail, steps)
    pads = list(view.pads)
    if view.same:
        pads = _transposed_same(x, view, extra)
    pads[k] = pads[k + n] = 0
    extra[k] = max(0, stride - span)
    ((dtype, shape),) = infer(node)
    if shape is None:
        refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
    whole = Op(
        "ConvTranspose",
        (frames, kernel, *(static(node, i) for i in range(2, len(node.facts)))),
        node.replaced(
            auto_pad=None, output_shape=None, pads=pads, output_padding=extra, **sizes_with(node, view, k, read)
        ),
    )
    wire = node.outputs[0]
    taps = [(-((span - 1 - r) // stride), 0) if r < span else None for r in range(stride)]
    up = spread(x, y, taps)
    raw = up.y.placed(wire, dtype, shape, x.axis)
    expr = cut(whole, x.axis, up.start, Frames(raw.rate))
    full = (*raw.shape[: x.axis], length + before, *raw.shape[x.axis + 1 :])
    raw = replace(raw, shape=full)
    made = Step(node.name, node.op_type, (wire,), (expr,), (raw,))
    steps.append(made)
    if before >= 0:
        return Outcome((crop(raw, start=before),), tuple(steps))
    assert bias is not None
    return Outcome((pad(raw, -before, 0, bias, node.options, steps),), tuple(steps))


def _refuse_infinite_weights(node: Node) -> None:
    weights = node.fact(1)
    if isinstance(weights, Static) and weights.value is not None and not np.isfinite(weights.value.array).all():
        refuse(
            "its weights are not all finite, and frames before the first would not add nothing",
            hint="the model seems broken: check its weights",
        )


def _cropped(view: Spatial, k: int, extra: int) -> tuple[int, int]:
    """How many frames a transposed convolution leaves out at either end of spatial axis `k`, with `extra` padding."""
    if not view.same:
        return view.pads[k], view.pads[k + len(view.strides)]
    total = view.spans[k] + extra - view.strides[k]
    if total < 0:
        refuse("auto_pad SAME with a kernel shorter than the stride", hint=EXPLICIT)
    before = total // 2 if view.auto_pad == "SAME_UPPER" else total - total // 2
    return before, total - before


def _between_zeros(node: Node, x: Stream, before: int, after: int, steps: list[Step]) -> tuple[Expr, Stream]:
    """`before` + 1 frames of `x` for each of its own, with so many zeros before it and `after` it; and the stream of
    these windows.

    Around a border that mirrors frames there are no zeros yet: they are put in its place by their position.
    """
    if not x.pad_before or not isinstance(x.border, Mirror):
        return windowed(pad(x, before, after, zero(x), node.options, steps), before + 1, 1, node.options)
    longer = lengthened(x, before, after)
    window, y = windowed(longer, before + 1, 1, node.options, hidden=before)
    place = Valid(indices_read(window, y, 1, before), x.extent)

    def masked(real: Expr | None) -> Expr:
        return window if real is None else onnx_op("Where", along(real, x), window, zero(x))

    shown = masked(place.flags(late=before > 0))
    return (When(Test(ends=True), masked(place.flags(ended=True)), shown) if longer.pad_after.terms else shown), y


def _bias(node: Node, x: Stream, index: int) -> Const | None:
    """A frame of nothing but the bias; None where it is not known."""
    if index >= len(node.facts) or node.facts[index] is None:
        return zero(x)
    found = weights_of(node, index)
    return None if found is None else Const(found.reshape(1, -1, *[1] * (x.rank - 2)))


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
    return onnx_op("Slice", x, Number(Delay.of(start)), ends, const([axis]))
