"""Quotas by example: what is admitted, what is refused and until when, what the counters say."""

import itertools
import random
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import LimitExceeded, SluiceError, TooLarge
from shared.limits import Limits
from shared.quotas import Admission, Left, Quotas, Wanted, rate_limit_headers, settlement
from shared.records import DAY_S, Item
from shared.schema import TENANTS
from shared.tenants import Policy, Tenant
from tests.model_store import ModelStore
from tests.shared.quotas.world import EVE, tenant

#: 2026-11-22, noon in UTC.
NOON = EVE / 1000 - 7 * DAY_S - 11 * 3600 - 3000


class Desk:
    """Admits and settles at once. `now` is in s."""

    def __init__(self, **policy: Any) -> None:
        self.store = ModelStore()
        self.now = NOON
        self.tenant = tenant(**policy)
        self.quotas = Quotas(self.store, now=lambda: self.now, dice=random.Random(4))
        self._tokens = itertools.count()

    def change(self, **policy: Any) -> None:
        self.tenant = tenant(**policy)

    async def admit(
        self,
        input_tokens: int = 1,
        output_tokens: int = 9,
        user: str | None = None,
        address: str | None = None,
    ) -> Admission:
        wanted = Wanted(input_tokens, output_tokens)
        return await self.quotas.admit(self.tenant, user, address, wanted)

    async def start(self, *asked: Any, **named: Any) -> Admission:
        admission = await self.admit(*asked, **named)
        assert self.write(admission) is None
        return admission

    async def start_all(self) -> list[Admission]:
        """As many of 100 tokens as there is room for."""
        started: list[Admission] = []
        try:
            while True:
                started.append(await self.start(1, 99))
        except LimitExceeded:
            return started

    def write(self, admission: Admission) -> Any:
        return self.store.transact_now(admission.writes, f"token-{next(self._tokens)}")

    def end(self, admission: Admission, tokens: int) -> None:
        settled = settlement([admission.held], tokens)
        assert self.store.transact_now(settled, f"token-{next(self._tokens)}") is None

    def item(self, admission: Admission, subject: int = 0) -> Item:
        pk = admission.accounts[subject].pk
        return self.store.items[TENANTS.name, pk, "counters"]

    async def refused(self, *asked: Any, **named: Any) -> LimitExceeded:
        writes = self.store.writes
        with pytest.raises(LimitExceeded) as refusal:
            await self.admit(*asked, **named)
        assert self.store.writes == writes
        return refusal.value


async def test_a_start_takes_and_an_end_settles() -> None:
    desk = Desk(limits=Limits(2, 60, 1000, None, 5000, 9000))
    stream = await desk.start(10, 90)
    taken: Item = {"active": 1, "starts": 59 * 60_000, "tokens": 900 * 60_000}
    periods: Item = {"day:2026-11-22": 100, "month:2026-11": 100}
    stamps: Item = {"at": int(NOON * 1000), "rev": 1}
    key: Item = {"pk": "quota#acme##0", "what": "counters"}
    assert desk.item(stream) == taken | periods | stamps | key
    desk.end(stream, 30)
    settled: Item = {"active": 0, "tokens": 970 * 60_000}
    settled |= {"day:2026-11-22": 30, "month:2026-11": 30}
    assert desk.item(stream) == taken | stamps | key | settled


async def test_without_limits_there_is_no_allowance_and_all_is_counted() -> None:
    desk = Desk(limits=Limits())
    stream = await desk.start(10, 90, user="ann", address="192.0.2.1")
    assert stream.allowance is None
    assert stream.left == ()
    assert len(stream.writes) == 1
    desk.end(stream, 123)
    assert await desk.quotas.history(desk.tenant) == {"2026-11": 123, "2026-11-22": 123}


async def test_of_a_bucket_that_was_emptied_at_once_nothing_is_left() -> None:
    desk = Desk(limits=Limits(starts_per_minute=1, tokens_per_minute=100))
    await desk.start(10, 90)
    refusal = await desk.refused(10, 90)
    assert refusal.retry_after_s == 60


