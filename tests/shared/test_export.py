"""Export: one JSON document, however much there is, and whatever becomes of it meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared import export
from shared.audit import Actor, Chain, Event, trail
from shared.audit.refusals import Refusals
from shared.erasure import Erasures
from shared.errors import Unavailable
from shared.export import stream_document, user_document
from shared.identity.keys import Keys
from shared.log import PAGE_RECORDS_MAX
from shared.records import DAY_S, StreamKey, dump
from tests.shared.test_erasure import completed, populated
from tests.simulation.clock import virtual
from tests.simulation.scripted import TENANT, Stage

WHO = Actor(credential="key:admin")


async def gather(document: AsyncIterator[bytes], pieces: list[bytes]) -> None:
    async for piece in document:
        pieces.append(piece)  # noqa: PERF401 - it may break off


async def whole(document: AsyncIterator[bytes]) -> Any:
    pieces: list[bytes] = []
    await gather(document, pieces)
    return json.loads(b"".join(pieces))


def of_stream(stage: Stage) -> AsyncIterator[bytes]:
    return stream_document(stage.log, stage.audit, stage.key)


def of_user(stage: Stage, user: str = "ann") -> AsyncIterator[bytes]:
    return user_document(stage.log, stage.audit, Keys(stage.store), TENANT, user)


def names(document: Any) -> list[str]:
    return [each["summary"]["stream"] for each in document["streams"]]


async def erase(stage: Stage, key: StreamKey) -> None:
    await Erasures(stage.lifecycle, stage.audit).begin(TENANT, WHO, stream=key.stream)


@virtual
async def test_a_document_of_a_long_stream_is_written_page_by_page() -> None:
    stage = await completed(PAGE_RECORDS_MAX + 10)
    for number in range(export.PAGE + 5):
        entry = stage.audit.entry(Chain.of(stage.key), Event.FOLLOWED, Actor(f"u{number}"))
        await stage.audit.append(entry)
    pieces = [piece async for piece in of_stream(stage)]
    document = json.loads(b"".join(pieces))
    [exported] = document["streams"]
    assert [record["seq"] for record in exported["records"]] == list(range(PAGE_RECORDS_MAX + 12))
    assert [entry["n"] for entry in exported["audit"]] == list(range(export.PAGE + 7))
    # No piece holds more than a page: of records, or of entries.
    record = len(dump(exported["records"][-1]))
    assert max(map(len, pieces)) < (PAGE_RECORDS_MAX + 1) * record
    assert len(pieces) > 5


@virtual
async def test_a_user_of_many_streams_is_exported_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    stage, keys = await populated("ann", "bob", "ann", "ann", "ann", "ann")
    document = await whole(of_user(stage))
    assert names(document) == [key.stream for key in (*keys[:1], *keys[2:])][::-1]
    assert names(await whole(of_user(stage, "bob"))) == [keys[1].stream]
    assert names(await whole(of_user(stage, "nobody"))) == []


@virtual
async def test_what_a_user_was_refused_is_held_about_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has told it on a chain of its own."""
    monkeypatch.setattr(trail, "PAGE_MAX", 2)
    stage = Stage()
    for number in range(5):
        refusals = Refusals(stage.audit, now=stage.now)
        await refusals.add(TENANT, Actor("ann"), "limit-exceeded", f"policy-{number}")
        await refusals.add(TENANT, Actor("bob"), "forbidden")
    said = (await whole(of_user(stage)))["audit"]
    assert {entry["details"]["policy"] for entry in said} == {f"policy-{n}" for n in range(5)}
    assert {(e["event"], e["actor"]["user"]) for e in said} == {("refused", "ann")}
    assert len({entry["chain"] for entry in said}) == len(said) == 5


@pytest.mark.parametrize("gone", [{0}, {5}, {1, 2, 3}, {0, 1, 2, 3, 4, 5}])
@virtual
async def test_what_is_being_erased_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, gone: set[int]
) -> None:
    """Also where that makes a page of the list empty."""
    monkeypatch.setattr(export, "PAGE", 2)
    stage, keys = await populated(*["ann"] * 6)
    for index in gone:
        await erase(stage, keys[index])
    document = await whole(of_user(stage))
    assert names(document) == [k.stream for i, k in enumerate(keys) if i not in gone][::-1]


@virtual
async def test_what_has_expired_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that has nothing but that to show must come to its end."""
    monkeypatch.setattr(export, "PAGE", 2)
    stage, _ = await populated(*["ann"] * 6)
    await asyncio.sleep(30 * DAY_S)
    stage.key = stage.new_key("ann")
    key = (await completed(user="ann", stage=stage)).key
    assert names(await whole(of_user(stage))) == [key.stream]


@virtual
async def test_a_stream_that_is_erased_before_its_turn_is_left_out() -> None:
    stage, keys = await populated("ann", "ann", "ann")
    pieces = of_user(stage)
    written = [await anext(pieces), await anext(pieces)]
    await erase(stage, keys[1])
    written += [piece async for piece in pieces]
    assert names(json.loads(b"".join(written))) == [keys[2].stream, keys[0].stream]


@virtual
async def test_a_stream_that_is_erased_while_it_is_written_says_so() -> None:
    stage = await completed(PAGE_RECORDS_MAX + 500)
    pieces = of_stream(stage)
    written = [await anext(pieces) for _ in range(3)]
    await erase(stage, stage.key)
    written += [piece async for piece in pieces]
    [exported] = json.loads(b"".join(written))["streams"]
    assert exported["erased"] is True
    assert 0 < len(exported["records"]) <= PAGE_RECORDS_MAX
    assert exported["audit"][-1]["event"] == "deleted"


@virtual
async def test_of_a_stream_that_is_not_there_there_is_nothing() -> None:
    stage = Stage()
    document = await whole(of_stream(stage))
    assert document == {
        "exported_at": stage.log.now_ms(),
        "tenant": TENANT,
        "user": None,
        "streams": [],
    }


@virtual
async def test_where_the_store_fails_at_any_read_there_is_no_document(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, _ = await populated("ann", "ann")
    query, get = stage.store.query, stage.store.get
    calls = fails_at = 0

    def counted(call: Any) -> Any:
        async def counting(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise Unavailable
            return await call(*arguments)

        return counting

    monkeypatch.setattr(stage.store, "query", counted(query))
    monkeypatch.setattr(stage.store, "get", counted(get))
    assert len((await whole(of_user(stage)))["streams"]) == 2
    reads = calls
    assert reads > 8
    for fails_at in range(1, reads + 1):  # noqa: B007
        calls = 0
        pieces: list[bytes] = []
        with pytest.raises(Unavailable):
            await gather(of_user(stage), pieces)
        with pytest.raises(json.JSONDecodeError):
            json.loads(b"".join(pieces))
