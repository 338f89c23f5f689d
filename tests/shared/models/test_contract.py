"""What every provider promises, whatever stands behind it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from shared.models import Finish
from shared.models.bedrock import Bedrock
from shared.models.demo import Demo
from shared.models.openai import OpenAI
from tests.shared.models import wire
from tests.shared.models.asking import ask, no_threads, until_failure
from tests.shared.models.upstream import Peer, Upstream

Stream = AsyncGenerator[str | Finish, None]

DELTAS = 10


@dataclass
class Upstreams:
    """How a test sees whatever is behind a provider."""

    open: Callable[[str], Stream]
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    has_server: bool = True


def _demo() -> Upstreams:
    models = {
        "whole": f"demo?tokens={DELTAS}&rate=0&ttft=0",
        "silent": f"demo?tokens={DELTAS}&rate=0&ttft=0&silence_after=2&silence=1",
        "broken": f"demo?tokens={DELTAS}&rate=0&ttft=0&fail_after=2",
    }
    return Upstreams(lambda how: Demo().stream(ask(model=models[how])), has_server=False)


def _served(upstream: Upstream, provider: OpenAI | Bedrock) -> Upstreams:
    """Answers of two deltas, then what the prompt says."""
    upstreams = Upstreams(lambda how: provider.stream(ask(how)))
    if isinstance(provider, OpenAI):
        content_type, delta = "text/event-stream", wire.chunk("x")
        failure, end = wire.data(error={"message": "no"}), wire.chunk(None, "stop") + wire.DONE
    else:
        content_type, delta = "application/vnd.amazon.eventstream", wire.delta("x")
        failure, end = wire.exception("modelStreamErrorException", "no"), wire.stop()

    async def script(peer: Peer) -> None:
        how = next(how for how in ("whole", "silent", "broken") if how in str(peer.request.body))
        await peer.begin(content_type=content_type)
        await peer.send(delta * 2)
        if how == "silent":
            waits = [asyncio.ensure_future(w) for w in (upstreams.go_on.wait(), peer.gone())]
            done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in pending:
                wait.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            if waits[1] in done:
                upstreams.gone.release()
                return
        if how == "broken":
            await peer.send(failure)
        else:
            await peer.send(delta * (DELTAS - 2) + end)
        await peer.end()

    upstream.script = script
    return upstreams


@pytest.fixture(params=["demo", "openai", "bedrock"])
def behind(request: pytest.FixtureRequest) -> Upstreams:
    if request.param == "demo":
        return _demo()
    return _served(request.getfixturevalue("upstream"), request.getfixturevalue(request.param))


async def test_deltas_then_one_finish(behind: Upstreams) -> None:
    items = [item async for item in behind.open("whole")]
    assert len(items) == DELTAS + 1
    assert all(isinstance(item, str) and item for item in items[:-1])
    assert isinstance(items[-1], Finish)
    assert items[-1].reason == "stop"


async def test_a_failure_keeps_what_came_before(behind: Upstreams) -> None:
    failure, said = await until_failure(behind.open("broken"))
    assert len(said) == 2
    assert (failure.code, failure.retryable) == ("upstream", True)


async def test_closing_stops_the_upstream(behind: Upstreams) -> None:
    async with aclosing(behind.open("silent")) as stream:
        await anext(stream)
        await anext(stream)
    await assert_freed(behind)


async def test_cancelling_stops_the_upstream(behind: Upstreams) -> None:
    stream = behind.open("silent")
    await anext(stream)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await assert_freed(behind)


async def test_an_abandoned_stream_stops_the_upstream(behind: Upstreams) -> None:
    async def consume() -> None:
        async for _ in behind.open("silent"):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is ours
        await consume()
    await assert_freed(behind)


async def assert_freed(behind: Upstreams) -> None:
    if behind.has_server:
        await asyncio.wait_for(behind.gone.acquire(), 2)
    await no_threads()


async def test_two_at_once(behind: Upstreams) -> None:
    silent, whole = behind.open("silent"), behind.open("whole")
    async with aclosing(silent):
        await anext(silent)
        assert len([item async for item in whole]) == DELTAS + 1
        behind.go_on.set()
        assert len([item async for item in silent]) == DELTAS


async def test_the_loop_goes_on_while_the_upstream_is_silent(behind: Upstreams) -> None:
    ticks = 0
    async with aclosing(behind.open("silent")) as stream:
        await anext(stream)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        while not waiting.done():
            await asyncio.sleep(0.002)
            ticks += 1
            if ticks == 50:  # the upstream speaks again only because the loop went on
                behind.go_on.set()
        assert ticks >= 50
        assert isinstance(waiting.result(), str)
