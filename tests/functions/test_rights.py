"""Data rights over HTTP: erasing and exporting what is held about a stream and about a user."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.types import ASGIApp, Message, Scope

from functions.stream import FULL_RETRY_MS
from functions.sweep import sweep
from shared.audit import Chain, Entry, Head
from shared.audit.verify import verify
from shared.errors import Unavailable
from shared.identity import READ, STREAM
from shared.live import Live
from shared.records import DAY_S
from shared.table import Found, Query
from tests.functions.conftest import ASYNC, Sluice, begin, by, running, serving, start_body
from tests.functions.test_stream import events, text_of
from tests.simulation.clock import virtual

USER = frozenset({STREAM, READ})
#: It is in the prompt of each stream that is started here, and in its metadata.
SECRET = "xyzzy"
#: A word twice a second, for a minute.
SLOW = "demo?tokens=120&rate=2"
SHORT = "demo?tokens=5&rate=0"


def asking(model: str = SHORT, **more: Any) -> dict[str, object]:
    messages = [{"role": "user", "content": SECRET}]
    return start_body(model, messages=messages, metadata={"about": SECRET}, **more)


async def answered(sluice: Sluice, key: str = "demo", **more: Any) -> str:
    """A stream that has come to its end; its id."""
    answer = await sluice.stream.post("/v1/streams", json=asking(**more), headers=by(key))
    assert events(answer.text)[-1][1] == "closed"
    return str(answer.headers["stream-id"])


async def launched(sluice: Sluice, model: str = SLOW, **headers: str) -> str:
    """A stream that is produced in the background; its id."""
    answer = await sluice.api.post("/v1/streams", json=asking(model), headers=ASYNC | headers)
    assert answer.status_code == 202
    return str(answer.json()["id"])


async def statuses(sluice: Sluice, stream_id: str) -> dict[str, int]:
    """What each route answers that tells anything of a stream, or changes it."""
    path, offset = f"/v1/streams/{stream_id}", {"after": 0}
    stream, api = sluice.stream, sluice.api
    return {
        "events": (await stream.get(f"{path}/events")).status_code,
        "events after": (await stream.get(f"{path}/events", params=offset)).status_code,
        "head": (await stream.head(f"{path}/events")).status_code,
        "export": (await stream.get(f"{path}/export")).status_code,
        "export head": (await stream.head(f"{path}/export")).status_code,
        "child": (await stream.post("/v1/streams", json=asking(parent=stream_id))).status_code,
        "chunks": (await api.get(f"{path}/chunks")).status_code,
        "chunks after": (await api.get(f"{path}/chunks", params=offset)).status_code,
        "summary": (await api.get(path)).status_code,
        "cancel": (await api.post(f"{path}/cancel")).status_code,
        "grant": (await api.post(f"{path}/grant")).status_code,
        "ticket": (await api.post(f"{path}/ticket")).status_code,
    }


async def is_gone(sluice: Sluice, stream_id: str) -> None:
    found = await statuses(sluice, stream_id)
    assert set(found.values()) == {404}, found
    listed = (await sluice.api.get("/v1/streams")).json()["streams"]
    assert stream_id not in [each["id"] for each in listed]


def held(sluice: Sluice, stream_id: str) -> list[dict[str, Any]]:
    return [item for (_, pk, _), item in sluice.store.items.items() if pk == f"demo#{stream_id}"]


async def audited(sluice: Sluice, stream_id: str) -> list[str]:
    return [entry.event for entry in await sluice.audit(stream_id)]


# Erasing a stream


async def test_an_erased_stream_is_not_there_whoever_asks_how(sluice: Sluice) -> None:
    stream_id = await answered(sluice)
    assert set((await statuses(sluice, stream_id)).values()) <= {200, 201}
    answer = await sluice.api.delete(f"/v1/streams/{stream_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    await is_gone(sluice, stream_id)
    assert SECRET not in repr(held(sluice, stream_id))
    assert (await audited(sluice, stream_id))[-1] == "deleted"
    # Asked again, it answers the same.
    assert (await sluice.api.delete(f"/v1/streams/{stream_id}")).status_code == 204
    state = (await sluice.api.get(f"/v1/erasures/{stream_id}")).json()
    assert (state["state"], state["streams_erased"]) == ("done", 1)


async def test_a_repeated_start_does_not_replay_what_was_erased(sluice: Sluice) -> None:
    header = {"idempotency-key": "k"}
    first = await sluice.stream.post("/v1/streams", json=asking(), headers=header)
    await sluice.api.delete(f"/v1/streams/{first.headers['stream-id']}")
    for client, headers in ((sluice.stream, header), (sluice.api, header | ASYNC)):
        again = await client.post("/v1/streams", json=asking(), headers=headers)
        assert again.status_code == 404
        assert SECRET not in again.text


async def test_a_repeated_start_does_not_replay_what_has_expired(sluice: Sluice) -> None:
    """The table may keep the claim of its key for longer, as it does the stream."""
    await sluice.policy(retention_days=1)
    header = {"idempotency-key": "k"}
    await sluice.stream.post("/v1/streams", json=asking(), headers=header)
    sluice.clock.wall_s += DAY_S + 1
    again = await sluice.stream.post("/v1/streams", json=asking(), headers=header)
    assert again.status_code == 404


async def test_an_expired_stream_is_no_parent_and_not_to_be_erased(sluice: Sluice) -> None:
    await sluice.policy(retention_days=1)
    stream_id = await answered(sluice)
    sluice.clock.wall_s += DAY_S + 1
    await is_gone(sluice, stream_id)
    assert (await sluice.api.delete(f"/v1/streams/{stream_id}")).status_code == 404


async def test_what_a_child_took_over_stays_the_childs(sluice: Sluice) -> None:
    parent = await answered(sluice)
    child = await answered(sluice, parent=parent)
    await sluice.api.delete(f"/v1/streams/{parent}")
    await is_gone(sluice, parent)
    exported = (await sluice.stream.get(f"/v1/streams/{child}/export")).json()
    opened = exported["streams"][0]["records"][0]["body"]
    assert [message["content"] for message in opened["messages"]].count(SECRET) == 2


@pytest.mark.parametrize("together", [False, True])
@virtual
async def test_a_running_stream_ends_for_all_who_follow_it(
    caplog: pytest.LogCaptureFixture, together: bool
) -> None:
    """By the connection that holds its producer, in another process, and by polls; and where it is
    erased in the process that produces it, which still has its text.
    """
    async with running() as sluice, another(sluice) as elsewhere:
        other = sluice if together else elsewhere
        first, second = Connection(sluice.stream_app), Connection(other.stream_app)
        polls = Connection(other.api_app)
        starting = asyncio.create_task(first.ask("POST", "/v1/streams", asking(SLOW)))
        await asyncio.sleep(3)
        stream_id = first.headers["stream-id"]
        path = f"/v1/streams/{stream_id}"
        following = [
            asyncio.create_task(second.ask("GET", f"{path}/events")),
            asyncio.create_task(polls.ask("GET", f"{path}/chunks", query="after=11&wait=20")),
        ]
        await asyncio.sleep(3)
        before = [len(first.body), len(second.body)]
        assert all(before)
        assert (await other.api.delete(path)).status_code == 204
        await is_gone(other, stream_id)
        await asyncio.gather(starting, *following)
        for seen, length in zip((first, second), before, strict=True):
            assert "chunk" not in [name for _, name, _ in events(seen.body[length:].decode())]
            assert seen.ended
        assert SECRET not in repr(held(sluice, stream_id))
        found = await audited(sluice, stream_id)
        assert [found.count(once) for once in ("cancelled", "closed", "deleted")] == [1, 1, 1]
        usage = (await other.api.get("/v1/usage")).json()["limits"]
        at_once = [each for each in usage if "at-once" in each["policy"]]
        assert at_once
        assert all(each["left"] == each["limit"] for each in at_once)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@asynccontextmanager
async def another(sluice: Sluice) -> AsyncIterator[Sluice]:
    """Another process on the same store."""
    services = replace(sluice.services, live=Live())
    made = Sluice(services, sluice.store, sluice.clock, sluice.administration, sluice.productions)
    async with made.stream, made.api:
        yield made


class Connection:
    """One request on an app, whose answer can be looked at while it comes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.body = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        #: While it is set the client takes what it is sent.
        self.reads = asyncio.Event()
        self.reads.set()

    async def ask(
        self, method: str, path: str, body: object = None, *, query: str = "", key: str = "demo"
    ) -> None:
        self._request = [json.dumps(body).encode()]
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in by(key).items()],
        }
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._request:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._request.pop()}

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            raw = message["headers"]
            self.headers = {name.decode(): value.decode() for name, value in raw}
        else:
            self.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)


