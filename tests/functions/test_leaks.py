"""A leak hunt: canaries go through everything that can happen, and each sink is searched for them.

What is secret is drawn once, and everything runs once; then each test looks into one place.
"""

import asyncio
import io
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio

from shared.errors import ProviderFailed, Unavailable
from shared.identity import jwks
from shared.logger import logger
from shared.metrics import ANSWER, FAILURE, PROBLEM, REDACTION, REFUSAL
from shared.models import Ask, Continuation, Finish, Models, Usage
from shared.models.demo import Demo
from shared.models.openai import OpenAI
from shared.records import Item
from tests.functions.conftest import ASYNC, Sluice, by, client, running, start_body
from tests.model_store import Key as Place
from tests.shared.identity.issuer import AUDIENCE, LocalIssuer
from tests.shared.models.upstream import Peer, Upstream
from tests.shared.models.upstream import running as upstreaming
from tests.told import Told

pytestmark = pytest.mark.asyncio(loop_scope="module")

DRAWN = secrets.token_hex(8)
PROMPT, OUTPUT, BANNED = (f"canary-{what}-{DRAWN}" for what in ("prompt", "output", "banned"))
KEY, OTHER_KEY, WRONG_KEY = (
    f"sk_{DRAWN[:8]}_canary{what}{DRAWN}" for what in ("key", "other", "wrong")
)
UPSTREAM_KEY = f"canary-upstream-key-{DRAWN}"
IDEMPOTENCY = f"canary-idempotency-{DRAWN}"
#: Whose streams they are: in records and in the audit, but in no log.
USER = f"canary-user-{DRAWN}"


class Speaking:
    """A provider that says the canary, and fails in every way with words that it should not use."""

    def validate(self, model: str) -> None:
        pass

    def continuation(self, model: str) -> Continuation:
        return Continuation.PROMPT

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        said = f"{ask.messages[-1].content} {OUTPUT} "
        early, _, how = ask.model.partition("-")
        if early == "late":
            yield said
        match how:
            case "bug":
                raise ValueError(said)
            case "key-error":
                raise KeyError(said)
            case "group":
                raise ExceptionGroup(said, [ValueError(said)])
            case "lost":
                raise ConnectionError(said)
            case "failure":
                raise ProviderFailed("The model failed.", code="upstream", retryable=True)
            case "broken-off":
                return
        yield said
        yield Finish("stop", Usage(1, 2))


HOWS = ("bug", "key-error", "group", "lost", "failure", "broken-off")


@dataclass
class Heard:
    """What came out of it all."""

    sluice: Sluice
    told: Told
    #: Answers by what was asked.
    answers: list[tuple[str, httpx.Response]] = field(default_factory=list)
    #: Tokens and tickets that were made on the way.
    made: set[str] = field(default_factory=set)
    lines: io.StringIO = field(default_factory=io.StringIO)
    records: list[logging.LogRecord] = field(default_factory=list)

    async def ask(
        self, method: str, path: str, key: str = KEY, /, *, app: str = "api", **more: Any
    ) -> httpx.Response:
        asgi = self.sluice.stream_app if app == "stream" else self.sluice.api_app
        headers = {**(by(key) if key else {}), **more.pop("headers", {})}
        async with client(asgi, "") as asking:
            # What is not foreseen goes up to the server, which tells only that it came.
            asking._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
            answer = await asking.request(method, path, headers=headers, **more)
        self.answers.append((f"{method} {path}", answer))
        return answer

    async def start(self, model: str, key: str = KEY, /, **more: Any) -> httpx.Response:
        """A start over each of the functions; the answer of the one that streams."""
        body = {**start_body(model), "messages": [{"role": "user", "content": PROMPT}]}
        headers = more.pop("headers", {})
        asked = {**body, **more}
        await self.ask("POST", "/v1/streams", key, json=asked, headers={**headers, **ASYNC})
        await asyncio.gather(*self.sluice.productions.tasks, return_exceptions=True)
        return await self.ask("POST", "/v1/streams", key, app="stream", json=asked, headers=headers)

    @property
    def problems(self) -> list[tuple[str, httpx.Response]]:
        return [(asked, answer) for asked, answer in self.answers if answer.status_code >= 400]

    def items(self, *tables: str) -> dict[Place, Item]:
        return {at: i for at, i in self.sluice.store.items.items() if at[0] in tables}


