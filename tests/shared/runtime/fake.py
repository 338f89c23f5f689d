"""A Runtime API of our own, on real sockets, that keeps every byte that it is sent.

It gives out the invocations of a list; then `/next` answers 500, at which the loop under test
stops with `RuntimeApiError`. A `Taker` says how the response to an invocation is taken.
"""

import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import parse_headers
from typing import Any, BinaryIO, Self

PATIENCE_S = 20


@dataclass
class Taker:
    """How one response is taken. Every field is a departure from what AWS does."""

    status: int = 202
    early: bool = False  # answer as soon as the head is there, and go on reading
    refuse_after: int | None = None  # answer after so many frames, and let the other side close
    drain: bool = True  # … and read on meanwhile
    cut_after: int | None = None  # cut the connection after so many frames
    reset: bool = False  # … with a reset, not an orderly end
    keep: bool = False  # leave it to the other side to close the connection at the end
    hold: threading.Event | None = None  # read no frame before this is set
    # Its address in a name would be another one in each run.
    on_frame: Callable[[int], None] = field(default=lambda _: None, repr=False)


@dataclass
class Posted:
    """One request that arrived, chunk by chunk."""

    method: str
    path: str
    headers: Mapping[str, str]
    frames: list[bytes] = field(default_factory=list)
    trailers: Mapping[str, str] = field(default_factory=dict)
    ended: bool = False  # the terminating chunk arrived

    @property
    def prelude(self) -> dict[str, Any]:
        prelude: dict[str, Any] = json.loads(self.frames[0])
        assert self.frames[1] == b"\0" * 8
        return prelude

    @property
    def body(self) -> bytes:
        return b"".join(self.frames[2:])

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(b"".join(self.frames))
        return value


class FakeRuntimeApi:
    """`events` are given out one by one: bytes as they are, anything else as JSON."""

    def __init__(
        self,
        *events: Any,
        takers: list[Taker] | None = None,
        headers: Mapping[str, str] | None = None,
        error_status: int = 202,
        prefix: str = "",
    ) -> None:
        self.posted: list[Posted] = []
        self.timeline: list[str] = []
        self._events = [e if isinstance(e, bytes) else json.dumps(e).encode() for e in events]
        self._takers = takers or []
        self._headers = headers or {}
        self._error_status = error_status
        self._given = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}{prefix}"
        self._root = f"{prefix}/2018-06-01/runtime"
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._server.close()

    @property
    def responses(self) -> list[Posted]:
        return [posted for posted in self.posted if posted.path.endswith("/response")]

    @property
    def errors(self) -> list[Posted]:
        return [posted for posted in self.posted if posted.path.endswith("/error")]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError):
            line = stream.readline().decode().split()
            if not line:
                return
            posted = Posted(line[0], line[1], dict(parse_headers(stream).items()))
            assert posted.path.startswith(self._root)
            path = posted.path.removeprefix(self._root)
            self.timeline.append(f"{posted.method} {path}")
            self.posted.append(posted)
            if path == "/invocation/next":
                self._next(connection)
            elif path == "/restore/next":
                _answer(connection, 200)
            elif path.endswith("/response"):
                taker = self._takers[self._given - 1] if self._takers else Taker()
                _take(connection, stream, posted, taker)
            else:
                posted.frames.append(stream.read(int(posted.headers["Content-Length"])))
                _answer(connection, self._error_status)

    def _next(self, connection: socket.socket) -> None:
        if self._given == len(self._events):
            _answer(connection, 500)
            return
        event = self._events[self._given]
        self._given += 1
        head = {"Lambda-Runtime-Aws-Request-Id": f"request-{self._given}", **self._headers}
        _answer(connection, 200, head, event)


def _take(connection: socket.socket, stream: BinaryIO, posted: Posted, taker: Taker) -> None:
    if taker.early:
        _answer(connection, taker.status)
    if taker.hold is not None:
        assert taker.hold.wait(PATIENCE_S)
    while (frame := _frame(stream)) is not None:
        posted.frames.append(frame)
        taker.on_frame(len(posted.frames))
        if len(posted.frames) == taker.refuse_after:
            _answer(connection, taker.status)
            if taker.drain:
                stream.read()
            else:
                # A reset shows without reading what is still in the way.
                hung_up = select.poll()
                hung_up.register(connection, select.POLLRDHUP)
                assert hung_up.poll(PATIENCE_S * 1000)
            return
        if len(posted.frames) == taker.cut_after:
            if taker.reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                connection.shutdown(socket.SHUT_RDWR)
            return
    posted.trailers = dict(parse_headers(stream).items())
    posted.ended = True
    if not taker.early:
        _answer(connection, taker.status)
    if taker.keep:
        assert stream.read() == b""


def _frame(stream: BinaryIO) -> bytes | None:
    """The next chunk, None at the end of the body; raises where the other side is gone."""
    line = stream.readline()
    frame = stream.read(int(line or b"0", 16))
    if not line or (frame and stream.readline() != b"\r\n"):
        raise ConnectionError
    return frame or None


def _answer(
    connection: socket.socket,
    status: int,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> None:
    head = {"Content-Length": str(len(body)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} Some Reason", *(f"{k}: {v}" for k, v in head.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)
