import asyncio
import json
import logging
import traceback
from contextlib import aclosing
from typing import Any

import pytest

from shared.errors import InvalidRequest, ProviderFailed
from shared.models import Ask, Finish, Message, Usage
from shared.models.openai import EVENT_CHARS_MAX, MODEL_CHARS_MAX, OpenAI
from tests.shared.models import wire
from tests.shared.models.asking import ask, collect, until_failure
from tests.shared.models.upstream import Peer, Script, Upstream, running
from tests.shared.models.wire import DONE, chunk, usage

CANARY = "canary-7f3a"


def says(*parts: bytes) -> Script:
    """A whole response of these parts, each sent as a piece of its own."""

    async def script(peer: Peer) -> None:
        await peer.begin()
        for part in parts:
            await peer.send(part)
        await peer.end()

    return script


def refuses(status: int, **headers: str) -> Script:
    async def script(peer: Peer) -> None:
        body = json.dumps({"error": {"message": f"{CANARY} {peer.request.headers}"}}).encode()
        await peer.begin(status, "application/json", **headers)
        await peer.send(body)
        await peer.end()

    return script


async def fails(provider: OpenAI, prompt: str = CANARY) -> tuple[ProviderFailed, list[Any]]:
    """The failure of an answer, which may show nothing, and what came before it."""
    failure, said = await until_failure(provider.stream(ask(prompt)))
    shown = "".join(traceback.format_exception(failure)) + json.dumps(failure.problem())
    assert "canary" not in shown
    return failure, said


ANSWER = [
    chunk("", role="assistant"),
    chunk("Grü"),
    chunk("ße 👩\u200d💻"),
    chunk(None),
    chunk(" und 東京"),
    chunk(None, "stop"),
    usage(12, 5),
    DONE,
]
TEXT = "Grüße 👩\u200d💻 und 東京"


async def test_an_answer(upstream: Upstream, openai: OpenAI) -> None:
    upstream.script = says(*ANSWER)
    deltas, finish = await collect(openai, ask())
    assert deltas == ["Grü", "ße 👩\u200d💻", " und 東京"]
    assert finish == Finish("stop", Usage(12, 5))


async def test_what_is_asked(upstream: Upstream, openai: OpenAI) -> None:
    upstream.script = says(*ANSWER)
    messages = (Message("system", "Be brief"), Message("user", "Hi ☃ \ud83d"))
    await collect(openai, Ask("org/model:free", messages, 77))
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-canary"
    assert request.headers["accept-encoding"] == "identity"
    assert request.json() == {
        "model": "org/model:free",
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Hi ☃ \ud83d"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 77,
    }


@pytest.mark.parametrize(
    ("base_url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://notapi.openai.com/v1", "max_tokens"),
        ("http://127.0.0.1:11434/v1", "max_tokens"),
    ],
)
def test_the_name_of_the_limit(base_url: str, field: str) -> None:
    assert OpenAI(base_url, "")._limit_field == field


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 100_000])
async def test_any_split_of_the_bytes(upstream: Upstream, openai: OpenAI, size: int) -> None:
    whole = b": hello\r\n\r\n" + b"".join(ANSWER).replace(b"\n", b"\r\n")
    upstream.script = says(*(whole[i : i + size] for i in range(0, len(whole), size)))
    deltas, finish = await collect(openai, ask())
    assert "".join(deltas) == TEXT
    assert finish == Finish("stop", Usage(12, 5))


async def test_keep_alive_comments(upstream: Upstream, openai: OpenAI) -> None:
    ping = b": OPENROUTER PROCESSING\n\n"
    upstream.script = says(
        ping, b"id: 1\n" + chunk("a"), ping, ping, b": x\n", b"event: message\n" + chunk("b"), ping,
        b"retry: 10\n\n", b"data:\n\n", chunk(None, "stop"), ping, DONE,
    )  # fmt: skip
    deltas, finish = await collect(openai, ask())
    assert deltas == ["a", "b"]
    assert finish == Finish("stop", None)


