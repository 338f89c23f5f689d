"""The Python client at a local run: everything that it does, with and without `await`."""

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sluice_client import (
    AsyncSluice,
    Closed,
    Epoch,
    GaveUp,
    Granted,
    Opened,
    Paused,
    Polling,
    Reconnecting,
    Refused,
    Sluice,
    StreamFailed,
)

from tests.e2e.local_run import LocalRun, cutting_proxy

pytestmark = pytest.mark.e2e

SLOW = "demo?tokens=400&rate=100&ttft=50"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    with LocalRun("--db", str(tmp_path_factory.mktemp("client") / "dev.db")) as run:
        yield run


@pytest.fixture
def client(run: LocalRun) -> Iterator[Sluice]:
    with Sluice(run.url, key="demo") as client:
        yield client


def test_an_answer_streams(run: LocalRun, client: Sluice) -> None:
    answer = client.stream("demo", "Hello", metadata={"from": "a test"}, max_tokens=50)
    events = list(answer.events())
    assert isinstance(events[0], Opened)
    assert isinstance(events[-1], Closed)
    assert answer.text == run.text(answer.id or "")
    assert answer.finish_reason == "length"
    assert answer.usage
    assert answer.usage.output_tokens == 50
    assert client.summary(answer.id or "").metadata == {"from": "a test"}
    assert list(answer) == []


def test_an_answer_is_polled_from_its_start(run: LocalRun, client: Sluice) -> None:
    answer = client.poll(SLOW, "Hello")
    assert answer.read() == run.text(answer.id or "")
    assert (answer.status, answer.polling) == ("completed", True)


def test_an_answer_is_followed(client: Sluice) -> None:
    answer = client.stream("demo", "Hello")
    whole = answer.read()
    stream = answer.id or ""
    for poll in (False, True):
        assert client.follow(stream, poll=poll).read() == whole
        assert whole.endswith(client.follow(stream, after=10, poll=poll).read())
        over = client.follow(stream, after=answer.after, poll=poll)
        assert (over.read(), over.status) == ("", "completed")


def test_who_leaves_an_answer_finds_it_again(run: LocalRun, client: Sluice) -> None:
    with client.stream(SLOW, "Hello") as answer:
        for _ in answer:
            break
    some = answer.text
    rest = "".join(chunk.text for chunk in answer)
    assert some
    assert some + rest == answer.text == run.text(answer.id or "")


def test_an_answer_is_cancelled(run: LocalRun, client: Sluice) -> None:
    answer = client.stream(SLOW, "Hello")
    for _ in answer:
        answer.cancel()
    assert (answer.status, answer.finish_reason) == ("cancelled", "cancelled")
    assert answer.text == run.text(answer.id or "")
    never = client.stream("demo", "Hello")
    never.cancel()
    assert (never.read(), never.status, never.id) == ("", "cancelled", None)


def test_a_paused_answer_goes_on_at_once_when_it_is_resumed_here(
    run: LocalRun, client: Sluice
) -> None:
    answer = client.stream(SLOW, "Hello")
    events = []
    waiting = threading.Event()

    def resumes() -> None:
        waiting.wait(20)
        time.sleep(0.5)  # so that the connection has ended, and the next is 15 s away
        answer.resume()

    other = threading.Thread(target=resumes)
    other.start()
    began = time.monotonic()
    for event in answer.events():
        events.append(event)
        if len(events) == 2:
            assert answer.pause().status == "paused"
        if isinstance(event, Paused):
            assert answer.status == "paused"
            waiting.set()
    other.join()
    assert time.monotonic() - began < 14
    assert [type(e) for e in events if isinstance(e, (Paused, Granted, Epoch))] == [
        Paused,
        Granted,
        Epoch,
    ]
    assert answer.text == run.text(answer.id or "")


def test_an_answer_is_refined_and_regenerated(client: Sluice) -> None:
    answer = client.stream(SLOW, "Hello")
    next(iter(answer))
    refined = answer.refine("Shorter, please")
    refined.read()
    assert client.summary(refined.id or "").parent == answer.id
    answer.read()
    assert answer.status == "cancelled"

    running = client.stream(SLOW, "Hello")
    next(iter(running))
    assert running.regenerate().read()
    running.read()
    assert running.status == "cancelled"


def test_what_a_key_may_see_and_erase(client: Sluice) -> None:
    client.stream("demo", "Hello").read()
    answer = client.stream("demo", "Hello")
    answer.read()
    stream = answer.id or ""
    assert next(iter(client.streams())).id == stream
    assert len(list(client.streams(limit=2))) == 2
    assert client.usage().limits
    file = io.BytesIO()
    client.export(stream, file)
    assert stream in json.dumps(json.loads(file.getvalue()))
    client.erase(stream)
    with pytest.raises(Refused, match="There is no stream") as refused:
        client.summary(stream)
    assert (refused.value.status, refused.value.type) == (404, "not-found")


