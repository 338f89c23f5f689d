"""`sluice ask` against a server that cuts it off wherever that can happen."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from local.ask import CANCELLED_BY_USER, Answer, ask
from local.errors import Failed
from shared.dialects import native
from shared.errors import (
    IdempotencyInFlight,
    InvalidRequest,
    ProviderFailed,
    SluiceError,
    Unauthenticated,
    Unavailable,
)
from shared.records import Kind, Record

STREAM = "0123456789abcdefghijklmn01234567"
BODY = {"model": "demo", "messages": [{"role": "user", "content": "?"}]}
TEXTS = ("Grüße ", "aus\n", "Zürich\r\n", "🌊", "\u2028\u0085 end")
COMPLETED: dict[str, Any] = {
    "status": "completed",
    "finish_reason": "stop",
    "usage": None,
    "error": None,
}


def log(closed: dict[str, Any] = COMPLETED) -> list[Record]:
    """Records as a producer leaves them, with one among the chunks that no client sees."""
    kinds = [Kind.OPENED, *[Kind.TEXT] * 2, Kind.HEARTBEAT, *[Kind.TEXT] * 3, Kind.CLOSED]
    texts = iter(TEXTS)
    bodies = {Kind.OPENED: {"model": "demo"}, Kind.CLOSED: closed}
    return [
        Record(seq, kind, 1, 0, "w", next(texts) if kind == Kind.TEXT else "", bodies.get(kind, {}))
        for seq, kind in enumerate(kinds)
    ]


class Wire(httpx.SyncByteStream):
    """A response's bytes, in small pieces; then its end, or a broken connection."""

    def __init__(self, data: bytes, *, cut: bool) -> None:
        self._data = data
        self._cut = cut

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), 7):
            yield self._data[start : start + 7]
        if self._cut:
            raise httpx.ReadError("cut")


class Server(httpx.BaseTransport):
    """Serves one stream. `faults` are what happens to the first requests, one each."""

    def __init__(self, *faults: "Fault", closed: dict[str, Any] = COMPLETED) -> None:
        self.records = log(closed)
        self.faults = list(faults)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        if request.url.path.endswith("/cancel"):
            return httpx.Response(202)
        return self.faults.pop(0)(self, request) if self.faults else self.events(request)

    def events(self, request: httpx.Request, limit: int | None = None) -> httpx.Response:
        after = int(request.headers.get("last-event-id", "-1"))
        data = native.EventEncoder(STREAM).encode(r for r in self.records if r.seq > after)
        cut = limit is not None and limit < len(data)
        headers = {
            **native.EVENT_STREAM_HEADERS,
            "stream-id": STREAM,
            "location": f"/v1/streams/{STREAM}/events",
        }
        return httpx.Response(200, headers=headers, stream=Wire(data[:limit], cut=cut))

    @property
    def seen(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


Fault = Callable[[Server, httpx.Request], httpx.Response]


def cut(limit: int) -> Fault:
    return lambda server, request: server.events(request, limit)


def refuse(error: SluiceError) -> Fault:
    return lambda _, __: httpx.Response(
        error.status,
        json=error.problem(),
        headers={**error.headers, "content-type": "application/problem+json"},
    )


def broken(error: BaseException) -> Fault:
    def fault(_: Server, __: httpx.Request) -> httpx.Response:
        raise error

    return fault


def answer(server: Server, *, patience_s: float = 60.0) -> Answer:
    client = httpx.Client(transport=server, base_url="http://sluice.test/")
    return Answer(client, BODY, note=ignore, patience_s=patience_s, sleep=lambda _: None)


def ignore(_: str) -> None:
    pass


def all_text(server: Server) -> str:
    return "".join(answer(server).text())


def test_without_a_fault_one_request_is_enough() -> None:
    server = Server()
    assert all_text(server) == "".join(TEXTS)
    assert server.seen == ["POST /v1/streams"]
    assert json.loads(server.requests[0].content) == BODY


def test_a_cut_at_any_byte_loses_nothing_and_repeats_nothing() -> None:
    whole = len(native.EventEncoder(STREAM).encode(log()))
    for first in range(whole):
        server = Server(cut(first), cut(first // 3))
        assert all_text(server) == "".join(TEXTS), first


def test_one_event_a_connection() -> None:
    longest = max(len(native.EventEncoder(STREAM).encode([r])) for r in log())
    server = Server(*[cut(longest)] * 50)
    assert all_text(server) == "".join(TEXTS)
    assert len(server.requests) > 3


def test_a_start_that_was_not_answered_is_repeated_with_its_key() -> None:
    in_flight = IdempotencyInFlight(
        headers={"Location": f"/v1/streams/{STREAM}/events", "Retry-After": "2"}
    )
    server = Server(broken(httpx.ReadError("cut")), refuse(Unavailable()), refuse(in_flight))
    assert all_text(server) == "".join(TEXTS)
    assert server.seen == ["POST /v1/streams"] * 3 + [f"GET /v1/streams/{STREAM}/events"]
    assert len({r.headers["idempotency-key"] for r in server.requests[:3]}) == 1


def test_a_stream_that_is_paused_is_noted_and_waited_for_as_the_server_says() -> None:
    paused = Record(3, Kind.PAUSE, 1, 0, "w", body={"reason": "requested", "parked": True})

    def ends(server: Server, request: httpx.Request) -> httpx.Response:
        after = int(request.headers.get("last-event-id", "-1"))
        encoder = native.EventEncoder(STREAM)
        data = encoder.encode(r for r in server.records[:4] if r.seq > after)
        data += encoder.reconnect(3, retry_ms=15_000)
        headers = {**native.EVENT_STREAM_HEADERS, "location": f"/v1/streams/{STREAM}/events"}
        return httpx.Response(200, headers=headers, stream=Wire(data, cut=False))

    server = Server(*[ends] * 30)
    server.records[3] = paused
    slept: list[float] = []
    notes: list[str] = []
    client = httpx.Client(transport=server, base_url="http://sluice.test/")
    paused_answer = Answer(client, BODY, note=notes.append, patience_s=60.0, sleep=slept.append)
    assert "".join(paused_answer.text()) == "".join(TEXTS)
    assert slept == [15.0] * 30
    assert notes == ["The stream is paused (requested); it goes on when resumed."]


def test_a_gateway_that_has_lost_its_server_is_tried_again() -> None:
    assert all_text(Server(cut(150), lambda *_: httpx.Response(502))) == "".join(TEXTS)


def test_a_server_that_is_gone_for_long_is_given_up() -> None:
    gone = broken(httpx.ConnectError("refused"))
    patient = answer(Server(cut(150), *[gone] * 1000), patience_s=0.2)
    with pytest.raises(Failed, match="gone for 0 s"):
        list(patient.text())


def test_a_server_that_never_gets_further_is_given_up() -> None:
    patient = answer(Server(*[cut(10)] * 1000), patience_s=0.2)
    with pytest.raises(Failed, match="giving up"):
        list(patient.text())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (broken(httpx.ConnectError("refused")), "nothing answers at http://sluice.test"),
        (refuse(Unauthenticated("The key is not known here.")), "The key is not known here."),
        (refuse(InvalidRequest("`model` is missing.", field="model")), "`model` is missing."),
        (
            refuse(ProviderFailed("It failed.", code="upstream", retryable=True)),
            "It failed.",
        ),
        (lambda *_: httpx.Response(404, text="<html>"), "the server answered 404"),
        (lambda *_: httpx.Response(204), "its end was not seen"),
        (lambda *_: httpx.Response(200, html="<html>"), "is not Sluice"),
        (
            lambda *_: httpx.Response(
                200, text="data: 1\n\n", headers={"content-type": "text/event-stream"}
            ),
            "is not Sluice",
        ),
    ],
)
def test_a_refusal_is_final(fault: Fault, said: str) -> None:
    server = Server(fault)
    with pytest.raises(Failed, match=said):
        all_text(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ({"status": "failed", "error": {"detail": "The model failed."}}, "The model failed."),
        ({"status": "cancelled", "error": None}, "the answer was cancelled"),
    ],
)
def test_a_stream_that_did_not_complete_is_a_failure(closed: dict[str, Any], said: str) -> None:
    with pytest.raises(Failed, match=said):
        all_text(Server(closed={**COMPLETED, **closed}))


