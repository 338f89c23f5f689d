"""Followers: adaptive reading, pages for clients that poll, and streams whose producer is dead."""

import asyncio
from contextlib import aclosing
from itertools import pairwise

import pytest

from shared.errors import InvalidRequest, NotFound, OutOfTime, Unavailable
from shared.follower import (
    DELAY_MAX_S,
    DELAY_MIN_S,
    PAGE_CHARS_MAX,
    POLL_MAX_MS,
    POLL_MIN_MS,
    Follower,
    Pace,
)
from shared.log import DEAD_AFTER_S, VACANT_S, closing
from shared.records import FinishReason, Kind, Record, Status, StreamKey
from shared.schema import STREAMS
from shared.steering import pause
from shared.takeover import UNFILLED_MAX
from tests.simulation.clock import virtual
from tests.simulation.scripted import DONE, ScriptedModel, Stage

CLOSING = closing(Status.COMPLETED, FinishReason.STOP)


def follower(stage: Stage, after: int = -1, *, attached: bool = False) -> Follower:
    return Follower(stage.takeovers, stage.live, stage.key, after, attached=attached)


async def follow(stage: Stage, after: int = -1) -> list[Record]:
    """Everything after an offset, to the end of the stream."""
    async with aclosing(follower(stage, after).batches()) as batches:
        return [record async for records in batches for record in records]


def chunks(*at_ms: int) -> list[Record]:
    return [Record(seq, Kind.TEXT, 1, at, "writer") for seq, at in enumerate(at_ms)]


def test_the_next_read_is_when_the_next_record_is_due() -> None:
    pace = Pace()
    pace.saw(chunks(*range(0, 8000, 400)))
    assert pace.gap_s == pytest.approx(0.4, abs=0.01)
    assert pace.delay_s() == pytest.approx(0.4, abs=0.01)


def test_a_record_that_is_late_is_looked_for_often_and_then_ever_less() -> None:
    pace = Pace()
    pace.saw(chunks(0, 400))
    pace.delay_s()
    delays = [pace.delay_s() for _ in range(20)]
    assert delays[0] == DELAY_MIN_S
    assert delays[-1] == DELAY_MAX_S
    assert delays == sorted(delays)
    pace.saw(chunks(0))
    pace.delay_s()
    assert pace.delay_s() == DELAY_MIN_S


def test_a_writers_clock_that_jumps_changes_little() -> None:
    pace = Pace()
    pace.saw(chunks(0, 100, 10**9, 0, 100))
    assert DELAY_MIN_S <= pace.delay_s() <= DELAY_MAX_S
    assert pace.gap_s <= 5


@virtual
async def test_a_follower_gets_everything_once_and_then_the_end() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 1, "b", 7, "c", DONE))
    here, elsewhere = await asyncio.gather(follow(stage), _follow_elsewhere(stage))
    await production
    assert tuple(here) == tuple(elsewhere) == await stage.records()
    assert tuple(await follow(stage, 2)) == (await stage.records())[3:]
    assert await follow(stage, here[-1].seq) == []


async def _follow_elsewhere(stage: Stage) -> list[Record]:
    """The same from another process, which has the log alone."""
    other = Stage()
    other.takeovers, other.key = stage.takeovers, stage.key
    return await follow(other)


@virtual
async def test_who_follows_where_it_is_produced_costs_no_reads() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 5, "b", 20, "c", DONE))
    await asyncio.sleep(0)
    before = stage.store.reads_of[STREAMS.name]
    await follow(stage)
    await production
    assert stage.store.reads_of[STREAMS.name] - before <= 1


@virtual
async def test_a_quiet_stream_is_read_about_once_a_second() -> None:
    stage = await Stage().begin()
    before = stage.store.reads_of[STREAMS.name]
    async with aclosing(follower(stage).batches()) as batches:
        async for _ in batches:
            if asyncio.get_running_loop().time() > 12:
                break
    assert 12 <= stage.store.reads_of[STREAMS.name] - before <= 24


@virtual
async def test_a_follower_says_at_least_about_once_a_second_that_nothing_is_new() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 4, "b", DONE))
    loop = asyncio.get_running_loop()
    async with aclosing(follower(stage).batches()) as batches:
        times = [loop.time() async for _ in batches]
    await production
    assert all(later - earlier <= DELAY_MAX_S for earlier, later in pairwise(times))


@virtual
async def test_a_stream_whose_producer_died_is_taken_over_by_who_notices() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    following = asyncio.gather(follow(stage), _follow_elsewhere(stage))
    await asyncio.sleep(17)
    assert await stage.told() == ["opened", "a", "vacant lost"]
    assert stage.launched == [stage.key]
    await stage.succeed(ScriptedModel("b", DONE))
    first, second = await following
    assert first == second
    assert [record.kind for record in first[2:]] == ["vacant", "epoch", "text", "closed"]


