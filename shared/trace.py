"""The trace: one id from a client's request to every line that is logged or measured for it.

It is the id of W3C Trace Context (https://www.w3.org/TR/trace-context/), of a client that sends
one; else that of X-Ray, which Lambda gives to each request, written in the same form; else it is
made here. A stream keeps the id of the request that began it, so that whoever goes on with it, in
another function and maybe tomorrow, is found by the same.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from shared.logger import logger

#: Version, trace, parent, flags; a later version may have more behind them.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_XRAY_ROOT = re.compile(r"(?:^|;) *Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")

_current: ContextVar[str | None] = ContextVar("trace", default=None)


def of_request(headers: Mapping[str, str]) -> str:
    """The trace id that a request comes with, or a new one: 32 hexadecimal digits."""
    told = _w3c(headers.get("traceparent", "")) or _xray(headers.get("x-amzn-trace-id", ""))
    return told or secrets.token_hex(16)


def begin(trace_id: str) -> None:
    """Have all that this task logs and measures from here on carry the id."""
    _current.set(trace_id)
    logger.thread_safe_append_keys(trace_id=trace_id)


@contextmanager
def of_stream(opened: Mapping[str, Any]) -> Iterator[None]:
    """Meanwhile it is that of the stream with this `opened` record's body, where that has one."""
    before, kept = _current.get(), opened.get("trace")
    if kept:
        begin(kept)
    try:
        yield
    finally:
        if kept and before:
            begin(before)
        elif kept:
            _current.set(None)
            logger.thread_safe_remove_keys(("trace_id",))


def kept() -> dict[str, str]:
    """What the `opened` record of a stream keeps of the request that begins it."""
    trace_id = _current.get()
    return {"trace": trace_id} if trace_id else {}


def names() -> dict[str, str]:
    """What a line says of it."""
    trace_id = _current.get()
    return {"trace_id": trace_id} if trace_id else {}


def _w3c(header: str) -> str | None:
    found = _TRACEPARENT.fullmatch(header.strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent, more = found.groups()
    good = version != "ff" and not (version == "00" and more)
    return trace_id if good and int(trace_id, 16) and int(parent, 16) else None


def _xray(header: str) -> str | None:
    found = _XRAY_ROOT.search(header)
    return "".join(found.groups()) if found else None