# Erasing a user


@virtual
async def test_a_user_is_erased_at_once_and_looked_for_again_later() -> None:
    async with running() as sluice:
        await sluice.add_key("ada's", user="ada", scopes=USER)
        await sluice.add_key("bob's", user="bob", scopes=USER)
        adas = [await answered(sluice, "ada's") for _ in range(3)]
        bobs = await answered(sluice, "bob's")
        answer = await sluice.api.delete("/v1/users/ada/streams")
        assert answer.status_code == 202
        assert answer.headers["retry-after"] == "60"
        assert answer.json() == {
            "id": answer.json()["id"],
            "state": "running",
            "stream": None,
            "user": "ada",
            "streams_erased": 3,
            "created_at": sluice.now_ms(),
            "done_at": None,
        }
        for stream_id in adas:
            await is_gone(sluice, stream_id)
        assert (await sluice.api.get(f"/v1/streams/{bobs}")).status_code == 200
        state = answer.headers["location"]
        assert (await sluice.api.get(state)).json() == answer.json()
        await asyncio.sleep(60)
        deadline = asyncio.get_running_loop().time() + 60
        assert (await sweep(sluice.services, deadline=deadline))["erased"] == 1
        done = (await sluice.api.get(state)).json()
        assert done == {**answer.json(), "state": "done", "done_at": sluice.now_ms()}
        assert (await sluice.api.delete("/v1/users/ada/streams")).json()["streams_erased"] == 0