# Each of them read the whole log, to find that another was faster.
@virtual
async def test_of_many_who_notice_late_none_reads_the_log() -> None:
    stage = await Stage().begin()
    await stage.write(*"abcdefgh" * 200)
    await asyncio.sleep(DEAD_AFTER_S + 1)
    await stage.takeovers.settle(stage.key)
    # To a read that is stale nobody has noticed yet.
    stage.store.hidden = {1601}
    asyncio.get_running_loop().call_later(0.01, stage.store.hidden.clear)
    before = stage.store.reads_of[STREAMS.name]

    async def notice() -> Record:
        async with aclosing(follower(stage, 1600).batches()) as batches:
            return (await anext(batches))[0]

    found = await asyncio.gather(*(notice() for _ in range(20)))
    assert {record.kind for record in found} == {Kind.VACANT}
    assert stage.store.reads_of[STREAMS.name] - before == 3 * 20
    assert stage.launched == [stage.key]


@virtual
async def test_a_stream_that_nobody_takes_over_ends_all_the_same() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    await follow(stage)
    launches = 1 + UNFILLED_MAX
    assert await stage.told() == [
        *("opened", "a", *["vacant lost"] * launches, "failed producer-lost")
    ]
    assert stage.launched == [stage.key] * launches
    end_s = DEAD_AFTER_S + launches * VACANT_S
    assert end_s < asyncio.get_running_loop().time() < end_s + 15


@virtual
async def test_a_stream_that_lives_is_not_closed_however_stale_the_read() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    await asyncio.sleep(20)
    await stage.write("b")
    stage.store.hidden, stage.store.write_s = {2}, 0.01
    asyncio.get_running_loop().call_later(0.05, stage.store.hidden.clear)
    async with aclosing(follower(stage, 1).batches()) as batches:
        assert [record.text for record in await anext(batches)] == ["b"]
    assert await stage.told() == ["opened", "a", "b"]


@virtual
async def test_a_cancel_that_no_producer_was_there_to_obey_ends_the_stream_cancelled() -> None:
    stage = await Stage().begin()
    await stage.append(stage.record(1, Kind.CANCEL))
    await follow(stage)
    assert await stage.told() == ["opened", "cancel", "cancelled"]


@virtual
async def test_a_burial_can_say_why_and_loses_to_whoever_was_first() -> None:
    stage = await Stage().begin()
    holder = await stage.lifecycle.close_abandoned(stage.key, stage.opened, OutOfTime())
    assert await stage.told() == ["opened", "failed out-of-time"]
    assert await stage.lifecycle.close_abandoned(stage.key, stage.opened) == holder


@virtual
async def test_the_attached_client_tells_how_far_it_is_and_when_it_leaves() -> None:
    stage = await Stage().begin()
    with stage.live.producing(stage.key) as channel:
        for record in (stage.opened, *(stage.record(n, Kind.TEXT, text="x") for n in range(1, 99))):
            channel.publish(record)
        async with aclosing(follower(stage, attached=True).batches()) as batches:
            assert len(await anext(batches)) == 99
            waiting = asyncio.create_task(channel.room())
            await asyncio.sleep(1)
            assert not waiting.done()
            await anext(batches)  # who asks for more has sent what it had
            await waiting
            channel.attach(0)
        await channel.room()


@virtual
async def test_a_page_holds_as_many_chunks_as_were_asked_for_whatever_is_between_them() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    await stage.append(stage.record(2, Kind.HEARTBEAT))
    await stage.write("b", "c")
    page = await follower(stage).page(limit=2, wait_s=0)
    assert ([r.seq for r in page.records], page.next, page.newest.seq) == ([0, 1, 2, 3], 3, 4)
    assert page.poll_after_ms == 0
    page = await follower(stage, page.next).page(limit=2, wait_s=0)
    assert ([r.text for r in page.records], page.next) == (["c"], 4)
    assert page.poll_after_ms > 0


@virtual
async def test_a_page_goes_past_what_shows_nothing_behind_its_last_chunk() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    await stage.append(stage.record(2, Kind.HEARTBEAT))
    page = await follower(stage).page(limit=1, wait_s=0)
    assert page.next == 2