@pytest.mark.parametrize(
    ("limits", "policy", "retry_after_s"),
    [
        (Limits(streams_at_once=1), "tenant-streams-at-once", 2),
        (Limits(starts_per_minute=1), "tenant-starts-per-minute", 60),
        (Limits(tokens_per_minute=100), "tenant-tokens-per-minute", 48),
        (Limits(tokens_per_minute=10, tokens_burst=100), "tenant-tokens-per-minute", 480),
        (Limits(tokens_per_day=100), "tenant-tokens-per-day", 12 * 3600),
        (Limits(tokens_per_month=100), "tenant-tokens-per-month", 8 * DAY_S + 12 * 3600),
        # What lasts longest is told.
        (Limits(1, 1, 100), "tenant-starts-per-minute", 60),
        (Limits(1, 1, 100, None, 100), "tenant-tokens-per-day", 12 * 3600),
    ],
)
async def test_a_refusal_names_the_limit_and_when_to_ask_again(
    limits: Limits, policy: str, retry_after_s: int
) -> None:
    desk = Desk(limits=limits)
    await desk.start(10, 90)
    refusal = (
        await desk.refused(90, 1)
        if limits.tokens_per_day or limits.tokens_per_month
        else (await desk.refused(10, 70))
    )
    assert refusal.extensions["policy"] == policy
    assert refusal.retry_after_s == retry_after_s
    assert refusal.headers["Retry-After"] == str(retry_after_s)


async def test_who_is_limited_beside_the_tenant() -> None:
    desk = Desk(user_limits=Limits(streams_at_once=1), address_limits=Limits(streams_at_once=2))
    await desk.start(user="ann", address="192.0.2.1")
    assert (await desk.refused(user="ann")).extensions["policy"] == "user-streams-at-once"
    await desk.start(user="bob", address="192.0.2.1")
    refusal = await desk.refused(user="cid", address="192.0.2.1")
    assert refusal.extensions["policy"] == "address-streams-at-once"
    await desk.start(user="cid", address="192.0.2.2")


async def test_a_start_costs_nothing_for_whom_only_the_polls_are_limited() -> None:
    desk = Desk(user_limits=Limits(polls_per_minute=5))
    assert len((await desk.admit(user="ann")).writes) == 1


async def test_one_client_has_a_network_of_ipv6_addresses() -> None:
    desk = Desk(address_limits=Limits(streams_at_once=1))
    await desk.start(address="2001:db8:1:2::3")
    await desk.refused(address="2001:db8:1:2:ffff::")
    await desk.start(address="2001:db8:1:3::3")
    await desk.start(address="192.0.2.1")
    await desk.refused(address="::ffff:192.0.2.1")
    await desk.start(address="fe80::1%eth0")
    await desk.start(address="no address")
    await desk.refused(address="no address")


async def test_the_table_does_not_tell_who_was_counted() -> None:
    desk = Desk(user_limits=Limits(streams_at_once=1), address_limits=Limits(streams_at_once=1))
    stream = await desk.start(user="ann", address="192.0.2.1")
    assert "ann" not in repr(desk.store.items)
    assert "192.0.2" not in repr((desk.store.items, stream.held))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(streams_at_once=0),
        Limits(starts_per_minute=0),
        Limits(tokens_per_minute=0),
        Limits(tokens_per_minute=0, tokens_burst=100),
        Limits(tokens_per_minute=100, tokens_burst=0),
        Limits(tokens_per_day=0),
        Limits(tokens_per_month=0),
        Limits(streams_at_once=0, tokens_per_day=5, tokens_per_month=5),
        # Not even a prompt that is too large anyway.
        Limits(tokens_per_minute=1, tokens_per_month=0),
    ],
)
async def test_a_limit_of_0_lets_nothing_pass(limits: Limits) -> None:
    for shards in (1, 3):
        desk = Desk(limits=limits, shards=shards)
        refusal = await desk.refused(1, 1)
        assert refusal.extensions["limit"] == 0
        assert refusal.retry_after_s == DAY_S


@pytest.mark.parametrize(
    "limits",
    [
        Limits(tokens_per_minute=100),
        Limits(tokens_per_minute=1000, tokens_burst=100),
        Limits(tokens_per_day=100),
        Limits(tokens_per_month=100, tokens_per_day=1000),
    ],
)
async def test_a_prompt_that_can_never_pass_is_too_large(limits: Limits) -> None:
    desk = Desk(limits=limits)
    with pytest.raises(TooLarge) as refusal:
        await desk.admit(100, 1)
    assert refusal.value.extensions["maximum"] == 100
    assert refusal.value.extensions["policy"] in refusal.value.detail
    assert not desk.store.writes
    assert (await desk.start(99, 1)).allowance == 1


