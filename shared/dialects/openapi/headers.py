"""The headers of answers."""

from collections.abc import Mapping

from shared.dialects import native
from shared.dialects.openapi.schemas import COUNT, STREAM_ID, TEXT, Schema

_EVENT_STREAM = {
    name.title(): {"description": "Keeps proxies from holding events back.", "schema": {"const": v}}
    for name, v in native.EVENT_STREAM_HEADERS.items()
    if name != "content-type"
}
_HEADERS: Mapping[str, Schema] = {
    "Request-Id": {"description": "Names the request in our logs.", "schema": TEXT},
    "Trace-Id": {
        "description": "Names what it is a part of, by `traceparent` where that was sent.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "Stream-Id": {"description": "Names the stream.", "schema": STREAM_ID},
    "Location": {
        "description": "Where to find it.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {"description": "When to ask again, in seconds.", "schema": COUNT},
    "RateLimit-Policy": {
        "description": "The limits on the caller: draft-ietf-httpapi-ratelimit-headers-11.",
        "schema": TEXT | {"examples": ['"tenant-starts-per-minute";q=600;w=60']},
    },
    "RateLimit": {
        "description": "What is left of them.",
        "schema": TEXT | {"examples": ['"tenant-starts-per-minute";r=599;t=1']},
    },
    "Preference-Applied": {
        "description": "RFC 7240.",
        "schema": {"const": "respond-async"},
    },
    "WWW-Authenticate": {"description": "RFC 9110, section 11.6.1.", "schema": TEXT},
    "Allow": {"description": "The methods that this address takes.", "schema": TEXT},
    "Content-Disposition": {"description": "A name to save it by.", "schema": TEXT},
    **_EVENT_STREAM,
}
#: Those of a response of Server-Sent Events, where there is one.
EVENT_STREAM = {"Stream-Id": True, **dict.fromkeys(_EVENT_STREAM, True)}


def headers(names: Mapping[str, bool]) -> dict[str, Schema]:
    """The headers of these names, with whether each is always there; and what all answers have."""
    every = {"Request-Id": True, "Trace-Id": True, **names}
    return {name: {**_HEADERS[name], "required": always} for name, always in every.items()}
