"""The `produce` function: what an asynchronous invocation does with an event."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from functions import produce, wiring
from functions.wiring import Services
from shared.administration import Administration
from shared.audit import Actor
from shared.errors import NotFound
from shared.models import Models
from shared.models.demo import Demo
from shared.producer import DEADLINE_MARGIN_S
from shared.records import StreamKey
from shared.redaction import Validator
from shared.settings import Settings
from shared.starting import Start
from shared.tenants import Tenant, removing
from tests.functions.conftest import begin
from tests.model_store import ModelStore


async def services_of_demo() -> Services:
    store = ModelStore()
    await Administration(store).ensure("demo", "demo")
    return Services.on(store, Settings())


async def opened(services: Services, model: str = "demo?tokens=3&rate=0") -> StreamKey:
    """A stream that is there for somebody else to produce."""
    return (await begin(services, model, epoch=0)).key


async def kinds(services: Services, key: StreamKey) -> list[str]:
    return [record.kind for record in (await services.log.read(key)).records]


def context(seconds: float) -> SimpleNamespace:
    return SimpleNamespace(
        get_remaining_time_in_millis=lambda: int(seconds * 1000), function_name="produce"
    )


def test_the_handler_produces_within_its_invocations_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with asyncio.Runner() as runner:
        services = runner.run(services_of_demo())
        launched: list[StreamKey] = []

        async def launch(key: StreamKey) -> None:
            launched.append(key)

        services = replace(services, launch=launch)
        monkeypatch.setattr(produce, "_process", lambda _: (services, runner))
        in_time = runner.run(opened(services))
        event = {"tenant": in_time.tenant, "stream": in_time.stream}
        produce.handler(event, context(900))
        assert runner.run(kinds(services, in_time))[-1] == "closed"
        too_long = runner.run(opened(services, "demo?tokens=9000&rate=50"))
        event = {"tenant": too_long.tenant, "stream": too_long.stream}
        produce.handler(event, context(DEADLINE_MARGIN_S + 0.3))
        last = runner.run(services.log.tail(too_long))
    assert (last.kind, last.body) == ("vacant", {"reason": "deadline"})
    assert launched == [too_long]


def test_what_a_hook_of_ones_own_raises_is_told_without_its_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def validators(_tenant: Tenant, start: Start) -> Sequence[Validator]:
        raise ValueError(start.messages[0].content)

    monkeypatch.setattr(wiring, "validators", validators)
    with asyncio.Runner() as runner:
        services = runner.run(services_of_demo())
        monkeypatch.setattr(produce, "_process", lambda _: (services, runner))
        key = runner.run(opened(services))
        with pytest.raises(RuntimeError, match=r"^ValueError$") as raised:
            produce.handler({"tenant": key.tenant, "stream": key.stream}, context(900))
    assert raised.value.__suppress_context__
    (line,) = (r for r in caplog.records if r.levelname == "ERROR")
    assert line.__dict__["error"] == "ValueError"
    assert "test_produce.py" in line.__dict__["at"]


async def test_what_is_produced_already_is_left_alone() -> None:
    services = await services_of_demo()
    key = await opened(services)
    await produce.produce(services, key)
    before = await kinds(services, key)
    assert before == ["opened", "epoch", "text", "closed"]
    await produce.produce(services, key)
    assert await kinds(services, key) == before


async def test_a_model_that_is_not_served_any_more_closes_the_stream() -> None:
    services = await services_of_demo()
    store, settings = services.lifecycle.store, services.settings
    before = Services.on(store, settings, Models({"gone": Demo()}))
    key = await opened(before, "gone/demo")
    await produce.produce(services, key)
    last = await services.log.tail(key)
    assert last.closes
    assert last.body["error"]["type"] == "urn:sluice:problem:invalid-request"


async def test_a_tenant_that_is_gone_closes_the_stream() -> None:
    services = await services_of_demo()
    key = await opened(services)
    tenant = await services.authority.tenants.get("demo")
    assert tenant
    await services.lifecycle.store.transact(removing(tenant), "remove")
    later = Services.on(services.lifecycle.store, services.settings)
    await produce.produce(later, key)
    last = await services.log.tail(key)
    assert last.body["error"]["type"] == "urn:sluice:problem:credential-ended"


async def test_a_stream_that_is_not_there_any_more_is_left_alone() -> None:
    """It was erased before its producer came: there is nothing to try again."""
    services = await services_of_demo()
    key = await opened(services)
    await services.erasures.begin("demo", Actor(credential="key:x"), stream=key.stream)
    await produce.produce(services, key)
    with pytest.raises(NotFound):
        await services.log.tail(key)
