"""The real store on the real dynoxide, for tests; and a way to it that loses replies."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Self
from unittest import mock
from urllib.parse import urlsplit

from functions.wiring import dynamodb
from local.database import connect
from local.dynoxide import dynoxide, find
from shared.settings import Settings
from shared.table import DynamoDB
from tests.e2e.local_run import HOST, START_S, free_port, needs_dynoxide

DUMMIES = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


@contextmanager
def database(path: Path | None = None) -> Iterator[str]:
    """A dynoxide with Sluice's tables, on a file or in memory; gives its address."""
    with dynoxide(path) as endpoint:
        _end(connect(Settings(dynamodb_endpoint=endpoint), own=True))
        yield endpoint


class Restartable:
    """A dynoxide on a file that can be killed, and started again at the same address.

    `with` starts it, and leaves nothing behind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._port = free_port()
        self.endpoint = f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        needs_dynoxide()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Run until it answers."""
        where = ["--host", HOST, "--port", str(self._port), "--db-path", str(self._path)]
        self._process = subprocess.Popen(
            [find(), "serve", *where],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + START_S
        while True:
            assert self._process.poll() is None, "dynoxide did not start"
            with suppress(OSError):
                socket.create_connection((HOST, self._port), timeout=1).close()
                return
            assert time.monotonic() < give_up, "dynoxide does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def store(endpoint: str) -> Iterator[DynamoDB]:
    """The store at an address."""
    with mock.patch.dict(os.environ, DUMMIES):
        made = dynamodb(Settings(dynamodb_endpoint=endpoint))
    try:
        yield made
    finally:
        _end(made)


def _end(made: DynamoDB) -> None:
    made._threads.shutdown()
    made._client.close()


class Proxy:
    """Passes requests on, and loses the replies of as many as it is told to."""

    def __init__(self, endpoint: str) -> None:
        self._to = urlsplit(endpoint)
        self.url = ""
        self.lose = 0
        #: Requests whose reply was lost.
        self.lost: list[bytes] = []
        self.passed: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, which sends one request after the other."""
        there, back = await asyncio.open_connection(self._to.hostname, self._to.port)
        try:
            while request := await _message(reader):
                back.write(request)
                reply = await _message(there)
                if self.lose:
                    self.lose -= 1
                    self.lost.append(request)
                    return
                self.passed.append(request)
                writer.write(reply)
                await writer.drain()
        finally:
            for end in (back, writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()


@asynccontextmanager
async def proxy(endpoint: str) -> AsyncIterator[Proxy]:
    """A proxy before an address, on this event loop."""
    made, connections = Proxy(endpoint), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        await made.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One HTTP message with a Content-Length; empty where the connection ends."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return head + await reader.readexactly(length)