@pytest.mark.parametrize("user", ["a/b", "a b", "ä", "streams", "auth0|1", "%2F", "../ada"])
async def test_a_user_is_found_by_any_name(sluice: Sluice, user: str) -> None:
    await sluice.add_key("theirs", user=user, scopes=USER)
    stream_id = await answered(sluice, "theirs")
    quoted = quote(user, safe="")
    exported = await sluice.stream.get(f"/v1/users/{quoted}/export")
    assert exported.json()["user"] == user
    assert [each["summary"]["stream"] for each in exported.json()["streams"]] == [stream_id]
    named = f"attachment; filename*=UTF-8''{quoted}.json"
    assert exported.headers["content-disposition"] == named
    answer = await sluice.api.delete(f"/v1/users/{quoted}/streams")
    assert answer.json()["user"] == user
    await is_gone(sluice, stream_id)


async def test_a_name_that_cannot_be_a_users_is_refused(sluice: Sluice) -> None:
    for method, end in (("DELETE", "streams"), ("GET", "export")):
        client = sluice.api if method == "DELETE" else sluice.stream
        answer = await client.request(method, f"/v1/users/{'x' * 129}/{end}")
        assert (answer.status_code, answer.json()["field"]) == (400, "user")


# Export


async def test_an_export_holds_all_of_a_stream(sluice: Sluice) -> None:
    await sluice.add_key("ada's", user="ada")
    stream_id = await answered(sluice, "ada's", model="demo?tokens=40&rate=0")
    followed = await sluice.stream.get(f"/v1/streams/{stream_id}/events")
    answer = await sluice.stream.get(f"/v1/streams/{stream_id}/export")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert {name: document[name] for name in ("tenant", "user")} == {"tenant": "demo", "user": None}
    [exported] = document["streams"]
    assert set(exported) == {"summary", "records", "audit"}
    summary, records = exported["summary"], exported["records"]
    assert (summary["stream"], summary["user"], summary["status"]) == (
        stream_id,
        "ada",
        "completed",
    )
    assert summary["metadata"] == {"about": SECRET}
    assert [record["seq"] for record in records] == list(range(summary["last_seq"] + 1))
    assert "".join(record["text"] for record in records) == text_of(followed.text)
    assert records[0]["body"]["messages"] == [{"role": "user", "content": SECRET}]
    assert records[-1]["body"]["usage"]["output_tokens"] == 40
    entries = [Entry.from_document(entry) for entry in exported["audit"]]
    assert [e.event for e in entries] == ["started", "closed", "followed", "exported"]
    # What was given out can be checked.
    chain = Chain("demo", stream_id)
    assert verify(chain, entries, Head.of(entries[-1]), sluice.clock.now()) is None


