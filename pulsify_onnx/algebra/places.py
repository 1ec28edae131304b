"""Where what is computed for its readers only is computed: on a window of one stream, or of both sides of a pair."""

from __future__ import annotations

from dataclasses import dataclass

from pulsify_onnx.algebra.plan import QueryKeyRead


@dataclass(frozen=True)
class Here:
    """Where a positional step is evaluated: `back` frames before the pulse, `extra` frames more than one."""

    back: int = 0
    extra: int = 0

    def side(self, role: int) -> Here:
        """The window of one side: the only one."""
        return self


@dataclass(frozen=True)
class Both:
    """Where a pair is evaluated: a window of either side."""

    a: Here
    b: Here

    def side(self, role: int) -> Here:
        """The window of side `role`; 2: the offsets of keys from queries, which begin `back` less a pulse."""
        if role == 2:
            return Here(self.a.back - self.b.back - self.a.extra + 1, self.a.extra + self.b.extra - 1)
        return self.b if role else self.a


Where = Here | Both

NOW = Here()


def inside(grid: QueryKeyRead, where: Where) -> Both:
    """Where the pair of a `Grid` is evaluated when its reader is at `where`."""
    a, b = where.side(0), where.side(1)
    sides = [
        Here(a.back + int(grid.a[0]), a.extra + int(grid.a[1])),
        Here(b.back + int(grid.b[0]), b.extra + int(grid.b[1])),
    ]
    return Both(sides[1], sides[0]) if grid.swapped else Both(sides[0], sides[1])
