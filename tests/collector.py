"""A collector of OpenTelemetry that takes OTLP over HTTP in JSON, and decodes what it is sent."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Told:
    """One span as it arrived."""

    trace: str
    id: str
    parent: str | None
    name: str
    kind: int
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    events: dict[str, int]
    links: list[tuple[str, str]]
    failed: bool
    service: str


@dataclass
class Received:
    """What arrived; `status` is answered, after `wait` is over. So many connections break first."""

    url: str = ""
    breaks: int = 0
    status: int = 200
    spans: list[Told] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    wait: threading.Event = field(default_factory=threading.Event)

    def await_span(self, fits: Callable[[Told], bool]) -> Told:
        """The first span that fits, when it is there."""
        give_up = time.monotonic() + 60
        while not (found := [span for span in list(self.spans) if fits(span)]):
            assert time.monotonic() < give_up, [span.name for span in self.spans]
            time.sleep(0.02)
        return found[0]

    def of(self, trace: str) -> list[Told]:
        return [span for span in self.spans if span.trace == trace]


@contextmanager
def collecting() -> Iterator[Received]:
    """A collector on this machine. What it waits for is over at the end."""
    received = Received()
    received.wait.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.requests.append((self.path, headers))
            if received.breaks:
                received.breaks -= 1
                self.close_connection = True
                return
            received.wait.wait(30)
            if received.status == 200:
                received.spans += _decoded(json.loads(body))
            with suppress(OSError):  # who has waited for too long has left
                self.send_response(received.status)
                self.send_header("content-length", "2")
                self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield received
    finally:
        received.wait.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _decoded(request: dict[str, Any]) -> Iterator[Told]:
    for group in request.pop("resourceSpans"):
        service = _attributes(group["resource"]["attributes"])["service.name"]
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                yield _span(span, service)
    assert not request


def _span(span: dict[str, Any], service: str) -> Told:
    told = Told(
        trace=_id(span.pop("traceId"), 16),
        id=_id(span.pop("spanId"), 8),
        parent=_id(parent, 8) if (parent := span.pop("parentSpanId", None)) else None,
        name=span.pop("name"),
        kind=span.pop("kind"),
        began_ns=int(span.pop("startTimeUnixNano")),
        ended_ns=int(span.pop("endTimeUnixNano")),
        attributes=_attributes(span.pop("attributes")),
        events={event["name"]: int(event["timeUnixNano"]) for event in span.pop("events")},
        links=[(_id(x["traceId"], 16), _id(x["spanId"], 8)) for x in span.pop("links")],
        failed=span.pop("status") == {"code": 2},
        service=service,
    )
    assert not span, "there is no such field"
    assert 1 <= told.kind <= 5
    assert told.began_ns <= told.ended_ns
    return told


def _id(text: str, length: int) -> str:
    assert len(bytes.fromhex(text)) == length
    return text


def _attributes(listed: list[dict[str, Any]]) -> dict[str, Any]:
    found = {each["key"]: _value(each["value"]) for each in listed}
    assert len(found) == len(listed)
    return found


def _value(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    kinds: dict[str, Callable[[Any], Any]] = {
        "stringValue": str,
        "boolValue": bool,
        "intValue": int,
        "doubleValue": float,
        "arrayValue": lambda array: [_value(each) for each in array["values"]],
    }
    return kinds[kind](held)
