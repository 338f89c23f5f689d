"""Who is asking: the tenant and user behind a request's key."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import Unauthenticated
from shared.tenants import Tenants

#: What anyone may ask.
_OPEN_PATHS = frozenset({"/healthz"})


class Authentication:
    """Lets a request through with its `Identity` in `request.state.identity`, or refuses it."""

    def __init__(self, app: ASGIApp, tenants: Tenants) -> None:
        self._app = app
        self._tenants = tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not key.strip():
                raise Unauthenticated("Send your key as `Authorization: Bearer <key>`.")
            identity = await self._tenants.identify(key.strip())
            if identity is None:
                raise Unauthenticated("The key is not known here.")
            scope.setdefault("state", {})["identity"] = identity
        await self._app(scope, receive, send)