async def test_who_wants_more_than_a_burst_waits_for_a_full_bucket_and_gets_that() -> None:
    desk = Desk(limits=Limits(tokens_per_minute=600, tokens_burst=1000))
    stream = await desk.start(10, 5000)
    assert stream.allowance == 990
    assert (await desk.refused(10, 5000)).retry_after_s == 100
    desk.now += 100
    assert (await desk.start(10, 5000)).allowance == 990


async def test_the_smallest_burst_bounds_what_every_bucket_is_asked_for() -> None:
    desk = Desk(limits=Limits(tokens_per_minute=1000), user_limits=Limits(tokens_per_minute=400))
    assert (await desk.start(10, 5000, user="ann")).allowance == 390
    assert (await desk.start(10, 5000, user="bob")).allowance == 390
    refusal = await desk.refused(10, 5000, user="cid")
    assert refusal.extensions["policy"] == "tenant-tokens-per-minute"
    assert refusal.retry_after_s == 12


async def test_the_last_of_a_budget_is_given_out_short() -> None:
    desk = Desk(limits=Limits(tokens_per_day=1000))
    first = await desk.start(10, 890)
    assert (await desk.start(10, 890)).allowance == 90
    await desk.refused(0, 1)
    desk.end(first, 20)
    assert (await desk.start(10, 890)).allowance == 870


async def test_a_budget_is_that_of_the_day_on_which_a_stream_began() -> None:
    desk = Desk(limits=Limits(tokens_per_day=1000, tokens_per_month=1500))
    desk.now = EVE / 1000 + DAY_S  # 2026-11-30 23:50
    first = await desk.start(10, 990)
    assert (await desk.refused()).extensions["policy"] == "tenant-tokens-per-day"
    desk.now += 601
    second = await desk.start(10, 990)
    desk.end(first, 1100)
    desk.end(second, 400)
    assert (await desk.start(10, 990)).allowance == 590
    assert await desk.quotas.history(desk.tenant) == {
        "2026-11": 1100,
        "2026-11-30": 1100,
        "2026-12": 1000,
        "2026-12-01": 1000,
    }


async def test_what_an_answer_took_beyond_its_estimate_is_owed() -> None:
    desk = Desk(limits=Limits(tokens_per_minute=600))
    stream = await desk.start(10, 590)
    desk.end(stream, 900)
    assert desk.item(stream)["tokens"] == -300 * 60_000
    assert (await desk.refused(1, 1)).retry_after_s == 31  # 30.2
    desk.now += 31
    await desk.start(1, 1)


async def test_what_comes_back_makes_no_more_than_a_burst() -> None:
    desk = Desk(limits=Limits(tokens_per_minute=600))
    stream = await desk.start(10, 590)
    desk.now += 60
    desk.end(stream, 0)
    assert (await desk.start(10, 590)).allowance == 590
    await desk.refused(1, 1)


async def test_a_clock_that_is_behind_neither_refills_nor_takes_time() -> None:
    desk = Desk(limits=Limits(tokens_per_minute=600))
    desk.now += 10
    await desk.start(1, 599)
    desk.now -= 10  # another process
    assert (await desk.refused(1, 99)).retry_after_s == 20
    desk.now += 20
    await desk.start(1, 99)
    desk.now -= 15
    await desk.refused(1, 0)
    desk.now += 15 + 50
    await desk.start(1, 499)
    await desk.refused(1, 0)


async def test_limits_change_under_running_streams() -> None:
    desk = Desk(limits=Limits(streams_at_once=3, tokens_per_minute=600))
    streams = [await desk.start(1, 99) for _ in range(3)]
    desk.change(limits=Limits(streams_at_once=2, tokens_per_minute=100))
    assert (await desk.refused()).extensions["policy"] == "tenant-streams-at-once"
    desk.end(streams[0], 100)
    await desk.refused()
    desk.end(streams[1], 100)
    # Of the 300 tokens that were left the smaller bucket keeps what it can hold.
    assert (await desk.start(1, 200)).allowance == 99
    desk.change(limits=Limits(tokens_per_minute=6000))
    assert (await desk.refused(1, 199)).retry_after_s == 2
    desk.now += 2
    await desk.start(1, 199)
    # Without a limit there is no bucket; set again, it begins full, whatever ends since.
    desk.change(limits=Limits())
    last = await desk.start(1, 99)
    assert "tokens" not in desk.item(last)
    desk.end(last, 100)
    desk.change(limits=Limits(tokens_per_minute=6000))
    assert (await desk.start(1, 5999)).allowance == 5999
    assert desk.item(last)["active"] == 4


