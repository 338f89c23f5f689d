"""The log on a store that loses replies and serves stale reads."""

from dataclasses import replace

import pytest

from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.log import DEAD_AFTER_S, closing
from shared.records import FinishReason, Item, Kind, Status, StreamKey
from shared.schema import TENANTS
from shared.table import Put
from tests.simulation.clock import virtual
from tests.simulation.scripted import Stage

CLOSING = closing(Status.COMPLETED, FinishReason.STOP, usage={"output_tokens": 1})


async def begun(chunks: int = 0) -> Stage:
    stage = await Stage().begin()
    await stage.write(*("x" for _ in range(chunks)))
    return stage


@pytest.mark.parametrize("remembered", [True, False])
@virtual
async def test_an_opening_whose_reply_was_lost_is_known_as_ones_own(remembered: bool) -> None:
    stage = Stage()
    stage.store.fates.append("lose")
    with pytest.raises(Unavailable):
        await stage.log.open(stage.key, stage.opened)
    if not remembered:
        stage.store._done.clear()  # a database remembers a token for some minutes
    assert await stage.log.open(stage.key, stage.opened) is None
    assert await stage.told() == ["opened"]


@virtual
async def test_an_opening_that_meets_another_changes_nothing_and_tells_who_holds_what() -> None:
    stage = await begun()
    claim: Item = {"pk": "tenant", "what": "claim", "stream": "first"}
    assert await stage.store.write(Put(TENANTS, claim)) is None
    other = stage.log.new_key("tenant")
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
    assert await stage.log.close(stage.key, closed) == first
    assert (await stage.log.summary(stage.key)).status == Status.OPEN


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
    assert await stage.log.close(stage.key, closed) == closed
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
    assert await stage.log.close(stage.key, first) == first
    assert await stage.log.close(stage.key, second) == first


@virtual
async def test_what_must_happen_with_the_end_happens_with_it_or_not_at_all() -> None:
    stage = await begun()
    settlement: Item = {"pk": "tenant", "what": "settlement", "tokens": 1}
    closed = stage.record(1, Kind.CLOSED, body=CLOSING)
    assert await stage.log.close(stage.key, closed, also=[Put(TENANTS, settlement)]) == closed
    again = stage.record(1, Kind.CLOSED, body=CLOSING)
    more = settlement | {"what": "again"}
    assert await stage.log.close(stage.key, again, also=[Put(TENANTS, more)]) == closed
    assert await stage.store.get(TENANTS, {"pk": "tenant", "what": "settlement"}) == settlement
    assert await stage.store.get(TENANTS, {"pk": "tenant", "what": "again"}) is None


@virtual
async def test_what_stands_in_the_way_of_an_end_is_not_taken_for_its_slot() -> None:
    stage = await begun()
    taken: Item = {"pk": "tenant", "what": "taken"}
    await stage.store.write(Put(TENANTS, taken))
    closed = stage.record(1, Kind.CLOSED, body=CLOSING)
    with pytest.raises(Unavailable):
        await stage.log.close(stage.key, closed, also=[Put(TENANTS, taken)])
    assert await stage.told() == ["opened"]


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
    for tenant, stream in (("tenant", "0" * 24), ("other", stage.key.stream)):
        with pytest.raises(NotFound):
            await stage.log.read(StreamKey(tenant, stream), after)
        with pytest.raises(NotFound):
            await stage.log.tail(StreamKey(tenant, stream))
        with pytest.raises(NotFound):
            await stage.log.summary(StreamKey(tenant, stream))


@virtual
async def test_a_tenants_streams_are_listed_newest_first() -> None:
    stage = await begun()
    keys = [StreamKey("tenant", f"{n:024}") for n in range(3)]
    for key in (*keys, StreamKey("other", "4" * 24)):
        assert await stage.log.open(key, replace(stage.opened, by=stage.log.new_writer())) is None
    names = [key.stream for key in keys]
    listed, more = await stage.log.summaries("tenant", before=None, limit=10)
    assert not more
    assert [summary.stream for summary in listed] == [stage.key.stream, *reversed(names)]
    listed, more = await stage.log.summaries("tenant", before=names[2], limit=1)
    assert more
    assert [summary.stream for summary in listed] == [names[1]]


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
async def test_names_are_never_given_twice() -> None:
    stage = await begun()
    assert len({stage.log.new_writer() for _ in range(1000)}) == 1000
    assert len({stage.log.new_key("tenant") for _ in range(1000)}) == 1000
    assert len(stage.log.new_writer()) == 16
