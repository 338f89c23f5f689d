import asyncio
import json
import ssl
import threading
import traceback
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.errors import InvalidRequest, ProviderFailed
from shared.models import Ask, Finish, Message, Usage
from shared.models.bedrock import EVENTS_AHEAD_MAX, Bedrock, _Reader
from tests.shared.models.asking import MODEL, ask, collect, no_threads, until_failure
from tests.shared.models.upstream import Peer, Script, Upstream, running
from tests.shared.models.wire import delta, event, exception, metadata, stop

CANARY = "canary-7f3a"
EVENT_STREAM = "application/vnd.amazon.eventstream"


def says(*parts: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.begin(content_type=EVENT_STREAM)
        for part in parts:
            await peer.send(part)
        await peer.end()

    return script


async def fails(provider: Bedrock) -> tuple[ProviderFailed, list[Any]]:
    """The failure of an answer, which may show nothing, and what came before it."""
    failure, said = await until_failure(provider.stream(ask(CANARY)))
    shown = "".join(traceback.format_exception(failure)) + json.dumps(failure.problem())
    assert "canary" not in shown
    return failure, said


ANSWER = [
    event("messageStart", role="assistant"),
    delta("Grü"),
    delta("ße 👩\u200d💻"),
    delta(""),
    event("contentBlockDelta", contentBlockIndex=1, delta={"reasoningContent": {"text": "hm"}}),
    event("somethingNew", x=1),
    delta(" und 東京"),
    event("contentBlockStop", contentBlockIndex=0),
    stop(),
    metadata(12, 5),
]


async def test_an_answer(upstream: Upstream, bedrock: Bedrock) -> None:
    upstream.script = says(*ANSWER)
    deltas, finish = await collect(bedrock, ask())
    assert deltas == ["Grü", "ße 👩\u200d💻", " und 東京"]
    assert finish == Finish("stop", Usage(12, 5))


@pytest.mark.parametrize("counts", [(-1, 2), (1, 10**16)])
async def test_odd_usage_costs_no_answer(
    upstream: Upstream, bedrock: Bedrock, counts: tuple[int, int]
) -> None:
    upstream.script = says(delta("x"), stop(), metadata(*counts))
    assert await collect(bedrock, ask()) == (["x"], Finish("stop", None))


async def test_what_is_asked(upstream: Upstream, bedrock: Bedrock) -> None:
    upstream.script = says(*ANSWER)
    messages = (
        Message("system", "Be brief"),
        Message("user", "Hi"),
        Message("user", "  \n"),
        Message("user", "there"),
        Message("assistant", "Hello "),
        Message("system", "And kind"),
        Message("user", "Go on"),
        Message("assistant", "Once upon \n"),
    )
    await collect(bedrock, Ask(MODEL, messages, 77))
    (request,) = upstream.requests
    assert request.method == "POST"
    assert request.path == "/model/maker.model-v1%3A0/converse-stream"
    assert "/eu-central-1/bedrock/aws4_request" in request.headers["authorization"]
    assert request.json() == {
        "system": [{"text": "Be brief"}, {"text": "And kind"}],
        "messages": [
            {"role": "user", "content": [{"text": "Hi"}, {"text": "there"}]},
            {"role": "assistant", "content": [{"text": "Hello "}]},
            {"role": "user", "content": [{"text": "Go on"}]},
            {"role": "assistant", "content": [{"text": "Once upon"}]},
        ],
        "inferenceConfig": {"maxTokens": 77},
    }


@pytest.mark.parametrize(
    "messages",
    [(), (Message("system", "x"),), (Message("assistant", "x"),), (Message("user", " "),)],
    ids=len,
)
async def test_the_user_begins(
    upstream: Upstream, bedrock: Bedrock, messages: tuple[Message, ...]
) -> None:
    with pytest.raises(ProviderFailed) as caught:
        await collect(bedrock, Ask(MODEL, messages))
    assert (caught.value.code, caught.value.retryable) == ("refused", False)
    assert not upstream.connections


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_any_split_of_the_bytes(upstream: Upstream, bedrock: Bedrock, size: int) -> None:
    whole = b"".join(ANSWER)
    upstream.script = says(*(whole[i : i + size] for i in range(0, len(whole), size)))
    deltas, finish = await collect(bedrock, ask())
    assert "".join(deltas) == "Grüße 👩\u200d💻 und 東京"
    assert finish.usage == Usage(12, 5)


async def test_stop_reasons(upstream: Upstream, bedrock: Bedrock) -> None:
    for said, meant in {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "guardrail_intervened": "policy",
        "content_filtered": "policy",
        "something_new": "stop",
    }.items():
        upstream.script = says(delta("x"), stop(said))
        assert await collect(bedrock, ask()) == (["x"], Finish(meant, None))  # type: ignore[arg-type]
    upstream.script = says(delta("x"), stop("malformed_model_output"))
    failure, _ = await fails(bedrock)
    assert (failure.code, failure.retryable) == ("upstream", True)


async def test_refusals(upstream: Upstream, bedrock: Bedrock) -> None:
    for status, kind, code, retryable in [
        (429, "ThrottlingException", "throttled", True),
        (400, "ServiceQuotaExceededException", "throttled", True),
        (429, "ModelNotReadyException", "unavailable", True),
        (503, "ServiceUnavailableException", "unavailable", True),
        (500, "InternalServerException", "unavailable", True),
        (408, "ModelTimeoutException", "timeout", True),
        (424, "ModelErrorException", "upstream", True),
        (400, "ValidationException", "refused", False),
        (404, "ResourceNotFoundException", "refused", False),
        (403, "AccessDeniedException", "denied", False),
        (403, "ExpiredTokenException:http://internal.amazon.com/", "denied", False),
        (403, "SomethingNew", "denied", False),
        (418, "SomethingNew", "refused", False),
        (429, "SomethingNew", "throttled", True),
        (502, "", "unavailable", True),
    ]:

        async def script(peer: Peer, status: int = status, kind: str = kind) -> None:
            await peer.begin(status, "application/json", **{"x-amzn-errortype": kind})
            await peer.send(json.dumps({"message": CANARY}).encode())
            await peer.end()

        upstream.script = script
        upstream.requests.clear()
        failure, said = await fails(bedrock)
        assert (failure.code, failure.retryable, said) == (code, retryable, []), kind
        assert ("credentials" in failure.detail) == (status == 403), kind
        assert len(upstream.requests) == 1, "an answer may not be paid for twice"


async def test_exceptions_in_the_stream(upstream: Upstream, bedrock: Bedrock) -> None:
    for kind, code, retryable in [
        ("throttlingException", "throttled", True),
        ("modelStreamErrorException", "upstream", True),
        ("internalServerException", "unavailable", True),
        ("serviceUnavailableException", "unavailable", True),
        ("validationException", "refused", False),
        ("somethingNewException", "upstream", True),
    ]:
        upstream.script = says(delta("x"), exception(kind, CANARY))
        failure, said = await fails(bedrock)
        assert (failure.code, failure.retryable, said) == (code, retryable, ["x"]), kind


def flip(data: bytes, position: int) -> bytes:
    broken = bytearray(data)
    broken[position] ^= 1
    return bytes(broken)


async def test_broken_frames(upstream: Upstream, bedrock: Bedrock) -> None:
    for broken, code in {
        delta("canary")[:-9]: "cut",  # and an orderly end of the response
        flip(delta("canary"), 9): "upstream",  # CRC of the prelude
        flip(delta("canary"), -1): "upstream",  # CRC of the message
        flip(delta("canary"), -8): "upstream",
        event("contentBlockDelta", delta="canary"): "upstream",
        b"<html>canary canary canary canary</html>": "upstream",
    }.items():
        upstream.script = says(delta("x"), broken)
        failure, said = await fails(bedrock)
        assert (failure.code, failure.retryable, said) == (code, True, ["x"]), broken


async def test_cuts(upstream: Upstream, bedrock: Bedrock) -> None:
    async def at_first(peer: Peer) -> None:
        peer.cut()

    async def in_between(peer: Peer) -> None:
        await peer.begin(content_type=EVENT_STREAM)
        await peer.send(delta("x"))
        await peer.send(delta("never whole")[:20])
        peer.cut()

    async def in_the_end(peer: Peer) -> None:
        await peer.begin(content_type=EVENT_STREAM)
        await peer.send(delta("x") + stop())
        peer.cut()

    upstream.script = at_first
    failure, said = await fails(bedrock)
    assert (failure.code, failure.retryable, said) == ("unavailable", True, [])
    upstream.script = in_between
    failure, said = await fails(bedrock)
    assert (failure.code, failure.retryable, said) == ("cut", True, ["x"])
    upstream.script = in_the_end
    assert await collect(bedrock, ask()) == (["x"], Finish("stop", None))


async def test_timeouts(upstream: Upstream, aws: None) -> None:
    async def at_first(peer: Peer) -> None:
        await peer.gone()

    async def in_between(peer: Peer) -> None:
        await peer.begin(content_type=EVENT_STREAM)
        await peer.send(delta("x"))
        await peer.gone()

    provider = Bedrock({MODEL}, "eu-central-1", upstream.url, read_timeout_s=0.1)
    for script, before in ((at_first, []), (in_between, ["x"])):
        upstream.script = script
        failure, said = await fails(provider)
        assert (failure.code, failure.retryable, said) == ("timeout", True, before)
    await provider.aclose()


async def test_nobody_there(aws: None) -> None:
    provider = Bedrock({MODEL}, "eu-central-1", "http://127.0.0.1:1")
    failure, _ = await fails(provider)
    assert (failure.code, failure.retryable) == ("unavailable", True)


async def test_no_credentials(
    upstream: Upstream, bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    failure, _ = await fails(bedrock)
    assert (failure.code, failure.retryable) == ("denied", False)
    assert "credentials" in failure.detail
    assert not upstream.connections


async def test_closing_while_nothing_has_come(upstream: Upstream, bedrock: Bedrock) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        asked.set()
        await answer.wait()
        await peer.begin(content_type=EVENT_STREAM)
        await peer.gone()

    upstream.script = script
    stream = bedrock.stream(ask())
    first = asyncio.ensure_future(anext(stream))
    await asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    answer.set()  # here the thread learns of it
    await no_threads()


async def test_a_slow_consumer_stops_the_thread(upstream: Upstream, bedrock: Bedrock) -> None:
    upstream.script = says(*[delta("x")] * (5 * EVENTS_AHEAD_MAX), stop())
    async with aclosing(bedrock.stream(ask())) as stream:
        assert await anext(stream) == "x"
        await asyncio.sleep(0.1)
        reader = cast("Any", stream).ag_frame.f_locals["reader"]
        assert 0 < reader._events.qsize() <= EVENTS_AHEAD_MAX
        rest = [item async for item in stream]
    assert len(rest) == 5 * EVENTS_AHEAD_MAX
    assert rest[-1] == Finish("stop", None)


async def test_closing_ends_a_thread_that_waits_for_room(
    upstream: Upstream, bedrock: Bedrock
) -> None:
    upstream.script = says(*[delta("x")] * (5 * EVENTS_AHEAD_MAX), stop())
    async with aclosing(bedrock.stream(ask())) as stream:
        await anext(stream)
        await asyncio.sleep(0.1)
    await no_threads()


def test_a_loop_that_ends_too_early(aws: None) -> None:
    """What nobody closed is closed with the loop; the thread goes too, and says nothing."""

    async def leave() -> None:
        async with running() as upstream:
            upstream.script = says(*ANSWER)
            provider = Bedrock({MODEL}, "eu-central-1", upstream.url)
            stream = provider.stream(ask())
            assert await anext(stream) == "Grü"
            await provider.aclose()

    asyncio.run(leave())
    asyncio.run(no_threads())


def test_a_loop_that_was_just_closed() -> None:
    may_open = threading.Event()

    def open_stream() -> Any:
        may_open.wait(3)
        raise OSError

    async def begin() -> _Reader:
        return _Reader(open_stream)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    may_open.set()
    asyncio.run(no_threads())


async def test_a_connection_is_used_again(upstream: Upstream, bedrock: Bedrock) -> None:
    upstream.script = says(*ANSWER)
    for _ in range(3):
        await collect(bedrock, ask())
    assert upstream.connections == 1


async def test_a_connection_that_may_have_broken_while_we_were_frozen_is_not_used_again(
    upstream: Upstream, aws: None
) -> None:
    passed_s = 0.0
    provider = Bedrock({MODEL}, "eu-central-1", upstream.url, clock=lambda: passed_s)

    async def script(peer: Peer) -> None:
        if len(upstream.requests) > upstream.connections:
            peer.cut()
            return
        await says(*ANSWER)(peer)

    upstream.script = script
    for _ in range(2):
        assert (await collect(provider, ask()))[1].reason == "stop"
        passed_s += 60
    await no_threads()
    await provider.aclose()


async def test_closing_under_tls(
    aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on AWS: a blocked read of an encrypted connection ends as well."""
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(self_signed())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.begin(content_type=EVENT_STREAM)
        await peer.send(delta("x"))
        await peer.gone()
        gone.set()

    async with running(context) as upstream:
        upstream.script = script
        provider = Bedrock({MODEL}, "eu-central-1", upstream.url, read_timeout_s=5)
        async with aclosing(provider.stream(ask())) as stream:
            assert await anext(stream) == "x"
            await asyncio.sleep(0.05)  # the thread reads on, and nothing comes
        await no_threads()
        await asyncio.wait_for(gone.wait(), 2)
        await provider.aclose()


def self_signed() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_only_the_models_that_were_allowed() -> None:
    provider = Bedrock(["maker.b", "maker.a"], "eu-central-1")
    provider.validate("maker.a")
    for bad in ("", "maker", "maker.a ", "MAKER.A"):
        with pytest.raises(InvalidRequest) as caught:
            provider.validate(bad)
        assert caught.value.extensions["field"] == "model"
        assert "maker.a, maker.b" in caught.value.detail
