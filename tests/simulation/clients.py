"""What clients make of what they are sent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shared.errors import NotFound
from shared.records import StreamKey


@dataclass
class Client:
    """What one client made of what it was sent."""

    name: str
    key: StreamKey
    #: What it saw over each of its connections: the records' numbers.
    connections: list[list[int]] = field(default_factory=list)
    #: What it showed to its user: the events' numbers and the text.
    shown: list[int] = field(default_factory=list)
    text: str = ""
    closed: dict[str, Any] | None = None
    #: Whether it was told that there is no such stream.
    gone: bool = False

    @property
    def done(self) -> bool:
        return self.closed is not None or self.gone

    @contextmanager
    def told_when_gone(self) -> Iterator[None]:
        try:
            yield
        except NotFound:
            self.gone = True


class EventDecoder:
    """As much of Server-Sent Events as the native dialect uses; bytes in, whole events out."""

    def __init__(self) -> None:
        self._rest = b""

    def reset(self) -> None:
        """The connection is gone, and what was left of an event with it."""
        self._rest = b""

    def decode(self, data: bytes) -> list[tuple[int, str, dict[str, Any]]]:
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        events = []
        for event in whole:
            lines = [line.partition(": ") for line in event.decode().split("\n")]
            fields = {name: value for name, _, value in lines}
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return events
