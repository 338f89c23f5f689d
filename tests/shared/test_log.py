"""The log on a store that loses replies and serves stale reads."""

import asyncio
from dataclasses import replace

import pytest

from shared import log as log_module
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.log import DEAD_AFTER_S, PAUSE_S, Log, closing
from shared.records import DAY_S, FinishReason, Item, Kind, Record, Status, StreamKey
from shared.schema import OPEN_SHARDS, TENANTS
from shared.table import Conflict, Put
from tests.simulation.clock import virtual
from tests.simulation.scripted import TENANT, Stage

CLOSING = closing(Status.COMPLETED, FinishReason.STOP, usage={"output_tokens": 1})


async def begun(chunks: int = 0) -> Stage:
    """A stream in the log, and nothing else."""
    stage = Stage()
    assert await stage.log.open(stage.key, stage.opened) is None
    await stage.write(*("x" for _ in range(chunks)))
    return stage


def holder(conflict: Conflict | None) -> Record:
    """Who has the slot that was asked for."""
    assert conflict
    held = conflict.holders[0]
    assert held
    return Record.from_item(held)


@pytest.mark.parametrize("remembered", [True, False])
@virtual
async def test_an_opening_whose_reply_was_lost_is_known_as_ones_own(remembered: bool) -> None:
    stage = Stage()
    stage.store.fates.append("lose")
    with pytest.raises(Unavailable):
        await stage.log.open(stage.key, stage.opened)
    if not remembered:
        stage.store._done.clear()  # a database remembers a token for some minutes
    again = await stage.log.open(stage.key, stage.opened)
    assert again is None if remembered else holder(again).by == stage.opened.by
    assert await stage.told() == ["opened"]


@virtual
async def test_an_opening_that_meets_another_changes_nothing_and_tells_who_holds_what() -> None:
    stage = await begun()
    claim: Item = {"pk": "tenant", "what": "claim", "stream": "first"}
    assert await stage.store.write(Put(TENANTS, claim)) is None
    other = stage.new_key()
    conflict = await stage.log.open(
        other,
        stage.record(0, Kind.OPENED, body=stage.opened.body),
        also=[Put(TENANTS, claim | {"stream": "second"})],
    )
    assert conflict
    assert conflict.holders == (None, None, claim)
    with pytest.raises(NotFound):
        await stage.log.summary(other)
    with pytest.raises(NotFound):
        await stage.log.tail(other)


@virtual
async def test_an_append_whose_reply_was_lost_is_known_as_ones_own() -> None:
    stage = await begun()
    record = stage.record(1, Kind.TEXT, text="x")
    stage.store.fates.append("lose")
    with pytest.raises(Unavailable):
        await stage.log.append(stage.key, record)
    assert await stage.log.append(stage.key, record) == record
    assert await stage.told() == ["opened", "x"]


@virtual
async def test_who_loses_a_slot_is_told_what_won_it() -> None:
    stage = await begun()
    first, second = (stage.record(1, Kind.TEXT, text=text) for text in "ab")
    assert await stage.log.append(stage.key, first) == first
    assert await stage.log.append(stage.key, second) == first
    closed = stage.record(1, Kind.CLOSED, body=CLOSING)
    assert holder(await stage.log.close(stage.key, closed)) == first
    assert (await stage.log.summary(stage.key)).status == Status.OPEN


@virtual
async def test_what_comes_with_a_record_comes_with_it_or_not_at_all() -> None:
    stage = await begun()
    first, second = (stage.record(1, Kind.PAUSE) for _ in range(2))
    entry: Item = {"pk": "tenant", "what": "entry"}
    assert await stage.log.append_with(stage.key, first, [Put(TENANTS, entry)]) is None
    more = entry | {"what": "more"}
    assert holder(await stage.log.append_with(stage.key, second, [Put(TENANTS, more)])) == first
    assert await stage.store.get(TENANTS, more) is None
    third = stage.record(2, Kind.PAUSE)
    conflict = await stage.log.append_with(stage.key, third, [Put(TENANTS, entry)])
    assert conflict == Conflict((None, entry))
    assert await stage.told() == ["opened", "pause"]


