"""Breakers: what one process learns, all know; one probes; and nothing is worse for having them."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from shared.breaker import (
    CACHE_MODELS_MAX,
    CACHE_S,
    COOLDOWN_MAX_S,
    COOLDOWN_MIN_S,
    FAILURES_MIN,
    JUDGED_AFTER_S,
    PROBE_MARGIN_S,
    RETENTION_S,
    SLOW_FIRST_TOKEN_S,
    STORE_S,
    WINDOW_BUSY_S,
    WINDOW_S,
    Breakers,
    Call,
    State,
)
from shared.errors import Unavailable
from shared.records import Item
from shared.schema import TENANTS
from shared.table import Write
from tests.model_store import ModelStore, key_of
from tests.simulation.clock import virtual
from tests.simulation.history import History
from tests.simulation.store import Database, Faults, FaultyStore

MODEL = "openai/gpt-5"
KEY: Item = {"pk": f"breaker#{MODEL}", "what": "breaker"}
#: Virtual time begins here.
EPOCH_S = 1_800_000_000
PROBE_S = SLOW_FIRST_TOKEN_S + PROBE_MARGIN_S


def now() -> float:
    return EPOCH_S + asyncio.get_running_loop().time()


def fleet(store: ModelStore, processes: int) -> list[Breakers]:
    return [Breakers(store, now=now) for _ in range(processes)]


def state(store: ModelStore, model: str = MODEL) -> State:
    return State.from_item(store.items[key_of(TENANTS, KEY | {"pk": f"breaker#{model}"})])


async def admit(breakers: Breakers) -> Call:
    call = await breakers.admit(MODEL)
    assert call is not None
    return call


async def fail(breakers: Breakers) -> None:
    async with await admit(breakers) as call:
        call.failed()


async def succeed(breakers: Breakers) -> None:
    async with await admit(breakers) as call:
        call.answered()


async def trip(processes: Sequence[Breakers]) -> None:
    """Have the breaker open just now, by failures of all these processes in turn."""
    for number in range(FAILURES_MIN):
        if number == FAILURES_MIN - 1:
            await asyncio.sleep(JUDGED_AFTER_S)
        await fail(processes[number % len(processes)])


async def half_open(breakers: Breakers) -> None:
    """Wait until the breaker is half-open."""
    await asyncio.sleep(await breakers.wait_s(MODEL) + 0.01)


class Failing(ModelStore):
    """A store that can be told to fail, or to say nothing at all."""

    down = False
    silent = False
    refused = 0

    async def _arrive(self) -> None:
        await super()._arrive()
        if self.silent:
            await asyncio.Event().wait()
        if self.down:
            self.refused += 1
            raise Unavailable


class Stuttering(ModelStore):
    """A store whose client loses each first reply, and asks again."""

    async def write(self, write: Write) -> Item | None:
        await super().write(write)
        return await super().write(write)


@virtual
async def test_a_healthy_model_costs_no_write_and_one_read_in_five_seconds() -> None:
    store = ModelStore()
    (breakers,) = fleet(store, 1)
    for _ in range(600):
        await asyncio.gather(succeed(breakers), succeed(breakers), breakers.wait_s(MODEL))
        await asyncio.sleep(0.1)
    assert store.writes == 0
    assert store.reads <= 60 / CACHE_S + 1


@virtual
async def test_what_one_process_finds_all_know_soon() -> None:
    one, other = fleet(ModelStore(), 2)
    await succeed(other)
    await trip([one])
    assert await one.admit(MODEL) is None
    await asyncio.sleep(CACHE_S)
    assert await other.admit(MODEL) is None
    assert 0 < await other.wait_s(MODEL) <= COOLDOWN_MIN_S


@virtual
async def test_failures_of_many_processes_add_up() -> None:
    processes = fleet(ModelStore(), FAILURES_MIN)
    await trip(processes)
    await asyncio.sleep(CACHE_S)
    assert [await breakers.admit(MODEL) for breakers in processes] == [None] * FAILURES_MIN


@virtual
async def test_fewer_failures_open_nothing() -> None:
    store = ModelStore()
    (breakers,) = fleet(store, 1)
    for _ in range(FAILURES_MIN - 1):
        await fail(breakers)
        await asyncio.sleep(WINDOW_S / FAILURES_MIN)
    assert state(store).failures == FAILURES_MIN - 1
    await asyncio.sleep(WINDOW_S / FAILURES_MIN)
    for _ in range(FAILURES_MIN - 1):  # in the next window
        await fail(breakers)
    assert state(store).failures == FAILURES_MIN - 1
    await succeed(breakers)


@virtual
async def test_one_begins_the_next_window_and_nothing_is_lost() -> None:
    store = ModelStore()
    processes = fleet(store, 3)
    await asyncio.gather(*map(fail, processes))
    assert state(store).failures == 3
    await asyncio.sleep(WINDOW_S)
    await asyncio.gather(*map(fail, processes))
    assert (state(store).since, state(store).failures) == (int(now() * 1000), 3)


@virtual
async def test_a_busy_model_is_judged_by_what_it_did_lately() -> None:
    (breakers,) = fleet(ModelStore(), 1)
    await fail(breakers)
    for _ in range(100):
        await succeed(breakers)
    await asyncio.sleep(WINDOW_BUSY_S)
    await trip([breakers])
    assert await breakers.admit(MODEL) is None


@virtual
async def test_a_burst_is_judged_when_successes_had_time_to_be_told() -> None:
    store = ModelStore()
    busy, unlucky = fleet(store, 2)
    for _ in range(3 * FAILURES_MIN):
        await asyncio.gather(fail(unlucky), *(succeed(busy) for _ in range(10)))
        await asyncio.sleep(1)
    assert state(store).failures == 3 * FAILURES_MIN
    await succeed(busy)


@virtual
async def test_calls_in_flight_open_it_once() -> None:
    store = ModelStore()
    processes = fleet(store, 20)
    calls = [await admit(breakers) for breakers in processes for _ in range(5)]
    await fail(processes[0])
    await asyncio.sleep(JUDGED_AFTER_S)

    async def failing(call: Call) -> None:
        async with call:
            call.failed()

    await asyncio.gather(*map(failing, calls))
    assert (state(store).generation, state(store).opens) == (1, 1)


@virtual
async def test_after_the_cool_down_one_of_the_fleet_probes() -> None:
    processes = fleet(ModelStore(), 20)
    await trip(processes)
    await half_open(processes[0])
    calls = await asyncio.gather(*(breakers.admit(MODEL) for breakers in processes * 3))
    assert [call.probe for call in calls if call] == [True]
    waits_s = [await breakers.wait_s(MODEL) for breakers in processes]
    assert all(0 < wait_s <= CACHE_S for wait_s in waits_s)


@virtual
async def test_a_probe_that_answers_closes_it_for_all() -> None:
    store = ModelStore()
    one, other = fleet(store, 2)
    await trip([one])
    await half_open(one)
    probe = await admit(one)
    assert await other.admit(MODEL) is None
    async with probe:
        probe.answered()
    await succeed(one)
    await asyncio.sleep(CACHE_S)
    await succeed(other)
    assert state(store) == State(generation=3)
    writes = store.writes
    await succeed(other)
    assert store.writes == writes


@virtual
async def test_each_probe_that_fails_doubles_the_cool_down_up_to_its_maximum() -> None:
    (breakers,) = fleet(ModelStore(), 1)
    await trip([breakers])
    for round_ in range(8):
        longest_s = min(COOLDOWN_MIN_S * 2**round_, COOLDOWN_MAX_S)
        assert 0.8 * longest_s - 0.001 <= await breakers.wait_s(MODEL) <= longest_s
        await half_open(breakers)
        await fail(breakers)
    await half_open(breakers)
    await succeed(breakers)
    await trip([breakers])
    assert await breakers.wait_s(MODEL) <= COOLDOWN_MIN_S


@virtual
async def test_a_probe_that_shows_nothing_leaves_it_to_the_next() -> None:
    one, other = fleet(ModelStore(), 2)
    await trip([one])
    await half_open(one)
    async with await admit(one) as probe:
        pass
    assert probe.probe
    assert (await admit(one)).probe
    await asyncio.sleep(CACHE_S)
    assert await other.admit(MODEL) is None


@virtual
async def test_a_prober_that_dies_has_a_successor_and_no_say() -> None:
    store = ModelStore()
    one, other = fleet(store, 2)
    await trip([one])
    await half_open(one)
    dead = await admit(one)
    await asyncio.sleep(PROBE_S - 1)
    assert await other.admit(MODEL) is None
    await asyncio.sleep(CACHE_S)
    assert (await admit(other)).probe
    before = state(store)
    async with dead:
        dead.answered()
    assert state(store) == before


@virtual
async def test_what_a_call_tells_of_an_earlier_generation_is_dropped() -> None:
    store = ModelStore()
    one, other = fleet(store, 2)
    old = await admit(other)
    await trip([one])
    await half_open(one)
    await succeed(one)
    await fail(one)
    await succeed(other)
    before = state(store)
    assert (before.generation, before.calls, before.failures) == (3, 2, 1)
    async with old:
        old.answered()
        await asyncio.sleep(1)
        old.failed()
    assert state(store) == before


@virtual
async def test_a_failure_after_the_first_token_counts_and_a_call_only_once() -> None:
    store = ModelStore()
    (breakers,) = fleet(store, 1)
    async with await admit(breakers) as slow:
        slow.failed()
        slow.answered()
        slow.failed()
    assert (state(store).calls, state(store).failures) == (1, 1)
    async with await admit(breakers) as cut:
        cut.answered()
        await asyncio.sleep(1)
        cut.failed()
    assert (state(store).calls, state(store).failures) == (2, 2)


@virtual
async def test_models_have_breakers_of_their_own() -> None:
    (breakers,) = fleet(ModelStore(), 1)
    await trip([breakers])
    assert await breakers.admit(MODEL) is None
    assert await breakers.admit(MODEL + "-mini") is not None


@virtual
async def test_while_the_store_fails_calls_pass_and_it_is_not_asked_each_time() -> None:
    store = Failing()
    store.down = True
    (breakers,) = fleet(store, 1)
    for _ in range(60):
        assert await breakers.wait_s(MODEL) == 0
        await succeed(breakers)
        await asyncio.sleep(1)
    assert store.refused <= 60 / CACHE_S + 1
    for _ in range(2 * FAILURES_MIN):
        await fail(breakers)
        await asyncio.sleep(1)
    assert store.items == {}


@virtual
async def test_a_store_that_says_nothing_costs_half_a_second_now_and_then() -> None:
    store = Failing()
    store.silent = True
    (breakers,) = fleet(store, 1)
    begun_s = now()
    for _ in range(10):
        await succeed(breakers)
    assert now() - begun_s == STORE_S
    await fail(breakers)
    assert now() - begun_s == 2 * STORE_S


@virtual
async def test_an_open_breaker_stays_so_while_the_store_fails_but_not_for_ever() -> None:
    store = Failing()
    (breakers,) = fleet(store, 1)
    await trip([breakers])
    store.down = True
    assert await breakers.admit(MODEL) is None
    await asyncio.sleep(COOLDOWN_MIN_S)
    for _ in range(3):
        await fail(breakers)
    store.down = False
    assert (await admit(breakers)).probe


@virtual
async def test_a_claim_whose_reply_was_lost_is_known_again() -> None:
    store = Stuttering()
    (breakers,) = fleet(store, 1)
    await trip([breakers])
    await half_open(breakers)
    assert (await admit(breakers)).probe


@virtual
async def test_an_item_that_expired_is_begun_anew() -> None:
    store = ModelStore()
    (breakers,) = fleet(store, 1)
    await trip([breakers])
    await half_open(breakers)
    await fail(breakers)
    item = store.items[key_of(TENANTS, KEY)]
    assert item["expires_at"] == int(now()) + RETENTION_S
    await half_open(breakers)
    store.items.clear()
    await succeed(breakers)
    assert store.items == {}
    await trip([breakers])
    assert state(store).generation == 1


@virtual
async def test_what_is_remembered_is_bounded() -> None:
    store = ModelStore()
    (breakers,) = fleet(store, 1)
    for number in range(CACHE_MODELS_MAX + 10):
        await breakers.wait_s(f"demo?tokens={number}")
    assert len(breakers._known) == CACHE_MODELS_MAX
    reads = store.reads
    await breakers.wait_s(f"demo?tokens={number}")
    assert store.reads == reads
    await asyncio.sleep(CACHE_S)
    await breakers.wait_s(f"demo?tokens={number}")
    assert store.reads == reads + 1
    assert len(breakers._known) == CACHE_MODELS_MAX


class Fleet:
    """Processes that call one model now and again, and what became of each call."""

    def __init__(self, seed: int, *, faults_until_s: float, down_s: tuple[float, float]) -> None:
        random.seed(seed)
        self.rng = random.Random(seed)
        self.down_s = down_s
        self.let_through: list[float] = []
        self.refused: list[float] = []
        #: Probes under way.
        self.probing = 0
        self.probes = 0
        history = History()
        self.database = Database(history, remembers_tokens=False)
        faults = Faults(0.05, 0.05, 0.05, 0.1, until_s=faults_until_s)
        if not faults_until_s:
            faults = Faults()
        self.processes = [
            Breakers(
                FaultyStore(str(i), self.database, history, random.Random(seed + i), faults),
                now=now,
            )
            for i in range(20)
        ]

    async def run(self, until_s: float, *, errors: float) -> None:
        async with asyncio.TaskGroup() as group:
            for breakers in self.processes:
                group.create_task(self._calls(breakers, until_s, errors))

    async def _calls(self, breakers: Breakers, until_s: float, errors: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            await asyncio.sleep(self.rng.uniform(0, 4))
            call = await breakers.admit(MODEL)
            if call is None:
                self.refused.append(loop.time())
                continue
            self.let_through.append(loop.time())
            self.probing += call.probe
            self.probes += call.probe
            assert self.probing <= 1
            async with call:
                await asyncio.sleep(self.rng.uniform(0.1, 3))
                begin_s, end_s = self.down_s
                if begin_s <= loop.time() < end_s or self.rng.random() < errors:
                    call.failed()
                else:
                    call.answered()
            self.probing -= call.probe


@pytest.mark.parametrize("seed", range(5))
def test_a_few_errors_in_a_busy_fleet_open_nothing(seed: int) -> None:
    @virtual
    async def run() -> None:
        fleet = Fleet(seed, faults_until_s=0, down_s=(0, 0))
        await fleet.run(600, errors=0.15)
        assert len(fleet.let_through) > 1000
        assert fleet.refused == []

    run()


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_is_down_is_hardly_asked_and_found_again(seed: int) -> None:
    @virtual
    async def run() -> None:
        fleet = Fleet(seed, faults_until_s=0, down_s=(100, 500))
        await fleet.run(900, errors=0.02)
        noticed_s = 100 + 3 + WINDOW_BUSY_S + JUDGED_AFTER_S + 3 + CACHE_S
        between = [s for s in fleet.let_through if noticed_s < s < 500]
        assert 3 <= len(between) <= fleet.probes <= 9
        # The first probe afterwards may meet one of those errors.
        found_s = 500 + 2 * (COOLDOWN_MAX_S + 3 + 4) + CACHE_S
        assert all(100 < s < found_s for s in fleet.refused)

    run()


@pytest.mark.parametrize("seed", range(10))
def test_with_a_store_that_fails_in_every_way_it_still_comes_back(seed: int) -> None:
    @virtual
    async def run() -> None:
        fleet = Fleet(seed, faults_until_s=600, down_s=(100, 500))
        await fleet.run(1000, errors=0)
        # Of a claim that was lost, or came late, the whole time of its probe is waited.
        found_s = 600 + 30 + COOLDOWN_MAX_S + PROBE_S + 4 + CACHE_S
        assert all(100 < s < found_s for s in fleet.refused)
        between = [s for s in fleet.let_through if 150 < s < 500]
        assert len(between) < len([s for s in fleet.refused if 150 < s < 500]) / 5

    run()
