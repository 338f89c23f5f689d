"""The lifecycle: what belongs together happens together, once, whatever fails on the way."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import repeat
from typing import Any, Literal

import pytest

from shared.audit import Actor, Chain, Event, head_of
from shared.audit.linking import link, writes
from shared.errors import (
    Busy,
    IdempotencyKeyReused,
    LimitExceeded,
    NotFound,
    ProviderFailed,
    Unavailable,
)
from shared.idempotency import Idempotency
from shared.lifecycle import (
    AUDIT_TRIES_MAX,
    CONTROL_TRIES_MAX,
    OPEN_TRIES_MAX,
    YIELD_EVERY,
    Opening,
)
from shared.log import DEAD_AFTER_S, closing
from shared.models import Usage
from shared.past import Past
from shared.records import FinishReason, Item, Kind, Record, Status, StreamKey
from shared.schema import AUDIT, TENANTS
from shared.table import Conflict, Update, Write
from tests.simulation.clock import virtual
from tests.simulation.scripted import TENANT, WANTED, ScriptedStore, Stage

KEY = Idempotency("key", "fingerprint")
DAY = "day:2027-01-15"
READER = Actor(credential="key:reader")
COMPLETED = closing(Status.COMPLETED, FinishReason.STOP, usage=asdict(Usage(3, 7)))
METERED = {"limits": {"streams_at_once": 10, "tokens_per_day": 1000}}
#: What may become of the two tries of a write; with the last one nobody knows.
FATES = [["fail"], ["lose"], ["fail", "fail"], ["lose", "fail"], ["fail", "lose"], ["lose", "lose"]]


def another(stage: Stage, idempotency: Idempotency | None = None) -> Opening:
    """An opening for a stream beside the stage's."""
    key = stage.new_key()
    return stage.opening(key=key, idempotency=idempotency)


def entries(stage: Stage) -> int:
    """How many entries there are, of whatever."""
    return sum(table == AUDIT.name for table, _, _ in stage.store.items)


def active(stage: Stage) -> int:
    """How many permits are taken, in all shards."""
    counters = [item for key, item in stage.store.items.items() if key[2] == "counters"]
    return sum(int(item.get("active", 0)) for item in counters)


class Meddled(ScriptedStore):
    """A store where somebody else changes something just before each of the next transactions."""

    changes: Iterator[Callable[[], None]] = iter(())

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        if change := next(self.changes, None):
            change()
        return await super().transact(writes, token)


def meddle(stage: Stage, times: int, change: Callable[[Stage], None]) -> None:
    stage.store.__class__ = Meddled
    stage.store.changes = repeat(partial(change, stage), times)  # type: ignore[attr-defined]


def count(stage: Stage) -> None:
    """What another start does to the counters, as far as a condition can tell."""
    key: Item = {"pk": f"quota#{TENANT}##0", "what": "counters"}
    stage.store.write_now(Update(TENANTS, key, add={"rev": 1}, where=None))


def read(stage: Stage) -> None:
    """What the entry of a reader does to the audit of the stream."""
    chain = Chain.of(stage.key)
    held = stage.store.get_now(TENANTS, chain.head_key)
    entry = link(stage.audit.entry(chain, Event.FOLLOWED, READER), head_of(held))
    assert stage.store.transact_now(writes(entry), entry.id) is None


def say(stage: Stage) -> None:
    """What a lively producer does to the log."""
    seqs = [int(seq) for _, pk, seq in stage.store.items if pk == stage.key.pk]
    record = stage.record(max(seqs) + 1, Kind.TEXT, by=stage.opened.by, text="x")
    stage.store.items["streams", stage.key.pk, record.seq] = record.to_item(stage.key)


def pause(newest: Record) -> Record | None:
    """Wish for a pause, unless the stream has ended."""
    return None if newest.closes else Record(newest.seq + 1, Kind.PAUSE, newest.epoch, 0, "")


# To open


