"""Several processes at one port, each of which serves all of Sluice and may be killed any time.

The kernel gives each connection to one of them, as a function's URL gives each request to one of
its environments. A launch is what it is on AWS, an invocation of `produce` by botocore; it comes to
the same port, so some process takes it, and it dies with that process.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from random import Random
from typing import IO, Self

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from functions import api, stream
from functions.produce import produce
from functions.wiring import Services, dynamodb
from local.server import one_port
from shared.errors import Unavailable
from shared.log import Log
from shared.records import Record, StreamKey
from shared.settings import Settings
from tests.e2e import dynoxide
from tests.e2e.local_run import HOST, ROOT

#: Lambda's API, as botocore asks it to invoke a function.
INVOKE = "/2015-03-31/functions/"
READY = b"ready"
START_S = 60.0


class Fleet:
    """So many processes on the database at `endpoint`; `async with` leaves none behind."""

    def __init__(self, endpoint: str, size: int) -> None:
        self._endpoint = endpoint
        self._size = size
        self._processes: list[subprocess.Popen[bytes]] = []
        #: When which process was killed, in ms since 1970.
        self.deaths: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        # Bound by us too, and never listened on, the port stays ours when all others are dead.
        self._bound = _bound(0)
        self.port = self._bound.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        try:
            await asyncio.gather(*(self._start() for _ in range(self._size)))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            _kill(process)
        self._bound.close()

    @property
    def env(self) -> dict[str, str]:
        """What makes a process use the database, and have its launches come here."""
        return {
            **dynoxide.DUMMIES,
            "SLUICE_DYNAMODB_ENDPOINT": self._endpoint,
            "SLUICE_PRODUCE_FUNCTION": "produce",
            "AWS_ENDPOINT_URL_LAMBDA": self.url,
        }

    async def replace_one(self, dice: Random) -> None:
        """Kill any of the processes, and start another in its place."""
        process = self._processes.pop(dice.randrange(len(self._processes)))
        assert process.poll() is None, "a process has died by itself"
        self.deaths[process.pid] = time.time() * 1000
        _kill(process)
        await self._start()

    def death_of(self, producer: Record) -> float | None:
        """When the process was killed that has written a record."""
        return self.deaths.get(int.from_bytes(bytes.fromhex(producer.by)[:4]))

    async def _start(self) -> None:
        # Not a pipe for what it says: nobody reads along, and a full one would stop it.
        with tempfile.TemporaryFile() as said:
            process = self._spawn(said)
            self._processes.append(process)
            async with asyncio.timeout(START_S):
                while os.pread(said.fileno(), len(READY), 0) != READY:
                    assert process.poll() is None, "a process did not start"
                    await asyncio.sleep(0.02)

    def _spawn(self, said: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.port)],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", **self.env},
            # It ends when this does, whatever becomes of us.
            stdin=subprocess.PIPE,
            stdout=said,
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin
    process.stdin.close()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((HOST, port))
    return made


def _signed(count: int) -> bytes:
    """Random bytes that begin with our process id: so each record tells whose it is."""
    return os.getpid().to_bytes(4) + os.urandom(count - 4)


def _app(services: Services) -> ASGIApp:
    producing = set[asyncio.Task[None]]()
    everything = one_port(stream.build(services), api.build(services))

    async def work(key: StreamKey) -> None:
        with suppress(Unavailable):  # whoever notices has another one launched
            await produce(services, key)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(INVOKE):
            return await everything(scope, receive, send)
        event = json.loads(await Request(scope, receive).body())
        task = asyncio.create_task(work(StreamKey(event["tenant"], event["stream"])))
        producing.add(task)
        task.add_done_callback(producing.discard)
        return await Response(status_code=202)(scope, receive, send)

    return app


async def _serve(port: int) -> None:
    settings = Settings.from_env()
    store = dynamodb(settings)
    services = Services.on(store, settings, log=Log(store, randomness=_signed))
    config = uvicorn.Config(
        _app(services), lifespan="off", ws="none", access_log=False, log_config=None
    )
    listener = _bound(port)
    listener.listen(1024)
    print(READY.decode(), flush=True)
    await uvicorn.Server(config).serve([listener])


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve(int(sys.argv[1])))
