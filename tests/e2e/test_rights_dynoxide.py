"""Erasing, exporting and seats on a real database: its indexes, batches, transactions and races."""

import asyncio
import json

import pytest

from functions.sweep import sweep
from functions.wiring import Services
from shared import erasure
from shared.administration import Administration
from shared.audit import Actor, Chain
from shared.authority import Caller
from shared.errors import NotFound
from shared.export import user_document
from shared.identity.keys import Key, Keys
from shared.lifecycle import Opening
from shared.log import closing
from shared.models import Message
from shared.past import Past
from shared.quotas import Wanted
from shared.records import FinishReason, Kind, Record, Status, StreamKey
from shared.schema import STREAMS
from shared.settings import Settings
from shared.starting import Start
from shared.table import DynamoDB, Query

pytestmark = pytest.mark.e2e

SECRET = "xyzzy"
WHO = Actor(credential="key:admin")
COMPLETED = closing(Status.COMPLETED, FinishReason.STOP, usage={"output_tokens": 1})


@pytest.fixture
def services(real: DynamoDB) -> Services:
    return Services.on(real, Settings())


async def asking(services: Services, tenant: str, user: str) -> Caller:
    """A user of a tenant, of which both are made where they are new."""
    administration = Administration(services.lifecycle.store)
    await administration.ensure(tenant, f"{tenant}'s")
    await administration.add_key(
        f"{tenant}'s {user}", Key(tenant, f"{tenant[:7]}{user[:1]}", user=user)
    )
    identity = await services.authority.identify(f"{tenant}'s {user}")
    return Caller(identity, await services.authority.tenant(identity))


async def stream(services: Services, caller: Caller, chunks: int, *, closed: bool) -> StreamKey:
    """A stream of a user that holds the secret."""
    log, tenant = services.log, caller.tenant
    key = log.new_key(tenant.name, tenant.owner_tag(caller.identity.user), 30)
    start = Start("demo", (Message("user", SECRET),), metadata={"about": SECRET})
    asked = {"user": caller.identity.user, "credential": "key:x", "expires_at": None}
    opening = Opening(key, caller, 1, start.to_body() | asked, Wanted(1, 1))
    outcome = await services.lifecycle.open(opening)
    assert isinstance(outcome, tuple)
    opened, at = outcome[0], log.now_ms()
    for seq in range(1, chunks + 1):
        await log.append(key, Record(seq, Kind.TEXT, 1, at, opened.by, text=SECRET))
    if closed:
        record = Record(chunks + 1, Kind.CLOSED, 1, at, opened.by, body=COMPLETED)
        assert await services.lifecycle.close(key, Past.of((opened,)), record) == record
    return key


async def items(store: DynamoDB, key: StreamKey) -> list[dict[str, str | int]]:
    return (await store.query(Query(STREAMS, key.pk, 1000, start=-1, consistent=True))).items


async def nothing_is_left(services: Services, store: DynamoDB, key: StreamKey, slots: int) -> None:
    found = await items(store, key)
    assert [item["seq"] for item in found] == list(range(-1, slots))
    assert set(found[0]) == {"pk", "seq", "status", "expires_at"}
    assert {item["kind"] for item in found[1:]} == {"erased"}
    assert SECRET not in repr(found)
    for after in (-1, 0, slots - 1):
        with pytest.raises(NotFound):
            await services.log.read(key, after)
    assert (await services.audit.verify(Chain.of(key))).fault is None


async def test_streams_and_users_are_erased(
    services: Services, real: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = [await asking(services, "erased", user) for user in ("ada", "bob")]
    running = await stream(services, ada, 60, closed=False)
    ended = await stream(services, ada, 3, closed=True)
    bobs = await stream(services, bob, 3, closed=True)
    document = b"".join(
        [
            piece
            async for piece in user_document(
                services.log, services.audit, Keys(real), "erased", "ada"
            )
        ]
    )
    exported = json.loads(document)["streams"]
    assert [len(each["records"]) for each in exported] == [5, 61]

    jobs = await asyncio.gather(
        *(services.erasures.begin("erased", WHO, stream=running.stream) for _ in range(3))
    )
    assert {job.id for job in jobs} == {running.stream}
    assert SECRET in repr(await items(real, running))  # which nobody can read any more
    with pytest.raises(NotFound):
        await services.log.read(running, 3, limit=5)
    listed, _ = await services.log.summaries("erased", "ada", before=None, limit=10)
    assert [summary.stream for summary in listed] == [ended.stream]

    monkeypatch.setattr(erasure, "INDEX_LAG_S", 0)
    job = await services.erasures.begin("erased", WHO, user="ada")
    deadline = asyncio.get_running_loop().time() + 60
    await asyncio.gather(*(sweep(services, deadline=deadline) for _ in range(3)))
    await nothing_is_left(services, real, running, 63)
    await nothing_is_left(services, real, ended, 5)
    # One of the two was perhaps let go by its own job.
    assert (await services.erasures.find("erased", job.id)).streams in (1, 2)
    assert await services.erasures.pending() == []
    listed, more = await services.log.summaries("erased", before=None, limit=10, everything=True)
    assert ([summary.stream for summary in listed], more) == ([bobs.stream], False)


async def test_a_crowd_takes_as_many_seats_as_there_are(services: Services) -> None:
    key = services.log.new_key("crowded", bytes(5), 30)
    found = await asyncio.gather(*(services.seats.take(key, {"": 5}) for _ in range(30)))
    taken = [seat for seat in found if seat]
    assert 1 <= len(taken) <= 5
    while more := await services.seats.take(key, {"": 5}):
        taken.append(more)
    assert len(taken) == 5
    assert all(await asyncio.gather(*(seat.renew() for seat in taken)))
    await taken[0].leave()
    fewer = {"": 4}
    assert not (await services.seats.take(key, fewer) and await services.seats.take(key, fewer))
