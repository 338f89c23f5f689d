"""The client against a server, and a way to it, on which whatever can go wrong does.

In every case the text is whole, or the error is clear and keeps what there was of the text.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from sluice_client import (
    AsyncSluice,
    Closed,
    Event,
    GaveUp,
    NotSluice,
    Polling,
    Reconnecting,
    Refused,
    Sluice,
    SluiceError,
    StreamFailed,
    Streaming,
    Times,
)

from tests.clients import hostile
from tests.clients.python import THEIRS

pytestmark = pytest.mark.filterwarnings(THEIRS)

#: What takes seconds in earnest.
TIMES = Times(
    first_byte_s=0.4, silence_s=1, poll_s=1, unheard_s=1, backoff_s=0.02, stream_again_s=0.5
)
RETRY_S = 20.0


@dataclass
class Told:
    """How an answer went: what was handed out, and what the server had to serve for it."""

    events: list[Event]
    text: str
    error: SluiceError | None
    report: Any

    def has(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)


Ask = Callable[..., Told]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with hostile.serving() as url:
        yield url


@pytest.fixture(params=["sync", "asyncio", "trio"])
def ask(request: pytest.FixtureRequest, url: str) -> Ask:
    """Asks by one of the clients, in a scenario that no other test has."""
    label = str(hash(request.node.name))

    def told(scenario: str, *, retry_s: float = RETRY_S, poll: bool = False) -> Told:
        address = f"{url}/{scenario},as={label}"
        events, text, error = CLIENTS[request.param](address, retry_s, poll)
        report = httpx.get(f"{address}/_report").json()
        assert report["streams_begun"] <= 1
        assert text == "".join(e.text for e in events if hasattr(e, "text"))
        if error is None:
            assert text == report["text"]
            assert isinstance(events[-1], Closed)
        else:
            assert error.text == text
            assert (report["text"] or "").startswith(text)
            assert str(error)
        return Told(events, text, error, report)

    return told


Read = tuple[list[Event], str, SluiceError | None]


def read(address: str, retry_s: float, poll: bool) -> Read:
    events: list[Event] = []
    # To load certificates that nothing here needs takes longer than most answers.
    with httpx.Client(verify=False) as http:
        client = Sluice(address, key="demo", retry_s=retry_s, times=TIMES, http=http)
        answer = (client.poll if poll else client.stream)("demo", "?")
        try:
            events.extend(answer.events())
        except SluiceError as error:
            return events, answer.text, error
        return events, answer.text, None


def read_async(backend: str, address: str, retry_s: float, poll: bool) -> Read:
    async def reads() -> Read:
        events: list[Event] = []
        async with httpx.AsyncClient(verify=False) as http:
            client = AsyncSluice(address, key="demo", retry_s=retry_s, times=TIMES, http=http)
            answer = (client.poll if poll else client.stream)("demo", "?")
            try:
                async for event in answer.events():
                    events.append(event)  # noqa: PERF401 - what came before an error counts
            except SluiceError as error:
                return events, answer.text, error
            return events, answer.text, None

    return anyio.run(reads, backend=backend)


CLIENTS: Mapping[str, Callable[[str, float, bool], Read]] = {
    "sync": read,
    "asyncio": partial(read_async, "asyncio"),
    "trio": partial(read_async, "trio"),
}


@pytest.mark.parametrize(
    "scenario",
    [
        "pace=5",
        "bom",
        "crlf;times=all",
        "cr;times=all",
        "twice;times=all",
        "twice;on=chunks;times=all",
        "duplicate=3;times=all,cut=300",
        "comment-flood=300;times=all",
        "unknown-event;future-fields;times=all",
        "future-fields;on=chunks;times=all",
        "big-event=300000",
        "chunks=3000",
        "expiring",
        "refuse;times=2",
        "lost-reply;times=2",
        "refuse;on=any;skip=1,cut=300",
        "status=503;retry-after=1",
        "status=429;retry-after=1,cut=100",
        "status=502;times=2",
        "status=500",
        "status=408",
        "status=409",
        "cut=200,status=503,status=502;times=4",
        "cut=200,portal",
        "cut=200,type=json",
        "cut=200,type=none",
        "cut=200,gzip-garbage",
        "gzip-garbage",
        "empty;times=2",
        "truncated-utf8",
        "fin=250",
        "end=250",
        "end=0,fin=0,cut=0",
        "reconnect=2;times=all",
        "reconnect=1;times=3,cut=150",
        "stall=3;at=300",
        "stall=3;at=20",
        "stall=3",
        "slow=1",
        "cut=200,portal;on=stream;times=all",
        "cut=200,status=403;on=stream;times=all",
        "cut=200,refuse;on=stream;times=8",
        "head-only;times=all",
        "buffer;times=all",
        "stall=3;times=all",
        "buffer;times=all,status=503;on=chunks;retry-after=1,portal;on=chunks",
        "buffer;times=all,cut=40;on=chunks,lost-reply;on=chunks,gzip-garbage;on=chunks",
        "buffer;times=all,type=html;on=chunks,empty;on=chunks,stall=2;on=chunks",
        "head-only,lost-reply;on=start;times=2,status=503",
    ],
)
def test_the_text_is_whole(ask: Ask, scenario: str) -> None:
    told = ask(scenario)
    assert told.error is None


@pytest.mark.parametrize(("how", "step"), [("cut", 8), ("fin", 40), ("end", 40)])
def test_a_connection_that_ends_at_any_byte_loses_nothing_and_repeats_nothing(
    url: str, how: str, step: int
) -> None:
    """At some bytes on real connections; `test_following` does it at each of them."""
    whole = len(_events_of(f"{url}/chunks=3,as=whole"))
    for client, first in (("sync", 0), ("asyncio", step // 2), ("trio", step // 4)):
        for at in range(first, whole, step):
            address = f"{url}/chunks=3,{how}={at},{how}={at // 3},as={client}"
            events, text, error = CLIENTS[client](address, RETRY_S, False)
            assert error is None, (client, at)
            assert text == httpx.get(f"{address}/_report").json()["text"], (client, at)
            seqs = [event.seq for event in events if hasattr(event, "seq")]
            assert seqs == sorted(set(seqs)), (client, at)


def _events_of(address: str) -> bytes:
    body = {"model": "demo", "messages": [{"role": "user", "content": "?"}]}
    headers = {"Authorization": "Bearer demo"}
    return httpx.post(f"{address}/v1/streams", json=body, headers=headers).content


@pytest.mark.parametrize(
    ("scenario", "tries"),
    [("buffer;times=all,pace=100", 2), ("head-only;times=all,pace=100", 1)],
    ids=["without its name", "but for its name"],
)
def test_a_stream_that_is_held_back_is_polled_and_begun_once(
    ask: Ask, scenario: str, tries: int
) -> None:
    told = ask(scenario)
    assert told.error is None
    assert told.has(Polling)
    starts = [seen for seen in told.report["requests"] if seen["route"] == "start"]
    assert len(starts) == tries
    assert len({seen["idempotency_key"] for seen in starts}) == 1


def test_streaming_is_tried_again(ask: Ask) -> None:
    told = ask("head-only;times=2,pace=300,chunks=16")
    assert told.error is None
    kinds = [type(event) for event in told.events if isinstance(event, (Polling, Streaming))]
    assert kinds == [Polling, Streaming]


def test_what_is_only_polled_never_streams(ask: Ask) -> None:
    told = ask("pace=20", poll=True)
    assert told.error is None
    assert {seen["route"] for seen in told.report["requests"]} == {"start", "chunks"}


def test_a_server_is_left_alone_for_as_long_as_it_asks(ask: Ask) -> None:
    told = ask("status=429;retry-after=2,cut=100")
    first, second, *_ = (seen["at_ms"] for seen in told.report["requests"])
    assert second - first >= 2000


def test_what_takes_longer_than_the_budget_is_told_at_once(ask: Ask) -> None:
    told = ask("status=429;retry-after=3600;times=all")
    assert isinstance(told.error, Refused)
    assert (told.error.status, told.error.type) == (429, "limit-exceeded")
    assert told.error.retry_after == 3600
    assert len(told.report["requests"]) == 1


@pytest.mark.parametrize(
    "scenario",
    [
        "cut=300,refuse;on=any;times=all",
        "cut=300,status=503;on=any;times=all",
        "cut=300,portal;on=any;times=all",
        "cut=300,cut=10;on=any;times=all",
        "cut=300,empty;on=any;times=all",
        "cut=300,cut=0;on=any;times=all",
    ],
)
def test_who_gives_up_keeps_the_text(ask: Ask, scenario: str) -> None:
    told = ask(scenario, retry_s=1.5)
    assert isinstance(told.error, GaveUp)
    assert told.text
    assert told.has(Reconnecting)
    assert told.error.__cause__ is not None or "connection" in str(told.error)


@pytest.mark.parametrize(
    ("scenario", "kind", "kept"),
    [
        ("status=401", Refused, False),
        ("status=404", Refused, False),
        ("cut=300,status=404;on=any;times=all", Refused, True),
        ("portal", NotSluice, False),
        ("type=html", NotSluice, False),
        ("status=404;on=summary,status=400", NotSluice, False),
        ("status=302", NotSluice, False),
        ("closes=failed", StreamFailed, True),
        ("closes=failed,cut=300", StreamFailed, True),
        ("closes=failed,head-only;times=all", StreamFailed, True),
    ],
)
def test_an_end_that_is_none(ask: Ask, scenario: str, kind: type[SluiceError], kept: bool) -> None:
    told = ask(scenario)
    assert type(told.error) is kind
    assert bool(told.text) is kept


def test_who_fails_tells_why(ask: Ask) -> None:
    told = ask("closes=failed")
    assert isinstance(told.error, StreamFailed)
    assert told.error.type == "provider-failed"
    assert told.error.retryable
    assert isinstance(told.events[-1], Closed)
    assert told.text == told.report["text"]


def test_a_cancelled_answer_just_ends(ask: Ask) -> None:
    told = ask("closes=cancelled")
    assert told.error is None
    assert told.events[-1].status == "cancelled"  # type: ignore[union-attr]
