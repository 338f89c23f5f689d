"""The audit over HTTP: who did what is told to who may know it, and what was refused too."""

from itertools import pairwise
from typing import Any

import httpx
import pytest

from shared.identity import READ, STREAM
from tests.functions.conftest import Sluice, by, start_body

DAY_MS = 86_400_000


async def ask(sluice: Sluice, key: str = "demo", **query: Any) -> list[dict[str, Any]]:
    """All pages of the audit."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await sluice.api.get("/v1/audit", params=query, headers=by(key))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["entries"]) <= int(query.get("limit", 100))
        found += page["entries"]
        if page["next_page"] is None:
            return found
        query["page"] = page["next_page"]


async def begun(sluice: Sluice, key: str = "demo") -> str:
    body = start_body("demo?tokens=2&rate=0")
    answer = await sluice.stream.post("/v1/streams", json=body, headers=by(key))
    return answer.headers["stream-id"]


async def test_the_audit_of_one_stream_is_its_story(sluice: Sluice) -> None:
    await sluice.add_key("ada's", user="ada")
    stream = await begun(sluice, "ada's")
    await begun(sluice)
    await sluice.stream.get(f"/v1/streams/{stream}/events", params={"after": 0})
    await sluice.stream.get(f"/v1/streams/{stream}/export")
    found = await ask(sluice, stream=stream)
    assert [entry["event"] for entry in found] == ["started", "closed", "followed", "exported"]
    assert [entry["n"] for entry in found] == [0, 1, 2, 3]
    assert {entry["tenant"] for entry in found} == {"demo"}
    started, closed, followed, _ = found
    assert started["actor"]["user"] == closed["actor"]["user"] == "ada"
    assert followed["actor"] == {**started["actor"], "user": None} | {
        "credential": followed["actor"]["credential"]
    }
    assert closed["outcome"] == "stop"
    assert followed["details"] == {"from": 0, "to": closed["details"]["seq"]}
    assert all(entry["prev"] == before["hash"] for before, entry in pairwise(found))


async def test_the_audit_of_a_time_is_everything_in_its_order(sluice: Sluice) -> None:
    began_ms = sluice.now_ms()
    streams = [await begun(sluice) for _ in range(3)]
    found = await ask(sluice, start=began_ms, end=sluice.now_ms() + 1)
    assert [entry["id"] for entry in found] == sorted(entry["id"] for entry in found)
    assert {entry["chain"] for entry in found if entry["event"] == "started"} == set(streams)
    assert len([entry for entry in found if entry["event"] == "closed"]) == 3


@pytest.mark.parametrize("by_stream", [True, False])
async def test_pages_miss_nothing_and_repeat_nothing(sluice: Sluice, by_stream: bool) -> None:
    stream = await begun(sluice)
    for _ in range(5):
        await sluice.stream.get(f"/v1/streams/{stream}/events")
    query = {"stream": stream} if by_stream else {"end": sluice.now_ms() + 1}
    whole = await ask(sluice, **query)
    assert len(whole) >= 7
    for limit in (1, 2, 3):
        assert await ask(sluice, **query, limit=limit) == whole


async def test_the_last_day_is_told_where_no_time_is_named(sluice: Sluice) -> None:
    """The keys and tenants of the fixture are older than that by then."""
    sluice.clock.wall_s += 2 * 86_400
    stream = await begun(sluice)
    sluice.clock.wall_s += 1
    assert {entry["chain"] for entry in await ask(sluice)} == {stream}
    week = await ask(sluice, start=sluice.now_ms() - 7 * DAY_MS)
    assert {entry["event"] for entry in week} >= {"tenant-added", "key-made", "started"}


async def test_another_tenants_audit_is_not_told(sluice: Sluice) -> None:
    stream = await begun(sluice)
    assert await ask(sluice, "other", stream=stream) == []
    assert {entry["tenant"] for entry in await ask(sluice, "other")} == {"other"}


async def test_the_audit_needs_its_scope(sluice: Sluice) -> None:
    await sluice.add_key("user's", user="ada", scopes=frozenset({READ, STREAM}))
    answer = await sluice.api.get("/v1/audit", headers=by("user's"))
    assert answer.status_code == 403
    assert answer.json()["scope"] == "admin"


@pytest.mark.parametrize(
    "query",
    [{"page": "x"}, {"page": "AAAA"}, {"stream": "tenant"}, {"limit": "0"}, {"end": "tomorrow"}],
)
async def test_a_bad_question_is_a_problem(sluice: Sluice, query: dict[str, str]) -> None:
    answer = await sluice.api.get("/v1/audit", params=query)
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:sluice:problem:invalid-request"


async def refused(sluice: Sluice) -> list[tuple[str, str | None, str | None]]:
    """Of each refusal that is told: its outcome, policy and user."""
    return [
        (entry["outcome"], entry["details"].get("policy"), entry["actor"]["user"])
        for entry in await ask(sluice, end=sluice.now_ms() + 1)
        if entry["event"] == "refused"
    ]


async def test_refusals_are_told(sluice: Sluice) -> None:
    words = [{"word": "bluebird", "mode": "close", "name": "codename"}]
    await sluice.policy(
        user_limits={"starts_per_minute": 1},
        limits={"models": ["demo*"]},
        redaction={"prompts": True, "words": words},
    )
    await sluice.add_key("ada's", user="ada", scopes=frozenset({READ, STREAM}))

    async def start(text: str = "hi", model: str = "demo?tokens=1", **headers: str) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        answer = await sluice.stream.post("/v1/streams", json=body, headers=by("ada's") | headers)
        return answer.status_code

    assert await start(origin="https://evil.example") == 403
    assert await start(model="openai/gpt-5") == 403
    assert await start("about Bluebird") == 422
    assert await start() == 200
    assert await start() == 429
    assert (await sluice.api.get("/v1/audit", headers=by("ada's"))).status_code == 403
    assert (await sluice.api.get("/v1/streams/x", headers=by("ada's"))).status_code == 404
    assert sorted(await refused(sluice), key=str) == sorted(
        [
            ("origin-not-allowed", None, "ada"),
            ("forbidden", None, "ada"),  # the model, by one function
            ("forbidden", None, "ada"),  # and the scope, by the other
            ("policy-violated", "codename", "ada"),
            ("limit-exceeded", "user-starts-per-minute", "ada"),
        ],
        key=str,
    )


@pytest.mark.parametrize("key", ["nobody's", ""])
async def test_who_is_not_known_is_in_no_ones_audit(sluice: Sluice, key: str) -> None:
    before = dict(sluice.store.items)
    headers = by(key) if key else {"authorization": ""}
    answer: httpx.Response = await sluice.api.get("/v1/streams", headers=headers)
    assert answer.status_code == 401
    assert sluice.store.items == before


async def test_every_chain_of_a_busy_tenant_is_sound(sluice: Sluice) -> None:
    await sluice.policy(limits={"starts_per_minute": 3})
    answers = [await sluice.stream.post("/v1/streams", json=start_body()) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    audit = sluice.services.audit
    found = [
        chain async for chain in audit.chains("demo", start_ms=0, end_ms=sluice.now_ms() + 1000)
    ]
    assert len(found) >= 5  # the tenant's, three streams', this process's refusals
    verdicts = [await audit.verify(chain) for chain in found]
    assert [verdict.fault for verdict in verdicts] == [None] * len(found)
