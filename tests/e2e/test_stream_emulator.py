"""The `stream` function as Lambda runs it: the real bootstrap, Runtime API, function URL and table.

Only the machine is not AWS's: cargo-lambda plays Lambda, dynoxide plays DynamoDB.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from functions.wiring import Services
from shared.administration import Administration
from shared.identity import tickets
from shared.records import Kind, Record, StreamKey
from shared.settings import Settings
from shared.steering import cancel
from shared.table import DynamoDB
from tests.e2e.emulator import Emulator, Function
from tests.functions.conftest import caller, start_body
from tests.functions.test_stream import events, text_of

pytestmark = pytest.mark.e2e

KEY = {"authorization": "Bearer demo"}


@pytest.fixture(scope="module")
def emulator(endpoint: str) -> Iterator[Emulator]:
    env = {
        "SLUICE_DYNAMODB_ENDPOINT": endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    with Emulator({"stream": Function("functions.stream.create", processes=2, env=env)}) as running:
        yield running


@pytest.fixture
async def services(real: DynamoDB) -> Services:
    """Our own eyes on the same tables, in a process of our own."""
    await Administration(real).ensure("demo", "demo")
    return Services.on(real, Settings())


@pytest.fixture
async def client(emulator: Emulator, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=emulator.url("stream"),
        headers=KEY,
        timeout=30,
        limits=httpx.Limits(max_keepalive_connections=0),
    ) as client:
        yield client


async def records_of(services: Services, stream_id: str, *, closed: bool = True) -> list[Record]:
    """The stream's log, waited for until it is closed."""
    key = StreamKey("demo", stream_id)
    async with asyncio.timeout(20):
        while True:
            records = (await services.log.read(key)).records
            if records[-1].closes or not closed:
                return list(records)
            await asyncio.sleep(0.1)


async def test_an_answer_arrives_chunk_by_chunk(
    client: httpx.AsyncClient, services: Services
) -> None:
    arrivals: list[float] = []
    body = start_body("demo?tokens=60&rate=50", pacing={"flush_interval_ms": 50})
    content = b""
    async with client.stream("POST", "/v1/streams", json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        stream_id = answer.headers["stream-id"]
        async for data in answer.aiter_bytes():
            arrivals.append(time.monotonic())
            content += data
    records = await records_of(services, stream_id)
    chunks = [record for record in records if record.kind == Kind.TEXT]
    assert text_of(content.decode()) == "".join(chunk.text for chunk in chunks)
    # 1.2 s of text: it came in many pieces over most of that time, not in one at the end.
    assert len(arrivals) > len(chunks) / 2 > 5
    assert arrivals[-1] - arrivals[0] > 0.5


async def test_two_environments_serve_two_streams_at_once(client: httpx.AsyncClient) -> None:
    body = start_body("demo?tokens=50&rate=50")
    answers = await asyncio.gather(*(client.post("/v1/streams", json=body) for _ in range(2)))
    spans = []
    for answer in answers:
        assert answer.status_code == 200
        found = events(answer.text)
        assert found[-1][2]["status"] == "completed"
        spans.append(found[0][2]["at"])
    # Each takes a second; one after the other they would begin a second apart.
    assert abs(spans[0] - spans[1]) < 900
    assert answers[0].headers["stream-id"] != answers[1].headers["stream-id"]


async def test_the_log_completes_when_the_client_is_killed(
    client: httpx.AsyncClient, services: Services
) -> None:
    body = start_body("demo?tokens=100&rate=50")
    async with client.stream("POST", "/v1/streams", json=body) as answer:
        stream_id = answer.headers["stream-id"]
        async for _ in answer.aiter_bytes():
            break  # and with that the connection is cut
    records = await records_of(services, stream_id)
    assert records[-1].body["status"] == "completed"
    assert records[-1].body["usage"]["output_tokens"] == 100
    rest = await client.get(f"/v1/streams/{stream_id}/events", params={"after": 0})
    assert text_of(rest.text) == "".join(record.text for record in records)


async def test_a_failure_in_mid_stream_is_a_closed_event(
    client: httpx.AsyncClient, services: Services
) -> None:
    answer = await client.post(
        "/v1/streams", json=start_body("demo?tokens=50&fail_after=20&rate=0")
    )
    assert answer.status_code == 200
    closed = events(answer.text)[-1][2]
    assert closed["status"] == "failed"
    assert closed["error"]["code"] == "upstream"
    assert text_of(answer.text)
    records = await records_of(services, answer.headers["stream-id"])
    assert records[-1].body == closed


async def test_a_failure_before_the_start_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/streams", json=start_body("demo?fail_after=0"))
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:sluice:problem:provider-failed"


async def test_a_follower_in_another_environment_sees_it_all(
    client: httpx.AsyncClient, services: Services
) -> None:
    body = start_body("demo?tokens=60&rate=50")
    async with client.stream("POST", "/v1/streams", json=body) as answer:
        stream_id = answer.headers["stream-id"]
        path = f"/v1/streams/{stream_id}/events"
        followed = asyncio.create_task(client.get(path))
        own = (await answer.aread()).decode()
    other = (await followed).text
    assert events(other) == events(own)
    last = events(own)[-1][0]
    assert (await client.get(path, headers={"last-event-id": str(last)})).status_code == 204


async def test_a_cancel_from_elsewhere_reaches_the_producer(
    client: httpx.AsyncClient, services: Services
) -> None:
    body = start_body("demo?tokens=1000&rate=50")
    async with client.stream("POST", "/v1/streams", json=body) as answer:
        stream_id = answer.headers["stream-id"]
        await cancel(services.lifecycle, StreamKey("demo", stream_id), await caller(services))
        content = (await answer.aread()).decode()
    assert events(content)[-1][2]["status"] == "cancelled"
    records = await records_of(services, stream_id)
    assert [record.kind for record in records].count(Kind.CANCEL) == 1


async def test_a_ticket_opens_its_stream_and_reaches_no_log(
    client: httpx.AsyncClient, services: Services, emulator: Emulator
) -> None:
    answer = await client.post("/v1/streams", json=start_body())
    stream_id = answer.headers["stream-id"]
    who = await caller(services)
    ticket = tickets.issue(
        who.tenant.secret,
        who.identity,
        stream_id,
        purpose="read",
        expires_at=int(time.time()) + 60,
    )
    path = f"/v1/streams/{stream_id}/events"
    async with httpx.AsyncClient(base_url=emulator.url("stream"), timeout=30) as anyone:
        followed = await anyone.get(path, params={"ticket": ticket, "after": 0})
        refused = await anyone.get(path, params={"ticket": ticket + "x"})
    assert text_of(followed.text) == text_of(answer.text)
    assert refused.status_code == 401
    lines = emulator.log("stream")
    assert stream_id in lines
    assert tickets.PREFIX not in lines


async def test_what_is_left_of_limits_is_told(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/streams", json=start_body())
    assert '"tenant-streams-at-once";r=' in answer.headers["ratelimit"]
    assert '"tenant-streams-at-once";q=100' in answer.headers["ratelimit-policy"]


async def test_bad_requests_are_problems_here_too(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/streams", content=b"{")
    assert refused.status_code == 400
    unknown = await client.post("/v1/streams", json=start_body(), headers={"authorization": "x"})
    assert unknown.status_code == 401
    health = await client.get("/healthz")
    assert json.loads(health.text)["status"] == "ok"
