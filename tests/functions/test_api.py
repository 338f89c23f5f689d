"""The `api` function over HTTP: polling and everything else that answers at once."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from functions import api
from functions.produce import produce
from shared.errors import NotFound, Unavailable
from shared.log import Log
from shared.records import Record, StreamKey
from shared.table import Found, Query
from tests.functions.conftest import ASYNC, Sluice, begin, client, start_body


def but_its_ticket(accepted: httpx.Response) -> dict[str, Any]:
    """What a start was answered, without what is made anew for each answer."""
    made_anew = ("ticket", "ticket_expires_at")
    return {name: value for name, value in accepted.json().items() if name not in made_anew}


async def poll_all(sluice: Sluice, stream_id: str, **query: Any) -> tuple[str, dict[str, Any]]:
    """Poll a stream to its end: its text, and the last page."""
    text, after, seen = "", -1, -1
    while True:
        page = (
            await sluice.api.get(
                f"/v1/streams/{stream_id}/chunks", params={"after": after, **query}
            )
        ).json()
        for chunk in page["chunks"]:
            assert chunk["seq"] > seen
            seen = chunk["seq"]
            text += chunk["text"]
        assert page["next"] >= after
        after = page["next"]
        if page["closed"]:
            return text, page
        await asyncio.sleep(min(page["poll_after_ms"], 20) / 1000)


async def test_a_stream_is_started_and_polled_without_streaming(sluice: Sluice) -> None:
    body = start_body("demo?tokens=60&rate=200")
    answer = await sluice.api.post("/v1/streams", json=body, headers=ASYNC)
    assert answer.status_code == 202
    accepted = answer.json()
    stream_id = accepted["id"]
    assert accepted["events_url"] == f"/v1/streams/{stream_id}/events"
    assert accepted["chunks_url"] == f"/v1/streams/{stream_id}/chunks"
    assert answer.headers["location"] == f"/v1/streams/{stream_id}"
    assert answer.headers["preference-applied"] == "respond-async"

    polled, page = await poll_all(sluice, stream_id, wait=1)
    assert page["status"] == "completed"
    assert page["usage"]["output_tokens"] == 60
    direct = await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=60&rate=0"))
    chunks = [
        json.loads(line.removeprefix("data: "))["text"]
        for line in direct.text.splitlines()
        if line.startswith('data: {"text"')
    ]
    assert polled == "".join(chunks)


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pages_hold_at_most_the_limit_and_miss_nothing(sluice: Sluice, limit: int) -> None:
    started = await sluice.stream.post(
        "/v1/streams", json=start_body(pacing={"flush_interval_ms": 0})
    )
    stream_id = started.headers["stream-id"]
    whole, _ = await poll_all(sluice, stream_id)
    limited, _ = await poll_all(sluice, stream_id, limit=limit)
    assert limited == whole
    page = (await sluice.api.get(f"/v1/streams/{stream_id}/chunks?limit={limit}")).json()
    assert len(page["chunks"]) <= limit


async def test_polling_after_the_end_says_closed_again(sluice: Sluice) -> None:
    started = await sluice.stream.post("/v1/streams", json=start_body())
    stream_id = started.headers["stream-id"]
    _, page = await poll_all(sluice, stream_id)
    again = await sluice.api.get(f"/v1/streams/{stream_id}/chunks?after={page['next']}&wait=20")
    assert again.json() == {**page, "chunks": []}
    assert "retry-after" not in again.headers


async def test_a_poll_without_news_says_when_to_come_back(sluice: Sluice) -> None:
    body = start_body("demo?tokens=5&rate=1000&silence_after=2&silence=2")
    started = await sluice.api.post("/v1/streams", json=body, headers=ASYNC)
    path = f"/v1/streams/{started.json()['id']}/chunks"
    await asyncio.sleep(0.1)
    first = (await sluice.api.get(path)).json()
    answer = await sluice.api.get(path, params={"after": first["next"]})
    page = answer.json()
    assert page["chunks"] == []
    assert page["next"] == first["next"]
    assert page["status"] == "open"
    assert 250 <= page["poll_after_ms"] <= 5000
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_long_poll_returns_with_the_news(sluice: Sluice) -> None:
    body = start_body("demo?tokens=5&rate=1000&silence_after=2&silence=1")
    started = await sluice.api.post("/v1/streams", json=body, headers=ASYNC)
    path = f"/v1/streams/{started.json()['id']}/chunks"
    await asyncio.sleep(0.1)
    first = (await sluice.api.get(path)).json()
    page = (await sluice.api.get(path, params={"after": first["next"], "wait": 20})).json()
    assert page["chunks"] or page["closed"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"after": "x"}, "after"),
        ({"after": "99"}, "after"),
        ({"limit": "0"}, "limit"),
        ({"wait": "21"}, "wait"),
        ({"nope": "1"}, "nope"),
    ],
)
async def test_a_bad_poll_is_named(sluice: Sluice, query: dict[str, str], field: str) -> None:
    started = await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=3&rate=0"))
    stream_id = started.headers["stream-id"]
    answer = await sluice.api.get(f"/v1/streams/{stream_id}/chunks", params=query)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


@pytest.mark.parametrize("path", ["", "/chunks"])
async def test_what_is_unknown_or_foreign_is_not_found(sluice: Sluice, path: str) -> None:
    started = await sluice.stream.post("/v1/streams", json=start_body())
    stream_id = started.headers["stream-id"]
    async with client(api.build(sluice.services), "other") as other:
        assert (await other.get(f"/v1/streams/{stream_id}{path}")).status_code == 404
        assert (await other.post(f"/v1/streams/{stream_id}/cancel")).status_code == 404
        assert (await other.get("/v1/streams")).json()["streams"] == []
    assert (await sluice.api.get(f"/v1/streams/{'0' * 32}{path}")).status_code == 404


async def test_the_list_is_newest_first_and_paged(sluice: Sluice) -> None:
    started = []
    for _ in range(5):
        answer = await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=1&rate=0"))
        started.append(answer.headers["stream-id"])
        await asyncio.sleep(0.002)  # ids grow by the millisecond
    listed: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    pages = 0
    while True:
        page = (await sluice.api.get("/v1/streams", params=query)).json()
        pages += 1
        listed += [entry["id"] for entry in page["streams"]]
        if page["next_page"] is None:
            break
        query["page"] = page["next_page"]
    assert listed == started[::-1]
    assert pages == 3


async def test_cancel_stops_the_producer_and_keeps_the_text(sluice: Sluice) -> None:
    body = start_body("demo?tokens=2000&rate=200")
    started = await sluice.api.post("/v1/streams", json=body, headers=ASYNC)
    stream_id = started.json()["id"]
    await sluice.api.get(f"/v1/streams/{stream_id}/chunks?wait=5")
    answer = await sluice.api.post(f"/v1/streams/{stream_id}/cancel")
    assert answer.status_code == 202
    text, page = await poll_all(sluice, stream_id, wait=5)
    assert page["status"] == "cancelled"
    assert page["finish_reason"] == "cancelled"
    assert page["usage"]["estimated"] is True
    assert text
    again = await sluice.api.post(f"/v1/streams/{stream_id}/cancel")
    assert again.status_code == 200
    assert again.json()["status"] == "cancelled"


async def test_cancel_after_the_end_changes_nothing(sluice: Sluice) -> None:
    started = await sluice.stream.post("/v1/streams", json=start_body())
    writes = sluice.store.writes
    answer = await sluice.api.post(f"/v1/streams/{started.headers['stream-id']}/cancel")
    assert answer.status_code == 200
    assert answer.json()["status"] == "completed"
    assert sluice.store.writes == writes


async def test_a_start_without_prefer_is_told_how(sluice: Sluice) -> None:
    answer = await sluice.api.post("/v1/streams", json=start_body())
    assert answer.status_code == 400
    assert "respond-async" in answer.json()["detail"]


async def test_a_repeated_start_is_accepted_again_even_in_flight(sluice: Sluice) -> None:
    header = {**ASYNC, "idempotency-key": "k"}
    body = start_body("demo?tokens=50&rate=100")
    first = await sluice.api.post("/v1/streams", json=body, headers=header)
    again = await sluice.api.post("/v1/streams", json=body, headers=header)
    assert first.status_code == again.status_code == 202
    assert but_its_ticket(first) == but_its_ticket(again)
    assert len(sluice.productions.tasks) == 1


async def test_a_stream_whose_producer_cannot_be_launched_is_closed(sluice: Sluice) -> None:
    async def launch(_: StreamKey) -> None:
        raise Unavailable("The stream's producer could not be started.")

    async with client(api.build(replace(sluice.services, launch=launch))) as broken:
        header = {**ASYNC, "idempotency-key": "k"}
        answer = await broken.post("/v1/streams", json=start_body(), headers=header)
        again = await broken.post("/v1/streams", json=start_body(), headers=header)
    assert answer.status_code == again.status_code == 503
    assert answer.headers["retry-after"] == "1"
    (entry,) = (await sluice.api.get("/v1/streams")).json()["streams"]
    assert entry["status"] == "failed"


async def test_delivered_twice_a_stream_is_produced_once(sluice: Sluice) -> None:
    body = start_body("demo?tokens=60&rate=200")
    started = await sluice.api.post("/v1/streams", json=body, headers=ASYNC)
    stream_id = started.json()["id"]
    await sluice.productions.launch(StreamKey("demo", stream_id))
    await asyncio.sleep(0.05)
    await sluice.productions.launch(StreamKey("demo", stream_id))
    _, page = await poll_all(sluice, stream_id, wait=1)
    assert page["usage"]["output_tokens"] == 60
    records = (await sluice.services.log.read(StreamKey("demo", stream_id))).records
    assert [r.kind for r in records].count("epoch") == 1
    assert len({r.by for r in records[1:]}) == 1


async def test_healthz(sluice: Sluice) -> None:
    transport = httpx.ASGITransport(api.build(sluice.services))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as anyone:
        assert (await anyone.get("/healthz")).json()["status"] == "ok"


def invoked(make: Callable[[], Callable[[Any, Any], Any]], path: str) -> dict[str, Any]:
    """What a handler answers to a function URL's event."""
    event = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "x.lambda-url.us-east-1.on.aws"},
        "requestContext": {
            "http": {"method": "GET", "path": path, "sourceIp": "192.0.2.1"},
            "stage": "$default",
        },
        "isBase64Encoded": False,
    }
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # else Mangum makes one, and leaves it open
    try:
        answer: dict[str, Any] = make()(event, SimpleNamespace(aws_request_id="r-1"))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return answer