async def test_a_character_in_two_halves(upstream: Upstream, openai: OpenAI) -> None:
    halves = [
        rb'data: {"choices":[{"delta":{"content":"a\ud83d"}}]}' + b"\n\n",
        rb'data: {"choices":[{"delta":{"content":"\ude80b"}}]}' + b"\n\n",
        rb'data: {"choices":[{"delta":{"content":"\ud83d"},"finish_reason":"stop"}]}' + b"\n\n",
    ]
    upstream.script = says(*halves, DONE)
    deltas, _ = await collect(openai, ask())
    assert deltas == ["a", "🚀b", "\ufffd"]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "policy"),
        ("tool_calls", "stop"),
        ("function_call", "stop"),
        ("eos", "stop"),
    ],
)
async def test_finish_reasons(upstream: Upstream, openai: OpenAI, said: str, meant: str) -> None:
    upstream.script = says(chunk("x"), chunk(None, said), DONE)
    _, finish = await collect(openai, ask())
    assert finish.reason == meant


async def test_a_refusal_is_text(upstream: Upstream, openai: OpenAI) -> None:
    refusal = {"index": 0, "delta": {"content": None, "refusal": "I won't."}}
    upstream.script = says(chunk(choices=[refusal]), chunk(None, "stop"), DONE)
    deltas, _ = await collect(openai, ask())
    assert deltas == ["I won't."]


@pytest.mark.parametrize(
    "ending",
    [
        [DONE],
        [chunk(None, "stop")],
        [chunk(None, "stop"), usage(3, 1)],
        [chunk(None, "stop"), b"data: nonsense\n\n"],
    ],
    ids=["only [DONE]", "only a reason", "no [DONE]", "nonsense after the reason"],
)
async def test_either_end_is_an_end(
    upstream: Upstream, openai: OpenAI, ending: list[bytes]
) -> None:
    upstream.script = says(chunk("x"), *ending)
    deltas, finish = await collect(openai, ask())
    assert (deltas, finish.reason) == (["x"], "stop")


async def test_a_cut_after_the_reason_loses_nothing(upstream: Upstream, openai: OpenAI) -> None:
    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.send(chunk("x", "length"))
        peer.cut()

    upstream.script = script
    assert await collect(openai, ask()) == (["x"], Finish("length", None))


@pytest.mark.parametrize(
    "counts",
    [
        *(None, 7, [], {"prompt_tokens": "1"}),
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 1, "completion_tokens": 10**16},
    ],
    ids=str,
)
async def test_odd_usage_costs_no_answer(upstream: Upstream, openai: OpenAI, counts: Any) -> None:
    upstream.script = says(chunk("x"), chunk(None, "stop", usage=counts), DONE)
    assert await collect(openai, ask()) == (["x"], Finish("stop", None))


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (204, "refused", False),
        (302, "refused", False),
        (400, "refused", False),
        (401, "denied", False),
        (402, "refused", False),
        (403, "denied", False),
        (404, "refused", False),
        (408, "throttled", True),
        (413, "refused", False),
        (422, "refused", False),
        (429, "throttled", True),
        (500, "unavailable", True),
        (503, "unavailable", True),
        (529, "unavailable", True),
    ],
)
async def test_statuses(
    upstream: Upstream, openai: OpenAI, status: int, code: str, retryable: bool
) -> None:
    if status == 204:

        async def script(peer: Peer) -> None:
            await peer.raw(b"HTTP/1.1 204 No Content\r\n\r\n")

        upstream.script = script
    else:
        upstream.script = refuses(status, location="/elsewhere")
    failure, said = await fails(openai)
    assert (failure.code, failure.retryable, said) == (code, retryable, [])
    assert ("credentials" in failure.detail) == (status in (401, 403))
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"message": CANARY, "type": "server_error", "code": None}, True),
        ({"message": CANARY, "type": "invalid_request_error"}, False),
        ({"message": CANARY, "code": 400}, False),
        ({"message": CANARY, "code": "502"}, True),
        (CANARY, True),
    ],
    ids=str,
)
async def test_an_error_in_mid_stream(
    upstream: Upstream, openai: OpenAI, error: Any, retryable: bool
) -> None:
    upstream.script = says(chunk("x"), wire.data(error=error), DONE)
    failure, said = await fails(openai)
    assert (failure.code, failure.retryable, said) == ("upstream", retryable, ["x"])


