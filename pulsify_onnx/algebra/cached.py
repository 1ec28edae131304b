"""Streams behind a cache that the caller carries: its frames come before the first pulse, so their delay is below 0
by as many.
"""

from __future__ import annotations

from dataclasses import replace

from pulsify_onnx.algebra.border import NONE
from pulsify_onnx.algebra.delay import Delay
from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Frames, Window
from pulsify_onnx.algebra.windows import undelayed


def behind_cache(x: Stream, count: int) -> tuple[Window, Stream]:
    """`x`, of which nothing may come late, behind a cache of `count` frames: the window that is its pulse, and the
    stream.
    """
    shape = (*x.shape[: x.axis], x.extent + count, *x.shape[x.axis + 1 :])
    return undelayed(x), replace(
        x,
        shape=shape,
        delay=Delay.of(-count),
        cached=count,
        border=None,
        pad_before=0,
        pad_after=NONE,
        reach=x.reach.shifted(-count / x.rate),
        positional=False,
    )


def without_first(x: Stream, count: int) -> Stream:
    """A stream without the first `count` frames of its cache, which are no part of its pulses; below 0: with as many
    more.
    """
    return replace(
        x,
        delay=x.delay + count,
        cached=x.cached - count,
        shape=(*x.shape[: x.axis], x.extent - count, *x.shape[x.axis + 1 :]),
    )


def with_cache(x: Stream) -> Window:
    """The frames of a pulse behind as many as the cache had."""
    return Window(x.wire, x.cached, Frames(x.rate, x.cached))
