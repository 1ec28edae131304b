"""Values that must be valid in every frame, real or not: indices and divisors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.hidden import only_real
from pulsify_onnx.algebra.plan import Window
from pulsify_onnx.arrays import Const


def guarded(window: Window, x: Stream, fill: int) -> Window:
    """`window` on `x`, which has no border, with `fill` in the frames that are not real."""
    border = Const(np.full([1] * x.rank, fill, x.dtype.numpy()))
    return replace(window, mask=only_real(x, border, guard=True))