def test_nothing_around_our_app_logs_what_it_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    """A path names users, and an exception may quote anything. Lambda's own level is INFO."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a prompt")

    caplog.set_level(logging.INFO)
    assert invoked(lambda: api.handler, "/v1/users/ada-lovelace/streams")["statusCode"] == 401
    assert invoked(lambda: api.lambda_handler(broken), "/")["statusCode"] == 500
    told = caplog.text + str([vars(record) for record in caplog.records])
    assert not [secret for secret in ("ada-lovelace", "a prompt") if secret in told]


def test_lambda_finds_a_handler_that_answers_a_function_urls_event() -> None:
    """Mangum and all, but for the network: health asks no table."""
    answer = invoked(lambda: api.handler, "/healthz")
    assert answer["statusCode"] == 200
    assert answer["headers"]["request-id"] == "r-1"
    assert json.loads(answer["body"])["status"] == "ok"
    with pytest.raises(AttributeError):
        _ = api.nothing


async def test_a_page_of_a_long_stream_tells_that_it_is_over_and_there_is_more(
    sluice: Sluice,
) -> None:
    await sluice.policy(takeovers=0)
    key = (await begin(sluice.services, epoch=1, age_s=60, chunks=1100)).key
    path = f"/v1/streams/{key.stream}/chunks"
    await sluice.services.takeovers.settle(key)
    page = (await sluice.api.get(path, params={"limit": 1000})).json()
    assert len(page["chunks"]) == 1000
    assert page["status"] == "failed"
    assert not page["closed"]
    assert page["poll_after_ms"] == 0
    text, _ = await poll_all(sluice, key.stream, limit=7)
    assert text == "x" * 1100


async def test_a_page_tells_why_a_stream_is_paused(sluice: Sluice) -> None:
    stream = (await begin(sluice.services)).key.stream
    path = f"/v1/streams/{stream}/chunks"
    assert "reason" not in (await sluice.api.get(path)).json()
    await sluice.api.post(f"/v1/streams/{stream}/pause")
    page = (await sluice.api.get(path)).json()
    assert (page["status"], page["reason"]) == ("paused", "requested")
    await sluice.api.post(f"/v1/streams/{stream}/cancel")
    assert "reason" not in (await sluice.api.get(path)).json()


async def test_a_summary_does_not_call_open_what_nobody_goes_on_with(sluice: Sluice) -> None:
    dead = (await begin(sluice.services, "demo?tokens=3&rate=0", epoch=1, age_s=16)).key
    assert (await sluice.api.get(f"/v1/streams/{dead.stream}")).json()["status"] == "open"
    await asyncio.gather(*sluice.productions.tasks)
    assert (await sluice.api.get(f"/v1/streams/{dead.stream}")).json()["status"] == "completed"
    await sluice.policy(takeovers=0)
    key = (await begin(sluice.services, epoch=1, age_s=16)).key
    assert (await sluice.api.get(f"/v1/streams/{key.stream}")).json()["status"] == "failed"
    lively = (await begin(sluice.services, epoch=1, age_s=1)).key
    assert (await sluice.api.get(f"/v1/streams/{lively.stream}")).json()["status"] == "open"


async def test_a_production_that_lambda_tries_again_goes_on_with_what_the_first_try_left(
    sluice: Sluice,
) -> None:
    key = (await begin(sluice.services, "demo?tokens=3&rate=0", epoch=1, age_s=60)).key
    await produce(sluice.services, key)
    await asyncio.gather(*sluice.productions.tasks)
    assert (await sluice.services.log.tail(key)).body["status"] == "completed"
    lively = (await begin(sluice.services, epoch=1, age_s=1)).key
    await produce(sluice.services, lively)
    assert (await sluice.services.log.tail(lively)).seq == 0


async def test_a_launch_whose_reply_was_lost_is_accepted(sluice: Sluice) -> None:
    async def launch(key: StreamKey) -> None:
        await produce(sluice.services, key)
        raise Unavailable

    async with client(api.build(replace(sluice.services, launch=launch))) as lossy:
        answer = await lossy.post("/v1/streams", json=start_body(), headers=ASYNC)
    assert answer.status_code == 202
    _, page = await poll_all(sluice, answer.json()["id"])
    assert page["status"] == "completed"


@pytest.mark.parametrize(
    ("messages", "status"), [([{"role": "user", "content": "x" * 250_000}], 413), ([], 400)]
)
async def test_a_start_that_is_refused_does_not_cancel_its_parent(
    sluice: Sluice, messages: list[dict[str, str]], status: int
) -> None:
    long = [{"role": "user", "content": "y" * 100_000}]
    body = {"model": "demo?tokens=50&rate=100", "messages": long}
    parent = (await sluice.api.post("/v1/streams", json=body, headers=ASYNC)).json()["id"]
    refused = await sluice.api.post(
        "/v1/streams", json={"model": "demo", "messages": messages, "parent": parent}, headers=ASYNC
    )
    assert refused.status_code == status
    _, page = await poll_all(sluice, parent, wait=1)
    assert page["status"] == "completed"


async def test_a_repeated_start_does_not_cancel_its_parent(sluice: Sluice) -> None:
    header = {**ASYNC, "idempotency-key": "k"}
    running = start_body("demo?tokens=50&rate=100")
    first = await sluice.api.post("/v1/streams", json=start_body(), headers=header)
    parent = (await sluice.api.post("/v1/streams", json=running, headers=ASYNC)).json()["id"]
    reused = await sluice.api.post("/v1/streams", json=start_body(parent=parent), headers=header)
    assert first.status_code == 202
    assert reused.status_code == 422
    _, page = await poll_all(sluice, parent, wait=1)
    assert page["status"] == "completed"


async def test_a_repeated_start_tells_how_the_stream_ended(sluice: Sluice) -> None:
    header = {**ASYNC, "idempotency-key": "k"}
    first = await sluice.api.post("/v1/streams", json=start_body(), headers=header)
    await poll_all(sluice, first.json()["id"], wait=1)
    again = await sluice.api.post("/v1/streams", json=start_body(), headers=header)
    assert again.status_code == 202
    assert but_its_ticket(again) == {**but_its_ticket(first), "status": "completed"}


async def test_a_repeated_start_tells_that_the_stream_is_paused(sluice: Sluice) -> None:
    header = {**ASYNC, "idempotency-key": "k"}
    body = start_body("demo?tokens=50&rate=1")
    first = await sluice.api.post("/v1/streams", json=body, headers=header)
    await sluice.api.post(f"/v1/streams/{first.json()['id']}/pause")
    again = await sluice.api.post("/v1/streams", json=body, headers=header)
    assert again.status_code == 202
    assert but_its_ticket(again) == {**but_its_ticket(first), "status": "paused"}


async def test_a_wrong_method_is_told_all_that_an_address_takes(sluice: Sluice) -> None:
    answer = await sluice.api.put("/v1/streams", json={})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert "GET, HEAD, POST" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/streams/", "/healthz/", "//v1/streams"])
async def test_an_address_that_is_nearly_right_is_a_problem(sluice: Sluice, path: str) -> None:
    answer = await sluice.api.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_list_that_the_table_cuts_short_goes_on(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of 1 MB may be full long before the limit."""
    started = []
    for _ in range(5):
        started.append((await begin(sluice.services)).key.stream)
        await asyncio.sleep(0.002)  # ids grow by the millisecond
    query_now = sluice.store.query_now

    def short(items: Any, query: Query) -> Found:
        return query_now(items, replace(query, limit=min(query.limit, 2)))

    monkeypatch.setattr(sluice.store, "query_now", short)
    listed: list[str] = []
    query: dict[str, Any] = {"limit": 100}
    while True:
        page = (await sluice.api.get("/v1/streams", params=query)).json()
        listed += [entry["id"] for entry in page["streams"]]
        if page["next_page"] is None:
            break
        query["page"] = page["next_page"]
    assert listed == started[::-1]


