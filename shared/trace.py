"""The trace: one id from a client's request to every line that is logged or measured for it.

It is the id of W3C Trace Context (https://www.w3.org/TR/trace-context/), of a client that sends
one; else that of X-Ray, which Lambda gives to each request, written in the same form; else it is
made here. A stream keeps the id of the request that began it, so that whoever goes on with it, in
another function and maybe tomorrow, is found by the same.

Where spans are told (`shared.spans`) it also keeps the span that all of its own are a part of.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from shared.logger import logger

#: Version, trace, parent, flags; a later version may have more behind them.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_XRAY_ROOT = re.compile(r"(?:^|;) *Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something happens: in which trace, as part of which span (16 hexadecimal digits); None
    where no spans are told.
    """

    trace: str
    span: str | None = None


_current: ContextVar[Place | None] = ContextVar("trace", default=None)


def of_request(headers: Mapping[str, str]) -> str:
    """The trace id that a request comes with, or a new one: 32 hexadecimal digits."""
    if told := _w3c(headers):
        return told[0]
    return _xray(headers.get("x-amzn-trace-id", "")) or secrets.token_hex(16)


def parent_of_request(headers: Mapping[str, str]) -> tuple[str | None, bool]:
    """Which span of its client's a request is a part of, and whether that one's trace is recorded:
    who says nothing of it leaves that to us.
    """
    if told := _w3c(headers):
        return told[1], bool(int(told[2], 16) & 1)
    return None, True


def begin(trace_id: str) -> None:
    """Have all that this task logs and measures from here on carry the id."""
    _set(Place(trace_id))


@contextmanager
def within(place: Place) -> Iterator[None]:
    """Meanwhile it is there that things happen."""
    before = here()
    _set(place)
    try:
        yield
    finally:
        _set(before)


@contextmanager
def of_stream(opened: Mapping[str, Any]) -> Iterator[None]:
    """Meanwhile it is that of the stream with this `opened` record's body, where that has one."""
    if kept := opened.get("trace"):
        with within(Place(kept, opened.get("span"))):
            yield
    else:
        yield


def here() -> Place | None:
    """Where this task is."""
    return _current.get()


def kept() -> dict[str, str]:
    """What the `opened` record of a stream keeps of the request that begins it."""
    place = here()
    told = {"trace": place.trace, "span": place.span} if place else {}
    return {name: value for name, value in told.items() if value}


def names() -> dict[str, str]:
    """What a line says of it."""
    place = here()
    return {"trace_id": place.trace} if place else {}


def _set(place: Place | None) -> None:
    _current.set(place)
    if place:
        logger.thread_safe_append_keys(trace_id=place.trace)
    else:
        logger.thread_safe_remove_keys(("trace_id",))


def _w3c(headers: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Trace, parent and flags of a `traceparent` that is good."""
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", "").strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent, flags, more = found.groups()
    good = version != "ff" and not (version == "00" and more)
    return (trace_id, parent, flags) if good and int(trace_id, 16) and int(parent, 16) else None


def _xray(header: str) -> str | None:
    found = _XRAY_ROOT.search(header)
    return "".join(found.groups()) if found else None
