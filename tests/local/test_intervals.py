"""Intervals: known ones, and that they hold the truth as often as they say."""

import random

import pytest

from local import intervals
from local.intervals import Interval


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Newcombe 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_a_rate_is_wilsons(count: int, total: int, low: float, high: float) -> None:
    found = intervals.rate(count, total)
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        # Newcombe 1998 (differences), table II, method 10.
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_a_difference_of_rates_is_newcombes(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float
) -> None:
    found = intervals.rate_difference(intervals.rate(*a), intervals.rate(*b))
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-4)


def test_means_hold_the_truth_about_as_often_as_they_say() -> None:
    dice, held, differ = random.Random(7), 0, 0
    for _ in range(60):
        a, b = ([dice.expovariate(0.01) for _ in range(60)] for _ in range(2))
        interval = intervals.mean(a)
        held += interval.low <= 100 <= interval.high
        differ += intervals.mean_difference(a, b).excludes_zero
    assert held >= 50
    assert differ <= 9


def test_a_difference_that_is_there_is_found() -> None:
    dice = random.Random(1)
    a, b = ([dice.gauss(mu, 10) for _ in range(50)] for mu in (130, 100))
    found = intervals.mean_difference(a, b)
    assert found.excludes_zero
    assert 20 < found.low < found.at < found.high < 40
    assert found == intervals.mean_difference(a, b)


def test_one_value_is_its_own_mean() -> None:
    assert intervals.mean([3.0]) == Interval(3, 3, 3)