async def test_a_stream_whose_summary_is_gone_is_not_found(sluice: Sluice) -> None:
    """As when its retention ended and the table has removed only that yet."""
    key = (await begin(sluice.services, epoch=1, age_s=0)).key
    del sluice.store.items[("streams", key.pk, -1)]
    assert (await sluice.api.get(f"/v1/streams/{key.stream}")).status_code == 404
    assert (await sluice.api.get(f"/v1/streams/{key.stream}/chunks")).status_code == 404


async def test_the_list_tells_how_each_stream_stands(sluice: Sluice) -> None:
    quick = "demo?tokens=3&rate=0"
    lively, paused, erased = [(await begin(sluice.services)).key.stream for _ in "123"]
    dead = (await begin(sluice.services, quick, age_s=60)).key.stream
    await sluice.api.post(f"/v1/streams/{paused}/pause")
    listed = {s["id"]: s["status"] for s in (await sluice.api.get("/v1/streams")).json()["streams"]}
    assert listed == {lively: "open", paused: "paused", erased: "open", dead: "open"}
    # Who looks at a list is as good as any to notice.
    await asyncio.gather(*sluice.productions.tasks)
    await sluice.api.delete(f"/v1/streams/{erased}")
    listed = {s["id"]: s["status"] for s in (await sluice.api.get("/v1/streams")).json()["streams"]}
    assert listed == {lively: "open", paused: "paused", dead: "completed"}


async def test_a_stream_that_is_erased_while_it_is_listed_is_not_shown(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [(await begin(sluice.services)).key.stream for _ in "12"]
    tail = Log.tail

    async def erased(self: Log, key: StreamKey) -> Record:
        if key.stream == second:
            raise NotFound
        return await tail(self, key)

    monkeypatch.setattr(Log, "tail", erased)
    streams = (await sluice.api.get("/v1/streams")).json()["streams"]
    assert [stream["id"] for stream in streams] == [first]