async def test_nothing_secret_is_exported(sluice: Sluice) -> None:
    key_id = await sluice.add_key("hers-and-secret", user="ada")
    await answered(sluice, "hers-and-secret")
    exported = (await sluice.stream.get("/v1/users/ada/export")).text
    secret = (await sluice.administration.tenant("demo")).secret.hex()
    [digest] = [
        str(item["hash"])
        for item in sluice.store.items.values()
        if item.get("id") == key_id and "hash" in item
    ]
    assert key_id in exported
    for hidden in ("hers-and-secret", secret, digest):
        assert hidden not in exported


@pytest.mark.parametrize("streams", [0, 1, 3])
async def test_an_export_of_a_user_is_one_document(sluice: Sluice, streams: int) -> None:
    key_id = await sluice.add_key("ada's", user="ada", label="her phone", scopes=USER)
    theirs = [await answered(sluice, "ada's") for _ in range(streams)]
    await answered(sluice)
    answer = await sluice.stream.get("/v1/users/ada/export")
    document = answer.json()
    assert (document["tenant"], document["user"]) == ("demo", "ada")
    assert [each["summary"]["stream"] for each in document["streams"]] == theirs[::-1]
    assert [(key["id"], key["label"]) for key in document["keys"]] == [(key_id, "her phone")]
    assert [(e["event"], e["details"]) for e in document["audit"]] == [
        ("exported", {"user": "ada"})
    ]


async def test_what_is_gone_is_in_no_export(sluice: Sluice) -> None:
    await sluice.add_key("ada's", user="ada")
    kept, gone = [await answered(sluice, "ada's") for _ in range(2)]
    await sluice.api.delete(f"/v1/streams/{gone}")
    document = (await sluice.stream.get("/v1/users/ada/export")).json()
    assert [each["summary"]["stream"] for each in document["streams"]] == [kept]


async def test_an_export_of_a_running_stream_holds_what_there_is(sluice: Sluice) -> None:
    key = (await begin(sluice.services, chunks=3)).key
    document = (await sluice.stream.get(f"/v1/streams/{key.stream}/export")).json()
    [exported] = document["streams"]
    assert [record["kind"] for record in exported["records"]] == ["opened", *["text"] * 3]
    assert exported["summary"]["status"] == "open"


