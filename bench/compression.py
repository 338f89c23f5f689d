"""What compression of events saves on the wire, and what it costs: CPU, and memory of a connection.

An answer of 500 tokens, in as many chunks as the default pacing makes of ten seconds of it, passes
the middleware chunk by chunk, as it is produced; and once more in one piece, as it is read again.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from resource import getpagesize

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.parts import ROOT, Bench
from bench.rows import Row
from shared.authority import Caller
from shared.dialects import native
from shared.identity.keys import Key
from shared.middleware.compression import Compressed
from shared.records import Kind, Record
from shared.tenants import Policy, Tenant

TOKENS, CHUNKS = 500, 48
PLAIN = "not compressed"

_Around = Callable[[ASGIApp], ASGIApp]


async def measure(bench: Bench) -> list[Row]:
    rounds, connections = (2, 50) if bench.quick else (50, 500)
    rows = []
    for kind, text in _texts().items():
        bench.say(kind)
        events = _events(text)
        for what, pieces in (("", events), (", read again", [b"".join(events)])):
            size, cpu_us = await _passed(Compressed, pieces, rounds)
            plain, plain_us = await _passed(_as_it_is, pieces, rounds)
            answer = f"an answer of {kind}{what}"
            rows.append(Row("compression", f"{answer}: sent", size, "B", PLAIN, plain))
            rows.append(Row("compression", f"{answer}: CPU", cpu_us, "µs", PLAIN, plain_us))
    bench.say("memory")
    kept = [await _kept_kib(around, events, connections) for around in (_as_it_is, Compressed)]
    return [*rows, Row("compression", "memory of a connection", kept[1], "KiB", PLAIN, kept[0])]


def _as_it_is(app: ASGIApp) -> ASGIApp:
    return app


async def _passed(around: _Around, pieces: Sequence[bytes], rounds: int) -> tuple[int, float]:
    """Bytes that are sent, and the least CPU time that it took, in µs."""
    taken, sent = [], 0
    for _ in range(rounds):
        began = time.process_time_ns()
        sent = await _send(around, pieces)
        taken.append((time.process_time_ns() - began) / 1e3)
    return sent, min(taken)


async def _kept_kib(around: _Around, pieces: Sequence[bytes], connections: int) -> float:
    """What each of many connections keeps that are open at once."""
    over = asyncio.Event()
    before = _resident_kib()
    tasks = [asyncio.create_task(_send(around, pieces, over)) for _ in range(connections)]
    await asyncio.sleep(0)
    kept = (_resident_kib() - before) / connections
    over.set()
    await asyncio.gather(*tasks)
    return kept


async def _send(around: _Around, pieces: Sequence[bytes], over: asyncio.Event | None = None) -> int:
    """Send a response with these pieces, which ends when it is over; the bytes of its body."""
    sent = 0

    async def app(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if over:
            await over.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))

    tenant = Tenant("bench", Policy(), suspended=False, secret=b"", created_at=0, rev=1)
    scope = {
        "type": "http",
        "method": "GET",
        "headers": [(b"accept-encoding", b"gzip")],
        "state": {"caller": Caller(Key("bench", "key").identity(), tenant)},
    }
    await around(app)(scope, receive, send)
    return sent


def _resident_kib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * getpagesize() / 1024


def _events(text: str) -> list[bytes]:
    """An answer on the wire, an event a piece."""
    # A token is a word, or, where no spaces are between words, a character.
    tokens = re.findall(r"\S+\s*" if " " in text[:99] else r"\S", text * 9)[:TOKENS]
    size = TOKENS / CHUNKS
    texts = ["".join(tokens[round(n * size) : round((n + 1) * size)]) for n in range(CHUNKS)]
    encoder = native.EventEncoder("0123456789abcdefghijklmn01234567")
    records = [
        Record(0, Kind.OPENED, 1, 0, "bench", body={"model": "demo"}),
        *(Record(n, Kind.TEXT, 1, 0, "bench", text=each) for n, each in enumerate(texts, 1)),
        Record(CHUNKS + 1, Kind.CLOSED, 1, 0, "bench", body=_CLOSED),
    ]
    return [encoder.encode([record]) for record in records]


def _texts() -> dict[str, str]:
    corpus = ROOT / "tests" / "shared" / "redaction" / "corpus"
    prose = (corpus / "prose.txt").read_text().splitlines(keepends=True)
    return {
        "prose": "".join(line for line in prose if line.isascii()),
        "Chinese": "".join(line for line in prose if "\u4e00" <= line[0] <= "\u9fff"),
        "Markdown": (corpus / "markdown.md").read_text(),
        "code": (corpus / "code.txt").read_text(),
    }


_CLOSED = {
    "status": "completed",
    "finish_reason": "stop",
    "usage": {"input_tokens": 12, "output_tokens": 500, "estimated": False},
    "error": None,
}