def test_an_answer_that_was_cut_short_is_noted() -> None:
    notes: list[str] = []
    client = httpx.Client(
        transport=Server(closed={**COMPLETED, "finish_reason": "length"}),
        base_url="http://sluice.test",
    )
    out = io.BytesIO()
    assert ask(Answer(client, BODY, note=notes.append, patience_s=1), out, ignore) == 0
    assert out.getvalue().decode() == "".join(TEXTS)
    assert notes == ["The answer ends at its limit of tokens."]


class Interrupting(io.BytesIO):
    """Output whose reader interrupts at the first byte."""

    def __init__(self, how: BaseException) -> None:
        super().__init__()
        self._how = how

    def write(self, data: Any) -> int:
        if data:
            raise self._how
        return 0


def test_to_interrupt_cancels_the_stream() -> None:
    server = Server()
    notes: list[str] = []
    code = ask(answer(server), Interrupting(KeyboardInterrupt()), notes.append)
    assert code == CANCELLED_BY_USER
    assert server.seen == ["POST /v1/streams", f"POST /v1/streams/{STREAM}/cancel"]
    assert notes == ["Cancelled."]


def test_to_interrupt_before_the_stream_is_known_cancels_it_too() -> None:
    server = Server(broken(KeyboardInterrupt()))
    assert ask(answer(server), io.BytesIO(), ignore) == CANCELLED_BY_USER
    assert server.seen == ["POST /v1/streams"] * 2 + [f"POST /v1/streams/{STREAM}/cancel"]
    assert len({r.headers["idempotency-key"] for r in server.requests[:2]}) == 1


def test_a_stream_that_could_not_be_cancelled_is_noted() -> None:
    notes: list[str] = []
    server = Server(broken(KeyboardInterrupt()), broken(httpx.ConnectError("refused")))
    assert ask(answer(server), io.BytesIO(), notes.append) == CANCELLED_BY_USER
    assert notes == ["The stream could not be cancelled: it goes on."]


def test_an_answer_that_nobody_reads_is_cancelled() -> None:
    server = Server()
    with pytest.raises(BrokenPipeError):
        ask(answer(server), Interrupting(BrokenPipeError()), ignore)
    assert server.seen[-1] == f"POST /v1/streams/{STREAM}/cancel"
