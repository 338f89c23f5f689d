"""Producers that stop with their process, or are killed one by one."""

import asyncio
from dataclasses import replace

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.wiring import Services
from local.producers import Mortal, Producers, on_machines
from shared.administration import Administration
from shared.errors import NotFound
from shared.records import StreamKey
from shared.settings import Settings
from tests.functions.conftest import begin
from tests.model_store import ModelStore

KEY = StreamKey("demo", "0123456789abcdefghijklmn01234567")


async def test_stopping_waits_for_every_producer_to_close_its_stream() -> None:
    producers = Producers()
    closed: list[str] = []

    async def produce(name: str) -> None:
        with producers.producing(KEY):
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                closed.append(name)

    of_a_request = asyncio.create_task(produce("held by a request"))
    producers.track(asyncio.create_task(produce("launched")))
    await asyncio.sleep(0)
    await producers.stop()
    assert sorted(closed) == ["held by a request", "launched"]
    assert of_a_request.cancelled()
    await producers.stop()


async def test_a_producer_that_gave_up_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def produce() -> None:
        raise RuntimeError("a prompt")

    producers = Producers()
    producers.track(asyncio.create_task(produce()))
    await asyncio.sleep(0.01)
    [said] = caplog.records
    assert said.getMessage() == "a producer gave up"
    assert vars(said)["error"] == "RuntimeError"


async def test_what_is_launched_while_it_stops_is_left_to_the_next_run() -> None:
    producers = Producers()
    await producers.stop()
    begun: list[str] = []

    async def produce() -> None:
        begun.append("produced")

    producers.launch(produce())
    await asyncio.sleep(0)
    assert (begun, producers.left) == ([], 1)


async def test_a_request_whose_producer_was_killed_gets_nothing_from_the_store() -> None:
    producers = Producers()
    store, services = await sluice()
    key = (await begin(services)).key
    reached: list[str] = []

    async def produce() -> None:
        with producers.producing(key):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                # As a producer does that is told to stop: it hands over.
                await services.log.append(key, replace(await services.log.tail(key), seq=1))
                raise

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        production = asyncio.create_task(produce())
        await asyncio.wait([production])
        reached.append("the end of the production")
        await services.log.tail(key)
        reached.append("the store")

    request = asyncio.create_task(request_to(on_machines(app)))
    await asyncio.sleep(0.01)
    writes = store.writes
    producers.kill(key)
    await asyncio.wait([request])
    assert request.cancelled()
    assert reached == ["the end of the production"]
    assert store.writes == writes
    assert (await services.log.tail(key)).seq == 0  # others are alive
    with pytest.raises(NotFound):
        producers.kill(key)


async def test_who_launches_may_die_without_what_it_launched() -> None:
    producers = Producers()
    _, services = await sluice()
    key = (await begin(services)).key
    done: list[int] = []

    async def launched() -> None:
        await asyncio.sleep(0.02)
        done.append((await services.log.tail(key)).seq)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with producers.producing(key):
            producers.launch(launched())
            await asyncio.sleep(60)

    request = asyncio.create_task(request_to(on_machines(app)))
    await asyncio.sleep(0.01)
    producers.kill(key)
    await asyncio.wait([request])
    await asyncio.sleep(0.05)
    assert done == [0]


async def sluice() -> tuple[ModelStore, Services]:
    async def launch(_: StreamKey) -> None: ...

    store = ModelStore()
    await Administration(store).ensure("demo", "demo")
    return store, Services.on(Mortal(store), Settings(), launch=launch)


async def request_to(app: ASGIApp) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    await app({"type": "http"}, receive, send)
