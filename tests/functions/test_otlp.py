"""Sending spans: what a collector gets, and that one which hangs or refuses holds nobody up."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from functions import otlp
from functions.otlp import BATCH_MAX, WAITING_MAX, Otlp
from shared import trace
from shared.spans import Spans
from shared.trace import Place
from tests.collector import Received, collecting

TRACE, SPAN = "a" * 32, "b" * 16


@pytest.fixture
def collector() -> Iterator[Received]:
    with collecting() as received:
        yield received


def sender(url: str, headers: str = "") -> Otlp:
    return Otlp(url, {"service.name": "x"}, lambda: headers)


def tell(spans: Spans, count: int = 1) -> None:
    with trace.within(Place(TRACE, SPAN)):
        for number in range(count):
            with spans.span("job", number=number, half=0.5, whole=True):
                pass


async def test_what_was_told_arrives_with_the_vendor_s_headers(collector: Received) -> None:
    spans = Spans(sender(f"{collector.url}/otlp/", "x-team=k%3D1, Authorization=Basic%20abc"))
    tell(spans, 2)
    await spans.flush()
    first, second = collector.spans
    assert (first.trace, first.parent, first.name) == (TRACE, SPAN, "job")
    assert first.attributes == {"sluice.number": 0, "sluice.half": 0.5, "sluice.whole": True}
    assert first.id != second.id
    ((path, headers),) = collector.requests
    assert path == "/otlp/v1/traces"
    assert (headers["x-team"], headers["authorization"]) == ("k=1", "Basic abc")
    assert headers["content-type"] == "application/json"


async def test_the_address_that_vendors_tell_for_traces_is_taken_too(collector: Received) -> None:
    spans = Spans(sender(f"{collector.url}/v1/traces"))
    tell(spans)
    await spans.flush()
    assert collector.requests[0][0] == "/v1/traces"


async def test_without_anything_to_tell_nothing_is_asked(collector: Received) -> None:
    await Spans(sender(collector.url)).flush()
    assert collector.requests == []


async def test_one_that_hangs_is_not_waited_for_and_loses_nothing_it_takes_later(
    collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_S", 0.05)
    spans = Spans(sender(collector.url))
    collector.wait.clear()
    tell(spans)
    for _ in range(3):
        await spans.flush()
    assert len(collector.requests) == 1
    assert collector.spans == []
    collector.wait.set()
    await asyncio.to_thread(collector.await_span, lambda span: span.name == "job")


async def test_a_connection_that_broke_meanwhile_is_made_anew(collector: Received) -> None:
    spans = Spans(sender(collector.url))
    tell(spans)
    await spans.flush()
    collector.breaks = 1
    tell(spans)
    await spans.flush()
    assert len(collector.spans) == 2


@pytest.mark.parametrize("status", [307, 400, 401, 503])
async def test_one_that_refuses_is_left_alone_for_a_while(
    collector: Received, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.status = status
    spans = Spans(sender(collector.url, "x-key=secret"))
    tell(spans)
    await spans.flush()
    collector.status = 200
    tell(spans)
    await spans.flush()
    assert [path for path, _ in collector.requests] == ["/v1/traces"]
    later = time.monotonic() + otlp.QUIET_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    await spans.flush()
    assert len(collector.spans) == 1


async def test_one_that_is_not_there_or_has_no_headers_is_told_of_by_kind_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lost() -> str:
        raise ValueError("the secret itself")

    with collecting() as gone:
        url = gone.url
    for headers in (lambda: "", lost):
        spans = Spans(Otlp(url, {}, headers))
        tell(spans)
        await spans.flush()
    assert [record.message for record in caplog.records] == ["spans were lost"] * 2
    assert "the secret itself" not in caplog.text
    assert [vars(record)["error"] for record in caplog.records] == [
        "NewConnectionError",
        "ValueError",
    ]


async def test_what_waits_is_bounded_and_sent_in_parts(collector: Received) -> None:
    spans = Spans(sender(collector.url))
    tell(spans, WAITING_MAX + 10)
    await spans.flush()
    await asyncio.to_thread(collector.await_span, lambda s: s.attributes["sluice.number"] == 2057)
    assert len(collector.spans) == WAITING_MAX
    assert len(collector.requests) == WAITING_MAX // BATCH_MAX


def test_what_is_no_url_is_told() -> None:
    with pytest.raises(ValueError, match="SLUICE_OTLP_ENDPOINT"):
        sender("collector:4318")