async def test_a_limit_counts_from_when_it_is_set() -> None:
    desk = Desk()
    before = await desk.start(user="ann")
    desk.change(user_limits=Limits(streams_at_once=1))
    after = await desk.start(user="ann")
    await desk.refused(user="ann")
    desk.end(before, 5)
    await desk.refused(user="ann")
    desk.end(after, 5)
    await desk.start(user="ann")


async def test_an_end_stands_in_no_starts_way() -> None:
    desk = Desk(limits=Limits(5, 60, 1000, None, 5000))
    first = await desk.start(10, 90)
    second = await desk.admit(10, 90)
    desk.end(first, 130)
    assert desk.write(second) is None
    item = desk.item(second)
    assert (item["active"], item["day:2026-11-22"]) == (1, 230)
    assert item["tokens"] == 770 * 60_000


async def test_after_a_conflict_only_what_is_told_is_new() -> None:
    desk = Desk(limits=Limits(5, 60, 1000), user_limits=Limits(tokens_per_minute=500))
    slow = await desk.admit(10, 90, user="ann")
    await desk.start(10, 890)
    conflict = desk.write(slow)
    assert [bool(holder) for holder in conflict.holders] == [True, False]
    reads = desk.store.reads
    fresh = await desk.quotas.again(slow, conflict.holders, Wanted(10, 90))
    assert desk.store.reads == reads
    assert desk.write(fresh) is None
    assert desk.item(fresh)["tokens"] == 0
    # What is told may also be that there is no more.
    late = await desk.quotas.again(slow, (None, None), Wanted(10, 90))
    with pytest.raises(LimitExceeded):
        await desk.quotas.again(late, desk.write(late).holders, Wanted(10, 90))


async def test_counters_that_vanish_begin_anew() -> None:
    desk = Desk(limits=Limits(streams_at_once=1))
    known = await desk.start()
    desk.end(known, 10)
    stale = await desk.admit()
    desk.store.items.clear()
    conflict = desk.write(stale)
    assert conflict.holders == ({},)
    fresh = await desk.quotas.again(stale, conflict.holders, Wanted(1, 9))
    assert desk.write(fresh) is None


async def test_a_permit_that_was_forgotten_makes_no_room_for_another() -> None:
    desk = Desk(limits=Limits(streams_at_once=1))
    stream = await desk.start()
    desk.store.items.clear()
    desk.end(stream, 10)
    assert desk.item(stream)["active"] == -1
    await desk.start()
    assert desk.item(stream)["active"] == 1
    await desk.refused()


async def test_counters_of_a_user_outlive_whatever_runs_of_them_and_no_more() -> None:
    desk = Desk(limits=Limits(), user_limits=Limits(streams_at_once=9), retention_days=90)
    first = await desk.start(user="ann")
    assert "expires_at" not in desk.item(first)
    desk.now += 89 * DAY_S
    second = await desk.start(user="ann")
    desk.end(first, 10)
    # The end of the older must not have the counters forgotten under the younger.
    assert int(desk.item(second, 1)["expires_at"]) > desk.now + 90 * DAY_S


async def test_a_start_that_passes_unmetered_is_charged_at_its_end() -> None:
    desk = Desk(limits=Limits(1, 1, 600, None, 1000), user_limits=Limits(tokens_per_day=500))
    stream = desk.quotas.unmetered(desk.tenant, "ann", None)
    assert stream.writes == ()
    assert stream.allowance is None
    assert desk.store.transact_now(settlement([stream.held], 400), "end") is None
    charged = [item | {"pk": ""} for item in desk.store.items.values()]
    tokens: Item = {"day:2026-11-22": 400, "month:2026-11": 400}
    place: Item = {"pk": "", "what": "counters", "rev": 0}
    forgotten: Item = {"expires_at": int(NOON) + 92 * DAY_S}
    assert charged == [place | tokens | {"tokens": -400 * 60_000}, place | tokens | forgotten]
    # Nobody is locked out by counters that an end has begun.
    assert (await desk.start(1, 5000, user="ann")).allowance == 99
    assert await desk.quotas.history(desk.tenant) == {"2026-11": 500, "2026-11-22": 500}