@virtual
async def test_a_start_is_the_stream_what_it_takes_its_claim_and_its_entry() -> None:
    stage = Stage(**METERED)
    outcome = await stage.lifecycle.open(stage.opening(idempotency=KEY))
    assert isinstance(outcome, tuple)
    opened, left = outcome
    assert (await stage.log.tail(stage.key)).by == opened.by
    assert (await stage.log.summary(stage.key)).status == Status.OPEN
    assert stage.counters().items() >= {"active": 1, DAY: WANTED.tokens}.items()
    assert opened.body["held"]["tokens"] == WANTED.tokens
    assert opened.body["allowance"] == WANTED.output_tokens
    assert {(x.policy, x.left) for x in left} == {
        ("tenant-streams-at-once", 9),
        ("tenant-starts-per-minute", 599),
        ("tenant-tokens-per-day", 1000 - WANTED.tokens),
    }
    assert await KEY.claimed(stage.store, stage.caller.identity) == stage.key
    (entry,) = await stage.entries()
    assert (entry.event, entry.actor.credential) == ("started", "key:stage")
    assert entry.details == {"model": "scripted"}
    assert entry.expires_at - entry.at // 1000 == 400 * 24 * 3600


@virtual
async def test_a_start_that_is_refused_leaves_nothing() -> None:
    stage = await Stage(limits={"streams_at_once": 1}).begin()
    before = dict(stage.store.items)
    with pytest.raises(LimitExceeded):
        await stage.lifecycle.open(another(stage, KEY))
    assert stage.store.items == before


