"""Values that must be valid in every frame, real or not: indices and divisors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Mask, Options, Window
from pulsify_onnx.arrays import Const


def guarded(window: Window, x: Stream, fill: int, options: Options) -> Window:
    """`window` on `x`, which has no border, with `fill` in the frames that are not real."""
    start = x.delay > 0 or window.back > 0 or x.positional
    if not start and not options.end_of_stream:
        return window
    border = Const(np.full([1] * x.rank, fill, x.dtype.numpy()))
    return replace(window, mask=Mask(x.delay, x.extent + x.delay, border, start, options.end_of_stream, arrival=False))
