"""A server for clients to fail against: Sluice's protocol, with whatever can go wrong on the way.

A client's test puts a scenario in front of the path of its base URL, and reads afterwards what was
asked of the server, and the text that the client must have:

    with hostile.serving() as url:
        client = Client(f"{url}/cut=137,status=503;retry-after=1", …)
        …
        httpx.get(f"{url}/cut=137,status=503;retry-after=1/_report").json()

`language` has the words. Equal scenarios are one and the same, so a test that needs one of its own
adds `as=label`. `python -m tests.clients.hostile` serves until its standard input ends: its first
line is the URL, for tests in other languages.

The bytes are those of `shared.dialects.native`, so this server cannot drift from the real one.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.clients.hostile.server import Server

HOST = "127.0.0.1"


async def serve(ready: Callable[[str], Any], stop: asyncio.Event) -> None:
    """Serve until `stop` is set; `ready` is told the URL. Connections that are open are cut."""
    server = Server()
    connections: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(server.connection(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)
        await asyncio.wait({task})

    listening = await asyncio.start_server(connection, HOST, 0, backlog=1000)
    ready(f"http://{HOST}:{listening.sockets[0].getsockname()[1]}")
    await stop.wait()
    listening.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)
    server.close()


@contextmanager
def serving() -> Iterator[str]:
    """The URL of a server of its own, in a thread, so that a test of any kind may block."""
    ready = threading.Event()
    made: list[Any] = []

    async def serves() -> None:
        stop = asyncio.Event()
        made.extend((asyncio.get_running_loop(), stop))

        def known(url: str) -> None:
            made.append(url)
            ready.set()

        await serve(known, stop)

    thread = threading.Thread(target=asyncio.run, args=(serves(),), name="hostile")
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the hostile server did not come up")
    loop, stop, url = made
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