async def test_a_reason_that_is_an_error(upstream: Upstream, openai: OpenAI) -> None:
    upstream.script = says(chunk("x"), chunk("", "error"), DONE)
    failure, _ = await fails(openai)
    assert (failure.code, failure.retryable) == ("upstream", True)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"data: {canary\n\n",
        b'data: "canary"\n\n',
        b"data: [1]\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: " + b"9" * 5000 + b"\n\n",
        wire.data(choices="canary"),
        wire.data(choices=["canary"]),
        wire.data(choices=[{"delta": ["canary"]}]),
        wire.data(choices=[{"delta": {"content": {"canary": 1}}}]),
        wire.data(choices=[{"delta": {}, "finish_reason": 9}]),
    ],
    ids=lambda data: data[:40].decode(),
)
async def test_nonsense(upstream: Upstream, openai: OpenAI, nonsense: bytes) -> None:
    upstream.script = says(chunk("x"), nonsense, DONE)
    failure, said = await fails(openai)
    assert (failure.code, said) == ("upstream", ["x"])


async def test_another_content_type(upstream: Upstream, openai: OpenAI) -> None:
    upstream.script = refuses(200)
    failure, _ = await fails(openai)
    assert (failure.code, failure.retryable) == ("upstream", False)


@pytest.mark.parametrize("line", [b"data: xxxxxxxx", b": canary\n", b"data: canary\n"])
async def test_what_makes_no_event_is_bounded(
    upstream: Upstream, openai: OpenAI, line: bytes
) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.begin()
        while sent < 10 * EVENT_CHARS_MAX:
            await peer.send(line * 5000)
            sent += len(line) * 5000

    upstream.script = script
    failure, _ = await fails(openai)
    assert failure.code == "upstream"
    assert sent < 10 * EVENT_CHARS_MAX


async def test_long_answers_are_not_bounded(upstream: Upstream, openai: OpenAI) -> None:
    upstream.script = says(*[chunk("x" * 60_000)] * 30, chunk(None, "stop"), DONE)
    deltas, _ = await collect(openai, ask())
    assert len("".join(deltas)) == 1_800_000