@virtual
async def test_pages_one_after_the_other_are_the_whole_text() -> None:
    stage = await Stage().begin()
    await stage.write(*"abcdefgh")
    await stage.close(CLOSING)
    text, after, closed = "", -1, False
    while not closed:
        page = await follower(stage, after).page(limit=3, wait_s=0)
        text += "".join(record.text for record in page.records)
        after = page.next
        closed = page.newest.closes and page.newest.seq == after
    assert text == "abcdefgh"
    again = await follower(stage, after).page(limit=3, wait_s=20)
    assert (again.records, again.next, again.newest.closes) == ((), after, True)
    assert again.poll_after_ms == 0


@virtual
async def test_a_long_poll_ends_with_the_first_chunk() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel(7, "a", 60, "b", DONE))
    page = await follower(stage, 0).page(limit=10, wait_s=20)
    assert [record.kind for record in page.records] == [Kind.HEARTBEAT, Kind.TEXT]
    assert 7 <= asyncio.get_running_loop().time() < 8
    production.cancel()
    await asyncio.gather(production, return_exceptions=True)


@virtual
async def test_a_long_poll_ends_with_the_stream() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel(3, DONE))
    page = await follower(stage, 0).page(limit=10, wait_s=20)
    assert page.newest.closes
    assert asyncio.get_running_loop().time() < 4
    await production


# It had 60 s for a grant, of which a poll took 20.
@virtual
async def test_a_long_poll_ends_with_a_pause_and_waits_behind_one() -> None:
    stage = await Stage().begin()
    asyncio.get_running_loop().call_later(
        3, lambda: asyncio.create_task(pause(stage.lifecycle, stage.key, stage.caller))
    )
    page = await follower(stage, 0).page(limit=10, wait_s=20)
    assert (page.next, page.newest.kind) == (1, Kind.PAUSE)
    assert asyncio.get_running_loop().time() < 4
    page = await follower(stage, 1).page(limit=10, wait_s=20)
    assert asyncio.get_running_loop().time() > 23
    assert (page.next, page.poll_after_ms) == (1, POLL_MAX_MS)


@virtual
async def test_a_long_poll_without_news_ends_when_its_wait_is_over() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel(60, DONE))
    page = await follower(stage, 0).page(limit=10, wait_s=7)
    assert 7 <= asyncio.get_running_loop().time() < 8.1
    assert [record.kind for record in page.records] == [Kind.HEARTBEAT]
    assert page.next == 1
    production.cancel()
    await asyncio.gather(production, return_exceptions=True)


@virtual
async def test_a_client_is_told_to_poll_at_the_streams_own_pace() -> None:
    stage = await Stage().begin()
    for _ in range(20):
        await stage.write("x")
        await asyncio.sleep(1)
    told = (await follower(stage).page(limit=100, wait_s=0)).poll_after_ms
    assert told == pytest.approx(1000, abs=100)
    await asyncio.sleep(3)
    assert (await follower(stage, 20).page(limit=100, wait_s=0)).poll_after_ms == 4000
    await asyncio.sleep(7)
    assert (await follower(stage, 20).page(limit=100, wait_s=0)).poll_after_ms == POLL_MAX_MS
    lively = await Stage().begin()
    await lively.write(*"abcdefghijkl")
    page = await follower(lively).page(limit=100, wait_s=0)
    assert page.poll_after_ms == POLL_MIN_MS


@virtual
async def test_an_offset_or_a_stream_that_is_not_there_is_told_at_once() -> None:
    stage = await Stage().begin()
    with pytest.raises(InvalidRequest):
        await follower(stage, 1).page(limit=1, wait_s=20)
    nothing = Follower(stage.takeovers, stage.live, StreamKey("other", stage.key.stream))
    with pytest.raises(NotFound):
        await nothing.page(limit=1, wait_s=20)
    assert asyncio.get_running_loop().time() == 0


@virtual
async def test_a_store_that_does_not_answer_is_told_and_nothing_is_lost() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    await asyncio.sleep(20)
    stage.store.broken = True  # the stream could not be closed
    with pytest.raises(Unavailable):
        await follow(stage)
    stage.store.broken = False
    assert "".join(record.text for record in await follow(stage)) == "a"


@virtual
async def test_a_page_is_bounded_in_characters_and_misses_nothing() -> None:
    stage = await Stage().begin()
    texts = [str(i) * (200 * 1024) for i in range(6)]
    for seq, text in enumerate(texts, 1):
        await stage.append(stage.record(seq, Kind.TEXT, text=text))
    await stage.close(CLOSING)
    found, after, pages = "", -1, 0
    while True:
        page = await follower(stage, after).page(limit=1000, wait_s=0)
        held = "".join(record.text for record in page.records)
        assert len(held) <= PAGE_CHARS_MAX
        found, after, pages = found + held, page.next, pages + 1
        if page.newest.seq == after:
            break
    assert found == "".join(texts)
    assert pages == 3
