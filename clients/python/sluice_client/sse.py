"""Server-Sent Events from bytes, as they come. No I/O.

Not httpx-sse, which reads a response itself: it hides the comments, by which a live connection is
told from a dead one, and has no bound on what it gathers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: One event. A record has at most 400 KB, and JSON takes six bytes for some characters.
EVENT_BYTES_MAX = 4 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n?|\n")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Frame:
    """An event as it stands on the wire. `id` is its own, not that of one before it."""

    event: str
    data: str
    id: str | None = None
    retry_ms: int | None = None


class TooLong(Exception):
    """An event without an end."""


class Decoder:
    """The events of one response, in order (WHATWG HTML, section 9.2)."""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._bytes = 0
        self._after_cr = False
        self._first = True
        self._fields: dict[str, str] = {}
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[Frame | None]:
        """What these bytes complete: events, and None for each comment. Raises `TooLong`.

        An event of which the end is missing is never given out: it comes again, whole, to who asks
        for what is behind the one before it.
        """
        for line in self._lines(data):
            if line.startswith(":"):
                yield None
            elif line:
                self._field(line)
            elif (frame := self._frame()) is not None:
                yield frame

    def _lines(self, data: bytes) -> Iterator[str]:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # the second half of one line's end
        self._after_cr = data.endswith(b"\r") if data else self._after_cr
        *ended, rest = _LINE_END.split(data)
        for part in ended:
            line = b"".join([*self._line, part])
            self._line = []
            if self._first:
                self._first, line = False, line.removeprefix(_BOM)
            yield line.decode("utf-8", "replace")
        if rest:
            self._line.append(rest)
        self._bytes += len(data)
        if self._bytes > EVENT_BYTES_MAX:
            raise TooLong

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        else:
            self._fields[name] = value

    def _frame(self) -> Frame | None:
        fields, data = self._fields, self._data
        self._fields, self._data, self._bytes = {}, [], 0
        if not data:
            return None
        retry = fields.get("retry", "")
        return Frame(
            fields.get("event", ""),
            "\n".join(data),
            fields.get("id"),
            int(retry) if re.fullmatch("[0-9]{1,9}", retry) else None,
        )
