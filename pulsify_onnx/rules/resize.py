"""Resampling along the stream by whole factors, up or down: a window reader whose border is the edge."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pulsify_onnx.algebra.border import foldable
from pulsify_onnx.algebra.facts import Mirror, Shape, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.multiples import of_multiples
from pulsify_onnx.algebra.padding import materialise_padding, pad
from pulsify_onnx.algebra.plan import Dim, Dims, Expr, Frames, Outcome, Step, Window
from pulsify_onnx.algebra.upsampling import upsampled
from pulsify_onnx.algebra.windows import align, windowed
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.conv import cut
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op, the_stream
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.sampling import Sampling, periodic
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.kit.views import by_axes, scales_at

WHOLE = "resize by a whole factor"


@dataclass(frozen=True)
class Scaling:
    """Scale of every axis, that of the stream as a fraction; ``sizes`` of the result where they were told. True of
    streams of a `multiple` of so many base frames.
    """

    scales: tuple[float, ...]
    along: Fraction
    sizes: tuple[Length, ...] | None
    multiple: int = 1


def scaling(node: Node, x: Stream) -> Scaling:
    """What a Resize or Upsample does to every axis; refuses a scale along the stream that is no whole factor."""
    first, sizes_at = scales_at(node)
    axes = [a % x.rank for a in node.ints("axes") or range(x.rank)]
    told = (
        node.sizes(sizes_at, "the size to resize to")
        if sizes_at is not None and node.fact(sizes_at) is not None
        else None
    )
    if told:
        if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            refuse(
                "it keeps the aspect ratio, so its scale follows the length of the stream",
                hint="resize by fixed scales",
            )
        sizes = list(x.shape)
        for axis, size in zip(axes, told):
            sizes[axis] = size
        along, multiple = _ratio(x.extent, sizes[x.axis], node.world.promised_multiple)
        return Scaling((1.0,) * x.rank, along, tuple(sizes), multiple)
    value = node.const(first, "the scales")
    if value is None:
        refuse("it has neither scales nor sizes", hint="resize by fixed scales")
    found = [float(s) for s in value.ravel()]
    scales = [1.0] * x.rank
    for axis, scale in zip(axes, found):
        scales[axis] = scale
    return Scaling(tuple(scales), _fraction(scales[x.axis]), None)


def _fraction(scale: float) -> Fraction:
    """A float32 as the simple fraction that it stands for, else as what it is: 2.0000002 isn't 2, which shows in
    long streams.
    """
    simple = Fraction(scale).limit_denominator(4096)
    return simple if np.float32(float(simple)) == np.float32(scale) else Fraction(scale)


def _ratio(size: Length, wanted: Length, promised: int) -> tuple[Fraction, int]:
    """The whole factor from `size` to `wanted` or back, and the multiple of base frames for which it is that.

    Of other lengths the operator samples elsewhere, so that they must be ruled out by what is `promised`.
    """
    for multiple in range(1, promised + 1):
        if promised % multiple:
            continue
        a, b = of_multiples(size, multiple), of_multiples(wanted, multiple)
        for factor in range(1, 1025):
            if b == a * factor:
                return Fraction(factor), multiple
            if a == b * factor:
                return Fraction(1, factor), multiple
    unit = math.lcm(*size.divisors(), *wanted.divisors())
    a, b = of_multiples(size, unit), of_multiples(wanted, unit)
    told = any(b == a * factor or a == b * factor for factor in range(1, 1025))
    refuse(
        f"it resizes {size} frames to {wanted}, so every sampling point depends on the length of the stream",
        hint=f"{WHOLE}, or name the input's dimension {unit}*k, which says that every stream has a multiple of "
        f"{unit} frames"
        if told
        else WHOLE,
    )


@declares(Trait.RESIZES)
@rule("Resize", versions=(10, 11, 13, 18, 19))
@rule("Upsample", versions=(7, 9, 10))
def resize(node: Node) -> Outcome:
    """Other axes in any mode; along the stream nearest, linear or cubic, up or down by a whole factor, for streams of
    a multiple of frames where the input's dimension is named so (`2*k`). State: neighbours.

    Refuses: other scales, coordinates that depend on the length (align_corners, crops), and a fixed number of frames.
    """
    x = the_stream(node)
    how = scaling(node, x)
    return replace(_resized(node, x, how), pulse_multiple=how.multiple, length_multiple=how.multiple)


def _resized(node: Node, x: Stream, how: Scaling) -> Outcome:
    if how.along == 1:
        if all(s == 1 for s in how.scales) and how.sizes in (None, x.shape):
            return Outcome((x,))
        if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
            refuse("it crops by regions of the whole input", hint="crop by a Slice before resizing")
        (window,), y = align([x], node.options)
        return as_outcome(
            node,
            [_apart(node, x, how, window, Frames(x.rate))],
            [replace(y, wire=node.outputs[0], shape=_shape(x, how, x.extent))],
        )
    sampling = Sampling.of(node)
    steps: list[Step] = []
    whole = 1 in (how.along.numerator, how.along.denominator)
    if (
        not whole
        or not foldable(x, math.ceil(how.along))
        or any(tap != (0, 0) for tap in periodic(sampling, how.along))
    ):
        x = materialise_padding(x, node.options, steps)  # neighbours are sampled, which the edge goes on with
    if how.along > 1 and how.along.denominator == 1:
        return _up(node, x, how, sampling, steps)
    if how.along < 1 and how.along.numerator == 1:
        return _down(node, x, how, sampling, steps)
    refuse(f"it resamples the stream by {float(how.along):.9g}, which is no whole factor", hint=WHOLE)


def _up(node: Node, x: Stream, how: Scaling, sampling: Sampling, steps: list[Step]) -> Outcome:
    """Frame ``factor * t + r`` is sampled near frame t; as soon as the last frame that it needs is there."""
    taps = periodic(sampling, how.along)
    window, up = upsampled(x, taps, max(0, *(last for _, last in taps)), Mirror(edge=True), node.options, steps)
    extra = window.frames.extra
    whole = _applied(node, x.shape, x.axis, how, _lengthened(x, window, up.more), Frames(x.rate, extra + up.more))
    expr = cut(whole, x.axis, up.start, Frames(up.y.rate)) if extra else whole
    return as_outcome(
        node, [expr], [replace(up.y, wire=node.outputs[0], shape=_shape(x, how, x.extent * len(taps)))], before=steps
    )


def _down(node: Node, x: Stream, how: Scaling, sampling: Sampling, steps: list[Step]) -> Outcome:
    """Frame t is sampled near frame ``by * t``."""
    by = how.along.denominator
    ((low, high),) = periodic(sampling, how.along)
    extent = x.extent.floordiv(by)
    before = by * max(0, math.ceil(-low / by))
    padded = pad(x, before, max(0, high - by + 1), Mirror(edge=True), node.options, steps)
    if low == high:
        return _picked(node, x, how, high, extent, steps)
    window, y = windowed(padded, before + high + 1, by, node.options)
    more = max(0, by - high - 1)  # so that the operator gives its last frame, which does not read them
    whole = _applied(
        node, x.shape, x.axis, how, _lengthened(x, window, more), Frames(x.rate, window.frames.extra + more)
    )
    y = replace(y, wire=node.outputs[0], shape=_shape(x, how, extent))
    return as_outcome(node, [cut(whole, x.axis, before // by, Frames(y.rate))], [y], before=steps)


def _lengthened(x: Stream, window: Window, more: int) -> Expr:
    """A window with `more` copies of its last frame."""
    return (
        onnx_op("Pad", window, const([more if k == x.rank + x.axis else 0 for k in range(2 * x.rank)]), mode="edge")
        if more
        else window
    )


def _picked(node: Node, x: Stream, how: Scaling, offset: int, extent: Length, steps: list[Step]) -> Outcome:
    """Every so many frames one, as it is."""
    by = how.along.denominator
    window, y = windowed(x, offset + 1, by, node.options)
    expr: Expr = onnx_op("Slice", window, const([offset]), const([2**31 - 1]), const([x.axis]), const([by]))
    still = replace(how, along=Fraction(1), scales=tuple(1.0 if k == x.axis else s for k, s in enumerate(how.scales)))
    if any(s != 1 for s in still.scales) or how.sizes is not None:
        expr = _apart(node, x, still, expr, Frames(y.rate))
    return as_outcome(node, [expr], [replace(y, wire=node.outputs[0], shape=_shape(x, how, extent))], before=steps)


def _apart(node: Node, x: Stream, how: Scaling, data: Expr, frames: Frames) -> Expr:
    """The operator on `frames` frames of other sizes, each on its own: as the second of at least four dimensions.

    Elsewhere neighbours in time weigh nothing, but zero times NaN is NaN.
    """
    if node.attr("mode") == "nearest":
        return _applied(node, x.shape, x.axis, how, data, frames)
    others = [k for k in range(x.rank) if k != x.axis]
    still = [k for k in others if (how.scales[k] == 1 if how.sizes is None else how.sizes[k] == x.shape[k])]
    outer = next(
        (k for k in still if x.shape[k].constant is None), still[0] if still else None
    )  # rows of a batch before others
    inner = [k for k in others if k != outer]
    order = [outer, x.axis, *[None] * (2 - len(inner)), *inner]
    perm = [k for k in order if k is not None]
    new = [at for at, k in enumerate(order) if k is None]
    wide = replace(
        how,
        scales=tuple(1.0 if k is None else how.scales[k] for k in order),
        sizes=None if how.sizes is None else tuple(Length.of(1) if k is None else how.sizes[k] for k in order),
    )
    shape = tuple(Length.of(1) if k is None else x.shape[k] for k in order)
    data = _dimensions(node, "Unsqueeze", onnx_op("Transpose", data, perm=perm), new)
    if perm != sorted(perm):
        data = _fenced(data, shape, frames)
    made = _applied(node, shape, 1, wide, data, frames)
    return onnx_op("Transpose", _dimensions(node, "Squeeze", made, new), perm=[perm.index(k) for k in range(x.rank)])


def _fenced(data: Expr, shape: Shape, frames: Frames) -> Expr:
    """`data` as it is, by two operators that onnxruntime moves no Transpose through: else it would resize what it
    was told to, in the order that it had.
    """
    dims: list[Dim] = [d.constant if d.constant is not None else d for d in shape]
    dims[1] = frames
    return onnx_op("Reshape", onnx_op("Flatten", data, axis=1), Dims(tuple(dims)))


def _dimensions(node: Node, op_type: str, data: Expr, axes: list[int]) -> Expr:
    """`data` with or without dimensions of one at `axes`."""
    if not axes:
        return data
    return by_axes(node, op_type, data, axes)


def _applied(node: Node, shape: Shape, axis: int, how: Scaling, data: Expr, frames: Frames) -> Expr:
    """The operator on `frames` frames along `axis` of data of `shape`."""
    left_out = {"scales": None} if node.attributes.get("scales") else {}
    attributes = dict(node.replaced(axes=None, keep_aspect_ratio_policy=None, **left_out))
    if how.sizes is not None:
        extra = int(frames.extra) * how.along
        if extra.denominator != 1:
            refuse(f"it resizes the frames to {how.sizes[axis]}", hint="resize by scales, not to sizes")
        dims: list[Dim] = [d.constant if d.constant is not None else d for d in how.sizes]
        dims[axis] = Frames(frames.rate * how.along, int(extra))
        return onnx_op(node.op_type, data, Const(np.zeros(0, np.float32)), None, Dims(tuple(dims)), **attributes)
    scales = Const(np.asarray(how.scales, np.float32))
    if scales_at(node)[1] is None:
        return _sized(shape, axis, how, onnx_op(node.op_type, data, scales, **attributes), frames)
    return _sized(
        shape, axis, how, onnx_op(node.op_type, data, Const(np.zeros(0, np.float32)), scales, **attributes), frames
    )


def _sized(shape: Shape, axis: int, how: Scaling, made: Expr, frames: Frames) -> Expr:
    """`made` with its sizes told, where onnx's inference rounds the product of a size and its scale in another way
    than onnxruntime.
    """
    told = [
        d.constant if d.constant is None else math.floor(d.constant * float(np.float32(s)))
        for d, s in zip(shape, how.scales)
    ]
    sizes = _sizes(shape, axis, how, shape[axis])
    extra = int(frames.extra) * how.along
    if extra.denominator != 1 or all(d.constant in (t, None) for k, (d, t) in enumerate(zip(sizes, told)) if k != axis):
        return made
    dims: list[Dim] = [d.constant if d.constant is not None else d for d in sizes]
    dims[axis] = Frames(frames.rate * how.along, int(extra))
    return onnx_op("Reshape", made, Dims(tuple(dims)))


def _shape(x: Stream, how: Scaling, extent: Length) -> Shape:
    return _sizes(x.shape, x.axis, how, extent)


def _sizes(shape: Shape, axis: int, how: Scaling, extent: Length) -> Shape:
    """What data of `shape` becomes, with `extent` frames along `axis`."""
    sizes = []
    for k, d in enumerate(shape):
        if k == axis:
            sizes.append(extent)
        elif how.sizes is not None:
            sizes.append(how.sizes[k])
        elif how.scales[k] == 1:
            sizes.append(d)
        elif d.constant is None:
            refuse("it resizes an axis of unknown size", hint="export with fixed sizes")
        else:
            sizes.append(Length.of(int(np.floor(np.float32(d.constant) * np.float32(how.scales[k])))))
    return tuple(sizes)
