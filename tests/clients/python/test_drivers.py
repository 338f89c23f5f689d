"""What a program does with an answer beside reading it: leave it, replace it, steer it, be stopped.

Both clients, the second on asyncio and on Trio, at the hostile server.
"""

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import anyio
import httpx
import pytest
from sluice_client import (
    Answer,
    AsyncAnswer,
    AsyncSluice,
    Chunk,
    Closed,
    Event,
    Reconnecting,
    Sluice,
    Times,
    Unreachable,
)

from tests.clients import hostile
from tests.clients.python import THEIRS

pytestmark = pytest.mark.filterwarnings(THEIRS)

TIMES = Times(first_byte_s=2, silence_s=2, poll_s=1, unheard_s=1, backoff_s=0.02)
#: What is carried out, and what goes wrong with its reply.
UNSURE = "lost-reply;on=cancel,status=503;on=cancel;retry-after=0,status=502;on=cancel"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with hostile.serving() as url:
        yield url


@pytest.fixture
def address(url: str, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A scenario that no other test has."""
    label = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return lambda scenario: f"{url}/{scenario},as={label}"


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    return lambda what: anyio.run(what, backend=request.param)


Address = Callable[[str], str]
Run = Callable[[Callable[[], Awaitable[None]]], None]


def report(address: str) -> Any:
    return httpx.get(f"{address}/_report").json()


def routes(address: str) -> list[str]:
    return [seen["route"] for seen in report(address)["requests"]]


def sync_client(address: str, **more: Any) -> Sluice:
    return Sluice(address, key="demo", times=TIMES, **more)


def async_client(address: str, **more: Any) -> AsyncSluice:
    return AsyncSluice(address, key="demo", times=TIMES, **more)


def connections(client: Sluice | AsyncSluice) -> list[Any]:
    return list(client._http._transport._pool.connections)  # type: ignore[union-attr]


def test_to_break_off_drops_the_connection_and_loses_nothing(address: Address) -> None:
    with sync_client(address("pace=0")) as client:
        answer = client.stream("demo", "?")
        said = []
        for chunk in answer:
            said.append(chunk.text)
            break
        assert connections(client) == []
        assert answer.text == said[0]
        for event in answer.events():
            said += [event.text] if isinstance(event, Chunk) else []
            if len(said) == 3:
                break
        assert connections(client) == []
        rest = client.follow(answer.id or "", after=answer.after).read()
        assert "".join(said) + rest == report(address("pace=0"))["text"]
        said += [chunk.text for chunk in answer]
        assert "".join(said) == answer.text == report(address("pace=0"))["text"]


def test_to_close_without_a_thread_drops_the_connection_and_loses_nothing(
    address: Address, run: Run
) -> None:
    async def leaves() -> None:
        async with async_client(address("pace=0")) as client:
            said = []
            async with client.stream("demo", "?") as answer:
                async for chunk in answer:
                    said.append(chunk.text)
                    break
            assert connections(client) == []
            assert answer.text == said[0]
            async with aclosing(answer.events()) as events:
                said += [(await anext(events)).text]  # type: ignore[union-attr]
            assert connections(client) == []
            said += [chunk.text async for chunk in answer]
            assert "".join(said) == answer.text == report(address("pace=0"))["text"]

    run(leaves)
    gc.collect()  # Trio warns of a generator that nobody has closed


def test_who_is_stopped_leaves_no_connection_behind(address: Address, run: Run) -> None:
    async def is_stopped() -> None:
        async with async_client(address("pace=50;chunks=40")) as client:
            answer = client.stream("demo", "?")
            with anyio.CancelScope() as scope:
                async for _ in answer:
                    scope.cancel()
            assert scope.cancelled_caught
            assert connections(client) == []
            assert answer.text
            await answer.cancel()
            await answer.read()
            assert answer.status == "cancelled"

    run(is_stopped)


def interrupted(answer: Answer) -> None:
    for _ in answer:
        raise KeyboardInterrupt


def test_who_is_interrupted_leaves_no_connection_behind(address: Address) -> None:
    with sync_client(address("pace=50;chunks=40")) as client:
        answer = client.stream("demo", "?")
        with pytest.raises(KeyboardInterrupt):
            interrupted(answer)
        assert connections(client) == []


def test_an_answer_that_is_replaced_is_ended_whatever_becomes_of_the_replies(
    address: Address,
) -> None:
    there = address(f"pace=50;chunks=40,{UNSURE}")
    with sync_client(there) as client:
        answer = client.stream("demo", "?")
        next(iter(answer))
        again = answer.regenerate()
        events = list(again.events())
    assert_replaced(there, events)


def test_an_answer_is_replaced_without_a_thread_just_so(address: Address, run: Run) -> None:
    there = address(f"pace=50;chunks=40,{UNSURE}")

    async def replaces() -> None:
        async with async_client(there) as client:
            async with client.stream("demo", "?") as answer:
                async for _ in answer:
                    break
            assert_replaced(there, [event async for event in answer.regenerate().events()])

    run(replaces)


def assert_replaced(address: str, events: list[Event]) -> None:
    assert routes(address) == ["start", *["cancel"] * 4, "start"]
    assert report(address)["closed"]
    assert [type(event) for event in events[:3]] == [Reconnecting] * 3
    assert isinstance(events[-1], Closed)


def test_a_call_that_is_made_again_is_told(address: Address, run: Run) -> None:
    scenario = "pace=50;chunks=40,status=503;on=pause;retry-after=0,lost-reply;on=pause"
    told: list[Reconnecting] = []
    with sync_client(address(scenario), notify=told.append) as client:
        answer = client.stream("demo", "?")
        next(iter(answer))
        assert answer.pause().status == "paused"

    async def pauses() -> None:
        async with async_client(address(f"{scenario},page=9"), notify=told.append) as client:
            async with client.stream("demo", "?") as answer:
                async for _ in answer:
                    break
            assert (await answer.pause()).status == "paused"

    run(pauses)
    assert [event.attempt for event in told] == [1, 2, 1, 2]
    assert "connection" in told[1].why


def test_what_steers_does_not_wait_for_those_who_read(address: Address, run: Run) -> None:
    """However many connections are taken by answers."""

    async def reads(answer: AsyncAnswer, begun: Callable[[], object]) -> None:
        async for _ in answer:
            begun()

    async def steers() -> None:
        async with async_client(address("pace=2000")) as client:
            answers = [client.stream("demo", str(number)) for number in range(110)]
            all_begun = anyio.Event()

            def begun() -> None:
                if all(answer.text for answer in answers):
                    all_begun.set()

            async with anyio.create_task_group() as group:
                for answer in answers:
                    group.start_soon(reads, answer, begun)
                await all_begun.wait()
                await answers[0].cancel()
                assert len(connections(client)) > 100
                group.cancel_scope.cancel()

    run(steers)


@pytest.mark.parametrize(
    "address",
    [
        *("example.com", "ftp://example.com", "http://", "http://:80", "http://[", "https:/x"),
        *("http://example.com:99999", "http://a\u00a0b", "http://user:password@example.com"),
        *("http://example.com/?query=1", "http://example.com/#fragment"),
    ],
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Sluice(address, key="demo")
    with pytest.raises(ValueError, match="address"):
        AsyncSluice("http://example.com", key="demo", api_url=address)


def test_why_nothing_answers_is_told() -> None:
    with sync_client("http://127.0.0.1:9") as client, pytest.raises(Unreachable, match="refused"):
        client.usage()
