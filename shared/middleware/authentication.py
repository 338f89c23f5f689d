"""Who is asking: the identity behind a key, a token or a ticket."""

from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.authority import Authority, Caller
from shared.errors import Unauthenticated
from shared.identity import Identity

#: What anyone may ask.
OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})


class Authentication:
    """Lets a request through with its `Caller` in `request.state.caller`, or refuses it."""

    def __init__(self, app: ASGIApp, authority: Authority) -> None:
        self._app = app
        self._authority = authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            ticket = _take_ticket(scope)
            identity = await self._identify(scope, ticket)
            tenant = await self._authority.tenant(identity)
            client = scope.get("client")
            caller = Caller(identity, tenant, client[0] if client else None)
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope, ticket: str | None) -> Identity:
        if ticket is not None:
            return await self._authority.identify_ticket(ticket)
        scheme, _, credential = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            raise Unauthenticated("Send your key as `Authorization: Bearer <key>`.")
        return await self._authority.identify(credential.strip())


def _take_ticket(scope: Scope) -> str | None:
    """The ticket in a request's query, which nothing behind us gets to see."""
    query = parse_qsl(str(scope["query_string"], "latin-1"), keep_blank_values=True)
    tickets = [value for name, value in query if name == "ticket"]
    if not tickets:
        return None
    rest = [(name, value) for name, value in query if name != "ticket"]
    scope["query_string"] = urlencode(rest).encode("latin-1")
    return tickets[0]
