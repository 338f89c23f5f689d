"""Compresses Server-Sent Events for who takes gzip, and holds none of them back for it."""

import re
import zlib
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: 8 KiB are looked back on, with 64 KiB of memory for each connection: what zlib takes by default,
#: four times as much, makes an answer no smaller (docs/decisions/compression.md).
WINDOW_BITS = 13
MEMORY_LEVEL = 6
_GZIP = 16
_NEVER = re.compile(r"\s*q=0(\.0*)?\s*", re.IGNORECASE)


class Compressed:
    """Compresses what is sent at once as a block of its own, which can be decoded at once.

    Not where the tenant's `compression` is `none`, nor behind a proxy that names itself: one that
    has to look into what it passes on may wait for the end to do so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        flushed: Callable[[bytes, bool], bytes] | None = None

        async def compressed(message: Message) -> None:
            nonlocal flushed
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/event-stream"):
                    headers.add_vary_header("Accept-Encoding")
                    if _wanted(scope):
                        flushed = _gzip()
                        headers["content-encoding"] = "gzip"
                        del headers["content-length"]
            elif flushed:
                body, more = message.get("body", b""), message.get("more_body", False)
                message = {**message, "body": flushed(body, more)}
            await send(message)

        await self._app(scope, receive, compressed)


def _gzip() -> Callable[[bytes, bool], bytes]:
    gzip = zlib.compressobj(wbits=_GZIP + WINDOW_BITS, memLevel=MEMORY_LEVEL)

    def flushed(body: bytes, more: bool) -> bytes:
        return gzip.compress(body) + gzip.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)

    return flushed


def _wanted(scope: Scope) -> bool:
    headers, caller = Headers(scope=scope), scope.get("state", {}).get("caller")
    return (
        caller is not None
        and caller.tenant.policy.compression == "gzip"
        and scope["method"] != "HEAD"
        and _accepted(",".join(headers.getlist("accept-encoding")))
        and not _proxied(",".join(headers.getlist("via")))
    )


def _accepted(encodings: str) -> bool:
    for encoding in encodings.split(","):
        name, _, weight = encoding.partition(";")
        if name.strip().lower() == "gzip":
            return not _NEVER.fullmatch(weight)
    return False


def _proxied(via: str) -> bool:
    """Whether there is a proxy between, other than CloudFront."""
    return any(not hop.rstrip().endswith("(CloudFront)") for hop in via.split(",") if hop.strip())