@pytest.mark.parametrize("remembered", [True, False])
@virtual
async def test_a_closing_whose_reply_was_lost_is_known_as_ones_own(remembered: bool) -> None:
    stage = await begun()
    closed = stage.record(1, Kind.CLOSED, body=CLOSING)
    stage.store.fates.append("lose")
    with pytest.raises(Unavailable):
        await stage.log.close(stage.key, closed)
    if not remembered:
        stage.store._done.clear()
    again = await stage.log.close(stage.key, closed)
    assert again is None if remembered else holder(again) == closed
    summary = await stage.log.summary(stage.key)
    assert (summary.status, summary.last_seq, summary.usage) == (
        "completed",
        1,
        {"output_tokens": 1},
    )


@virtual
async def test_a_stream_is_closed_once() -> None:
    stage = await begun()
    first, second = (stage.record(1, Kind.CLOSED, body=CLOSING) for _ in range(2))
    assert await stage.log.close(stage.key, first) is None
    assert holder(await stage.log.close(stage.key, second)) == first


@virtual
async def test_what_must_happen_with_the_end_happens_with_it_or_not_at_all() -> None:
    stage = await begun()
    settlement: Item = {"pk": "tenant", "what": "settlement", "tokens": 1}
    closed = stage.record(1, Kind.CLOSED, body=CLOSING)
    assert await stage.log.close(stage.key, closed, also=[Put(TENANTS, settlement)]) is None
    again = stage.record(1, Kind.CLOSED, body=CLOSING)
    more = settlement | {"what": "again"}
    conflict = await stage.log.close(stage.key, again, also=[Put(TENANTS, more)])
    assert holder(conflict) == closed
    assert await stage.store.get(TENANTS, {"pk": "tenant", "what": "settlement"}) == settlement
    assert await stage.store.get(TENANTS, {"pk": "tenant", "what": "again"}) is None


@virtual
async def test_what_stands_in_the_way_of_an_end_is_not_taken_for_its_slot() -> None:
    stage = await begun()
    taken: Item = {"pk": "tenant", "what": "taken"}
    await stage.store.write(Put(TENANTS, taken))
    closed = stage.record(1, Kind.CLOSED, body=CLOSING)
    conflict = await stage.log.close(stage.key, closed, also=[Put(TENANTS, taken)])
    assert conflict == Conflict((None, None, taken))
    assert await stage.told() == ["opened"]
    assert (await stage.log.summary(stage.key)).status == Status.OPEN


@virtual
async def test_a_closed_record_cannot_be_appended_without_its_summary() -> None:
    stage = await begun()
    with pytest.raises(ValueError, match="close"):
        await stage.log.append(stage.key, stage.record(1, Kind.CLOSED, body=CLOSING))


@virtual
async def test_a_read_is_what_follows_an_offset_and_the_offset_itself() -> None:
    stage = await begun(3)
    page = await stage.log.read(stage.key)
    assert ([r.seq for r in page.records], page.anchor) == ([0, 1, 2, 3], None)
    page = await stage.log.read(stage.key, 1, limit=1)
    assert ([r.seq for r in page.records], page.anchor and page.anchor.seq) == ([2], 1)
    page = await stage.log.read(stage.key, 3)
    assert (page.records, page.newest and page.newest.seq) == ((), 3)


@pytest.mark.parametrize("hidden", [{2}, {2, 3}, {1, 2}, {1, 2, 3}])
@virtual
async def test_a_stale_read_shows_less_and_never_a_gap(hidden: set[int]) -> None:
    stage = await begun(3)
    stage.store.hidden = hidden
    seen: list[int] = []
    while len(seen) < 4:
        after = seen[-1] if seen else -1
        records = (await stage.log.read(stage.key, after)).records
        assert [r.seq for r in records] == list(range(after + 1, after + 1 + len(records)))
        if not records:  # as old as it could be; a moment later it is not
            assert after + 1 in hidden
            stage.store.hidden = set()
        seen += [r.seq for r in records]


