"""Keeps answers out of caches: what is told to one must not be shown to another, or later."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Uncached:
    """Adds `Cache-Control: no-store` where an answer says nothing of caches itself.

    A cache in front of us may keep what says nothing for as long as it likes. `Authorization` would
    stop a shared one (RFC 9111, section 3.5), but a ticket is in the address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def uncached(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, uncached)
