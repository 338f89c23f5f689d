"""Time passes also while nobody looks: for a frozen function, and for one whose clock is set."""

import pytest

from shared.elapsed import Elapsed, elapsed
from shared.identity.keys import CACHE_S, Key, Keys, adding
from tests.model_store import ModelStore


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Clock:
    return Clock(1.8e9)


@pytest.fixture
def monotonic() -> Clock:
    return Clock(7.0)


@pytest.fixture
def clock(wall: Clock, monotonic: Clock) -> Elapsed:
    return Elapsed(wall=wall, monotonic=monotonic)


@pytest.mark.parametrize(
    ("by_wall", "by_monotonic", "passed"),
    [
        pytest.param(5, 5, 5, id="at work"),
        pytest.param(3600, 0.5, 3600, id="frozen"),
        pytest.param(-3600, 2, 2, id="set back"),
        pytest.param(0, 0, 0, id="at once"),
    ],
)
def test_as_much_has_passed_as_either_clock_says(
    clock: Elapsed,
    wall: Clock,
    monotonic: Clock,
    by_wall: float,
    by_monotonic: float,
    passed: float,
) -> None:
    for turn in (1, 2):
        wall.now += by_wall
        monotonic.now += by_monotonic
        assert clock() == turn * passed


async def test_a_key_is_not_known_any_longer_for_having_been_frozen(
    clock: Elapsed, wall: Clock
) -> None:
    store = ModelStore()
    for write in adding("shown", Key("acme", "id")):
        store.write_now(write)
    keys = Keys(store, clock=clock)
    assert await keys.find("shown")
    for write in await keys.removing("acme", "id"):
        store.write_now(write)
    assert await keys.find("shown")
    wall.now += CACHE_S
    assert await keys.find("shown") is None


def test_a_process_has_one() -> None:
    assert 0 <= elapsed() <= elapsed()
