"""A server, and a way to it, in virtual time: for the core, which does no I/O."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice_client.events import Event
from sluice_client.machine import Ask, Conditions, Lost, Machine, Passage, Times, Wait

STREAM = "0123456789abcdefghijklmn01234567"
TEXTS = ("Grüße ", "aus\n", "Zürich\r\n", "\n\nid: 9\n\n", "🌊", "\u2028\u0085 end")
SSE = {"content-type": "text/event-stream; charset=utf-8", "stream-id": STREAM}
JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html"}
PROBLEM = {"content-type": "application/problem+json"}
UNAVAILABLE = json.dumps(
    {"type": "urn:sluice:problem:unavailable", "detail": "Not just now.", "retryable": True}
).encode()
COMPLETED = {"status": "completed", "finish_reason": "stop", "usage": None, "error": None}


@dataclass
class Reply:
    """What comes of a request: a reply, or what there was of it until the connection broke."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    lost: Lost | None = None
    #: Nothing came but that: not even a head.
    headless: bool = False
    takes_s: float = 0.01


def event(seq: int, name: str, data: object) -> bytes:
    return f"id: {seq}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class World:
    """A stream, its log complete, and who asks for it. `faults` befall the first requests."""

    def __init__(self, *faults: Callable[["World", Ask], Reply]) -> None:
        self.now = 1000.0
        self.faults: Iterator[Callable[[World, Ask], Reply]] = iter(faults)
        self.asked: list[Ask] = []
        self.waited: list[float] = []
        self.log: list[tuple[int, str, dict[str, Any]]] = [
            (0, "opened", {"id": STREAM, "model": "demo", "at": 0})
        ]
        self.log += [(2 * n + 1, "chunk", {"text": text}) for n, text in enumerate(TEXTS)]
        self.log += [(2 * len(TEXTS) + 1, "closed", dict(COMPLETED))]
        self.times = Times()
        self.passage = Passage(self.times)

    def conditions(self, *, retry_s: float = 60.0, renewable: bool = False) -> Conditions:
        return Conditions(
            self.times, self.passage, retry_s, renewable, lambda: self.now, lambda: 1.0
        )

    def run(
        self, machine: Machine, *, piece: int = 7, requests: int = 500
    ) -> Generator[Event, None, None]:
        """What a driver does. Raises what the machine does."""
        machine.begin()
        yield from machine.drain()
        while step := machine.next():
            yield from machine.drain()
            if isinstance(step, Wait):
                self.waited.append(step.seconds)
                self.now += step.seconds
                continue
            self.asked.append(step)
            assert len(self.asked) < requests, "it asks without end"
            yield from self._answer(machine, next(self.faults, World.serve)(self, step), piece)
            yield from machine.drain()

    def _answer(self, machine: Machine, reply: Reply, piece: int) -> Iterator[Event]:
        self.now += reply.takes_s
        if not reply.headless:
            machine.began(reply.status, reply.headers)
            for at in range(0, len(reply.body), piece):
                machine.received(reply.body[at : at + piece])
                yield from machine.drain()
                if not machine.listens:
                    break
        if machine.listens and reply.lost:
            machine.lost(reply.lost, OSError("broken"))
        else:
            machine.ended()

    def serve(self, ask: Ask) -> Reply:
        """As Sluice does."""
        if "/chunks" in ask.path:
            return self._page(int(ask.path.split("after=")[1].split("&")[0]))
        if ask.headers.get("Prefer"):
            return Reply(202, {**JSON, "stream-id": STREAM}, b'{"id": "%s"}' % STREAM.encode())
        if ask.path.endswith("/events") or ask.path == "/v1/streams":
            after = int(ask.headers.get("Last-Event-ID", "-1"))
            if after >= self.log[-1][0]:
                return Reply(204)
            return Reply(200, SSE, b"".join(event(*e) for e in self.log if e[0] > after))
        return Reply(200, JSON, json.dumps({"id": STREAM, "status": "open"}).encode())

    def _page(self, after: int) -> Reply:
        chunks = [
            {"seq": seq, "text": data["text"], "at": 0}
            for seq, name, data in self.log
            if name == "chunk" and seq > after
        ]
        end = self.log[-1]
        page = {"chunks": chunks, "next": end[0], "status": "open", "closed": False}
        page |= {"poll_after_ms": 250, **({**end[2], "closed": True} if end[1] == "closed" else {})}
        return Reply(200, JSON, json.dumps(page).encode())
