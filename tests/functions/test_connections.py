"""Connections in virtual time: how long one lasts, and how each ends."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Scope

from functions.stream import FOLLOW_MARGIN_S, FULL_RETRY_MS, PARKED_RETRY_MS
from shared.audit import Entry
from shared.identity.keys import CACHE_S
from shared.log import PAUSE_S
from shared.records import StreamKey, dump
from tests.functions.conftest import ASYNC, Sluice, by, client, running, start_body
from tests.functions.test_stream import events, hint_of, text_of
from tests.simulation.clock import virtual
from tests.simulation.scripted import EPOCH_S

#: An answer of a minute.
MODEL = "demo?tokens=120&rate=2"
#: The longest that a credential is taken for good after its end, a look a second included.
NOTICED_S = CACHE_S + 1.5


def loop_s() -> float:
    return asyncio.get_running_loop().time()


async def follow_all(sluice: Sluice, path: str, key: str = "demo") -> list[httpx.Response]:
    """Connect again wherever that is asked for, to the end of the stream."""
    answers: list[httpx.Response] = []
    after: int | None = -1
    while after is not None:
        answers.append(await sluice.stream.get(path, params={"after": after}, headers=by(key)))
        assert answers[-1].status_code == 200
        after = hint_of(answers[-1].text)
    return answers


def readings(entries: list[Entry]) -> list[tuple[str, int, int]]:
    return [
        (entry.event, entry.details["from"], entry.details["to"])
        for entry in entries
        if entry.event in ("followed", "interrupted", "polled")
    ]


@pytest.mark.parametrize("group", ["limits", "address_limits"])
@virtual
async def test_a_connection_has_its_time_and_the_next_goes_on(group: str) -> None:
    async with running() as sluice:
        await sluice.policy(**{group: {"connection_s": 10}})
        stream = await sluice.launched(MODEL)
        path = f"/v1/streams/{stream}/events"
        began = loop_s()
        answers = await follow_all(sluice, path)
        whole = await sluice.stream.get(path)
        entries = await sluice.audit(stream)
    assert len(answers) > 4
    assert loop_s() - began < 65
    assert [seen for answer in answers for seen in events(answer.text)] == events(whole.text)
    # Each connection is told by one entry, from where to where it went.
    ends = [events(answer.text)[-1][0] for answer in answers]
    assert all(hint_of(a.text) == end for a, end in zip(answers[:-1], ends, strict=False))
    followed = [*zip([-1, *ends[:-1]], ends, strict=True), (-1, ends[-1])]
    assert readings(entries) == [("followed", *span) for span in followed]


@virtual
async def test_a_hundred_that_end_at_once_are_told_each() -> None:
    async with running() as sluice:
        stream = await sluice.launched("demo?tokens=10&rate=2")
        path = f"/v1/streams/{stream}/events"
        await asyncio.gather(*(sluice.stream.get(path) for _ in range(100)))
        last = (await sluice.stream.get(path)).text
        entries = await sluice.audit(stream)
    followed = [("followed", -1, events(last)[-1][0])]
    assert readings(entries) == followed * 101


@virtual
async def test_who_holds_the_producers_connection_is_sent_away_too_and_it_goes_on() -> None:
    async with running() as sluice:
        await sluice.policy(limits={"connection_s": 10})
        first = await sluice.stream.post("/v1/streams", json=start_body(MODEL))
        path = first.headers["location"]
        after = hint_of(first.text)
        rest = await sluice.stream.get(path, params={"after": after})
        entries = await sluice.audit(first.headers["stream-id"])
    assert events(rest.text)[-1][2]["usage"]["output_tokens"] == 120
    assert after == events(first.text)[-1][0]
    assert readings(entries)[0] == ("interrupted", -1, after)


@virtual
async def test_whose_stream_ends_in_its_hand_has_no_entry_of_reading() -> None:
    async with running() as sluice:
        answer = await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=3&rate=0"))
        entries = await sluice.audit(answer.headers["stream-id"])
    assert [entry.event for entry in entries] == ["started", "closed"]


@dataclass
class Stalling:
    """A client that takes so many parts of a body and then nothing any more."""

    takes: int
    sent: list[Message] = field(default_factory=list)

    async def get(self, app: ASGIApp, path: str, **scope: Any) -> None:
        headers = [(name.encode(), value.encode()) for name, value in by("demo").items()]
        request: Scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 1),
            **scope,
        }
        await app(request, self._receive, self._send)

    async def _receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        if len(self.sent) > self.takes:
            await asyncio.Event().wait()
        self.sent.append(message)

    @property
    def body(self) -> str:
        return b"".join(part.get("body", b"") for part in self.sent).decode()


@pytest.mark.parametrize(
    ("group", "idle_s"), [("limits", 5), ("limits", 60), ("address_limits", 5)]
)
@virtual
async def test_a_client_that_takes_nothing_is_let_go(group: str, idle_s: int) -> None:
    async with running() as sluice:
        await sluice.policy(**{group: {"idle_s": idle_s}})
        stream = await sluice.launched(MODEL)
        peer = Stalling(takes=3)
        began = loop_s()
        async with asyncio.timeout(70):
            await peer.get(sluice.stream_app, f"/v1/streams/{stream}/events")
        taken = events(peer.body)
        assert idle_s <= loop_s() - began < idle_s + 5
        [(event, start, end)] = readings(await sluice.audit(stream))
        assert (event, start) == ("followed", -1)
        # What was on its way when it stopped reading counts as read.
        assert taken[-1][0] <= end <= taken[-1][0] + 1
        rest = await sluice.stream.get(
            f"/v1/streams/{stream}/events", params={"after": taken[-1][0]}
        )
        whole = await sluice.stream.get(f"/v1/streams/{stream}/events")
    assert taken + events(rest.text) == events(whole.text)


@virtual
async def test_a_client_that_takes_nothing_does_not_hold_an_invocation_to_its_end() -> None:
    async with running() as sluice:
        await sluice.policy(limits={"idle_s": 900})
        stream = await sluice.launched(MODEL)
        peer = Stalling(takes=3)
        deadline_ms = int((time.time() + 20) * 1000)  # Lambda says it by the machine's clock
        lambda_ = {"lambda": {"deadline_ms": deadline_ms, "request_id": "r-1"}}
        began = loop_s()
        await peer.get(sluice.stream_app, f"/v1/streams/{stream}/events", extensions=lambda_)
        assert 20 - FOLLOW_MARGIN_S < loop_s() - began < 20


@virtual
async def test_a_client_that_takes_nothing_of_an_export_is_let_go() -> None:
    async with running() as sluice:
        await sluice.policy(limits={"idle_s": 5})
        stream = await sluice.launched("demo?tokens=40&rate=0")
        await sluice.stream.get(f"/v1/streams/{stream}/events")
        peer = Stalling(takes=2)
        began = loop_s()
        async with asyncio.timeout(70):
            await peer.get(sluice.stream_app, f"/v1/streams/{stream}/export")
    assert 5 <= loop_s() - began < 6
    assert peer.body.startswith('{"exported_at":')


@virtual
async def test_who_follows_is_sent_away_when_its_key_is_revoked() -> None:
    async with running() as sluice:
        key_id = await sluice.add_key("hers")
        stream = await sluice.launched(MODEL)
        path = f"/v1/streams/{stream}/events"
        following = asyncio.create_task(sluice.stream.get(path, headers=by("hers")))
        others = asyncio.create_task(sluice.stream.get(path))
        await asyncio.sleep(10)
        revoked = loop_s()
        await sluice.administration.revoke_key("demo", key_id)
        answer = await following
        assert loop_s() - revoked <= NOTICED_S
        again = await sluice.stream.get(path, headers=by("hers"))
        whole = await others
    assert hint_of(answer.text) == events(answer.text)[-1][0]
    assert again.status_code == 401
    assert again.json()["reason"] == "revoked"
    # Nobody else has noticed.
    assert events(whole.text)[-1][2]["status"] == "completed"
    assert not {"paused", "granted"} & {name for _, name, _ in events(whole.text)}


@virtual
async def test_who_follows_by_a_ticket_is_sent_away_with_it_and_with_its_key() -> None:
    async with running() as sluice:
        key_id = await sluice.add_key("hers")
        stream = await sluice.launched("demo?tokens=200&rate=1")
        path = f"/v1/streams/{stream}"
        await sluice.policy(ticket_s=30)
        made = (await sluice.api.post(f"{path}/ticket", headers=by("hers"))).json()
        async with client(sluice.stream_app, "") as anyone:
            began = loop_s()
            followed = await anyone.get(f"{path}/events", params={"ticket": made["ticket"]})
            assert 29 <= loop_s() - began <= 32
            assert hint_of(followed.text) is not None
            late = await anyone.get(f"{path}/events", params={"ticket": made["ticket"]})
            assert late.status_code == 401
            made = (await sluice.api.post(f"{path}/ticket", headers=by("hers"))).json()
            following = asyncio.create_task(
                anyone.get(f"{path}/events", params={"ticket": made["ticket"]})
            )
            await asyncio.sleep(1)
            await sluice.administration.revoke_key("demo", key_id)
            revoked = loop_s()
            assert hint_of((await following).text) is not None
            assert loop_s() - revoked <= NOTICED_S


@virtual
async def test_who_follows_is_sent_away_when_the_tenant_is_suspended() -> None:
    async with running() as sluice:
        stream = await sluice.launched(MODEL)
        path = f"/v1/streams/{stream}/events"
        following = asyncio.create_task(sluice.stream.get(path))
        await asyncio.sleep(10)
        await sluice.administration.suspend("demo", suspended=True)
        answer = await following
        assert hint_of(answer.text) is not None
        refused = await sluice.stream.get(path)
        assert (refused.status_code, refused.json()["reason"]) == (401, "suspended")
        await sluice.administration.suspend("demo", suspended=False)
        await asyncio.sleep(NOTICED_S)
        rest = await sluice.stream.get(path, params={"after": hint_of(answer.text)})
    seen = events(answer.text) + events(rest.text)
    assert [data for _, name, data in seen if name == "paused"] == [{"reason": "suspended"}]
    assert seen[-1][2]["status"] == "completed"


@virtual
async def test_a_stream_whose_key_is_revoked_pauses_and_goes_on_by_a_grant() -> None:
    async with running() as sluice:
        key_id = await sluice.add_key("hers")
        stream = await sluice.launched(MODEL, key="hers")
        path = f"/v1/streams/{stream}"
        following = asyncio.create_task(sluice.stream.get(f"{path}/events"))
        await asyncio.sleep(10)
        await sluice.administration.revoke_key("demo", key_id)
        await asyncio.sleep(NOTICED_S + 10)
        assert (await sluice.api.get(path)).json()["status"] == "paused"
        assert (await sluice.api.get(f"{path}/chunks")).json()["status"] == "paused"
        refused = await sluice.api.post(f"{path}/grant", headers=by("hers"))
        assert refused.status_code == 401
        granted = await sluice.api.post(f"{path}/grant")
        assert granted.status_code == 200
        seen = events((await following).text)
        entries = await sluice.audit(stream)
    assert granted.json() == {
        "id": stream,
        "status": "open",
        "seq": next(seq for seq, name, _ in seen if name == "granted"),
        "expires_at": None,
    }
    names = [name for _, name, _ in seen]
    paused = next(data for _, name, data in seen if name == "paused")
    assert paused == {"reason": "revoked"}
    assert names.index("paused") < names.index("granted") < len(names) - 1
    assert seen[-1][2]["usage"]["output_tokens"] == 120
    whole = [entry.event for entry in entries]
    assert whole == ["started", "paused", "polled", "granted", "closed", "followed"]


@virtual
async def test_a_stream_that_nobody_grants_in_time_goes_on_by_a_later_grant() -> None:
    async with running() as sluice:
        key_id = await sluice.add_key("hers")
        stream = await sluice.launched(MODEL, key="hers")
        path = f"/v1/streams/{stream}"
        await asyncio.sleep(5)
        await sluice.administration.revoke_key("demo", key_id)
        await asyncio.sleep(NOTICED_S + PAUSE_S + 3600)
        assert all(task.done() for task in sluice.productions.tasks)
        assert (await sluice.api.get(path)).json()["status"] == "paused"
        late = await sluice.api.post(f"{path}/grant")
        answer = await sluice.stream.get(f"{path}/events")
        whole = await sluice.stream.post("/v1/streams", json=start_body(MODEL))
        told = [entry.event for entry in await sluice.audit(stream)]
    assert late.json()["status"] == "open"
    names = [name for _, name, _ in events(answer.text)]
    assert [n for n in names if n not in ("chunk", "epoch")] == [
        *("opened", "paused", "granted", "closed")
    ]
    assert text_of(answer.text) == text_of(whole.text)
    assert told == ["started", "paused", "paused", "granted", "closed", "followed"]


# It was shown what another had let go on, for as long as its invocation lasted.
@virtual
async def test_who_began_a_stream_is_sent_away_when_its_producer_no_longer_waits() -> None:
    async with running() as sluice:
        key_id = await sluice.add_key("hers")
        asking = sluice.stream.post("/v1/streams", json=start_body(MODEL), headers=by("hers"))
        answering = asyncio.create_task(asking)
        await asyncio.sleep(5)
        await sluice.administration.revoke_key("demo", key_id)
        await asyncio.sleep(NOTICED_S + PAUSE_S + 5)
        (stream,) = (await sluice.api.get("/v1/streams")).json()["streams"]
        assert (await sluice.api.post(f"/v1/streams/{stream['id']}/resume")).status_code == 200
        answer = await answering
    seen = events(answer.text)
    assert [name for _, name, _ in seen if name != "chunk"] == ["opened", "paused"]
    assert hint_of(answer.text) is not None


@virtual
async def test_a_credential_that_expires_is_announced_and_may_be_renewed() -> None:
    async with running() as sluice:
        expires_at = int(sluice.clock.now()) + 40
        await sluice.add_key("hers", valid_until=expires_at)
        stream = await sluice.launched(MODEL, key="hers")
        following = asyncio.create_task(sluice.stream.get(f"/v1/streams/{stream}/events"))
        await asyncio.sleep(20)
        granted = await sluice.api.post(f"/v1/streams/{stream}/grant")
        seen = events((await following).text)
    names = [name for _, name, _ in seen]
    assert granted.status_code == 200
    assert names.count("expiring") == names.count("granted") == 1
    assert next(data for _, name, data in seen if name == "expiring") == {"expires_at": expires_at}
    assert names.index("expiring") < names.index("granted")
    assert "paused" not in names
    assert seen[-1][2]["status"] == "completed"


@virtual
async def test_a_grant_by_a_credential_that_expires_holds_until_then() -> None:
    async with running() as sluice:
        await sluice.add_key("soon", valid_until=int(sluice.clock.now()) + 15)
        await sluice.add_key("later", valid_until=int(sluice.clock.now()) + 30)
        stream = await sluice.launched(MODEL, key="soon")
        granted = await sluice.api.post(f"/v1/streams/{stream}/grant", headers=by("later"))
        await asyncio.sleep(50)
        summary = await sluice.api.get(f"/v1/streams/{stream}")
        records = await sluice.services.log.all_records(StreamKey("demo", stream))
    assert granted.json()["expires_at"] == int(EPOCH_S) + 30
    assert summary.json()["status"] == "paused"
    assert records[-1].body["reason"] == "expired"
    assert 0 <= records[-1].at - (EPOCH_S + 30) * 1000 <= 1000


@virtual
async def test_a_user_grants_its_own_streams_only() -> None:
    async with running() as sluice:
        for user in ("ada", "bob"):
            await sluice.add_key(f"{user}'s", user=user, scopes=frozenset({"stream", "read"}))
        stream = await sluice.launched(MODEL, key="ada's")
        path = f"/v1/streams/{stream}/grant"
        assert (await sluice.api.post(path, headers=by("bob's"))).status_code == 404
        assert (await sluice.api.post(path, headers=by("ada's"))).status_code == 200


@virtual
async def test_more_followers_than_may_be_are_told_to_come_again() -> None:
    async with running() as sluice:
        await sluice.policy(limits={"followers": 2})
        stream = await sluice.launched("demo?tokens=20&rate=2")
        path = f"/v1/streams/{stream}/events"
        following = [asyncio.create_task(sluice.stream.get(path)) for _ in range(2)]
        await asyncio.sleep(5)
        full = await sluice.stream.get(path, params={"after": 3})
        assert full.status_code == 200
        assert full.text == f'retry: {FULL_RETRY_MS}\nevent: reconnect\ndata: {{"after":3}}\n\n'
        whole = [(await one).text for one in following]
        # Their seats are free again.
        assert (await sluice.stream.get(path)).text == whole[0] == whole[1]


@pytest.mark.parametrize("group", ["user_limits", "address_limits"])
@virtual
async def test_a_user_and_an_address_have_seats_of_their_own(group: str) -> None:
    async with running() as sluice:
        for user in ("ada", "bob"):
            await sluice.add_key(f"{user}'s", user=user)
        await sluice.policy(**{"limits": {"followers": 3}, group: {"followers": 2}})
        stream = await sluice.launched("demo?tokens=20&rate=2")
        path = f"/v1/streams/{stream}/events"

        def follow(key: str, host: str) -> asyncio.Task[httpx.Response]:
            transport = httpx.ASGITransport(sluice.stream_app, client=(host, 1))
            asking = httpx.AsyncClient(transport=transport, base_url="http://sluice.test")
            return asyncio.create_task(asking.get(path, headers=by(key)))

        first = [follow("ada's", "192.0.2.1") for _ in range(2)]
        await asyncio.sleep(3)
        full = await follow("ada's", "192.0.2.1")
        # Another has its own, but there is one seat left of all.
        second = follow("bob's", "192.0.2.2")
        await asyncio.sleep(1)
        none_left = await follow("bob's", "192.0.2.2")
        for sent_away in (full, none_left):
            told = f'retry: {FULL_RETRY_MS}\nevent: reconnect\ndata: {{"after":-1}}\n\n'
            assert (sent_away.status_code, sent_away.text) == (200, told)
        whole = [(await one).text for one in (*first, second)]
        assert text_of(whole[0]) == text_of(whole[1]) == text_of(whole[2]) != ""
        # They have left nothing behind.
        again = [follow("ada's", "192.0.2.1") for _ in range(2)]
        assert all([(await one).text in whole for one in again])


@virtual
async def test_a_session_of_polls_is_told_when_it_begins_and_as_a_whole_at_the_end() -> None:
    async with running() as sluice:
        stream = await sluice.launched("demo?tokens=20&rate=2")
        path = f"/v1/streams/{stream}/chunks"
        page: dict[str, Any] = {"next": -1, "closed": False}
        nexts = []
        while not page["closed"]:
            page = (await sluice.api.get(path, params={"after": page["next"], "wait": 3})).json()
            nexts.append(page["next"])
        await sluice.api.get(path, params={"after": page["next"]})  # the end was told already
        entries = await sluice.audit(stream)
    assert len(nexts) > 3
    assert readings(entries) == [("polled", -1, nexts[0]), ("polled", -1, nexts[-1])]


@virtual
async def test_a_start_is_told_by_who_asked_and_by_where_from() -> None:
    async with running() as sluice:
        await sluice.add_key("ada's", user="ada")
        headers = ASYNC | by("ada's")
        answer = await sluice.api.post("/v1/streams", json=start_body(MODEL), headers=headers)
        [entry] = await sluice.audit(answer.json()["id"])
    assert (entry.event, entry.actor.user) == ("started", "ada")
    assert entry.actor.credential.startswith("key:")
    assert entry.actor.address == "127.0.0.0/24"
    assert entry.details["model"] == MODEL


@virtual
async def test_a_connection_does_not_wait_while_its_stream_is_paused() -> None:
    """It would be billed for as long as that is."""
    async with running() as sluice:
        stream = await sluice.launched(MODEL)
        path = f"/v1/streams/{stream}"
        following = asyncio.create_task(sluice.stream.get(f"{path}/events"))
        await asyncio.sleep(2)
        await sluice.api.post(f"{path}/pause")
        first = (await following).text
        seen = events(first)
        last = {"last-event-id": str(seen[-1][0])}
        again = (await sluice.stream.get(f"{path}/events", headers=last)).text
        await sluice.api.post(f"{path}/resume")
        rest = (await sluice.stream.get(f"{path}/events", headers=last)).text
        whole = await sluice.stream.post("/v1/streams", json=start_body(MODEL))
    assert seen[-1][1:] == ("paused", {"reason": "requested"})
    hint = dump({"after": seen[-1][0]})
    for text in (first, again):
        assert text.endswith(f"retry: {PARKED_RETRY_MS}\nevent: reconnect\ndata: {hint}\n\n")
    assert again.count("event:") == 1
    assert text_of(first) + text_of(rest) == text_of(whole.text)
