"""Events that are compressed, one by one."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from shared.authority import Caller
from shared.identity.keys import Key
from shared.middleware.compression import Compressed
from shared.tenants import Policy, Tenant

EVENTS = "text/event-stream; charset=utf-8"
PIECES = (b"id: 0\nevent: opened\n\n", b": hb\n", b'id: 1\ndata: {"text": "\xc3\xbc"}\n\n')


async def answered(
    asked: Mapping[str, str],
    *,
    pieces: Sequence[bytes] = PIECES,
    media: str = EVENTS,
    policy: Policy | None = None,
    method: str = "GET",
    ended: bool = True,
) -> tuple[Headers, list[bytes]]:
    """The headers of an answer, and what was sent for each piece of it."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", media.encode()), (b"content-length", b"999")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if ended:
            await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    tenant = Tenant("demo", policy or Policy(), suspended=False, secret=b"", created_at=0, rev=1)
    scope = {
        "type": "http",
        "method": method,
        "headers": [(name.encode(), value.encode()) for name, value in asked.items()],
        "state": {"caller": Caller(Key("demo", "test").identity(), tenant)},
    }
    await Compressed(app)(scope, receive, send)
    start, *bodies = sent
    return Headers(raw=start["headers"]), [message["body"] for message in bodies]


async def test_each_piece_can_be_read_as_soon_as_it_is_sent() -> None:
    headers, sent = await answered({"accept-encoding": "gzip, deflate, br, zstd"})
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == "Accept-Encoding"
    assert "content-length" not in headers
    reader = zlib.decompressobj(wbits=31)
    *pieces, end = sent
    assert [reader.decompress(piece) for piece in pieces] == [*PIECES]
    assert not reader.eof
    assert reader.decompress(end) == b""
    assert reader.eof


async def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    _, sent = await answered({"accept-encoding": "gzip"}, ended=False)
    reader = zlib.decompressobj(wbits=31)
    assert reader.decompress(b"".join(sent)) == b"".join(PIECES)
    assert not reader.eof


async def test_what_comes_again_is_not_sent_again() -> None:
    text = b'data: {"text":"Every reader sees the same chunks, in the same order."}\n\n'
    _, sent = await answered({"accept-encoding": "gzip"}, pieces=[text, text])
    assert len(sent[1]) < len(sent[0]) / 3


@pytest.mark.parametrize(
    "accepted", ["gzip", "GZIP", "br;q=1, gzip ;q=0.1", "gzip;q=0.001", "deflate,gzip"]
)
async def test_who_takes_gzip(accepted: str) -> None:
    headers, _ = await answered({"accept-encoding": accepted})
    assert headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"accept-encoding": ""},
        {"accept-encoding": "identity"},
        {"accept-encoding": "br, zstd"},
        {"accept-encoding": "gzip;q=0"},
        {"accept-encoding": "br, gzip; Q=0.00"},
        {"accept-encoding": "xgzip"},
        {"accept-encoding": "gzip", "via": "1.1 proxy.example"},
        {"accept-encoding": "gzip", "via": "1.1 proxy, 2.0 x.cloudfront.net (CloudFront)"},
    ],
)
async def test_who_does_not_take_it_or_may_not_get_it_in_time(asked: dict[str, str]) -> None:
    headers, sent = await answered(asked)
    assert "content-encoding" not in headers
    assert headers["vary"] == "Accept-Encoding"
    assert sent == [*PIECES, b""]


async def test_cloudfront_passes_on_what_it_gets() -> None:
    via = "2.0 0123456789abcdef.cloudfront.net (CloudFront)"
    headers, _ = await answered({"accept-encoding": "gzip", "via": via})
    assert headers["content-encoding"] == "gzip"


async def test_not_where_the_tenant_does_not_want_it() -> None:
    policy = Policy.from_document({"compression": "none"})
    headers, sent = await answered({"accept-encoding": "gzip"}, policy=policy)
    assert "content-encoding" not in headers
    assert sent == [*PIECES, b""]


@pytest.mark.parametrize("media", ["application/json", "text/html"])
async def test_nothing_but_events(media: str) -> None:
    headers, sent = await answered({"accept-encoding": "gzip"}, media=media)
    assert "content-encoding" not in headers
    assert "vary" not in headers
    assert sent == [*PIECES, b""]


async def test_a_head_has_nothing_to_compress() -> None:
    headers, sent = await answered({"accept-encoding": "gzip"}, pieces=(), method="HEAD")
    assert "content-encoding" not in headers
    assert sent == [b""]
