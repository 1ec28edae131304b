"""What a scheduled plan promises of the length of a stream: how many frames it must have, and how many pulses bring
out its end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

from pulsify_onnx.algebra.facts import Running, Stream
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.periods import common_unit, long_streams
from pulsify_onnx.algebra.plan import Plan


def flush_pulses(plan: Plan, pulse: int | None) -> int:
    """Pulses without data after the last one with data that bring out the last frame of every output, for any
    length.
    """
    if not plan.ends:
        return 0
    step = pulse or plan.pulse_multiple
    waits = set()
    for name in plan.outputs:
        fact = plan.facts[name]
        if isinstance(fact, Stream):
            waits.add((fact.extent, fact.rate, int(fact.delay)))
        elif isinstance(fact, Running):
            waits |= {(w.extent, w.rate, int(w.delay)) for w in fact.waits}
    worst = 0
    for extent, rate, delay in waits:
        frames = rate * step
        for n in _lengths(extent, step):
            needed = math.ceil((max(0, extent.at(n)) + delay) / frames) if extent.at(n) > 0 else 0
            worst = max(worst, needed - math.ceil(n / step))
    return worst


def least_frames(plan: Plan, meetings: Iterable[Iterable[str]]) -> int:
    """The fewest base frames for which every stream within the model has a frame, and as many as the streams that it
    meets.

    Of fewer, the batch model does not run or gives what its formulas do not tell: a crop of more frames than there are
    leaves none, a pool makes one of none, and a single frame is repeated for a longer stream. What the analysis decided
    by the length is not true of fewer, too.
    """
    extents = {
        name: f.extent for name, f in plan.facts.items() if isinstance(f, Stream) and f.extent.symbols() <= {TIME}
    }
    meeting = {
        frozenset(pair)
        for names in meetings
        for pair in itertools.combinations({extents[name] for name in names if name in extents}, 2)
        if common_unit(*pair) is not None
    }  # others come one after another, whatever they are
    least = plan.least
    for group in {frozenset((e,)) for e in extents.values() if e.at(1) < 1} | meeting:
        for n in range(max((_beyond(e) for e in group), default=0), 0, -1):
            counts = {e.at(n) for e in group}
            if min(counts) < 1 or (min(counts) == 1 and len(counts) > 1):
                least = max(least, n + 1)
                break
    return least


def _beyond(extent: Length) -> int:
    """Base frames of which `extent` has more than one frame, and of all more."""
    period = math.lcm(*extent.divisors())
    first = extent.exact({TIME: period})
    slope = (extent.exact({TIME: 2 * period}) - first) / period
    return 0 if slope <= 0 else max(0, math.ceil((2 - first) / slope)) + 2 * period


def _lengths(extent: Length, step: int) -> Iterator[int]:
    """Short streams, and long ones, at whose end a length and the pulses may be in any phase."""
    far = long_streams(extent, step)
    stride = max(1, len(far) // 20000)
    yield from range(1, 2 * len(far) + 1, stride)
    yield from far[::stride]
