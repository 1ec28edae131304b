"""Which frames a Resize reads: established by computing its sampling points, in the precision that it has itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.views import scales_at

TRIED = 20160
"""Sampling points that are computed: a multiple of all common factors."""

_HALF = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")


@dataclass(frozen=True)
class Sampling:
    """Interpolation, coordinates and rounding of a Resize or Upsample."""

    mode: str
    coordinates: str
    rounding: str

    @staticmethod
    def of(node: Node) -> Sampling:
        """That of a node; refuses what depends on the length of the stream."""
        mode = str(node.attr("mode", "nearest"))
        if scales_at(node)[1] is None:
            return Sampling(mode, "asymmetric", "simple")
        coordinates = str(node.attr("coordinate_transformation_mode", "half_pixel"))
        if coordinates not in (*_HALF, "asymmetric", "tf_half_pixel_for_nn"):
            refuse(
                f"coordinate mode {coordinates} stretches the sampling points over the whole stream",
                hint="use half_pixel or asymmetric",
            )
        if node.attr("antialias", 0):
            refuse(
                "antialiasing spreads its filter by the scale",
                hint="filter by a convolution, then resize without antialias",
            )
        if mode == "cubic" and node.attr("exclude_outside", 0):
            refuse(
                "exclude_outside weighs the first and the last frames differently",
                hint="resize without exclude_outside",
            )
        return Sampling(mode, coordinates, str(node.attr("nearest_mode", "round_prefer_floor")))

    def points(self, scale: Fraction) -> Array:
        """Sampling points of the first outputs."""
        n, s = np.arange(TRIED, dtype=np.float32), np.float32(float(scale))
        half = np.float32(0.5)
        if self.coordinates == "asymmetric":
            return n / s
        if self.coordinates == "tf_half_pixel_for_nn":
            return (n + half) / s
        return (n + half) / s - half

    def taps(self, points: Array, scale: Fraction) -> tuple[Array, Array]:
        """First and last frame read at sampling points."""
        down = np.floor(points)
        if self.mode == "nearest":
            nearest = _ROUNDING["ceil" if self.rounding == "simple" and scale < 1 else self.rounding](points)
            return nearest, nearest
        exact = np.abs(points - np.round(points)) < 1e-6 * np.maximum(1, np.abs(points))
        if self.mode == "linear":
            return np.where(exact, np.round(points), down), np.where(exact, np.round(points), down + 1)
        base = np.where(exact, np.round(points), down)
        return base - 1, base + 2


_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "simple": np.floor,
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
}


def periodic(sampling: Sampling, scale: Fraction) -> list[tuple[int, int]]:
    """(first, last) frame read, relative to frame t, by outputs ``up * t + r``; downwards (one entry) relative to
    ``by * t``.
    """
    up, by = scale.numerator, scale.denominator
    if by > 1:
        if sampling.coordinates in ("pytorch_half_pixel", "half_pixel_symmetric"):
            refuse(
                f"coordinate mode {sampling.coordinates} samples elsewhere where the result has one frame, or the "
                "length is odd",
                hint="use half_pixel or asymmetric",
            )
        lengths = np.arange(1, TRIED)
        if (np.floor(lengths.astype(np.float32) * np.float32(1 / by)) != lengths // by).any():
            refuse(
                f"the scale 1/{by} is not exact, so how many frames it gives depends on rounding",
                hint="use a stride instead",
            )
    first, last = sampling.taps(sampling.points(scale), scale)
    frame = (np.arange(TRIED) // up) * by
    pairs = np.stack([first - frame, last - frame], axis=1).astype(np.int64)
    pairs = pairs[: TRIED // up * up].reshape(-1, up, 2)
    if (pairs != pairs[0]).any():
        refuse(
            f"rounding moves its sampling points (scale {scale}, {sampling.coordinates}, {sampling.rounding})",
            hint="use half_pixel, or asymmetric with floor",
        )
    return [(int(a), int(b)) for a, b in pairs[0]]
