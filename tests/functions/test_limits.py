"""Limits as clients meet them: the fields that tell of them, the refusals, and what is left."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from shared.errors import Unavailable
from shared.records import Item
from shared.schema import Table
from shared.table import Conflict, Put, Write
from tests.functions.conftest import ASYNC, Sluice, begin, by, running, start_body
from tests.functions.test_stream import events, text_of
from tests.simulation.clock import virtual

#: With it a stream takes all of 50 tokens: one is that of the prompt.
TAKES_ALL = {"max_tokens": 49}
MODEL = "demo?tokens=60&rate=0"
#: Each limit, so set that one stream uses it up; and the window that is told with it.
LIMITS = {
    "starts_per_minute": (1, 60),
    "tokens_per_minute": (50, 60),
    "tokens_per_day": (50, 86_400),
    "tokens_per_month": (50, 2_592_000),
}
SUBJECTS = {"tenant": "limits", "user": "user_limits", "address": "address_limits"}
_ITEM = re.compile(r'"(?P<policy>[a-z-]+)"(?P<rest>(?:;[a-z]+=(?:\d+|"[a-z-]+"))*)')


def fields(header: str) -> dict[str, dict[str, str]]:
    """A `RateLimit` or `RateLimit-Policy`: its parameters by policy."""
    found = {}
    for item in header.split(", "):
        match = _ITEM.fullmatch(item)
        assert match, item
        pairs = (pair.split("=") for pair in match["rest"].split(";")[1:])
        found[match["policy"]] = {name: value.strip('"') for name, value in pairs}
    return found


def assert_refused(answer: httpx.Response, policy: str, limit: int, window_s: int) -> None:
    """A 429 as RFC 6585 and the draft of the RateLimit fields have it."""
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:sluice:problem:limit-exceeded"
    assert (problem["policy"], problem["limit"], problem["retryable"]) == (policy, limit, True)
    assert problem["error"]["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) >= 1
    (told,) = fields(answer.headers["ratelimit"]).items()
    assert told == (policy, {"r": "0", "t": answer.headers["retry-after"]})
    (rule,) = fields(answer.headers["ratelimit-policy"]).items()
    assert rule[0] == policy
    assert (rule[1]["q"], rule[1].get("w")) == (str(limit), str(window_s) if window_s else None)


async def start(sluice: Sluice, key: str = "demo", /, **more: Any) -> httpx.Response:
    return await sluice.stream.post("/v1/streams", json=start_body(MODEL, **more), headers=by(key))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("subject", SUBJECTS)
async def test_a_limit_that_is_used_up_is_told(sluice: Sluice, subject: str, limit: str) -> None:
    bound, window_s = LIMITS[limit]
    await sluice.add_key("ada's", user="ada")
    await sluice.policy(**{SUBJECTS[subject]: {limit: bound}})
    first = await start(sluice, "ada's", **TAKES_ALL)
    assert events(first.text)[-1][2]["usage"]["output_tokens"] == 49
    writes = sluice.store.writes
    policy = f"{subject}-{limit.replace('_', '-')}"
    second = await start(sluice, "ada's", **TAKES_ALL)
    assert_refused(second, policy, bound, window_s)
    # Nothing was begun: there is one entry of the audit, with the head of its chain.
    assert sluice.store.writes == writes + 2
    third = await sluice.api.post(
        "/v1/streams", json=start_body(MODEL), headers=ASYNC | by("ada's")
    )
    assert_refused(third, policy, bound, window_s)


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_streams_at_once_are_counted_while_they_run(sluice: Sluice, subject: str) -> None:
    await sluice.add_key("ada's", user="ada")
    await sluice.policy(**{SUBJECTS[subject]: {"streams_at_once": 1}})
    running = await sluice.launched("demo?tokens=400&rate=50", key="ada's")
    assert_refused(await start(sluice, "ada's"), f"{subject}-streams-at-once", 1, 0)
    await sluice.api.post(f"/v1/streams/{running}/cancel")
    await sluice.stream.get(f"/v1/streams/{running}/events")
    assert (await start(sluice, "ada's")).status_code == 200


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_polls_are_counted_and_starts_are_not_polls(sluice: Sluice, subject: str) -> None:
    await sluice.add_key("ada's", user="ada")
    await sluice.policy(**{SUBJECTS[subject]: {"polls_per_minute": 2}})
    stream = (await start(sluice, "ada's")).headers["stream-id"]
    path = f"/v1/streams/{stream}/chunks"
    polls = [await sluice.api.get(path, headers=by("ada's")) for _ in range(3)]
    assert [poll.status_code for poll in polls] == [200, 200, 429]
    assert_refused(polls[-1], f"{subject}-polls-per-minute", 2, 60)
    assert (await start(sluice, "ada's")).status_code == 200
    followed = await sluice.stream.get(f"/v1/streams/{stream}/events", headers=by("ada's"))
    assert followed.status_code == 200
    sluice.clock.wall_s += 60
    assert (await sluice.api.get(path, headers=by("ada's"))).status_code == 200


async def test_one_users_limit_is_not_anothers(sluice: Sluice) -> None:
    for user in ("ada", "bob"):
        await sluice.add_key(f"{user}'s", user=user)
    await sluice.policy(user_limits={"starts_per_minute": 1})
    assert (await start(sluice, "ada's")).status_code == 200
    assert (await start(sluice, "ada's")).status_code == 429
    assert (await start(sluice, "bob's")).status_code == 200
    # A key that is no user's has the limits of its tenant only.
    assert [(await start(sluice)).status_code for _ in range(3)] == [200, 200, 200]


async def test_what_is_left_is_told_with_every_start(sluice: Sluice) -> None:
    await sluice.policy(limits={"streams_at_once": 5, "tokens_per_day": 1000})
    first = await start(sluice, **TAKES_ALL)
    headers = ASYNC | by("demo")
    second = await sluice.api.post(
        "/v1/streams", json=start_body(MODEL, **TAKES_ALL), headers=headers
    )
    assert (first.status_code, second.status_code) == (200, 202)
    for answer, tokens_left in ((first, 950), (second, 900)):
        rules, left = (fields(answer.headers[name]) for name in ("ratelimit-policy", "ratelimit"))
        assert rules.keys() == left.keys()
        assert rules["tenant-streams-at-once"] == {"q": "5", "qu": "concurrent-requests"}
        assert left["tenant-streams-at-once"] == {"r": "4"}
        assert rules["tenant-tokens-per-day"] == {"q": "1000", "qu": "tokens", "w": "86400"}
        assert left["tenant-tokens-per-day"]["r"] == str(tokens_left)
        assert 0 < int(left["tenant-tokens-per-day"]["t"]) <= 86_400


async def test_a_repeated_start_tells_nothing_of_limits(sluice: Sluice) -> None:
    """It takes nothing from them, so it has not looked."""
    header = {"idempotency-key": "k"}
    first, again = [
        await sluice.stream.post("/v1/streams", json=start_body(), headers=header) for _ in "12"
    ]
    assert "ratelimit" in first.headers
    assert "ratelimit" not in again.headers


async def test_a_repeated_start_is_answered_when_its_limit_is_used_up(sluice: Sluice) -> None:
    await sluice.policy(limits={"starts_per_minute": 1})
    header = {"idempotency-key": "k"}
    first, again = [
        await sluice.stream.post("/v1/streams", json=start_body(), headers=header) for _ in "12"
    ]
    assert (await start(sluice)).status_code == 429
    assert again.status_code == 200
    assert again.headers["stream-id"] == first.headers["stream-id"]


async def test_a_prompt_that_no_limit_lets_through_is_too_large(sluice: Sluice) -> None:
    await sluice.policy(limits={"tokens_per_minute": 10})
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 400}]}
    answer = await sluice.stream.post("/v1/streams", json=body)
    assert answer.status_code == 413
    assert answer.json()["policy"] == "tenant-tokens-per-minute"
    assert answer.json()["maximum"] == 10
    assert "retry-after" not in answer.headers


async def test_an_answer_ends_where_its_tenants_tokens_do(sluice: Sluice) -> None:
    await sluice.policy(limits={"tokens_per_day": 30})
    answer = await start(sluice)
    closed = events(answer.text)[-1][2]
    assert (closed["status"], closed["finish_reason"]) == ("completed", "quota")
    assert closed["usage"]["output_tokens"] == 29


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_more_than_the_smallest_max_tokens_is_named(sluice: Sluice, subject: str) -> None:
    await sluice.add_key("ada's", user="ada")
    await sluice.policy(**{"limits": {"max_tokens": 30}, SUBJECTS[subject]: {"max_tokens": 10}})
    refused = await start(sluice, "ada's", max_tokens=11)
    assert refused.status_code == 400
    assert (refused.json()["field"], refused.json()["maximum"]) == ("max_tokens", 10)
    answer = await start(sluice, "ada's")
    closed = events(answer.text)[-1][2]
    assert (closed["finish_reason"], closed["usage"]["output_tokens"]) == ("length", 10)
    # A key that is no user's has no bound of one.
    other = await start(sluice, max_tokens=11)
    assert other.status_code == (200 if subject == "user" else 400)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize(("model", "status"), [("demo?rate=0", 200), ("demo?tokens=1", 403)])
async def test_only_models_that_are_open_may_be_asked(
    sluice: Sluice, subject: str, model: str, status: int
) -> None:
    await sluice.add_key("ada's", user="ada")
    models = {"models": ["demo?rate=*", "openai/*"]}
    await sluice.policy(**{"limits": {"models": ["demo*"]}, SUBJECTS[subject]: models})
    body = start_body(model)
    answer = await sluice.stream.post("/v1/streams", json=body, headers=by("ada's"))
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["field"] == "model"


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_a_poll_gets_no_more_than_a_page(sluice: Sluice, subject: str) -> None:
    await sluice.add_key("ada's", user="ada")
    key = (await begin(sluice.services, chunks=9)).key
    await sluice.policy(**{SUBJECTS[subject]: {"page": 3}})
    path = f"/v1/streams/{key.stream}/chunks"
    for limit, got in ((2, 2), (3, 3), (1000, 3)):
        page = await sluice.api.get(path, params={"limit": limit}, headers=by("ada's"))
        assert len(page.json()["chunks"]) == got


@pytest.mark.parametrize("subject", SUBJECTS)
@virtual
async def test_a_long_poll_waits_no_longer_than_it_may(subject: str) -> None:
    async with running() as sluice:
        await sluice.add_key("ada's", user="ada")
        key = (await begin(sluice.services)).key
        await sluice.policy(**{SUBJECTS[subject]: {"wait_s": 3}})
        path = f"/v1/streams/{key.stream}/chunks"
        began = asyncio.get_running_loop().time()
        page = await sluice.api.get(path, params={"after": 0, "wait": 9}, headers=by("ada's"))
        assert page.json()["chunks"] == []
        assert 3 <= asyncio.get_running_loop().time() - began < 4


def breaks(sluice: Sluice, patch: pytest.MonkeyPatch) -> None:
    """From now on counters can be neither read nor written; all else can."""
    get, transact = sluice.store.get, sluice.store.transact

    async def getting(table: Table, key: Item) -> Item | None:
        if str(key["pk"]).startswith("quota#"):
            raise Unavailable
        return await get(table, key)

    async def transacting(writes: Sequence[Write], token: str) -> Conflict | None:
        places = (write.item if isinstance(write, Put) else write.key for write in writes)
        if any(str(place["pk"]).startswith("quota#") for place in places):
            raise Unavailable
        return await transact(writes, token)

    patch.setattr(sluice.store, "get", getting)
    patch.setattr(sluice.store, "transact", transacting)


@pytest.mark.parametrize("route", ["stream", "api"])
async def test_a_start_is_refused_while_the_counters_do_not_answer(
    sluice: Sluice, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sluice.api.get("/v1/streams")  # who asks is known from here on
    breaks(sluice, monkeypatch)
    writes = sluice.store.writes
    headers = ASYNC if route == "api" else {}
    client = getattr(sluice, route)
    refused = await client.post("/v1/streams", json=start_body(MODEL), headers=headers)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"] == "urn:sluice:problem:unavailable"
    assert refused.json()["retryable"] is True
    assert sluice.store.writes == writes
    monkeypatch.undo()
    assert (await start(sluice)).status_code == 200


@pytest.mark.parametrize("route", ["stream", "api"])
@virtual
async def test_a_start_may_pass_while_the_counters_do_not_answer_and_is_charged(
    route: str,
) -> None:
    async with running() as sluice:
        await sluice.policy(
            on_outage="allow", limits={"starts_per_minute": 0, "tokens_per_day": 1000}
        )
        body, headers = start_body("demo?tokens=20&rate=2"), ASYNC if route == "api" else {}
        client = getattr(sluice, route)
        before = await client.post("/v1/streams", json=body, headers=headers)
        assert before.status_code == 429
        with pytest.MonkeyPatch.context() as patch:
            breaks(sluice, patch)
            asking = asyncio.create_task(client.post("/v1/streams", json=body, headers=headers))
            await asyncio.sleep(2)  # the answer takes ten
        answer = await asking
        assert answer.status_code == (202 if route == "api" else 200)
        assert "ratelimit" not in answer.headers  # nobody has looked what is left
        path = f"/v1/streams/{answer.headers['stream-id']}/events"
        whole = await sluice.stream.get(path)
        assert events(whole.text)[-1][2]["usage"]["output_tokens"] == 20
        assert set((await sluice.api.get("/v1/usage")).json()["tokens"].values()) == {21}
        after = await client.post("/v1/streams", json=body, headers=headers)
        assert after.status_code == 429


async def test_what_is_left_can_be_asked(sluice: Sluice) -> None:
    await sluice.add_key("ada's", user="ada")
    await sluice.policy(
        limits={"streams_at_once": 5, "tokens_per_day": 1000},
        user_limits={"starts_per_minute": 9},
        shards=3,
    )
    for _ in range(4):
        assert (await start(sluice, "ada's", **TAKES_ALL)).status_code == 200
    usage = (await sluice.api.get("/v1/usage", headers=by("ada's"))).json()
    limits = {each["policy"]: each for each in usage["limits"]}
    assert limits["tenant-streams-at-once"]["left"] == 5
    per_day = limits["tenant-tokens-per-day"]
    assert (per_day["limit"], per_day["left"], per_day["window_s"]) == (1000, 800, 86_400)
    assert limits["user-starts-per-minute"]["left"] == 5
    assert set(usage["tokens"].values()) == {200}
    assert sorted(map(len, usage["tokens"])) == [len("2026-11"), len("2026-11-22")]
    # Who is no user has no limits of one.
    of_demo = (await sluice.api.get("/v1/usage")).json()
    assert {each["policy"].split("-")[0] for each in of_demo["limits"]} == {"tenant"}
    assert (await sluice.api.get("/v1/usage", headers=by("other"))).json()["tokens"] == {}


async def test_what_a_tenant_used_is_counted_by_what_its_answers_had(sluice: Sluice) -> None:
    """What was taken in advance for an answer of 49 tokens comes back with one of 5."""
    await sluice.policy(limits={"tokens_per_day": 1000})
    body = start_body("demo?tokens=5&rate=0", **TAKES_ALL)
    await sluice.stream.post("/v1/streams", json=body)
    usage = (await sluice.api.get("/v1/usage")).json()
    assert set(usage["tokens"].values()) == {6}


@virtual
async def test_an_answer_may_wait_for_the_tokens_of_another_day() -> None:
    async with running() as sluice:
        await sluice.policy(limits={"tokens_per_day": 1000}, on_quota="pause")
        others = start_body("demo?tokens=850&rate=0", max_tokens=850)
        await sluice.stream.post("/v1/streams", json=others)
        stream = await sluice.launched("demo?tokens=300&rate=50")
        path = f"/v1/streams/{stream}"
        await asyncio.sleep(60)
        assert (await sluice.api.get(path)).json()["status"] == "paused"
        refused = await sluice.api.post(f"{path}/resume")
        assert_refused(refused, "tenant-tokens-per-day", 1000, 86_400)
        await asyncio.sleep(86_400)
        resumed = await sluice.api.post(f"{path}/resume")
        assert resumed.json()["status"] == "open"
        answer = await sluice.stream.get(f"{path}/events")
        await sluice.policy(limits={})
        whole = await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=300&rate=0"))
        told = [entry.event for entry in await sluice.audit(stream)]
    assert [d for _, n, d in events(answer.text) if n == "paused"] == [{"reason": "quota"}]
    assert text_of(answer.text) == text_of(whole.text)
    assert told == ["started", "paused", "resumed", "closed", "followed"]
