"""What must be remembered: one history for each wire (as it is masked on arrival), as long as its greediest reader
asks.

No rule declares one: they follow from the windows of a plan that is scheduled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pulsify_onnx.algebra.facts import Mirror, QueryKey, RelativeScores, Stream
from pulsify_onnx.algebra.hidden import Mask, TimedMask
from pulsify_onnx.algebra.places import NOW, Here, Where, inside
from pulsify_onnx.algebra.plan import Plan, QueryKeyRead, Step, Window, leaves


@dataclass(frozen=True)
class History:
    """The last `frames` frames of a wire before this pulse, masked as they arrived."""

    wire: str
    mask: TimedMask | None
    frames: int


class Histories:
    """The histories of a plan, by what is read."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._producer = plan.producer()
        self._longest = self._longest_reads()
        self._shared = self._sharing()

    def __iter__(self) -> Iterator[History]:
        return (History(wire, mask, frames) for (wire, mask), frames in self._longest.items() if frames > 0)

    def of(self, wire: str, mask: TimedMask | None) -> int:
        """How many frames of a wire, masked on arrival, are remembered."""
        return self._longest.get((wire, mask), 0)

    def read_from(self, wire: str, mask: TimedMask | None, back: int) -> tuple[str, TimedMask | None]:
        """Whose history a reader that begins `back` frames before this pulse takes: a masked one that hides nothing
        serves unmasked readers too.
        """
        return self._shared.get(wire, (wire, None)) if mask is None and back > 0 else (wire, mask)

    def lazy(self, wire: str) -> bool:
        """Whether a wire is evaluated where it is read only."""
        fact = self.plan.wires[wire]
        return (
            isinstance(fact, (QueryKey, RelativeScores))
            or _positional(fact)
            or (wire in self._producer and self._producer[wire].deferred)
        )

    def _longest_reads(self) -> dict[tuple[str, TimedMask | None], int]:
        longest: dict[tuple[str, TimedMask | None], int] = {}
        for window, back in self._reads():
            key = (window.wire, on_arrival(window))
            longest[key] = max(longest.get(key, 0), back)
        return longest

    def _sharing(self) -> dict[str, tuple[str, TimedMask | None]]:
        """Masked histories that unmasked readers of their wire read too, by wire; they are made as long as these
        ask.
        """
        shared = {}
        masked: dict[str, list[tuple[str, TimedMask | None]]] = {}
        for wire, mask in self._longest:
            if mask is not None and self._hides_nothing(wire, mask):
                masked.setdefault(wire, []).append((wire, mask))
        for (wire, mask), back in list(self._longest.items()):
            if mask is None and back > 0:
                found = max(masked.get(wire, ()), key=lambda k: self._longest[k], default=None)
                if found is not None:
                    self._longest[found] = max(self._longest[found], back)
                    self._longest[wire, None] = 0
                    shared[wire] = found
        return shared

    def _hides_nothing(self, wire: str, mask: TimedMask) -> bool:
        """Whether every real frame of the wire itself passes the mask."""
        x = self.plan.wires[wire]
        assert isinstance(x, Stream)
        return mask.low <= int(x.delay) and (not mask.end or mask.high == x.extent + int(x.delay))

    def _reads(self) -> Iterator[tuple[Window, int]]:
        """Every window on a tensor that flows, and how far it reaches back where it is evaluated."""
        asked: dict[tuple[str, Where], None] = {}
        todo: list[tuple[Step, Where]] = [
            (s, NOW) for s in self.plan.steps if s.deferred or not any(self.lazy(w) for w in s.wires)
        ]
        while todo:
            step, where = todo.pop()
            for leaf in leaves(step):
                key: tuple[str, Where] | None = None
                if isinstance(leaf, Window) and not _positional(self.plan.wires[leaf.wire]):
                    back = int(leaf.back) + where.side(leaf.role).back
                    back = behind(leaf, back) if mirrors(leaf) else back
                    if self.lazy(leaf.wire):
                        key = leaf.wire, Here(back)
                    else:
                        yield leaf, back
                elif isinstance(leaf, QueryKeyRead):
                    key = leaf.wire, inside(leaf, where)
                if key is not None and key not in asked:
                    asked[key] = None
                    todo.append((self._producer[key[0]], key[1]))


def timed_mask(window: Window) -> TimedMask | None:
    """The mask of a window of a plan that is scheduled."""
    assert not isinstance(window.mask, Mask), "the plan is not scheduled"
    return window.mask


def on_arrival(window: Window) -> TimedMask | None:
    """The mask that is laid on the pulses of its wire as they arrive."""
    mask = timed_mask(window)
    return mask if mask is not None and mask.arrival else None


def mirrors(window: Window) -> bool:
    """Whether frames that are not real are looked up among those that are."""
    return window.mask is not None and isinstance(window.mask.border, Mirror)


def behind(window: Window, back: int) -> int:
    """Frames before this pulse among which a mirrored window finds its frames; those inwards of the start come to
    its end.
    """
    mask = timed_mask(window)
    return max(back, 0) + (mask.reach if mask is not None else 0)


def _positional(fact: object) -> bool:
    return isinstance(fact, Stream) and fact.positional