class Keeping(logging.Handler):
    def __init__(self, kept: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record)


@contextmanager
def listening(heard: Heard) -> Iterator[None]:
    """Everything that anybody logs, and the lines of our own as they are written."""
    lines = logging.StreamHandler(heard.lines)
    lines.setFormatter(logger.registered_formatter)
    keeping, root = Keeping(heard.records), logging.getLogger()
    pairs: list[tuple[logging.Logger, logging.Handler]]
    pairs = [(root, keeping), (logger._logger, lines)]
    levels = [each.level for each, _ in pairs]
    for each, handler in pairs:
        each.addHandler(handler)
        each.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for (each, handler), level in zip(pairs, levels, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)


async def echoing(peer: Peer) -> None:
    """An upstream that gives back all that it was sent: the prompt, and the key."""
    request = peer.request
    asked = request.json()
    heard = f"{request.headers['authorization']} {asked['messages']} {OUTPUT}"
    status = asked["model"].removeprefix("status-")
    if status == "cut":
        await peer.begin()
        await peer.send(_delta(OUTPUT))
        peer.cut()
    elif status == "event":
        await peer.begin()
        await peer.send(_delta(OUTPUT))
        await peer.send(_event({"error": {"message": heard, "code": heard, "type": heard}}))
        await peer.end()
    elif status == "nonsense":
        await peer.begin()
        await peer.send(f"data: {heard}\n\n".encode())
        await peer.end()
    else:
        await peer.begin(int(status), "application/json", **{"x-heard": heard.replace("\n", " ")})
        await peer.send(json.dumps({"error": {"message": heard, "code": heard}}).encode())
        await peer.end()


def _delta(text: str) -> bytes:
    return _event({"choices": [{"index": 0, "delta": {"content": text}}]})


