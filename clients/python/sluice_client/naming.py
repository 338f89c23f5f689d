"""Streams by their names: in a path, and in a reply."""

import re
from collections.abc import Mapping

from sluice_client.machine import Reply

_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")
_LOCATION = re.compile(r"/v1/streams/([0-9A-Za-z_-]{1,128})(?:/|$)")


def stream_path(stream: str, rest: str = "") -> str:
    """A path of a stream. Raises ValueError: another id would lead elsewhere."""
    if not _ID.fullmatch(stream):
        raise ValueError("this is not the id of a stream")
    return f"/v1/streams/{stream}{rest}"


def named_in_head(headers: Mapping[str, str]) -> str | None:
    """The stream that a reply's headers name."""
    if _ID.fullmatch(stream := headers.get("stream-id", "")):
        return stream
    found = _LOCATION.search(headers.get("location", ""))
    return found[1] if found else None


def named(reply: Reply) -> str | None:
    """The stream that a reply names: in its body, where a proxy drops headers."""
    return named_in_head(reply.headers) or named_in_body(reply)


def named_in_body(reply: Reply) -> str | None:
    """The stream that the reply to an asynchronous start names, or to what steers one."""
    try:
        stream = reply.json()["id"]
    except (ValueError, KeyError, TypeError):
        return None
    return stream if isinstance(stream, str) and _ID.fullmatch(stream) else None
