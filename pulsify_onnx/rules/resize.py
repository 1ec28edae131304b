"""Upsampling along the stream by whole factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.errors import refuse
from pulsify_onnx.extent import Length
from pulsify_onnx.facts import Const, Stream
from pulsify_onnx.node import Node
from pulsify_onnx.plan import Outcome, Step
from pulsify_onnx.rules.combine import call, step, the_stream
from pulsify_onnx.rules.registry import rule
from pulsify_onnx.windows import align, solid


def factors(node: Node, x: Stream) -> list[float]:
    """Scale of every axis; that of the stream is a whole number or refused."""
    scales_at, sizes_at = (1, None) if node.since < 11 else (2, 3)
    if node.op_type == "Upsample" and node.since < 9:
        return [float(s) for s in node.attr("scales")]
    axes = [a % x.rank for a in node.ints("axes") or range(x.rank)]
    scales = [1.0] * x.rank
    sizes = node.sizes(sizes_at, "the size to resize to") if sizes_at is not None and node.fact(sizes_at) is not None else None
    if sizes:
        if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            refuse("it keeps the aspect ratio, so its scale follows the length of the stream", hint="resize by fixed scales")
        for axis, size in zip(axes, sizes):
            scales[axis] = _scale(x.shape[axis], size)
        return scales
    found = node.const(scales_at, "the scales")
    if found is None:
        refuse("it has neither scales nor sizes", hint="resize by fixed scales")
    for axis, scale in zip(axes, found.ravel()):
        scales[axis] = float(scale)
    return scales


def _scale(size: Length, wanted: Length) -> float:
    if size.constant is not None and wanted.constant is not None:
        return wanted.constant / size.constant
    for factor in range(1, 1025):
        if wanted == size * factor:
            return float(factor)
    refuse(f"it resizes {size} frames to {wanted}, so every sampling point depends on the length of the stream",
           hint="resize by a whole factor")


@rule("Resize", versions=(10, 11, 13, 18, 19))
@rule("Upsample", versions=(7, 9, 10))
def resize(node: Node) -> Outcome:
    """Along other axes in any mode; along the stream to nearest neighbours by a whole factor.

    Refuses: scales that are not whole, other modes along the stream, and a fixed number of frames.
    """
    x = the_stream(node)
    scales = factors(node, x)
    scale = scales[x.axis]
    changes = {"scales": None} if node.attributes.get("scales") else {}
    if scale != 1 and (node.attr("mode") != "nearest" or scale != int(scale) or scale < 1):
        refuse(f"it resamples the stream by {scale:g} in mode {node.attr('mode')}", hint="resize by a whole factor to nearest neighbours")
    if scale != 1 and node.op_type == "Resize" and node.since >= 11:
        mode = node.attr("coordinate_transformation_mode", "half_pixel")
        periodic = mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric") and node.attr("nearest_mode") in ("round_prefer_floor", "round_prefer_ceil")
        if not periodic and not (mode == "asymmetric" and node.attr("nearest_mode") == "floor"):
            refuse(f"coordinate mode {mode} ({node.attr('nearest_mode')}) shifts or stretches the sampling points",
                   hint="use asymmetric with floor, or half_pixel")
    if scale == 1 and not any(s != 1 for s in scales):
        return Outcome((x,))
    steps: list[Step] = []
    x = solid(x, node.options, steps) if scale != 1 else x
    (window,), y = align([x], node.options)
    factor = int(scale)
    shape = []
    for k, (d, s) in enumerate(zip(x.shape, scales)):
        if k == x.axis:
            shape.append(d * factor)
        elif d.constant is None:
            shape.append(d if s == 1 else refuse("it resizes an axis of unknown size", hint="export with fixed sizes"))
        else:
            shape.append(Length.of(int(np.floor(d.constant * s + 1e-9))))
    y = replace(y, wire=node.outputs[0], rate=y.rate * factor, delay=y.delay * factor, shape=tuple(shape), positional=y.positional and factor == 1)
    values = Const(np.asarray(scales, np.float32))
    if node.op_type == "Upsample" and node.since < 9:
        return step(node, [call("Upsample", window, mode=node.attr("mode"), scales=scales)], [y], before=steps)
    inputs = (window, values) if node.op_type == "Upsample" or node.since < 11 else (window, Const(np.zeros(0, np.float32)), values)
    attributes = dict(node.replaced(axes=None, keep_aspect_ratio_policy=None, **changes))
    return step(node, [call(node.op_type, *inputs, **attributes)], [y], before=steps)


