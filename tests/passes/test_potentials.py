"""Numbers that are least in a weighted sum, against all others."""

from __future__ import annotations

import itertools
import random

import pytest

from pulsify_onnx.passes.potentials import Difference, least_sum


def total(weights: list[int], numbers: list[int]) -> int:
    return sum(w * n for w, n in zip(weights, numbers))


def keeps(differences: list[Difference], numbers: list[int]) -> bool:
    return all(numbers[v] >= numbers[u] + c for u, v, c in differences)


def test_a_number_is_raised_as_far_as_there_is_room() -> None:
    assert least_sum([0, -1], [(0, 1, 0), (1, 0, -5)], [0, 2]) == [0, 5]


def test_a_number_falls_as_far_as_there_is_room() -> None:
    assert least_sum([0, 1], [(0, 1, 1), (1, 0, -5)], [0, 4]) == [0, 1]


def test_what_costs_nothing_stays() -> None:
    assert least_sum([0, 0], [(0, 1, 0), (1, 0, -5)], [0, 2]) == [0, 2]


def test_numbers_rise_together_where_one_of_them_alone_would_not_pay() -> None:
    """Two that must not be less than a third: only the three together are worth it."""
    differences = [(0, 3, 0), (3, 1, 0), (3, 2, 0), (1, 0, -4), (2, 0, -3)]
    assert least_sum([0, 1, 1, -3], differences, [0, 0, 0, 0]) == [0, 3, 3, 3]
    assert least_sum([0, 2, 2, -3], differences, [0, 0, 0, 0]) == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(150))
def test_nothing_else_is_less(seed: int) -> None:
    rng = random.Random(seed)
    count, most = rng.randint(2, 4), 4
    weights = [0] + [rng.randint(-3, 3) for _ in range(count)]
    start = [0] + [rng.randint(0, most) for _ in range(count)]
    differences = [(0, k, 0) for k in range(1, count + 1)] + [(k, 0, -most) for k in range(1, count + 1)]
    for _ in range(rng.randint(0, 6)):
        u, v = rng.sample(range(count + 1), 2)
        differences.append((u, v, start[v] - start[u] - rng.randint(0, 3)))
    found = least_sum(weights, differences, start)
    assert found[0] == 0 and keeps(differences, found)
    every = ([0, *numbers] for numbers in itertools.product(range(most + 1), repeat=count))
    assert total(weights, found) == min(total(weights, numbers) for numbers in every if keeps(differences, numbers))