# A stale read showed the summary without `opened`: a stream without a record.
@virtual
async def test_a_stream_that_has_just_begun_has_a_record_even_for_a_stale_read() -> None:
    stage = await begun()
    stage.store.hidden = {0}
    assert [r.seq for r in (await stage.log.read(stage.key)).records] == [0]


@virtual
async def test_an_offset_that_a_stale_read_does_not_know_is_found() -> None:
    stage = await begun(2)
    stage.store.hidden = {1, 2}
    assert (await stage.log.read(stage.key, 2)).newest == await stage.log.tail(stage.key)


@virtual
async def test_a_stream_that_no_stale_read_shows_is_found() -> None:
    stage = await begun()
    stage.store.hidden = {-1, 0}
    assert [r.seq for r in (await stage.log.read(stage.key)).records] == [0]


@virtual
async def test_an_offset_beyond_the_end_is_refused_and_the_end_named() -> None:
    stage = await begun(2)
    with pytest.raises(InvalidRequest) as raised:
        await stage.log.read(stage.key, 3)
    assert raised.value.extensions == {"field": "after", "maximum": 2}


@pytest.mark.parametrize("after", [-1, 0, 7])
@virtual
async def test_an_unknown_stream_is_not_found(after: int) -> None:
    stage = await begun()
    for tenant, stream in (("tenant", "0" * 32), ("other", stage.key.stream)):
        with pytest.raises(NotFound):
            await stage.log.read(StreamKey(tenant, stream), after)
        with pytest.raises(NotFound):
            await stage.log.tail(StreamKey(tenant, stream))
        with pytest.raises(NotFound):
            await stage.log.summary(StreamKey(tenant, stream))


@virtual
async def test_a_tenants_streams_are_listed_newest_first() -> None:
    stage = await begun()
    keys = [stage.key, *[await open_another(stage) for _ in range(3)]]
    await open_another(stage, tenant="other")
    names = [key.stream for key in reversed(keys)]
    listed, more = await stage.log.summaries(TENANT, before=None, limit=10)
    assert not more
    assert [summary.stream for summary in listed] == names
    listed, more = await stage.log.summaries(TENANT, before=names[1], limit=1)
    assert more
    assert [summary.stream for summary in listed] == [names[2]]


async def open_another(
    stage: Stage, user: str | None = None, *, tenant: str = TENANT, days: int = 30
) -> StreamKey:
    """A second later, a stream of a tenant or one of its users."""
    await asyncio.sleep(1)
    key = stage.log.new_key(tenant, stage.tenant.owner_tag(user), days)
    opened = stage.record(0, Kind.OPENED, body={**stage.opened.body, "user": user})
    assert await stage.log.open(key, opened) is None
    return key


@virtual
async def test_a_users_streams_are_listed_alone() -> None:
    stage = await begun()
    anns = [await open_another(stage, "ann") for _ in range(2)]
    await open_another(stage, "bob")
    await open_another(stage, "ann", tenant="other")
    listed, _ = await stage.log.summaries(TENANT, "ann", before=None, limit=10)
    assert [summary.stream for summary in listed] == [key.stream for key in reversed(anns)]
    assert {summary.user for summary in listed} == {"ann"}
    assert await stage.log.summaries(TENANT, "nobody", before=None, limit=10) == ([], False)


