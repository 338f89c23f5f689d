"""Puts the parts together: what every function is made of, and the app around its routes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.dialects import native
from shared.errors import InvalidRequest, MethodNotAllowed, NotFound, SluiceError, TooLarge
from shared.live import Live
from shared.log import Log, unknown_stream
from shared.middleware import stack
from shared.models import Models, Provider
from shared.models.demo import Demo
from shared.producer import Producer
from shared.records import StreamKey, is_stream_id
from shared.settings import Settings
from shared.starting import Start
from shared.table import DynamoDB, Store
from shared.tenants import Identity, Tenants


@dataclass(frozen=True, slots=True)
class Services:
    """What the functions share within a process."""

    settings: Settings
    log: Log
    tenants: Tenants
    models: Models
    live: Live = field(default_factory=Live)

    @classmethod
    def on(cls, store: Store, settings: Settings) -> Self:
        return cls(settings, Log(store), Tenants(store), Models(providers(settings)))

    @classmethod
    def from_env(cls) -> Self:
        settings = Settings.from_env()
        return cls.on(dynamodb(settings), settings)

    def producer(
        self, key: StreamKey, start: Start, *, epoch: int, by: str, deadline: float | None
    ) -> Producer:
        """A producer for a stream. Raises `InvalidRequest` where no provider serves its model."""
        provider, name = self.models.resolve(start.model)
        return Producer(
            self.log,
            self.live,
            key,
            provider=provider,
            ask=start.ask(name),
            pacing=start.pacing,
            throttle=start.throttle,
            epoch=epoch,
            by=by,
            deadline=deadline,
        )


def dynamodb(settings: Settings) -> DynamoDB:
    return DynamoDB(
        {"streams": settings.streams_table, "tenants": settings.tenants_table},
        region=settings.region,
        endpoint=settings.dynamodb_endpoint,
    )


def providers(settings: Settings) -> dict[str, Provider]:
    """The providers that the settings enable, by their prefix."""
    found: dict[str, Provider] = {"demo": Demo()}
    # Who is not enabled is not imported either.
    if settings.openai_base_url:
        from shared.models.openai import OpenAI

        found["openai"] = OpenAI(settings.openai_base_url, _openai_key(settings))
    if settings.bedrock_models:
        from shared.models.bedrock import Bedrock

        models = frozenset(m.strip() for m in settings.bedrock_models.split(",") if m.strip())
        found["bedrock"] = Bedrock(
            models, region=settings.region, endpoint=settings.bedrock_endpoint or None
        )
    return found


def app(routes: Sequence[BaseRoute], services: Services) -> ASGIApp:
    """Routes behind the middleware, with `GET /healthz`."""

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "version": services.settings.version})

    # No redirects: their address would be the one that the request came by.
    router = Router([*routes, Route("/healthz", healthz)], redirect_slashes=False)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        # With an app in its scope a router raises what it cannot serve, and so leaves it to us.
        scope["app"] = router
        try:
            await router(scope, receive, send)
        except HTTPException as error:
            raise _translated(error, scope, router) from None

    return stack(routed, services.tenants)


def stream_key(request: Request) -> StreamKey:
    """The stream that the path names, within the tenant of the request."""
    identity: Identity = request.state.identity
    stream = request.path_params["stream"]
    if not is_stream_id(stream):
        raise unknown_stream(stream)
    return StreamKey(identity.tenant, stream)


async def read_body(request: Request) -> bytes:
    """The request's body. Raises `TooLarge` as soon as that is known, and `InvalidRequest`."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > native.BODY_BYTES_MAX:
                raise TooLarge(
                    f"The body is over {native.BODY_BYTES_MAX} bytes.",
                    maximum=native.BODY_BYTES_MAX,
                )
    except ClientDisconnect:
        raise InvalidRequest("The body broke off.") from None
    return bytes(body)


def invocation_deadline(request: Request) -> float | None:
    """When the invocation ends, in the event loop's time; None where nothing ends it."""
    lambda_ = request.scope.get("extensions", {}).get("lambda", {})
    at_ms: int | None = lambda_.get("deadline_ms")
    if at_ms is None:
        return None
    return asyncio.get_running_loop().time() + at_ms / 1000 - time.time()


def _openai_key(settings: Settings) -> Callable[[], Awaitable[str]] | str:
    if not settings.openai_api_key_secret:
        return settings.openai_api_key

    async def from_secret() -> str:
        from aws_lambda_powertools.utilities.parameters import get_secret

        # Kept for five minutes by the library, so a rotated key is taken up without a deployment.
        return str(await asyncio.to_thread(get_secret, settings.openai_api_key_secret, max_age=300))

    return from_secret


def _translated(error: HTTPException, scope: Scope, router: Router) -> SluiceError:
    if error.status_code == 404:
        return NotFound(f"There is no {scope['method']} {scope['path'][:200]} here.")
    if error.status_code == 405:
        # Each method has a route of its own, and Starlette tells of the first one only.
        here = [r for r in router.routes if r.matches(scope)[0] is not Match.NONE]
        methods = {method for r in here if isinstance(r, Route) for method in r.methods or ()}
        allowed = ", ".join(sorted(methods))
        return MethodNotAllowed(f"This address takes {allowed}.", headers={"Allow": allowed})
    return SluiceError()