def test_a_refusal_says_what_is_wrong(run: LocalRun, client: Sluice) -> None:
    with pytest.raises(Refused, match="no-such-model"):
        client.stream("no-such-model", "Hello").read()
    with Sluice(run.url, key="not a key") as stranger, pytest.raises(Refused) as refused:
        stranger.usage()
    assert (refused.value.status, refused.value.type) == (401, "unauthenticated")
    with pytest.raises(StreamFailed) as failed:
        client.stream("demo?tokens=200&rate=200&fail_after=60", "Hello").read()
    assert failed.value.text


def test_one_key_is_one_start(run: LocalRun, client: Sluice) -> None:
    first = client.stream(SLOW, "Hello", idempotency_key="k1")
    next(iter(first))
    again = client.stream(SLOW, "Hello", idempotency_key="k1")
    assert again.read() == first.read()
    assert again.id == first.id


def test_a_way_that_cuts_every_connection_loses_nothing(run: LocalRun) -> None:
    limits = iter([0, 100, 700, 20, 900, 1300, 0, 2000])
    with cutting_proxy(run.port, limits) as url, Sluice(url, key="demo") as client:
        answer = client.stream(SLOW, "Hello")
        events = list(answer.events())
    assert answer.text == run.text(answer.id or "")
    assert any(isinstance(event, Reconnecting) for event in events)
    assert run.newest()["id"] == answer.id


def test_an_answer_outlives_its_server(tmp_path: Path) -> None:
    with LocalRun("--db", str(tmp_path / "dev.db")) as run, Sluice(run.url, key="demo") as client:
        answer = client.stream("demo?tokens=300&rate=60", "Hello")
        events = []
        for event in answer.events():
            events.append(event)
            if len(events) == 6:
                run.kill()
                run.start()
        assert answer.status == "completed"
        assert any(isinstance(event, Epoch) for event in events)
        assert answer.text == run.text(answer.id or "")


def test_a_server_that_stays_away_is_given_up_with_the_text_kept(tmp_path: Path) -> None:
    with (
        LocalRun("--db", str(tmp_path / "dev.db")) as run,
        Sluice(run.url, key="demo", retry_s=1) as client,
    ):
        answer = client.stream("demo?tokens=300&rate=60", "Hello")
        for number, _ in enumerate(answer):
            if number == 4:
                break
        run.kill()
        with pytest.raises(GaveUp) as gave_up:
            answer.read()
        assert gave_up.value.text == answer.text != ""
        run.start()
        assert answer.read() == run.text(answer.id or "")


def test_without_a_thread_all_is_the_same(run: LocalRun) -> None:
    async def asks() -> None:
        async with AsyncSluice(run.url, key=_key) as client:
            async with client.stream(SLOW, "Hello") as answer:
                async for _ in answer:
                    break
            assert answer.text
            assert await answer.read() == run.text(answer.id or "")
            assert (await client.summary(answer.id or "")).status == "completed"
            assert [s.id async for s in client.streams(1)] == [answer.id]

            paused = client.stream(SLOW, "Hello")
            kinds = []
            async for event in paused.events():
                kinds.append(type(event))
                if len(kinds) == 2:
                    await paused.pause()
                if isinstance(event, Paused):
                    await paused.resume()
            assert Granted in kinds
            assert paused.text == run.text(paused.id or "")

            several = [client.stream(SLOW, f"Hello {n}") for n in range(3)]
            several.append(client.poll(SLOW, "Hello 3"))
            texts = await asyncio.gather(*(each.read() for each in several))
            assert texts == [run.text(each.id or "") for each in several]

            cancelled = client.stream(SLOW, "Hello")
            async for _ in cancelled:
                await cancelled.cancel()
            assert cancelled.status == "cancelled"
            again = cancelled.regenerate()
            assert await again.read()
            assert await again.refine("Shorter").read()

            file = io.BytesIO()
            await client.export(answer.id or "", file)
            assert json.loads(file.getvalue())
            assert (await client.usage()).limits
            await client.erase(answer.id or "")
            with pytest.raises(Refused):
                await client.summary(answer.id or "")

    asyncio.run(asks())


async def _key() -> str:
    return "demo"


def test_a_proxy_of_ones_own_is_taken(run: LocalRun) -> None:
    seen: list[str] = []
    with httpx.Client(event_hooks={"request": [lambda r: seen.append(r.url.path)]}) as http:
        answer = Sluice(run.url, key="demo", http=http).stream("demo", "Hello")
        assert not any(isinstance(event, Polling) for event in answer.events())
    assert seen == ["/v1/streams"]
