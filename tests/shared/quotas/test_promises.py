"""No schedule exceeds a limit, whatever fails; and the counters come back to the truth."""

import asyncio
import copy
import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import LimitExceeded, TooLarge, Unavailable
from shared.limits import Counted, Limits
from shared.quotas import Quotas, Wanted, counters
from shared.quotas.counters import Book, Meter
from shared.records import DAY_S, Item
from shared.table import Put, Update, Write
from tests.shared.quotas.world import Ledger, World, complaints, tenant

SEEDS = 150
#: So that a clock's float tells each moment exactly, all are whole eighths of a second.
TICK_MS = 125


def _limit(most: int) -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), st.integers(most // 8, most), st.integers(0, most))


limits = st.builds(
    Limits,
    streams_at_once=_limit(16),
    starts_per_minute=_limit(40),
    tokens_per_minute=_limit(6000),
    tokens_burst=_limit(9000),
    tokens_per_day=_limit(20_000),
    tokens_per_month=_limit(40_000),
).map(lambda x: x if x.tokens_per_minute is not None else replace(x, tokens_burst=None))
policies = st.fixed_dictionaries(
    {"limits": limits, "user_limits": limits, "address_limits": limits}
)
wanted = st.builds(Wanted, st.integers(0, 300), st.integers(1, 900))
starts = st.tuples(st.just("start"), wanted, st.sampled_from([None, "u1", "u2"]), st.booleans())
ends = st.tuples(st.just("end"), st.integers(0, 20), st.floats(0, 1.3))
waits = st.tuples(
    st.just("wait"),
    st.one_of(st.integers(0, 80), st.integers(0, 4800), st.integers(0, 40 * DAY_S * 8)),
    st.integers(-24, 24),
)
changes = st.tuples(st.just("change"), policies)


class Play(World):
    """A world in which one thing happens after the other."""

    async def play(self, steps: list[tuple[Any, ...]]) -> None:
        for what, *rest in steps:
            await getattr(self, f"play_{what}")(*rest)

    async def play_start(self, wanted: Wanted, user: str | None, located: bool) -> None:
        before = self.store.writes
        try:
            await self.start(wanted, user, "192.0.2.7" if located else None)
        except (LimitExceeded, TooLarge) as refusal:
            assert self.store.writes == before
            if isinstance(refusal, LimitExceeded):
                await self._ask_then(refusal, wanted, user, "192.0.2.7" if located else None)

    async def _ask_then(
        self, refusal: LimitExceeded, wanted: Wanted, user: str | None, address: str | None
    ) -> None:
        """What a refusal says of when to ask again is true, and not more than that."""
        for_ever = refusal.extensions["limit"] == 0
        for wait_s in (refusal.retry_after_s - 1, refusal.retry_after_s):
            later = copy.copy(self)
            later.ms += wait_s * 1000
            passes = wait_s == refusal.retry_after_s and not for_ever
            told = ""
            try:
                await later.quotas().admit(self.tenant, user, address, wanted)
            except LimitExceeded as error:
                told = error.extensions["policy"]
            # When a stream ends nobody can say.
            assert bool(told) is not passes or (passes and told.endswith("streams-at-once"))

    async def play_end(self, which: int, share: float) -> None:
        if streams := self.open():
            stream = streams[which % len(streams)]
            assert stream.admission
            await self.end(stream, int(stream.admission.held["tokens"] * share))

    async def play_wait(self, ticks: int, skew_ticks: int) -> None:
        self.ms += ticks * TICK_MS
        self.skew_ms = skew_ticks * TICK_MS

    async def play_change(self, policy: dict[str, Any]) -> None:
        self.tenant = tenant(**policy, shards=self.tenant.policy.shards)


@settings(max_examples=100, deadline=None)
@given(
    policies,
    st.integers(1, 4),
    st.lists(st.one_of(starts, starts, ends, waits, changes), min_size=8, max_size=30),
)
def test_no_schedule_exceeds_a_limit(
    policy: dict[str, Any], shards: int, steps: list[tuple[Any, ...]]
) -> None:
    world = Play(Ledger(), tenant(**policy, shards=shards))

    async def run() -> None:
        await world.play(steps)
        assert not complaints(world)
        await world.end_all()

    asyncio.run(run())
    assert not complaints(world)
    assert all(item["active"] == 0 for item in world.counters().values())


def trial(seed: int) -> list[str]:
    """Starters of several processes at once; clocks that differ, faults and kills among them."""
    chance = random.Random(seed)
    world = World(Ledger(chance, faults=0.05), tenant(**_policy(chance)), dice=chance)

    async def one() -> None:
        for _ in range(chance.randrange(1, 4)):
            world.ms += chance.choice([0, 125, 2000])
            world.skew_ms = chance.choice([-2000, 0, 0, 3000])
            wanted = Wanted(chance.randrange(100), chance.randrange(1, 400))
            user = chance.choice([None, "u1"])
            try:
                stream = await world.start(wanted, user, "2001:db8::1")
            except (LimitExceeded, TooLarge, Unavailable):
                continue
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            world.ms += chance.choice([0, 125, 20_000])
            tokens = int((stream.admission or pytest.fail("?")).held["tokens"])
            await world.end(stream, chance.randrange(tokens + 20))

    async def run() -> None:
        tasks = [asyncio.create_task(one()) for _ in range(16)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            if chance.random() < 0.01:
                chance.choice(tasks).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        bugs = [r for r in results if isinstance(r, Exception)]
        assert not bugs, bugs
        found.extend(complaints(world))
        # Who was killed is swept up, twice over.
        await asyncio.gather(world.end_all(), world.end_all())

    found: list[str] = []
    asyncio.run(run())
    left = [f"left: {pk}" for pk, item in world.counters().items() if item["active"] != 0]
    return [*found, *complaints(world), *left]


def _policy(chance: random.Random) -> dict[str, Any]:
    def some(most: int) -> int | None:
        return chance.randrange(1, most) if chance.random() < 0.6 else None

    def limits() -> Limits:
        rate = some(1500)
        burst = some(3000) if rate else None
        return Limits(some(8), some(20), rate, burst, some(4000), some(6000))

    return {"limits": limits(), "user_limits": limits(), "shards": chance.choice([1, 1, 2, 4])}


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_no_race_exceeds_a_limit(first: int) -> None:
    for seed in range(first, first + 50):
        assert not trial(seed), f"seed {seed}"


def test_never_an_eleventh() -> None:
    chance = random.Random(11)
    ten = tenant(limits=Limits(streams_at_once=10))
    world = World(Ledger(chance, faults=0.02), ten, dice=chance)

    async def starter() -> bool:
        try:
            await world.start(Wanted(10, 100))
        except LimitExceeded:
            return False
        return True

    async def run() -> None:
        for ending in (0, 3, 10):
            for stream in world.open()[:ending]:
                await world.end(stream, 5)
            begun = await asyncio.gather(*(starter() for _ in range(64)))
            assert sum(begun) == (ending or 10)
            assert len(world.open()) == 10

    asyncio.run(run())
    assert not complaints(world)


# Planted bugs, each of which some seed must find.


def asks_no_rev(patch: pytest.MonkeyPatch) -> None:
    """A start that writes whatever other starts have come between."""
    taking = Book.taking

    def planted(self: Book, tokens: int, permits: int = 1) -> Write:
        write = taking(self, tokens, permits)
        return replace(write, where={}) if isinstance(write, Update) else write

    patch.setattr(Book, "taking", planted)


def overflows(patch: pytest.MonkeyPatch) -> None:
    """A bucket that fills beyond its burst."""
    patch.setattr(
        counters, "filled", lambda stored, full, refill: full if stored is None else stored + refill
    )


def turns_back_the_clock(patch: pytest.MonkeyPatch) -> None:
    """A bucket's moment is that of the last writer's clock."""
    taking = Book.taking

    def planted(self: Book, tokens: int, permits: int = 1) -> Write:
        write = taking(self, tokens, permits)
        stamp: Item = {"at": self._now_ms}
        if isinstance(write, Update):
            return replace(write, set=write.set | stamp)
        return replace(write, item=write.item | stamp) if isinstance(write, Put) else write

    patch.setattr(Book, "taking", planted)


def leaves_out_what_is_empty(patch: pytest.MonkeyPatch) -> None:
    """A bucket of which all is taken, and which is not written."""
    taking = Book.taking

    def planted(self: Book, tokens: int, permits: int = 1) -> Write:
        write = taking(self, tokens, permits)
        if not isinstance(write, Put):
            return write
        return replace(write, item={n: v for n, v in write.item.items() if v != 0})

    patch.setattr(Book, "taking", planted)


def settles_twice(patch: pytest.MonkeyPatch) -> None:
    """An end that is counted each time somebody tries it."""
    settlement = counters.settlement
    patch.setattr(counters, "settlement", lambda holds, tokens: 2 * settlement(holds, tokens))


def forgets_the_permit(patch: pytest.MonkeyPatch) -> None:
    """An end that gives its tokens back, but not its permit."""
    settlement = counters.settlement
    patch.setattr(
        counters,
        "settlement",
        lambda holds, tokens: settlement([h | {"permits": 0} for h in holds], tokens),
    )


def keeps_the_estimate(patch: pytest.MonkeyPatch) -> None:
    """An end that does not correct what its start has taken."""
    settlement = counters.settlement
    patch.setattr(
        counters, "settlement", lambda holds, tokens: settlement(holds, int(holds[0]["tokens"]))
    )


def believes_what_it_knew(patch: pytest.MonkeyPatch) -> None:
    """After a conflict a start decides on what it has read, and writes upon what it was told."""
    again = Quotas.again

    async def planted(self: Quotas, admission: Any, holders: Any, wanted: Wanted) -> Any:
        stale = [
            None if holder is None else {**known, "rev": holder.get("rev", 0)}
            for known, holder in zip(admission.states, holders, strict=True)
        ]
        return await again(self, admission, stale, wanted)

    patch.setattr(Quotas, "again", planted)


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    asks_no_rev,
    overflows,
    turns_back_the_clock,
    leaves_out_what_is_empty,
    settles_twice,
    forgets_the_permit,
    keeps_the_estimate,
    believes_what_it_knew,
]


@pytest.mark.parametrize("plant", MUTANTS)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(trial(seed) for seed in range(SEEDS))


def test_a_wrong_time_to_ask_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_s = Meter._wait_s
    for wrong_by in (-1, 1):
        monkeypatch.setattr(Meter, "_wait_s", lambda *x, by=wrong_by: wait_s(*x) + by)
        world = Play(Ledger(), tenant(limits=Limits(starts_per_minute=3)))
        steps = [("start", Wanted(1, 1), None, False)] * 4
        with pytest.raises(AssertionError):
            asyncio.run(world.play(steps))


def test_every_limit_is_tried() -> None:
    tried = {f.name for f in fields(Counted)} - {"polls_per_minute"}
    assert tried == {"tokens_burst", *(limit for _, limit, *_ in counters._LIMITS)}