async def test_shards_have_all_of_every_limit_together() -> None:
    limits = Limits(10, 11, 1003, 2001, 4999, 9999)
    desk = Desk(limits=limits, shards=4)
    admission = await desk.admit()
    shards = [admission.accounts[0], *admission.elsewhere]
    assert len({shard.pk for shard in shards}) == 4
    for name, whole in asdict(limits.counted).items():
        parts = [getattr(shard.limits, name) for shard in shards]
        if whole is not None:
            assert sum(parts) == whole
            assert max(parts) - min(parts) <= 1


async def test_a_start_is_refused_only_where_no_shard_takes_it() -> None:
    desk = Desk(limits=Limits(streams_at_once=10), shards=4)
    streams = [await desk.start() for _ in range(10)]
    refusal = await desk.refused()
    assert refusal.extensions["limit"] == 10
    desk.end(streams[3], 10)
    await desk.start()
    await desk.refused()


async def test_the_shard_that_takes_it_first_says_when_to_ask_again() -> None:
    desk = Desk(limits=Limits(starts_per_minute=2), shards=2)
    await desk.start()
    desk.now += 20
    await desk.start()
    assert (await desk.refused()).retry_after_s == 40


async def test_a_start_whose_shard_fills_up_meanwhile_goes_to_another() -> None:
    desk = Desk(limits=Limits(streams_at_once=2), shards=2)
    slow = await desk.admit()
    quick = desk.quotas.decide(slow.accounts, slow.states, Wanted(1, 9))
    assert desk.write(quick) is None
    conflict = desk.write(slow)
    moved = await desk.quotas.again(slow, conflict.holders, Wanted(1, 9))
    assert moved.accounts[0] == slow.elsewhere[0]
    assert moved.elsewhere == (slow.accounts[0],)
    assert desk.write(moved) is None
    await desk.refused()


async def test_what_refuses_a_user_is_not_looked_for_in_other_shards() -> None:
    desk = Desk(limits=Limits(streams_at_once=64), user_limits=Limits(streams_at_once=1), shards=32)
    await desk.start(user="ann")
    reads = desk.store.reads
    await desk.refused(user="ann")
    assert desk.store.reads == reads + 2


async def test_there_are_no_more_shards_than_the_smallest_limit_has_parts() -> None:
    desk = Desk(limits=Limits(streams_at_once=3, tokens_per_minute=1000), shards=64)
    assert len((await desk.admit()).elsewhere) == 2
    await desk.start(332, 1)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 3)])
async def test_other_shards_let_through_at_most_what_the_old_ones_hold(
    before: int, after: int
) -> None:
    limits = Limits(streams_at_once=12, tokens_per_day=1200)
    desk = Desk(limits=limits, shards=before)
    old = await desk.start_all()
    assert len(old) == 12
    desk.change(limits=limits, shards=after)
    new = await desk.start_all()
    assert len(new) <= 12 - 12 // max(before, after)
    for stream in (*old, *new):
        desk.end(stream, 100)
    counters = [item for key, item in desk.store.items.items() if key[0] == TENANTS.name]
    assert all(item["active"] == 0 for item in counters)


async def test_usage_tells_what_is_left_of_all_shards_and_of_the_caller() -> None:
    desk = Desk(
        limits=Limits(8, 60, 1000, None, 5000, 9000),
        user_limits=Limits(tokens_per_day=300),
        shards=2,
    )
    for _ in range(3):
        await desk.start(10, 90, user="ann")
    assert await desk.quotas.used(desk.tenant, "ann", None) == [
        Left("tenant-streams-at-once", "concurrent-requests", 8, 0, 5, 0),
        Left("tenant-starts-per-minute", "requests", 60, 60, 57, 4),
        Left("tenant-tokens-per-minute", "tokens", 1000, 60, 700, 24),
        Left("tenant-tokens-per-day", "tokens", 5000, DAY_S, 4700, 12 * 3600),
        Left("tenant-tokens-per-month", "tokens", 9000, 30 * DAY_S, 8700, 8 * DAY_S + 12 * 3600),
        Left("user-tokens-per-day", "tokens", 300, DAY_S, 0, 12 * 3600),
    ]