@pytest.mark.parametrize("how", ["abort", "end"])
async def test_a_cut(upstream: Upstream, openai: OpenAI, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.send(chunk("x") + chunk("never whole")[:-9])
        if how == "end":
            await peer.end()
        else:
            peer.cut()

    upstream.script = script
    failure, said = await fails(openai)
    assert (failure.code, failure.retryable, said) == ("cut", True, ["x"])


async def test_a_cut_before_the_response(upstream: Upstream, openai: OpenAI) -> None:
    async def script(peer: Peer) -> None:
        peer.cut()

    upstream.script = script
    failure, _ = await fails(openai)
    assert (failure.code, failure.retryable) == ("unavailable", True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://nowhere.invalid/v1"])
async def test_nobody_there(url: str) -> None:
    provider = OpenAI(url, "sk-canary", connect_timeout_s=2)
    failure, _ = await fails(provider)
    assert (failure.code, failure.retryable) == ("unavailable", True)
    await provider.aclose()


@pytest.mark.parametrize("before", [[], [chunk("x")]], ids=["at first", "in between"])
async def test_a_timeout(upstream: Upstream, before: list[bytes]) -> None:
    async def script(peer: Peer) -> None:
        if before:
            await peer.begin()
            await peer.send(before[0])
        await peer.gone()

    upstream.script = script
    provider = OpenAI(upstream.url, "sk-canary", read_timeout_s=0.1)
    failure, said = await fails(provider)
    assert (failure.code, failure.retryable, len(said)) == ("timeout", True, len(before))
    await provider.aclose()


async def test_closing_while_nothing_has_come(upstream: Upstream, openai: OpenAI) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.gone()
        gone.set()

    upstream.script = script
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), aclosing(openai.stream(ask())) as stream:
            await anext(stream)
    await asyncio.wait_for(gone.wait(), 2)


async def test_a_connection_is_used_again(upstream: Upstream, openai: OpenAI) -> None:
    upstream.script = says(*ANSWER)
    for _ in range(3):
        await collect(openai, ask())
    assert upstream.connections == 1


async def test_a_connection_that_may_have_broken_while_we_were_frozen_is_not_used_again(
    upstream: Upstream,
) -> None:
    passed_s = 0.0
    provider = OpenAI(upstream.url, "", clock=lambda: passed_s)

    async def script(peer: Peer) -> None:
        if len(upstream.requests) > upstream.connections:
            peer.cut()
            return
        await says(*ANSWER)(peer)

    upstream.script = script
    for _ in range(2):
        assert (await collect(provider, ask()))[1].reason == "stop"
        passed_s += 60
    await provider.aclose()


def test_another_loop_gets_its_own_connections() -> None:
    provider = OpenAI("http://127.0.0.1:1/v1", "")

    async def script(peer: Peer) -> None:
        # An idle connection of a loop that is gone would be Python's to close, with a warning.
        await peer.begin(connection="close")
        await peer.send(b"".join(ANSWER))
        await peer.end()

    async def session() -> None:
        async with running() as upstream:
            upstream.script = script
            provider._url = upstream.url
            for _ in range(2):
                assert (await collect(provider, ask()))[1].reason == "stop"

    asyncio.run(session())
    asyncio.run(session())
    asyncio.run(provider.aclose())


async def test_the_key_may_be_fetched(upstream: Upstream) -> None:
    async def fetch() -> str:
        return "sk-fetched\n"

    upstream.script = says(*ANSWER)
    provider = OpenAI(upstream.url, fetch)
    await collect(provider, ask())
    await provider.aclose()
    assert upstream.requests[0].headers["authorization"] == "Bearer sk-fetched"


async def test_no_key_is_a_choice(upstream: Upstream) -> None:
    upstream.script = says(*ANSWER)
    provider = OpenAI(upstream.url, "")
    await collect(provider, ask())
    await provider.aclose()
    assert "authorization" not in upstream.requests[0].headers


async def test_a_key_that_cannot_be_fetched() -> None:
    async def fetch() -> str:
        raise ValueError(CANARY)

    failure, _ = await fails(OpenAI("http://127.0.0.1:1", fetch))
    assert (failure.code, failure.retryable) == ("unavailable", True)


@pytest.mark.parametrize("key", ["sk-canary\nx", "sk-canary\x00", "sk-canary-ü"])
async def test_a_key_that_is_none(key: str) -> None:
    failure, _ = await fails(OpenAI("http://127.0.0.1:1", key))
    assert (failure.code, failure.retryable) == ("denied", False)
    assert "key" in failure.detail


async def test_the_key_is_not_told(
    upstream: Upstream, openai: OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.script = says(*ANSWER)
    await collect(openai, ask(CANARY))
    assert "canary" not in caplog.text + repr(openai)


@pytest.mark.parametrize("url", ["", "ftp://x", "api.openai.com/v1", "https://me:pw@host/v1"])
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        OpenAI(url, "")


def test_models_it_may_know() -> None:
    for good in ("gpt-5", "meta-llama/Llama-3:free", "x" * MODEL_CHARS_MAX):
        OpenAI("http://x", "").validate(good)
    for bad in ("", "x" * (MODEL_CHARS_MAX + 1), "a b", "a\n", "\x00", "a\u00a0b"):
        with pytest.raises(InvalidRequest) as caught:
            OpenAI("http://x", "").validate(bad)
        assert caught.value.extensions["field"] == "model"
