"""The pulse of an answer: what it tells of known times, and how little it keeps."""

import asyncio
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.pulse import KEPT_MAX, Pulse, Sample
from tests.simulation.clock import virtual

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@virtual
async def test_an_answer_is_told_in_ms() -> None:
    pulse = Pulse()
    pulse.asked()
    await asyncio.sleep(0.5)
    for _ in range(5):
        pulse.heard(4)
        pulse.showed(700)
        await asyncio.sleep(0.25)
    assert pulse.figures(10, begins=True) == {
        "TimeToFirstToken": 500,
        "TimeToFirstChunk": 700,
        "TokensPerSecond": pytest.approx(8),
        "GapP50": 250,
        "GapP99": 250,
        "GapDeviation": 0,
    }
    assert "TimeToFirstChunk" not in pulse.figures(10, begins=False)


@virtual
async def test_what_was_not_there_is_not_told() -> None:
    pulse = Pulse()
    assert pulse.figures(10, begins=True) == {}
    pulse.asked()
    pulse.heard(4)
    # All of it came at once.
    assert pulse.figures(10, begins=True) == {"TimeToFirstToken": 0}


@virtual
async def test_a_pause_is_no_gap() -> None:
    pulse = Pulse()
    for wait_s in (0.1, 3600, 0.1):
        pulse.showed(0)
        await asyncio.sleep(wait_s)
        if wait_s > 1:
            pulse.rested()
    pulse.showed(0)
    assert pulse.figures(0, begins=False)["GapP99"] == pytest.approx(100)


@given(VALUES)
def test_a_sample_tells_of_all_its_values(values: list[float]) -> None:
    sample = Sample()
    for value in values:
        sample.add(value)
    assert sample.largest == max(values)
    assert sample.deviation == pytest.approx(statistics.pstdev(values), abs=1e-3)
    for part in (0.5, 0.99, 1):
        assert sum(value <= sample.quantile(part) for value in values) >= part * len(values)
        assert sum(value < sample.quantile(part) for value in values) < part * len(values)


def test_a_sample_of_many_values_keeps_few_that_stand_for_all() -> None:
    sample, dice = Sample(), random.Random(1)
    for _ in range(100_000):
        sample.add(dice.expovariate(1))
    assert len(sample._kept) <= KEPT_MAX
    assert sample.deviation == pytest.approx(1, rel=0.05)
    assert sample.quantile(0.5) == pytest.approx(0.693, rel=0.15)
