"""A client that notes when each part of an answer came.

It keeps what it reads as it is, and looks into it afterwards: so it takes little time away from
what it measures.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "bench-key"
HEAD_S = 30.0
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Event:
    """One Server-Sent Event, and when its last byte was read."""

    seq: int
    name: str
    data: Mapping[str, Any]
    at_ns: int


@dataclass(slots=True)
class Response:
    """An answer whose head is there."""

    status: int
    headers: Mapping[str, str]
    began_ns: int
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _frames: list[tuple[int, bytes]] = field(default_factory=list)
    ended_ns: int = 0

    async def body(self) -> bytes:
        """All of it."""
        async with asyncio.timeout(TIMEOUT_S):
            if "content-length" in self.headers:
                size = int(self.headers["content-length"])
                self._frames.append((0, await self._reader.readexactly(size)))
            else:
                while frame := await read_frame(self._reader):
                    self._frames.append((time.monotonic_ns(), frame))
        self.ended_ns = time.monotonic_ns()
        self._writer.close()
        return b"".join(frame for _, frame in self._frames)

    async def json(self) -> Any:
        return json.loads(await self.body())

    async def events(self) -> list[Event]:
        """All of it, as events; raises `RuntimeError` where it is not a whole answer."""
        await self.body()
        found = parse_events(self._frames)
        if not found or found[-1].name != "closed":
            raise RuntimeError(f"the answer (status {self.status}) is not whole")
        if found[-1].data.get("status", "completed") != "completed":
            raise RuntimeError(f"the answer failed: {found[-1].data}")
        return found


async def request(
    port: int,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    key: str = KEY,
    refused: bool = False,
) -> Response:
    """Ask, on a connection of its own; returns with the head of the answer.

    Raises `RuntimeError` where it is refused, or with `refused` where it is not.
    """
    began_ns = time.monotonic_ns()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = json.dumps(body).encode() if body is not None else b""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + raw)
    # A server that has failed to start would be waited for: its socket is open from the beginning.
    async with asyncio.timeout(HEAD_S):
        line, headers = await read_head(reader)
    response = Response(int(line.split()[1]), headers, began_ns, reader, writer)
    if (response.status >= 400) is not refused:
        raise RuntimeError(f"{method} {path}: {(await response.body()).decode()}")
    return response


async def start(port: int, model: str, *, key: str = KEY, **options: Any) -> Response:
    """Ask for an answer."""
    messages = [{"role": "user", "content": "How does an answer travel?"}]
    body = {"model": model, "messages": messages, **options}
    return await request(port, "POST", "/v1/streams", body, key=key)


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """The first line and the headers of an HTTP message."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return lines[0], {name.lower(): value.strip() for name, _, value in pairs}


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next part of a chunked body; nothing at its end, where trailers may follow."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:size] if size else b""


def parse_events(frames: list[tuple[int, bytes]]) -> list[Event]:
    """Events from the frames of a body; one may lie across several of them."""
    found: list[Event] = []
    held = b""
    for at_ns, frame in frames:
        *whole, held = (held + frame).split(b"\n\n")
        for block in whole:
            pairs = (line.partition(": ") for line in block.decode().split("\n"))
            fields = {name: value for name, _, value in pairs if name}
            data = json.loads(fields["data"])
            found.append(Event(int(fields["id"]), fields["event"], data, at_ns))
    return found


def text_of(events: list[Event]) -> str:
    return "".join(event.data["text"] for event in events if event.name == "chunk")
