"""Windows of a fixed number of base frames, of streams whose delays are numbers: what a model of one length sees of
a stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Expr, Frames, Op, Window
from pulsify_onnx.arrays import Const

LAST = 2**63 - 1


def frames_back(frames: int, streams: Iterable[Stream], multiple: int) -> int:
    """Base frames from the start of a window of `frames` to the end of the pulse: the least at which all frames of
    `streams` that are in it have come.

    A multiple of the pulse's, since only windows that start at one have the same frames as the stream.
    """
    least = max([Fraction(frames), *((x.delay.known + x.extent.at(frames)) / x.rate for x in streams)])
    return math.ceil(least / multiple) * multiple


def clipped(x: Stream, frames: int, back: int, pulse: int | None, multiple: int) -> Expr:
    """As many frames of `x` as a clip of so many base frames has, from `back` base frames before the end of the
    pulse on.
    """
    count = x.extent.at(frames)
    far = int(x.rate * back) - x.delay.known  # frames from the first one to the end of the pulse
    if pulse is not None:
        whole = int(x.rate * pulse)
        return Window(x.wire, far - whole, Frames(x.rate, count - whole))
    reach = max(0, far - int(x.rate * multiple))
    return Op(
        "Slice",
        (
            Window(x.wire, reach, Frames(x.rate, reach)),
            *(Const(np.asarray([v], np.int64)) for v in (-far, count - far if count < far else LAST, x.axis)),
        ),
    )