@pytest.mark.parametrize("path", ["/v1/streams/{stream}/export", "/v1/users/ada/export"])
async def test_the_head_of_an_export_gives_nothing_out(sluice: Sluice, path: str) -> None:
    await sluice.add_key("ada's", user="ada")
    stream_id = await answered(sluice, "ada's")
    before = await sluice.audit()
    path = path.format(stream=stream_id)
    head = await sluice.stream.head(path)
    assert await sluice.audit() == before
    got = await sluice.stream.get(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-disposition", "cache-control"):
        assert head.headers[name] == got.headers[name]


@virtual
async def test_that_something_was_exported_is_told_before_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as sluice:
        stream_id = await answered(sluice)

        async def failing(*_: object) -> None:
            raise Unavailable

        monkeypatch.setattr(sluice.store, "transact", failing)
        answer = await sluice.stream.get(f"/v1/streams/{stream_id}/export")
    assert answer.status_code == 503
    assert SECRET not in answer.text


async def test_an_export_that_breaks_off_does_not_look_like_a_whole_one(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client sees a connection that was cut; and what came is no JSON."""
    await sluice.add_key("ada's", user="ada")
    streams = [await answered(sluice, "ada's") for _ in range(3)]
    query = sluice.store.query

    async def failing(asked: Query) -> Found:
        if asked.partition == f"demo#{streams[1]}":
            raise Unavailable
        return await query(asked)

    monkeypatch.setattr(sluice.store, "query", failing)
    parts: list[bytes] = []

    async def export(url: str) -> None:
        async with (
            httpx.AsyncClient(headers=by("demo")) as client,
            client.stream("GET", f"{url}/v1/users/ada/export") as answer,
        ):
            assert answer.status_code == 200
            async for part in answer.aiter_bytes():
                parts.append(part)  # noqa: PERF401 - it breaks off

    async with serving(sluice.stream_app) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            await export(url)
    body = b"".join(parts)
    assert streams[2] in body.decode()
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


# Followers a stream


async def test_a_full_stream_costs_one_read_and_no_write(sluice: Sluice) -> None:
    await sluice.policy(limits={"followers": 1})
    key = (await begin(sluice.services, chunks=3)).key
    path = f"/v1/streams/{key.stream}/events"
    assert await sluice.services.seats.take(key, {"": 1})
    await sluice.api.get("/v1/usage")  # who asks is known from here on
    reads, writes = sluice.store.reads, sluice.store.writes
    answer = await sluice.stream.get(path, params={"after": 1})
    assert (sluice.store.reads - reads, sluice.store.writes - writes) == (1, 0)
    assert answer.status_code == 200
    assert answer.text == f'retry: {FULL_RETRY_MS}\nevent: reconnect\ndata: {{"after":1}}\n\n'


@pytest.mark.parametrize("after", ["last", "beyond"])
async def test_who_has_nothing_to_follow_keeps_no_seat(sluice: Sluice, after: str) -> None:
    await sluice.policy(limits={"followers": 1})
    stream_id = await answered(sluice)
    last = (await sluice.api.get(f"/v1/streams/{stream_id}")).json()["last_seq"]
    path = f"/v1/streams/{stream_id}/events"
    query = {"after": last if after == "last" else last + 1}
    for _ in range(3):
        answer = await sluice.stream.get(path, params=query)
        assert answer.status_code == (204 if after == "last" else 400)
    assert text_of((await sluice.stream.get(path)).text)


@virtual
async def test_a_seat_is_kept_while_its_follower_reads_and_lost_while_it_does_not() -> None:
    async with running() as sluice:
        await sluice.policy(limits={"followers": 1, "idle_s": 900})
        stream_id = await launched(sluice, "demo?tokens=400&rate=1")
        path = f"/v1/streams/{stream_id}/events"
        first, second = Connection(sluice.stream_app), Connection(sluice.stream_app)
        following = asyncio.create_task(first.ask("GET", path))
        await asyncio.sleep(150)
        assert "reconnect" in (await sluice.stream.get(path)).text
        first.reads.clear()
        await asyncio.sleep(100)
        # Its seat goes to who comes next, and it is told so as soon as it reads on.
        taking = asyncio.create_task(second.ask("GET", path))
        await asyncio.sleep(1)
        assert len(events(second.body.decode())) > 100
        before = len(first.body)
        first.reads.set()
        await following
        tail = first.body[before:].decode()
        assert tail.endswith("}\n\n")
        assert "event: reconnect" in tail
        assert tail.count("event: chunk") <= 2
        await taking


@virtual
async def test_who_follows_goes_on_while_the_seats_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as sluice:
        await sluice.policy(limits={"followers": 1})
        stream_id = await launched(sluice)
        transact = sluice.store.transact

        async def failing(writes: Sequence[Any], token: str) -> Any:
            if str(writes[0].item.get("pk", "")).startswith("seats#"):
                raise Unavailable
            return await transact(writes, token)

        monkeypatch.setattr(sluice.store, "transact", failing)
        answer = await sluice.stream.get(f"/v1/streams/{stream_id}/events")
        assert events(answer.text)[-1][1] == "closed"
