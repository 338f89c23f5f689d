"""What is told of readers: where each connection, and each session of polls, began and ended."""

import asyncio

import pytest

from shared import reading
from shared.audit import Chain, Event
from shared.authority import Caller
from shared.follower import Page
from shared.log import closing
from shared.reading import SESSION_S, SESSIONS_MAX, Polls, note_reading
from shared.records import FinishReason, Kind, Record, Status, StreamKey
from tests.simulation.clock import virtual
from tests.simulation.scripted import Stage

CLOSED = closing(Status.COMPLETED, FinishReason.STOP)


class Desk:
    """Somebody who polls streams by one process, and what the audit has of it."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.polls = Polls(self.stage.audit, clock=asyncio.get_running_loop().time)

    async def poll(
        self,
        after: int,
        end: int,
        *,
        closed: bool = False,
        caller: Caller | None = None,
        key: StreamKey | None = None,
    ) -> None:
        kind = Kind.CLOSED if closed else Kind.TEXT
        newest = Record(end, kind, 1, 0, "", body=CLOSED if closed else {})
        page = Page((newest,), end, newest, 0)
        await self.polls.polled(key or self.stage.key, caller or self.stage.caller, after, page)

    async def told(self) -> list[tuple[int, int]]:
        return [(e.details["from"], e.details["to"]) for e in await self.stage.entries()]


@virtual
async def test_a_session_is_told_when_it_begins_and_whole_when_it_comes_to_the_end() -> None:
    desk = Desk()
    for after in range(-1, 20):
        await desk.poll(after, after + 1)
    assert await desk.told() == [(-1, 0)]
    await desk.poll(20, 21, closed=True)
    assert await desk.told() == [(-1, 0), (-1, 21)]
    for _ in range(5):
        await desk.poll(21, 21, closed=True)  # there is nothing more
    assert len(await desk.told()) == 2


@virtual
async def test_a_session_that_gets_all_at_once_is_one_entry() -> None:
    desk = Desk()
    await desk.poll(-1, 9, closed=True)
    await desk.poll(9, 9, closed=True)
    assert await desk.told() == [(-1, 9)]
    entry = (await desk.stage.entries())[0]
    assert (entry.event, entry.actor.credential) == ("polled", "key:stage")


@virtual
async def test_a_session_that_never_comes_to_the_end_is_told_whole_by_whoever_polls_next() -> None:
    desk = Desk()
    for after in (-1, 3, 7):
        await desk.poll(after, after + 4)
    other = desk.stage.new_key()
    await desk.poll(-1, 0, key=other)
    assert await desk.told() == [(-1, 3)]
    await asyncio.sleep(SESSION_S)
    await desk.poll(0, 1, key=other)
    assert await desk.told() == [(-1, 3), (-1, 11)]


@virtual
async def test_after_a_long_silence_a_session_is_another() -> None:
    desk = Desk()
    await desk.poll(-1, 3)
    await asyncio.sleep(SESSION_S - 1)
    await desk.poll(3, 5)
    await asyncio.sleep(SESSION_S)
    await desk.poll(5, 6)
    assert await desk.told() == [(-1, 3), (-1, 5), (5, 6)]


@virtual
async def test_callers_and_streams_have_sessions_of_their_own() -> None:
    desk = Desk()
    ann, bob = (desk.stage.caller_by("shared-" + user, user=user) for user in ("ann", "bob"))
    for caller in (ann, bob, ann, bob):
        await desk.poll(-1, 3, caller=caller)
    assert await desk.told() == [(-1, 3), (-1, 3)]
    assert [e.actor.user for e in await desk.stage.entries()] == ["ann", "bob"]


@virtual
async def test_who_reads_from_the_beginning_again_has_read_from_there() -> None:
    desk = Desk()
    await desk.poll(5, 6)
    await desk.poll(-1, 4)
    await desk.poll(6, 7, closed=True)
    assert await desk.told() == [(5, 6), (-1, 7)]


@virtual
async def test_polls_at_the_same_time_are_one_session() -> None:
    desk = Desk()
    await asyncio.gather(*(desk.poll(-1, 3) for _ in range(10)))
    assert await desk.told() == [(-1, 3)]


@virtual
async def test_entries_are_bounded_by_sessions_and_not_by_polls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "SESSIONS_MAX", 3)
    desk = Desk()
    keys = [desk.stage.new_key() for _ in range(5)]
    for _ in range(2):
        for key in keys:
            for after in range(10):
                await desk.poll(after, after + 1, key=key)
            assert len(desk.polls._sessions) <= 3
    entries = [e for key in keys for e in (await desk.stage.audit.read(Chain.of(key)))[0]]
    # Of each session its begin, and of each that had to make room its whole.
    assert len(entries) == 10 + 7
    assert SESSIONS_MAX > 3


@virtual
async def test_what_cannot_be_told_keeps_nobody_from_reading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()
    desk.stage.store.broken = True
    await desk.poll(-1, 3)
    [line] = caplog.records
    assert line.getMessage() == "audit lost"
    assert line.__dict__["stream"] == desk.stage.key.stream


@virtual
async def test_a_connection_is_one_entry_for_as_long_as_its_tenant_keeps_them() -> None:
    stage = Stage(audit_retention_days=7)
    await note_reading(stage.audit, stage.key, stage.caller, Event.FOLLOWED, -1, 12)
    [entry] = await stage.entries()
    assert (entry.event, entry.details) == ("followed", {"from": -1, "to": 12})
    assert entry.expires_at == entry.at // 1000 + 7 * 86_400
