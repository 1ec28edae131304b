"""The border of a stream: frames at its ends that did not come over its wire, and how they are hidden from a reader."""

from __future__ import annotations

import zlib
from fractions import Fraction

import numpy as np

from pulsify_onnx.algebra.facts import Mirror, PaddingFrames, Stream
from pulsify_onnx.algebra.hidden import Mask, only_real
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.periods import long_streams
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import refuse

NONE = Length(())
MOST_FRAMES = 1024
"""A border whose frames differ has no more: it is written into the graph, and every operator behind it is folded
over it.
"""


def has_border(x: Stream) -> bool:
    """Whether `x` has frames that did not come over its wire."""
    return x.pad_before > 0 or bool(x.pad_after.terms)


def zero(x: Stream) -> Const:
    """A border of zeros for `x`."""
    return Const(np.zeros([1] * x.rank, x.dtype.numpy()))


def ending(count: Length, rate: Fraction) -> Fraction:
    """How many base frames before the end of the stream the frames after the first `count` begin."""
    return max(n - count.at(n) / rate for n in long_streams(count, rate.denominator))


def foldable(x: Stream, factor: int) -> bool:
    """Whether the border of `x` can be one still with `factor` frames in the place of each."""
    return not isinstance(x.border, Mirror) and x.pad_before * factor <= MOST_FRAMES and not x.merged and not x.cached


def border_frames(border: Const | PaddingFrames) -> Array:
    """The frames of a border, or the only one."""
    return border.frames.array if isinstance(border, PaddingFrames) else border.array


def shape_with(x: Stream, extent: Length) -> tuple[Length, ...]:
    """The shape of `x` with another number of frames."""
    return (*x.shape[: x.axis], extent, *x.shape[x.axis + 1 :])


def most_mirrored(length: Length) -> int:
    """The largest value of a number of frames that must not grow with the stream."""
    long = long_streams(length, periods=2)
    near, far, farther = (max(length.at(n + before) for n in long) for before in (-long.start, 0, long.start))
    if farther > far:
        refuse(
            f"it pads {length} mirrored frames at the end, more and more with the length of the stream",
            hint="pad a fixed number of frames",
        )
    return max(near, far)


def border_mask(x: Stream, before: bool, after: bool) -> Mask | None:
    """What hides the border of `x` at its start, at its end or at both; None where nothing is to hide."""
    border = x.border
    if border is None or (not before and not after):
        return None
    if isinstance(border, Mirror):
        reach = most_mirrored(x.pad_after) * (1 if border.edge else 2) if after else 0
        return Mask(
            x.delay,
            x.pad_before,
            x.extent - x.pad_after,
            border,
            before and x.pad_before > 0,
            after,
            x.rate,
            sealed=True,
            reach=reach,
        )
    if isinstance(border, PaddingFrames):
        return Mask(x.delay, x.pad_before, x.extent, border, True, False, x.rate, sealed=True) if before else None
    computed = (
        not x.source
    )  # no history that starts as zeros: frames before the first are computed from their positions
    infinite = None if np.isfinite(border.array.astype(np.float64)).all() else x.extent
    return Mask(
        x.delay,
        x.pad_before,
        x.extent - x.pad_after,
        border,
        before,
        after,
        x.rate,
        computed=computed,
        infinite=infinite,
    )


def mask_padding(x: Stream) -> Mask:
    """A mask that hides everything but the real frames of `x`, whatever came early or late, behind zeros."""
    return only_real(x, zero(x), sealed=True)


def digest(x: Stream) -> str:
    """What tells streams of one wire apart that differ in border, delay or extent."""
    border = (
        border_frames(x.border).tobytes() if isinstance(x.border, (Const, PaddingFrames)) else repr(x.border).encode()
    )
    key = repr((x.delay.constant, x.pad_before, str(x.pad_after), str(x.extent))).encode() + border
    return f"{zlib.crc32(key):08x}"
