"""The functions on our model of the store, reached in two ways: in process, and over sockets."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from functions import api, produce, stream
from functions.wiring import Services
from shared.administration import Administration
from shared.audit import Entry
from shared.authority import Caller
from shared.errors import Unavailable
from shared.identity import SCOPES
from shared.identity.keys import Key, id_of
from shared.models import Message
from shared.records import Kind, Record, StreamKey
from shared.settings import Settings
from shared.starting import Start, Started
from tests.model_store import ModelStore
from tests.simulation.clock import VirtualLoop
from tests.simulation.scripted import EPOCH_S

ASYNC = {"prefer": "respond-async"}


class Clock:
    """What time it is in a test, also where its loop's is virtual.

    `wall_s` puts it forward for what expires, `cache_s` for what is remembered.
    """

    def __init__(self) -> None:
        self.wall_s = self.cache_s = 0.0
        loop = asyncio.get_running_loop()
        self._begun_s = EPOCH_S if isinstance(loop, VirtualLoop) else time.time() - loop.time()
        self._elapsed = loop.time

    def now(self) -> float:
        return self._begun_s + self._elapsed() + self.wall_s

    def monotonic(self) -> float:
        return self._elapsed() + self.cache_s


class Productions:
    """What is produced in the background, each within an invocation of so many seconds."""

    def __init__(self) -> None:
        self.services: Services | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.invocation_s: float | None = None
        self._stopped = False

    async def launch(self, key: StreamKey) -> None:
        assert self.services
        if self._stopped:
            raise Unavailable
        deadline = None
        if self.invocation_s is not None:
            deadline = asyncio.get_running_loop().time() + self.invocation_s
        work = produce.produce(self.services, key, deadline=deadline)
        self.tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        self._stopped = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass
class Sluice:
    """All functions around one store. `stream` and `api` are clients of the tenant `demo`."""

    services: Services
    store: ModelStore
    clock: Clock
    administration: Administration
    productions: Productions
    stream_app: ASGIApp = field(init=False)
    api_app: ASGIApp = field(init=False)
    stream: httpx.AsyncClient = field(init=False)
    api: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.stream_app = stream.build(self.services)
        self.api_app = api.build(self.services)
        self.stream, self.api = client(self.stream_app), client(self.api_app)

    async def launched(self, model: str, key: str = "demo", **more: object) -> str:
        """A stream that is produced in the background; its id."""
        headers = ASYNC | by(key)
        answer = await self.api.post("/v1/streams", json=start_body(model, **more), headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def add_key(self, key: str, tenant: str = "demo", **about: Any) -> str:
        """A key of a tenant, with all scopes where none are named; its id."""
        known = {"scopes": SCOPES, **about}
        await self.administration.add_key(key, Key(tenant, id_of(key), **known))
        return id_of(key)

    async def policy(self, tenant: str = "demo", /, **settings: Any) -> None:
        """Change what a tenant has set, everywhere at once."""

        def change(document: dict[str, Any]) -> None:
            document.update(settings)

        await self.administration.set_policy(tenant, change)
        self.forget()

    def forget(self) -> None:
        """Let the time pass for which what was read of keys and tenants is remembered."""
        self.clock.cache_s += 21

    async def audit(self, stream_id: str | None = None, tenant: str = "demo") -> list[Entry]:
        """A tenant's entries in the order of time, or those of one of its streams."""
        found: list[Entry] = []
        after = None
        while True:
            page = await self.services.audit.page(
                tenant,
                start_ms=0 if stream_id else self.now_ms() - 86_400_000,
                end_ms=self.now_ms() + 60_000,
                chain=stream_id,
                after=after,
                limit=1000,
            )
            found += page.entries
            if (after := page.next) is None:
                return found

    def now_ms(self) -> int:
        return self.services.log.now_ms()


def by(key: str) -> dict[str, str]:
    """The header of who asks by this key, or by a token."""
    return {"authorization": f"Bearer {key}"}


async def caller(services: Services, key: str = "demo") -> Caller:
    """Who asks with this key."""
    identity = await services.authority.identify(key)
    return Caller(identity, await services.authority.tenant(identity))


async def begin(
    services: Services,
    model: str = "demo",
    *,
    epoch: int = 1,
    age_s: float = 0,
    chunks: int = 0,
    **more: Any,
) -> Started:
    """A stream that was begun so long ago and has no producer, with so many chunks of one `x`."""
    then = Services.on(
        services.lifecycle.store,
        services.settings,
        services.models,
        now=lambda: services.log.now_ms() / 1000 - age_s,
    )
    start = Start(model, (Message("user", "hi"),), **more)
    began = await then.starting.start(await caller(services), start, epoch=epoch)
    assert isinstance(began, Started)
    for seq in range(1, chunks + 1):
        record = Record(seq, Kind.TEXT, epoch, then.log.now_ms(), began.opened.by, text="x")
        await then.log.append(began.key, record)
    return began


def client(app: ASGIApp, key: str = "demo") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://sluice.test",
        headers={"authorization": f"Bearer {key}"} if key else {},
    )


@asynccontextmanager
async def running(**parts: Any) -> AsyncIterator[Sluice]:
    """Everything, with the tenants `demo` and `other`, and a key for each of the same name.

    `parts` are for `Services.on`.
    """
    store, clock = ModelStore(), Clock()
    productions = Productions()
    parts = {"launch": productions.launch, **parts}
    services = Services.on(store, Settings(), now=clock.now, clock=clock.monotonic, **parts)
    productions.services = services
    administration = Administration(store, now=clock.now)
    await administration.ensure("demo", "demo")
    await administration.ensure("other", "other")
    made = Sluice(services, store, clock, administration, productions)
    async with made.stream, made.api:
        try:
            yield made
        finally:
            await productions.stop()


@pytest.fixture
async def sluice() -> AsyncIterator[Sluice]:
    async with running() as made:
        yield made


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """An app behind a real socket on the loopback; its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


def start_body(model: str = "demo?tokens=40&rate=0", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