@virtual
async def test_a_stream_whose_retention_is_over_is_in_no_list() -> None:
    stage = await begun()
    short = await open_another(stage, "ann", days=1)
    expired = Log(stage.store, now=lambda: short.expires_at)
    assert not stage.log.is_expired(short)
    assert expired.is_expired(short)
    assert not expired.is_expired(stage.key)
    assert short.expires_at == short.created_ms // 1000 + DAY_S
    listed, _ = await expired.summaries(TENANT, before=None, limit=10)
    assert [summary.stream for summary in listed] == [stage.key.stream]
    assert await expired.summaries(TENANT, "ann", before=None, limit=10) == ([], False)


@virtual
async def test_everything_of_a_stream_expires_with_it() -> None:
    stage = await begun(1)
    closed = stage.record(2, Kind.CLOSED, body=CLOSING)
    await stage.log.close(stage.key, closed)
    items = [item for (_, pk, _), item in stage.store.items.items() if pk == stage.key.pk]
    assert len(items) == 4
    assert {item["expires_at"] for item in items} == {stage.key.expires_at}


@virtual
async def test_the_summary_names_the_model_that_has_answered() -> None:
    stage = await begun()
    assert (await stage.log.summary(stage.key)).model == "scripted"
    body = closing(Status.COMPLETED, FinishReason.STOP, model="another")
    await stage.log.close(stage.key, stage.record(1, Kind.CLOSED, body=body))
    assert (await stage.log.summary(stage.key)).model == "another"


@virtual
async def test_all_records_are_all_however_stale_a_read_would_be() -> None:
    stage = await begun(2500)
    stage.store.hidden = {2499, 2500}
    assert [r.seq for r in await stage.log.all_records(stage.key)] == list(range(2501))
    with pytest.raises(NotFound):
        await stage.log.all_records(StreamKey("other", stage.key.stream))


@virtual
async def test_all_records_of_a_usual_stream_are_one_read() -> None:
    stage = await begun(50)
    before = stage.store.reads
    assert len(await stage.log.all_records(stage.key)) == 51
    assert stage.store.reads - before == 1


@virtual
async def test_a_producer_is_dead_when_it_was_silent_for_too_long() -> None:
    stage = await begun()
    newest = stage.opened
    dead_after_ms = int(DEAD_AFTER_S * 1000)
    assert not stage.log.is_dead(replace(newest, at=newest.at - dead_after_ms))
    assert stage.log.is_dead(replace(newest, at=newest.at - dead_after_ms - 1))
    assert not stage.log.is_dead(stage.record(1, Kind.CLOSED, body=CLOSING))
    assert not stage.log.is_dead(replace(newest, at=newest.at + dead_after_ms))


@virtual
async def test_a_producer_that_is_paused_may_be_silent_for_longer() -> None:
    stage = await begun()
    paused = stage.record(1, Kind.PAUSE)
    dead_after_ms = int((DEAD_AFTER_S + PAUSE_S) * 1000)
    assert not stage.log.is_dead(replace(paused, at=paused.at - dead_after_ms))
    assert stage.log.is_dead(replace(paused, at=paused.at - dead_after_ms - 1))


@virtual
async def test_names_are_never_given_twice() -> None:
    stage = await begun()
    assert len({stage.log.new_writer() for _ in range(1000)}) == 1000
    assert len({stage.new_key() for _ in range(1000)}) == 1000
    assert len(stage.log.new_writer()) == 16


@virtual
async def test_the_open_streams_of_a_shard_are_those_that_are_not_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_module, "OPEN_PAGE", 3)
    stage = Stage()
    keys = []
    for _ in range(60):
        keys.append(stage.key)
        await stage.begin()
        stage.key = stage.new_key()
        await asyncio.sleep(0.001)
    for key in keys[::2]:
        stage.key = key
        await stage.close(CLOSING)
    found = []
    for shard in range(OPEN_SHARDS):
        of_shard = [key async for key in stage.log.open_streams(shard)]
        assert of_shard == sorted(of_shard, key=lambda key: key.stream)
        found += of_shard
    assert len(found) == 30
    assert set(found) == set(keys[1::2])
