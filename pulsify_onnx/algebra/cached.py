"""Streams behind a cache that the caller carries: its frames come before the first pulse, so their delay is below 0
by as many.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pulsify_onnx.algebra.border import NONE
from pulsify_onnx.algebra.bounds import AfterEnd
from pulsify_onnx.algebra.delay import AtLeast, Delay, time
from pulsify_onnx.algebra.facts import Fact, Running, Stream, Wait
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.plan import Frames, Requirement, Step, Test, Window
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


def with_data(outputs: Iterable[Fact | None], steps: Iterable[Step]) -> list[Step]:
    """The steps; those that begin with a cache require that no output has frames that come after the last data, where
    the cache is no longer what came before the pulse.
    """
    waits = [
        wait
        for fact in outputs
        for wait in ((Wait.of(fact),) if isinstance(fact, Stream) else fact.waits if isinstance(fact, Running) else ())
    ]
    needs = tuple(_with_data(wait) for wait in dict.fromkeys(waits))
    return [replace(step, requires=(*step.requires, *needs)) if step.history else step for step in steps]


def _with_data(wait: Wait) -> Requirement:
    more = (wait.extent - Length.symbol(TIME) * wait.rate).constant
    late = time(AtLeast(Delay()), AfterEnd(wait.delay, more or 0))
    return Requirement(Test(ends=True) if more is None else Test(late=late), AFTER_END, AFTER_END_HINT)


AFTER_END = "its cache is not read after the end, and an output has frames that come after the last data"
AFTER_END_HINT = (
    "convert without --end-of-stream, or leave the cache out of the export, so that it becomes a state by itself"
)