@pytest.mark.parametrize("shards", [1, 3])
@virtual
async def test_of_many_starts_at_once_as_many_happen_as_may(shards: int) -> None:
    stage = Stage(limits={"streams_at_once": 5}, shards=shards)
    stage.store.write_s = 0.01
    outcomes = await asyncio.gather(
        *(stage.lifecycle.open(another(stage)) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 5
    assert sum(isinstance(outcome, LimitExceeded) for outcome in outcomes) == 15
    assert stage.streams() == active(stage) == entries(stage) == 5


@virtual
async def test_a_start_goes_on_from_the_counters_that_it_lost_to() -> None:
    stage = Stage(**METERED)
    meddle(stage, OPEN_TRIES_MAX - 1, count)
    await stage.begin()
    assert stage.counters().items() >= {"active": 1, DAY: WANTED.tokens}.items()
    assert await stage.audited() == ["started ok"]


# Its counters answer: that they are busy is no outage.
@pytest.mark.parametrize("on_outage", ["refuse", "allow"])
@virtual
async def test_a_start_that_always_loses_gives_up_and_takes_nothing(on_outage: str) -> None:
    stage = Stage(**METERED, on_outage=on_outage)
    meddle(stage, OPEN_TRIES_MAX, count)
    with pytest.raises(Unavailable):
        await stage.lifecycle.open(stage.opening(idempotency=KEY))
    assert stage.streams() == entries(stage) == stage.counters().get("active", 0) == 0
    assert await KEY.claimed(stage.store, stage.caller.identity) is None


@pytest.mark.parametrize("idempotency", [None, KEY])
@virtual
async def test_a_start_whose_replies_were_lost_has_begun(idempotency: Idempotency | None) -> None:
    stage = Stage(**METERED)
    stage.store.fates.extend(["lose", "lose"])
    outcome = await stage.lifecycle.open(stage.opening(idempotency=idempotency))
    assert isinstance(outcome, tuple)
    opened, left = outcome
    assert opened == await stage.log.tail(stage.key)
    assert left
    assert stage.streams() == active(stage) == entries(stage) == 1


@pytest.mark.parametrize("fates", [["lose", "lose"], ["fail", "fail"]])
@virtual
async def test_a_start_of_which_nothing_is_known_does_not_go_on(
    fates: list[Literal["lose", "fail"]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(**METERED)
    stage.store.fates.extend(fates)

    async def unreadable(*_: Any, **__: Any) -> Any:
        raise Unavailable

    if "lose" in fates:
        monkeypatch.setattr(stage.log, "read", unreadable)
    with pytest.raises(Unavailable):
        await stage.lifecycle.open(stage.opening())


@virtual
async def test_of_starts_with_one_key_one_happens_and_the_others_are_told_which() -> None:
    stage = Stage(**METERED)
    stage.store.write_s = 0.01
    openings = [another(stage, KEY) for _ in range(10)]
    outcomes = await asyncio.gather(*map(stage.lifecycle.open, openings))
    told = [outcome for outcome in outcomes if isinstance(outcome, StreamKey)]
    (first,) = {opening.key for opening in openings} & set(told)
    assert told == [first] * 9
    assert stage.streams() == active(stage) == entries(stage) == 1


@virtual
async def test_a_key_that_came_with_another_body_takes_nothing() -> None:
    stage = await Stage(**METERED).begin(idempotency=KEY)
    before = dict(stage.store.items)
    with pytest.raises(IdempotencyKeyReused):
        await stage.lifecycle.open(another(stage, replace(KEY, fingerprint="another")))
    assert stage.store.items == before


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("fates", FATES)
@virtual
async def test_a_start_happens_once_or_not_at_all(fates: list[Any], remembered: bool) -> None:
    stage = Stage(**METERED)
    stage.store.fates.extend(fates)
    if not remembered:
        stage.store._done = Forgetful()
    happened = int(fates != ["fail", "fail"])
    with nullcontext() if happened else pytest.raises(Unavailable):
        await stage.begin(idempotency=KEY)
    assert stage.streams() == entries(stage) == happened
    assert stage.counters().get("active", 0) == happened
    claimed = await KEY.claimed(stage.store, stage.caller.identity)
    assert claimed == (stage.key if happened else None)


class Forgetful(dict[str, str]):
    """A database that does not remember which transactions it has done."""

    def __contains__(self, _: object) -> bool:
        return False


@virtual
async def test_a_start_that_others_delay_is_known_as_ones_own_when_its_reply_was_lost() -> None:
    stage = Stage(**METERED)
    stage.store.fates.extend(["lose", "ok"])
    stage.store._done = Forgetful()
    outcome = await stage.lifecycle.open(stage.opening())
    assert isinstance(outcome, tuple)
    assert outcome[0].by == (await stage.log.tail(stage.key)).by
    assert active(stage) == 1


@virtual
async def test_while_the_counters_do_not_answer_nothing_starts() -> None:
    stage = Stage(**METERED)
    stage.store.unreadable = True
    before = dict(stage.store.items)
    with pytest.raises(Unavailable):
        await stage.begin()
    assert stage.store.items == before


@virtual
async def test_a_tenant_may_want_starts_to_pass_while_the_counters_do_not_answer() -> None:
    stage = Stage(**METERED, on_outage="allow")
    stage.store.unreadable = True
    await stage.begin()
    stage.store.unreadable = False
    assert stage.opened.body["allowance"] is None
    assert not stage.counters()
    await stage.close(COMPLETED)
    assert stage.counters()[DAY] == 10
    assert stage.counters().get("active", 0) == 0
    assert await stage.audited() == ["started ok", "closed stop"]


@pytest.mark.parametrize("fates", [["fail", "fail"], ["lose", "fail"], ["lose", "lose"]])
@virtual
async def test_a_start_that_passes_unmetered_is_still_one_start(fates: list[Any]) -> None:
    stage = Stage(**METERED, on_outage="allow")
    stage.store.fates.extend(fates)
    stage.store._done = Forgetful()
    await stage.begin()
    held = stage.opened.body["held"]
    # What was offered first, and written after all, has taken its permit.
    assert held["permits"] == int("lose" in fates)
    assert stage.streams() == entries(stage) == 1
    assert active(stage) == held["permits"]
    await stage.close(COMPLETED)
    assert (active(stage), stage.counters()[DAY]) == (0, 10)


@virtual
async def test_a_store_that_takes_no_write_lets_nothing_pass_either() -> None:
    stage = Stage(**METERED, on_outage="allow")
    stage.store.broken = True
    with pytest.raises(Unavailable):
        await stage.begin()
    assert stage.streams() == entries(stage) == 0


# To close


@virtual
async def test_an_end_settles_and_is_told() -> None:
    stage = await Stage(**METERED).begin()
    closed = await stage.close(COMPLETED)
    assert await stage.told() == ["opened", "completed"]
    summary = await stage.log.summary(stage.key)
    assert (summary.status, summary.last_seq) == ("completed", closed.seq)
    assert stage.counters().items() >= {"active": 0, DAY: 10}.items()
    started, ended = await stage.entries()
    assert (ended.event, ended.outcome) == ("closed", "stop")
    assert ended.details == {"seq": 1, "tokens": 10}
    assert ended.actor.credential == started.actor.credential


@virtual
async def test_who_has_used_nothing_gets_everything_back() -> None:
    stage = await Stage(**METERED).begin()
    await stage.close(closing(Status.FAILED, FinishReason.ERROR))
    assert stage.counters().items() >= {"active": 0, DAY: 0}.items()
    assert await stage.audited() == ["started ok", "closed error"]


@virtual
async def test_a_stream_is_settled_once_whoever_closes_it() -> None:
    stage = await Stage(**METERED).begin()
    await stage.write("x")
    stage.store.write_s = 0.01
    newest = await stage.log.tail(stage.key)
    holders = await asyncio.gather(
        *(stage.lifecycle.close_abandoned(stage.key, newest) for _ in range(10)),
        *(stage.close(COMPLETED) for _ in range(10)),
    )
    assert len({holder.by for holder in holders}) == 1
    assert await stage.log.tail(stage.key) == holders[0]
    usage = holders[0].body["usage"]
    assert active(stage) == 0
    assert stage.counters()[DAY] == usage["input_tokens"] + usage["output_tokens"]
    assert [entry.event for entry in await stage.entries()] == ["started", "closed"]


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("fates", FATES)
@virtual
async def test_a_stream_is_settled_once_however_often_that_is_tried(
    fates: list[Any], remembered: bool
) -> None:
    stage = await Stage(**METERED).begin()
    if not remembered:
        stage.store._done = Forgetful()
    stage.store.fates.extend(fates)
    closed = stage.record(1, Kind.CLOSED, body=COMPLETED)
    for _ in fates:
        with pytest.raises(Unavailable):
            await stage.lifecycle.close(stage.key, Past.of((stage.opened,)), closed)
    holder = await stage.lifecycle.close(stage.key, Past.of((stage.opened,)), closed)
    assert holder.by == closed.by
    assert await stage.told() == ["opened", "completed"]
    assert stage.counters().items() >= {"active": 0, DAY: 10}.items()
    assert await stage.audited() == ["started ok", "closed stop"]


@virtual
async def test_an_end_goes_behind_what_others_have_told() -> None:
    stage = await Stage(**METERED).begin()
    read(stage)
    await stage.audit.append(stage.audit.entry(Chain.of(stage.key), Event.FOLLOWED, READER))
    meddle(stage, 3, read)
    await stage.close(COMPLETED)
    assert await stage.audited() == ["started ok", *["followed ok"] * 5, "closed stop"]
    assert active(stage) == 0


@virtual
async def test_an_end_that_always_loses_gives_up_and_has_settled_nothing() -> None:
    stage = await Stage(**METERED).begin()
    meddle(stage, AUDIT_TRIES_MAX, read)
    with pytest.raises(Unavailable):
        await stage.close(COMPLETED)
    assert await stage.told() == ["opened"]
    assert active(stage) == 1
    await stage.close(COMPLETED)
    assert active(stage) == 0
    assert (await stage.audited())[-1] == "closed stop"


@virtual
async def test_an_end_that_loses_its_slot_tells_and_settles_nothing() -> None:
    stage = await Stage(**METERED).begin()
    closed = stage.record(1, Kind.CLOSED, body=COMPLETED)
    meddle(stage, 1, say)
    holder = await stage.lifecycle.close(stage.key, Past.of((stage.opened,)), closed)
    assert (holder.kind, holder.text) == ("text", "x")
    assert await stage.audited() == ["started ok"]
    assert active(stage) == 1


# To steer


@virtual
async def test_a_control_is_a_record_and_an_entry() -> None:
    stage = await Stage().begin()
    record = await stage.lifecycle.steer(stage.key, pause, Event.PAUSED, READER)
    assert record == await stage.log.tail(stage.key)
    entry = (await stage.entries())[-1]
    assert (entry.event, entry.actor, entry.details) == ("paused", READER, {"seq": 1})


@virtual
async def test_a_control_that_loses_its_slots_goes_to_the_next_and_is_told_once() -> None:
    stage = await Stage().begin()
    meddle(stage, YIELD_EVERY - 1, say)
    record = await stage.lifecycle.steer(stage.key, pause, Event.PAUSED, READER)
    assert (await stage.told())[-2:] == ["yield", "pause"]
    assert record.seq == YIELD_EVERY + 1
    assert await stage.audited() == ["started ok", "paused ok"]
    assert (await stage.entries())[-1].details == {"seq": record.seq}


@virtual
async def test_a_control_that_never_gets_a_slot_is_given_up_and_told_nowhere() -> None:
    stage = await Stage().begin()
    meddle(stage, CONTROL_TRIES_MAX, say)
    with pytest.raises(Unavailable):
        await stage.lifecycle.steer(stage.key, pause, Event.PAUSED, READER)
    assert await stage.audited() == ["started ok"]


# It asked for one slot after the other, and stayed behind a producer that was a little faster.
@virtual
async def test_a_control_finds_a_slot_before_a_producer_that_is_faster() -> None:
    stage = await Stage().begin()
    stage.store.read_s, stage.store.write_s = 0.002, 0.009

    async def produce() -> None:
        while True:
            say(stage)
            await asyncio.sleep(0.01)

    production = asyncio.create_task(produce())
    record = await stage.lifecycle.steer(stage.key, pause, Event.PAUSED, READER)
    production.cancel()
    assert record.kind == Kind.PAUSE
    assert await stage.audited() == ["started ok", "paused ok"]


@virtual
async def test_a_control_goes_behind_what_others_have_told() -> None:
    stage = await Stage().begin()
    meddle(stage, 3, read)
    await stage.lifecycle.steer(stage.key, pause, Event.PAUSED, READER)
    assert await stage.audited() == ["started ok", *["followed ok"] * 3, "paused ok"]
    meddle(stage, AUDIT_TRIES_MAX, read)
    with pytest.raises(Unavailable):
        await stage.lifecycle.steer(stage.key, pause, Event.PAUSED, READER)
    assert await stage.told() == ["opened", "pause"]


@virtual
async def test_what_nobody_wishes_for_is_not_written() -> None:
    stage = await Stage().begin()
    closed = await stage.close(COMPLETED)
    assert await stage.lifecycle.steer(stage.key, pause, Event.PAUSED, READER) == closed
    assert await stage.audited() == ["started ok", "closed stop"]


@virtual
async def test_what_is_not_there_cannot_be_steered() -> None:
    stage = await Stage().begin()
    other = StreamKey("other", stage.key.stream)
    with pytest.raises(NotFound):
        await stage.lifecycle.steer(other, pause, Event.PAUSED, READER)
    assert entries(stage) == 1


@pytest.mark.parametrize("fate", ["fail", "lose"])
@virtual
async def test_a_record_with_an_entry_may_be_offered_again(fate: Any) -> None:
    stage = await Stage().begin()
    record = stage.record(1, Kind.PAUSE)
    stage.store.fates.append(fate)
    with pytest.raises(Unavailable):
        await stage.lifecycle.append(stage.key, record, Event.PAUSED, READER)
    assert await stage.lifecycle.append(stage.key, record, Event.PAUSED, READER) == record
    assert await stage.audited() == ["started ok", "paused ok"]


# To end what nobody produces


@virtual
async def test_a_stream_whose_producer_died_is_charged_for_its_text() -> None:
    stage = await Stage(**METERED).begin()
    await stage.write("12345", "678")
    await asyncio.sleep(DEAD_AFTER_S + 1)
    closed = await stage.lifecycle.close_abandoned(stage.key, await stage.log.tail(stage.key))
    assert await stage.told() == ["opened", "12345", "678", "failed producer-lost"]
    # "Count." and eight characters, of which four are taken for a token.
    assert closed.body["usage"] == asdict(Usage(2, 2, estimated=True))
    assert stage.counters().items() >= {"active": 0, DAY: 4}.items()
    assert (await stage.log.summary(stage.key)).error == closed.body["error"]


@virtual
async def test_a_stream_that_was_never_produced_costs_nothing() -> None:
    stage = await Stage(**METERED).begin(epoch=0)
    error = ProviderFailed("Nobody serves it.", code="refused", retryable=False)
    closed = await stage.lifecycle.close_abandoned(stage.key, stage.opened, error)
    assert closed.body["error"] == error.brief()
    assert closed.body["usage"] == asdict(Usage(0, 0))
    assert stage.counters().items() >= {"active": 0, DAY: 0}.items()


@virtual
async def test_a_cancel_that_nobody_obeyed_is_charged_for_its_text() -> None:
    stage = await Stage(**METERED).begin()
    await stage.write("1234")
    cancel = stage.record(2, Kind.CANCEL)
    await stage.append(cancel)
    closed = await stage.lifecycle.close_abandoned(stage.key, cancel)
    assert (closed.body["status"], closed.body["usage"]["output_tokens"]) == ("cancelled", 1)
    assert stage.counters()[DAY] == 3


@virtual
async def test_who_closes_what_has_gone_on_is_told_what_came_instead() -> None:
    stage = await Stage().begin()
    await stage.write("a", "b")
    holder = await stage.lifecycle.close_abandoned(stage.key, stage.opened)
    assert holder.text == "a"
    assert await stage.told() == ["opened", "a", "b"]


# To take more


async def extended(stage: Stage) -> Record:
    """A grant that takes more of the quotas, for a stream that has its permit."""
    grant = stage.record(1, Kind.GRANT, body={"vacant": True})
    more = replace(WANTED, permits=0)
    return await stage.lifecycle.extend(stage.key, grant, Event.RESUMED, stage.caller, more)


@virtual
async def test_more_is_taken_with_its_record_whatever_comes_between() -> None:
    stage = await Stage(**METERED).begin()
    meddle(stage, OPEN_TRIES_MAX - 1, count)
    record = await extended(stage)
    assert record.body["allowance"] == WANTED.output_tokens
    assert stage.counters().items() >= {"active": 1, DAY: 2 * WANTED.tokens}.items()
    stage = await Stage(**METERED).begin()
    meddle(stage, 3, read)
    await extended(stage)
    assert await stage.audited() == ["started ok", *["followed ok"] * 3, "resumed ok"]


@virtual
async def test_what_loses_its_slot_or_always_its_counters_takes_no_more() -> None:
    stage = await Stage(**METERED).begin()
    meddle(stage, 1, say)
    assert (await extended(stage)).text == "x"
    stage = await Stage(**METERED).begin()
    meddle(stage, OPEN_TRIES_MAX, count)
    with pytest.raises(Busy):
        await extended(stage)
    assert stage.counters().items() >= {"active": 1, DAY: WANTED.tokens}.items()
    assert await stage.audited() == ["started ok"]
