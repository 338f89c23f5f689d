"""The functions on our model of the store, reached in two ways: in process, and over sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from functions import api, produce, stream
from functions.wiring import Services
from shared.records import StreamKey
from shared.settings import Settings
from tests.model_store import ModelStore


@dataclass
class Sluice:
    """All functions around one store. `stream` and `api` are clients of the tenant `demo`."""

    services: Services
    stream: httpx.AsyncClient
    store: ModelStore
    api: httpx.AsyncClient = field(init=False)
    productions: list[asyncio.Task[None]] = field(default_factory=list)

    async def launch(self, key: StreamKey) -> None:
        self.productions.append(asyncio.create_task(produce.produce(self.services, key)))


def client(app: ASGIApp, key: str = "demo") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://sluice.test",
        headers={"authorization": f"Bearer {key}"},
    )


@pytest.fixture
async def sluice() -> AsyncIterator[Sluice]:
    store = ModelStore()
    services = Services.on(store, Settings())
    await services.tenants.add_key("demo", "demo")
    await services.tenants.add_key("other", "other")
    made = Sluice(services, client(stream.build(services)), store)
    made.api = client(api.build(services, made.launch))
    async with made.stream, made.api:
        yield made
        for production in made.productions:
            production.cancel()
        await asyncio.gather(*made.productions, return_exceptions=True)


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
