"""Whole numbers that are least in a weighted sum and keep their differences: the dual of a flow of least cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Difference = tuple[int, int, int]
"""``(u, v, c)``: the number of `v` is at least that of `u` plus `c`."""

MOST_ROUNDS = 20
"""Rounds for each number after which those found so far are taken."""


def least_sum(weights: Sequence[int], differences: Sequence[Difference], start: Sequence[int]) -> list[int]:
    """Numbers with the least sum of `weights` times them, where `start` satisfies the `differences`; the first stays 0.

    Numbers whose weights (negative) pull them up are raised together, as far as differences let them, until a flow
    along differences that leave no room balances all weights. What is found satisfies the differences at any time, and
    is never worse than `start`.
    """
    flow = _Flow(weights, differences, start)
    for _ in range(MOST_ROUNDS * len(start)):
        if not flow.raised():
            break
    return [number - flow.numbers[0] for number in flow.numbers]


class _Flow:
    def __init__(self, weights: Sequence[int], differences: Sequence[Difference], start: Sequence[int]):
        self.numbers = list(start)
        self.missing = [-sum(weights[1:]), *weights[1:]]
        self.differences = differences
        self.carried = [0] * len(differences)
        self.out: list[list[int]] = [[] for _ in start]
        self.into: list[list[int]] = [[] for _ in start]
        for k, (u, v, _) in enumerate(differences):
            self.out[u].append(k)
            self.into[v].append(k)

    def raised(self) -> bool:
        """Whether anything was left to raise: the shortest way from what is pulled up to what is not is full now."""
        far = [(0, v) for v, missing in enumerate(self.missing) if missing < 0]
        room = dict.fromkeys((v for _, v in far), 0)
        by: dict[int, tuple[int, int]] = {}
        done: dict[int, int] = {}
        end = None
        while far and end is None:
            length, u = heapq.heappop(far)
            if u in done:
                continue
            done[u] = length
            if self.missing[u] > 0:
                end = u
                break
            for k, v, more in self._ways(u):
                if v not in done and (v not in room or length + more < room[v]):
                    room[v] = length + more
                    by[v] = (k, u)
                    heapq.heappush(far, (room[v], v))
        if end is None:
            return False
        for v, length in done.items():
            self.numbers[v] += done[end] - length
        self._carry(end, by)
        return True

    def _ways(self, u: int) -> list[tuple[int, int, int]]:
        """Differences that may carry more from `u`, or less to it: which, where to, and how much room it leaves."""
        ways = []
        for k in self.out[u]:
            _, v, least = self.differences[k]
            ways.append((k, v, self.numbers[v] - self.numbers[u] - least))
        return ways + [(k, self.differences[k][0], 0) for k in self.into[u] if self.carried[k]]

    def _carry(self, end: int, by: dict[int, tuple[int, int]]) -> None:
        path = []
        at = end
        while at in by:
            k, before = by[at]
            path.append((k, self.differences[k][1] == at and self.differences[k][0] == before))
            at = before
        amount = min([-self.missing[at], self.missing[end], *(self.carried[k] for k, forwards in path if not forwards)])
        for k, forwards in path:
            self.carried[k] += amount if forwards else -amount
        self.missing[at] += amount
        self.missing[end] -= amount
