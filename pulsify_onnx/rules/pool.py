"""Pools: window readers whose border is the neutral element, with the divisor right at both ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from pulsify_onnx.algebra.border import zero
from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.padding import pad
from pulsify_onnx.algebra.plan import Dims, Expr, Frames, Outcome, Step, Test, When, Window
from pulsify_onnx.algebra.windows import fewer, indices_read, windowed
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.conv import border_pads, kernel_of, other_pads
from pulsify_onnx.rules.kit.combinators import (
    UNKNOWN_SHAPE,
    as_outcome,
    const,
    onnx_op,
    passthrough,
    same_op,
    the_stream,
)
from pulsify_onnx.rules.kit.infer import infer, overstated
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import Valid
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.kit.views import Spatial, spatial

CHANNELS = "the stream runs along the channels or the batch of a pool"


def lowest_of(x: Stream) -> Const:
    """The neutral element of a maximum over `x`."""
    kind = x.dtype.numpy()
    value = -np.inf if x.dtype.is_floating_point() else np.iinfo(kind).min
    return Const(np.full([1] * x.rank, value, kind))


def _windowed(node: Node, x: Stream, view: Spatial, border: Const, steps: list[Step]) -> tuple[Window, Stream]:
    k = x.axis - 2
    span, stride = view.spans[k], view.strides[k]
    before, after = border_pads(x, view)
    more = _partial(node, stride)
    window, y = windowed(
        pad(x, before, after + more, border, node.options, steps), span, stride, node.options, through=True
    )
    if more:  # a window may start in the input or its left padding only
        return fewer(window, y, -((-(x.extent + before)).floordiv(stride)), span, stride)
    return window, y


def _partial(node: Node, stride: int) -> int:
    """How many frames of the last window may lie behind all padding."""
    return stride - 1 if node.attr("ceil_mode", 0) else 0


def _pooled(node: Node, border: Const) -> tuple[Expr, Stream, Window, Spatial, list[Step]]:
    x = the_stream(node)
    view = spatial(node, kernel_of(node))
    steps: list[Step] = []
    window, y = _windowed(node, x, view, border, steps)
    (dtype, shape), *_ = infer(node)
    if shape is None or any(d is None for k, d in enumerate(shape) if k != x.axis):
        refuse("the shape of its result is not known", hint=UNKNOWN_SHAPE)
    pads = other_pads(x, view)
    data: Expr = window
    for axis, size in overstated(node, tuple(None if k == x.axis else d for k, d in enumerate(shape))).items():
        data, pads[axis - 2 + len(view.kernel)] = _fitting(data, x, view, axis, size, pads[axis - 2])
    expr = same_op(node, [data], auto_pad=None, pads=pads)
    return expr, y.placed(node.outputs[0], dtype, shape, x.axis), window, view, steps


def _fitting(data: Expr, x: Stream, view: Spatial, axis: int, size: int, before: int) -> tuple[Expr, int]:
    """`data` and its padding at the end of `axis` so that the last of `size` windows ends where they end: nobody
    sees one more to round up to.
    """
    k, own = axis - 2, x.shape[axis].constant or 0
    after = (size - 1) * view.strides[k] + view.spans[k] - own - before
    return (data, after) if after >= 0 else (onnx_op("Slice", data, const([0]), const([own + after]), const([axis])), 0)


@declares(Trait.WINDOWS)
@declares(Trait.POOLS)
@rule("MaxPool", versions=(1, 8, 10, 11, 12, 22))
def max_pool(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride, dilation and ceil_mode.

    Refuses: the indices output, which counts positions in the whole input; SAME padding with dilation or a kernel
    shorter than the stride.
    """
    x = the_stream(node)
    if len(node.outputs) > 1 and node.outputs[1]:
        refuse("its indices are positions in the whole recording", hint="do without the Indices output")
    if x.axis < 2:
        return passthrough(node, [x.axis])
    expr, y, _, _, steps = _pooled(node, lowest_of(x))
    return as_outcome(node, [expr], [y], before=steps)


@declares(Trait.WINDOWS)
@declares(Trait.POOLS)
@rule("LpPool", versions=(2, 11, 18, 22))
def lp_pool(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride, dilation and ceil_mode.

    Refuses: SAME padding with dilation or a kernel shorter than the stride.
    """
    x = the_stream(node)
    if x.axis < 2:
        return passthrough(node, [x.axis])
    expr, y, _, _, steps = _pooled(node, zero(x))
    return as_outcome(node, [expr], [y], before=steps)


@declares(Trait.WINDOWS)
@declares(Trait.POOLS)
@rule("AveragePool", versions=(1, 7, 10, 11, 19, 22))
def average_pool(node: Node) -> Outcome:
    """Any spatial axis, any pads, stride and ceil_mode; the divisor counts real frames at both ends.

    Refuses: SAME padding with dilation or a kernel shorter than the stride.
    """
    x = the_stream(node)
    if x.axis < 2:
        return passthrough(node, [x.axis])
    expr, y, window, view, steps = _pooled(node, zero(x))
    k = x.axis - 2
    before, after = border_pads(x, view)
    counted = bool(node.attr("count_include_pad", 0))
    low, high = (-before, x.extent + after) if counted else (0, x.extent)
    open_start = before > 0 and not counted
    open_end = _partial(node, view.strides[k]) > 0 or (not counted and bool(after.terms))

    def divided(end: bool) -> Expr:
        if not open_start and not end:
            return expr
        inside = _inside(
            x,
            Valid(indices_read(window, y, view.strides[k], before), high, low).flags(open_start, end),
            window.frames,
            view,
        )
        return onnx_op("Div", expr, onnx_op("Max", inside, const(0.5 / view.kernel[k], x.dtype.numpy())))

    return as_outcome(
        node, [When(Test(ends=True), divided(True), divided(False)) if open_end else divided(False)], [y], before=steps
    )


def _inside(x: Stream, counted: Expr | None, frames: Frames, view: Spatial) -> Expr:
    """Share of a window's taps that the divisor counts, of frames of which it is told which are `counted`, shaped to
    divide the pooled values.
    """
    k, n = x.axis - 2, len(view.kernel)
    shape: list[int | Frames] = [1, 1, *([1] * n)]
    shape[x.axis] = frames
    ones = [1] * n
    kernel, strides, dilations = ones.copy(), ones.copy(), ones.copy()
    kernel[k], strides[k], dilations[k] = view.kernel[k], view.strides[k], view.dilations[k]
    weights = onnx_op("Reshape", onnx_op("Cast", counted, to=int(x.dtype)), Dims(tuple(shape)))
    extra: dict[str, Any] = {"dilations": dilations} if view.dilations[k] != 1 else {}
    return onnx_op("AveragePool", weights, kernel_shape=kernel, strides=strides, **extra)
