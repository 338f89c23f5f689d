"""Asking small apps behind the middleware, and who may."""

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.administration import Administration
from shared.authority import Authority
from shared.tenants import Tenants
from tests.model_store import ModelStore


async def ask(
    app: ASGIApp, path: str = "/x", method: str = "GET", **headers: str
) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.request(method, path, headers=headers)


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells what the middleware has made of a request."""
    request = Request(scope)
    identity = request.state.caller.identity
    said = {"tenant": identity.tenant, "user": identity.user, "stream": identity.stream}
    told = {"query": request.url.query, "address": request.state.caller.address}
    await JSONResponse(said | told)(scope, receive, send)


async def authority_of(store: ModelStore) -> Authority:
    """The authority over a store, in which the tenant `demo` has the key `secret`."""
    await Administration(store).ensure("demo", "secret")
    return Authority(store, Tenants(store))