async def test_who_has_used_nothing_has_nothing_to_wait_for() -> None:
    desk = Desk(limits=Limits(None, 60, 100, None, 1000, 2000, polls_per_minute=0))
    for _ in range(2):
        found = await desk.quotas.used(desk.tenant, None, None)
        assert [(left.left, left.reset_s) for left in found] == [
            (n, 0) for n in (60, 100, 1000, 2000, 0)
        ]
        desk.end(await desk.start(), 0)
        desk.now += 100


#: RFC 9651: a List of Strings with parameters, whose values here are Integers and Strings.
_ITEM = r'"[a-z-]+"(;[a-z]+=(\d{1,15}|"[a-z-]+"))*'
_LIST = re.compile(rf"{_ITEM}(, {_ITEM})*")


async def test_an_answer_tells_what_is_left() -> None:
    limits = Limits(8, 60, 10**12, None, 5000)
    desk = Desk(limits=limits, user_limits=Limits(tokens_per_minute=500, tokens_burst=900))
    fields = rate_limit_headers((await desk.admit(10, 90, user="ann")).left)
    assert all(_LIST.fullmatch(value) for value in fields.values())
    assert fields == {
        "RateLimit-Policy": '"tenant-streams-at-once";q=8;qu="concurrent-requests", '
        '"tenant-starts-per-minute";q=60;w=60, '
        '"tenant-tokens-per-minute";q=1000000000000;qu="tokens";w=60, '
        '"tenant-tokens-per-day";q=5000;qu="tokens";w=86400, '
        '"user-tokens-per-minute";q=500;qu="tokens";w=60',
        "RateLimit": '"tenant-streams-at-once";r=7, "tenant-starts-per-minute";r=59;t=1, '
        '"tenant-tokens-per-minute";r=999999999900;t=1, '
        '"tenant-tokens-per-day";r=4900;t=43200, "user-tokens-per-minute";r=800;t=12',
    }


async def test_one_shard_does_not_tell_what_it_cannot_know() -> None:
    desk = Desk(user_limits=Limits(streams_at_once=5), shards=2)
    left = (await desk.admit(user="ann")).left
    assert [each.policy for each in left] == ["user-streams-at-once"]
    assert rate_limit_headers(()) == {}


async def test_a_refusal_tells_it_too() -> None:
    desk = Desk(limits=Limits(streams_at_once=1, tokens_per_day=100), shards=1)
    await desk.start(1, 9)
    refusal = await desk.refused()
    assert refusal.headers == {
        "Retry-After": "2",
        "RateLimit-Policy": '"tenant-streams-at-once";q=1;qu="concurrent-requests"',
        "RateLimit": '"tenant-streams-at-once";r=0;t=2',
    }
    assert refusal.problem()["policy"] == "tenant-streams-at-once"
    assert isinstance(refusal, SluiceError)


async def test_an_item_takes_one_write_unit_however_long_it_lives() -> None:
    most = 10**12
    everything = Limits(most, most, most, most, most, most)
    desk = Desk(limits=everything, user_limits=everything)
    desk.tenant = Tenant(
        "a" * 63, Policy.from_document(desk.tenant.policy.to_document()), False, b"s", 0, 0
    )
    day = datetime.fromtimestamp(NOON, UTC)
    for _ in range(500):
        desk.now = day.timestamp()
        stream = await desk.start(most // 1000, most // 1000, user="\U0001f600" * 128)
        desk.end(stream, most // 500 + 1)
        day += timedelta(days=1)
    for subject in (0, 1):
        item = desk.item(stream, subject)
        assert len(item) <= 8 + 5 + 15
        assert sum(len(name) + len(str(value)) for name, value in item.items()) < 1024
    days = [name for name in await desk.quotas.history(desk.tenant) if len(name) == 10]
    assert len(days) == 4


async def test_the_past_is_not_told_in_part() -> None:
    desk = Desk()
    stream = await desk.start(1, 9)
    desk.now += 10 * DAY_S
    await desk.start(1, 9)
    desk.end(stream, 50)  # its day is forgotten, and comes back with no more than this
    assert set(await desk.quotas.history(desk.tenant)) == {"2026-11"}


# All that were restored from one snapshot chose the same shards, in the same order.
def test_the_choice_of_a_shard_has_no_state_that_a_snapshot_could_copy() -> None:
    with pytest.raises(NotImplementedError):
        Quotas(ModelStore())._dice.getstate()