def _event(data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


UPSTREAM_FATES = (400, 401, 403, 404, 413, 422, 429, 500, 503, "cut", "event", "nonsense")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def heard() -> AsyncIterator[Heard]:
    with LocalIssuer() as issuer:
        async with upstreaming() as upstream:
            upstream.script = echoing
            fetch = partial(jwks.fetch, loopback=True)
            told = Told()
            parts = {"fetch": fetch, "models": models(upstream), "metrics": told.metrics()}
            async with running(**parts) as sluice:
                found = Heard(sluice, told)
                with listening(found):
                    await populate(sluice, issuer)
                    for part in (streams, failures, refusals, credentials, limits, policies):
                        await part(found)
                    await tokens(found, issuer)
                    await outages(found)
                    await erasures(found)
                yield found


def models(upstream: Upstream) -> Models:
    openai = OpenAI(f"{upstream.url}/v1", UPSTREAM_KEY, read_timeout_s=2)
    return Models({"demo": Demo(), "canary": Speaking(), "openai": openai})


async def populate(sluice: Sluice, issuer: LocalIssuer) -> None:
    trusted = {"issuer": issuer.url, "jwks_url": issuer.jwks_url, "audience": AUDIENCE}
    await sluice.policy(issuers=[trusted], addresses="full")
    await sluice.add_key(KEY, user=USER)
    await sluice.add_key(OTHER_KEY, "other")


async def streams(heard: Heard) -> None:
    """All that goes well."""
    answer = await heard.start("canary/x", metadata={"a": "b"})
    assert OUTPUT in answer.text
    path = f"/v1/streams/{answer.headers['stream-id']}"
    for end in ("", "/chunks", "/cancel", "/grant", "/ticket"):
        method = "GET" if end in ("", "/chunks") else "POST"
        reply = await heard.ask(method, f"{path}{end}")
        assert reply.is_success
        if end == "/ticket":
            ticket = reply.json()["ticket"]
            heard.made.add(ticket)
    for end, app in (("/chunks", "api"), ("/events", "stream"), ("/export", "stream")):
        await heard.ask("GET", f"{path}{end}", "", app=app, params={"ticket": ticket})
        await heard.ask("GET", f"{path}{end}", app=app)
    await heard.ask("GET", f"{path}/events", "", app="stream", params={"ticket": ticket + "x"})
    for asked in ("/v1/streams", "/v1/usage", "/v1/audit"):
        await heard.ask("GET", asked)
    await heard.ask("GET", f"/v1/users/{USER}/export", app="stream")


async def failures(heard: Heard) -> None:
    """Every way in which a provider fails, before its first text and after it."""
    for early in ("early", "late"):
        for how in HOWS:
            answer = await heard.start(f"canary/{early}-{how}")
            assert answer.status_code in ((200,) if early == "late" else (500, 502))
    for fate in UPSTREAM_FATES:
        await heard.start(f"openai/status-{fate}")


async def refusals(heard: Heard) -> None:
    """What is wrong with a request, which quotes what it must not."""
    for content in (f'{{"{PROMPT}', f'"{PROMPT}"', f'{{"model": "{PROMPT}\\ud800"}}', PROMPT):
        for app in ("stream", "api"):
            await heard.ask("POST", "/v1/streams", app=app, content=content, headers=ASYNC)
    said = {"role": "user", "content": PROMPT}
    for body in (
        {"model": "demo", "messages": [{**said, "role": PROMPT}]},
        {"model": "demo", "messages": [{"role": "user", "content": [PROMPT]}]},
        {"model": "demo", "messages": PROMPT},
        {"model": "demo", "messages": [said], "max_tokens": PROMPT},
        {"model": "demo", "messages": [said], "metadata": {"a": [PROMPT]}},
        {"model": "demo", "messages": [said], "pacing": PROMPT},
        {"model": "demo", "messages": [said], "parent": PROMPT},
        {"model": "demo", "messages": [{**said, "content": PROMPT * 9000}]},
    ):
        await heard.ask("POST", "/v1/streams", json=body, headers=ASYNC)
    keyed = {"idempotency-key": IDEMPOTENCY}
    for model in ("demo?tokens=1", "demo?tokens=2"):
        await heard.start(model, headers=keyed)
    await heard.start("demo", headers={"idempotency-key": "é".encode("latin-1") + PROMPT.encode()})
    for query in ({"after": PROMPT}, {"limit": PROMPT}, {"page": PROMPT}):
        await heard.ask("GET", "/v1/streams", params=query)
        await heard.ask("GET", "/v1/audit", params=query)
    # What is in the wrong place.
    for path in (KEY, f"{KEY}/chunks", PROMPT):
        assert (await heard.ask("GET", f"/v1/streams/{path}")).status_code == 404
    await heard.ask("GET", "/v1/streams/x/events", app="stream", headers={"last-event-id": PROMPT})


async def credentials(heard: Heard) -> None:
    """Keys and tickets that are not good, or not for this."""
    for key in (WRONG_KEY, OTHER_KEY):
        await heard.start("demo?tokens=1", key)
        for _, answer in list(heard.answers)[-2:]:
            if stream := answer.headers.get("stream-id"):
                await heard.ask("GET", f"/v1/streams/{stream}")
    for header in (f"Basic {WRONG_KEY}", WRONG_KEY, f"Bearer {WRONG_KEY} {WRONG_KEY}"):
        await heard.ask("GET", "/v1/streams", "", headers={"authorization": header})
    for ticket in (WRONG_KEY, f"tk_{WRONG_KEY}.{WRONG_KEY}"):
        await heard.ask("GET", "/v1/streams", "", params={"ticket": ticket})


async def limits(heard: Heard) -> None:
    await heard.sluice.policy(user_limits={"starts_per_minute": 1, "max_tokens": 100})
    for _ in range(2):
        await heard.start("demo?tokens=1")
    await heard.start("demo?tokens=1", max_tokens=101)
    await heard.sluice.policy(user_limits={})


async def policies(heard: Heard) -> None:
    """Rules that refuse a prompt, and that end an answer."""
    words = [{"word": BANNED, "mode": "close", "name": "banned"}]
    await heard.sluice.policy(redaction={"prompts": True, "words": words})
    body = {"model": "demo", "messages": [{"role": "user", "content": f"a {BANNED} b"}]}
    for app in ("stream", "api"):
        refused = await heard.ask("POST", "/v1/streams", app=app, json=body, headers=ASYNC)
        assert refused.status_code == 422
    named = {**start_body("demo?tokens=1"), "metadata": {f"a {BANNED} b": "c"}}
    for mode, status in (("close", 422), ("mask", 400)):
        words = [{"word": BANNED, "mode": mode, "name": "banned"}]
        await heard.sluice.policy(redaction={"prompts": True, "words": words})
        for app in ("stream", "api"):
            refused = await heard.ask("POST", "/v1/streams", app=app, json=named, headers=ASYNC)
            assert refused.status_code == status
    words = [{"word": OUTPUT, "mode": "close", "name": "output"}]
    await heard.sluice.policy(redaction={"words": words})
    answer = await heard.start("canary/x")
    assert OUTPUT not in answer.text
    await heard.sluice.policy(redaction={})


async def tokens(heard: Heard, issuer: LocalIssuer) -> None:
    """Good and bad ones."""
    good = issuer.token(sub=USER, scope="stream read")
    bad = [issuer.token(aud=PROMPT), issuer.token(exp=1), issuer.token(iss=PROMPT), good + "A"]
    heard.made |= {good, *bad} | {token.rpartition(".")[2] for token in (good, *bad)}
    for token in (good, *bad):
        await heard.start("demo?tokens=1", token)
        await heard.ask("GET", "/v1/audit", token)


async def outages(heard: Heard) -> None:
    """A store that fails, and a bug of ours that quotes what it was given."""
    services = heard.sluice.services
    with pytest.MonkeyPatch.context() as patch:

        async def unavailable(*_: Any, **__: Any) -> Any:
            raise Unavailable("The database does not answer.") from ValueError(PROMPT)

        patch.setattr(services.lifecycle, "open", unavailable)
        await heard.start("demo?tokens=1")

    with pytest.MonkeyPatch.context() as patch:

        async def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError(f"{PROMPT} {KEY}")

        patch.setattr(services.lifecycle, "open", broken)
        answer = await heard.start("demo?tokens=1")
        assert answer.status_code == 500


async def erasures(heard: Heard) -> None:
    found = (await heard.ask("GET", "/v1/streams")).json()["streams"]
    await heard.ask("DELETE", f"/v1/streams/{found[0]['id']}")
    erasing = await heard.ask("DELETE", f"/v1/users/{USER}-of-old/streams")
    await heard.ask("GET", erasing.headers["location"])


def assert_silent(text: str, secret: set[str]) -> None:
    for canary in secret:
        at = text.find(canary)
        assert at < 0, f"{canary} in …{text[max(at - 200, 0) : at + 200]}…"


def secret_of(heard: Heard, *more: str) -> set[str]:
    """Credentials, which belong nowhere."""
    return {KEY, OTHER_KEY, WRONG_KEY, UPSTREAM_KEY, *heard.made, *more}


async def test_all_of_it_happened(heard: Heard) -> None:
    """Else silence would mean nothing."""
    seen = {answer.status_code for _, answer in heard.answers}
    assert seen >= {200, 201, 202, 204, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503}
    reasons = {str(i.get("finish_reason")) for i in heard.items("streams").values()}
    assert reasons >= {"stop", "error", "policy"}
    told = {str(item["event"]) for item in heard.items("audit").values()}
    assert told >= {"started", "closed", "refused", "followed", "polled", "exported", "deleted"}
    assert len(heard.lines.getvalue().splitlines()) > 100
    assert {record.levelname for record in heard.records} >= {"INFO", "WARNING", "ERROR"}


async def test_no_line_of_our_log_has_any(heard: Heard) -> None:
    lines = heard.lines.getvalue()
    assert_silent(lines, secret_of(heard, PROMPT, OUTPUT, BANNED, IDEMPOTENCY, USER))
    for line in lines.splitlines():
        json.loads(line)


async def test_nothing_that_anyone_logs_has_any(heard: Heard) -> None:
    """But this test's own client, which is httpx like the provider's."""
    told = [r for r in heard.records if not r.name.startswith(("httpx", "httpcore"))]
    assert told
    text = "\n".join(f"{r.name} {r.getMessage()} {r.__dict__}" for r in told)
    assert_silent(text, secret_of(heard, PROMPT, OUTPUT, BANNED, IDEMPOTENCY, USER))


async def test_no_metric_tells_more_than_names(heard: Heard) -> None:
    assert {said.line for said in heard.told.said} >= {ANSWER, FAILURE, PROBLEM, REFUSAL, REDACTION}
    secret = secret_of(heard, PROMPT, OUTPUT, BANNED, IDEMPOTENCY, USER)
    assert_silent(str(heard.told.said), secret)


async def test_no_problem_has_any(heard: Heard) -> None:
    assert len(heard.problems) > 50
    secret = secret_of(heard, PROMPT, OUTPUT, BANNED, USER)
    for asked, answer in heard.problems:
        assert answer.headers["content-type"] == "application/problem+json", asked
        assert_silent(answer.text + str(answer.headers), secret)


async def test_no_closed_event_and_no_summary_tells_more_than_that_it_failed(
    heard: Heard,
) -> None:
    summaries = [item for at, item in heard.items("streams").items() if at[2] == -1]
    failed = [item for item in summaries if item.get("status") == "failed"]
    assert len(failed) > 20
    for item in summaries:
        assert_silent(json.dumps(item), secret_of(heard, PROMPT, OUTPUT, BANNED, IDEMPOTENCY))
    closed = [item for item in heard.items("streams").values() if item.get("kind") == "closed"]
    for item in closed:
        assert_silent(json.dumps(item), secret_of(heard, PROMPT, OUTPUT, BANNED))


async def test_the_audit_tells_who_and_never_what(heard: Heard) -> None:
    entries = heard.items("audit")
    assert any(USER in str(item["actor"]) for item in entries.values())
    text = json.dumps([str(entry) for entry in entries.items()])
    assert_silent(text, secret_of(heard, PROMPT, OUTPUT, BANNED, IDEMPOTENCY))


async def test_what_was_said_is_in_records_only(heard: Heard) -> None:
    text = json.dumps([str(entry) for entry in heard.items("tenants").items()])
    # The tenant's own rules name what it does not want to see.
    assert_silent(text, secret_of(heard, PROMPT, IDEMPOTENCY))
    said = [at for at, i in heard.items("streams").items() if OUTPUT in str(i)]
    assert said
    assert {heard.sluice.store.items[at]["kind"] for at in said} == {"text"}


async def test_what_a_rule_refuses_is_nowhere(heard: Heard) -> None:
    text = json.dumps([str(entry) for entry in heard.items("streams", "audit").items()])
    assert_silent(text, {BANNED})


async def test_credentials_are_in_no_table(heard: Heard) -> None:
    text = json.dumps([str(e) for e in heard.items("streams", "tenants", "audit").items()])
    assert_silent(text, secret_of(heard))


async def test_only_whom_it_is_for_gets_a_ticket(heard: Heard) -> None:
    for asked, answer in heard.answers:
        held = "tk_" in answer.text + str(answer.headers)
        assert held is (answer.status_code == 202 and asked == "POST /v1/streams") or (
            answer.status_code == 201
        ), asked
