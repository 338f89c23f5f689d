"""Puts the parts together: what every function is made of, and the app around its routes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from functions.emf import emf
from functions.launching import counted, lambda_launch
from shared.answer import Work
from shared.audit.trail import Audit
from shared.authority import Authority
from shared.breaker import Breakers
from shared.dialects import native
from shared.elapsed import elapsed
from shared.erasure import Erasures
from shared.errors import (
    CredentialEnded,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    SluiceError,
    TooLarge,
)
from shared.identity import jwks
from shared.lifecycle import Lifecycle
from shared.live import Live
from shared.log import Log
from shared.logger import log_unhandled
from shared.metrics import SILENT, Metrics
from shared.middleware import stack
from shared.middleware.authorization import Endpoint
from shared.models import CHARS_A_TOKEN, CHARS_A_TOKEN_MAX, Models, Provider
from shared.models.demo import Demo
from shared.models.fallback import Fallback
from shared.pacing import Pacing
from shared.past import Past
from shared.producer import Producer
from shared.quotas import Quotas
from shared.records import Record, StreamKey
from shared.redaction import Redactor, Validator
from shared.schema import TABLES
from shared.seats import Seats
from shared.settings import Settings
from shared.spans import UNTOLD, Spans
from shared.starting import Start, Starting
from shared.table import DynamoDB, Store
from shared.takeover import Launch, Takeovers
from shared.tenants import Tenant, Tenants


@dataclass(frozen=True, slots=True)
class Services:
    """What the functions share within a process."""

    settings: Settings
    log: Log
    lifecycle: Lifecycle
    authority: Authority
    quotas: Quotas
    audit: Audit
    models: Models
    breakers: Breakers
    seats: Seats
    launch: Launch
    live: Live = field(default_factory=Live)

    @classmethod
    def on(
        cls,
        store: Store,
        settings: Settings,
        models: Models | None = None,
        *,
        launch: Launch | None = None,
        log: Log | None = None,
        metrics: Metrics = SILENT,
        spans: Spans = UNTOLD,
        fetch: jwks.Fetch = jwks.fetch,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = elapsed,
    ) -> Self:
        """Everything on one store. `now` is the wall clock, `clock` tells what has passed, in s.

        `launch` has a stream produced, and `fetch` gets an issuer's keys.
        """
        log = log or Log(store, now=now)
        quotas, audit = Quotas(store, now=now), Audit(store, now=now)
        return cls(
            settings=settings,
            log=log,
            lifecycle=Lifecycle(store, log, quotas, audit, metrics, spans),
            authority=Authority(
                store, Tenants(store, clock=clock), fetch=fetch, now=now, clock=clock
            ),
            quotas=quotas,
            audit=audit,
            models=models or Models(providers(settings)),
            breakers=Breakers(
                store,
                slow_first_token_s=float(settings.slow_first_token_s),
                now=now,
                metrics=metrics,
            ),
            seats=Seats(store, now=now),
            launch=counted(launch or lambda_launch(settings), metrics, spans),
        )

    @classmethod
    def from_env(cls, function: str) -> Self:
        return cls.on_aws(Settings.from_env(), function)

    @classmethod
    def on_aws(cls, settings: Settings, function: str) -> Self:
        """What the function of this name is made of."""
        metrics, told = emf(settings, function), spans(settings, function)
        return cls.on(dynamodb(settings), settings, metrics=metrics, spans=told)

    @property
    def metrics(self) -> Metrics:
        return self.lifecycle.metrics

    @property
    def spans(self) -> Spans:
        return self.lifecycle.spans

    @property
    def erasures(self) -> Erasures:
        return Erasures(self.lifecycle, self.audit, live=self.live)

    @property
    def takeovers(self) -> Takeovers:
        return Takeovers(self.lifecycle, self.launch)

    @property
    def starting(self) -> Starting:
        return Starting(self.lifecycle, self.models, self.breakers)

    async def producer(
        self,
        key: StreamKey,
        records: Sequence[Record],
        *,
        epoch: int,
        by: str,
        deadline: float | None,
    ) -> Producer:
        """A producer that goes on behind a stream's records so far, by what its tenant wants now.

        Raises `InvalidRequest` where no provider serves its model, `CredentialEnded`,
        `Unavailable`.
        """
        tenant = await self.authority.tenants.get(key.tenant)
        if tenant is None:
            raise CredentialEnded("suspended")
        past = Past.of(records)
        start = Start.from_body(past.opened.body)
        fallbacks = tenant.policy.fallbacks.get(start.model, ())
        work = Work(
            past=past,
            model=Fallback.of(
                self.models, start.model, fallbacks, self.breakers, begun_by=past.begun_by
            ),
            redactor=Redactor(
                tenant.policy.redaction,
                secret=tenant.secret,
                validators=validators(tenant, start),
            ),
            pacing=start.pacing or Pacing(),
            throttle=start.throttle,
            pauses=tenant.policy.on_quota == "pause",
            **_bounds(start, past),
        )
        return Producer(
            self.takeovers,
            self.authority,
            self.live,
            key,
            work,
            epoch=epoch,
            by=by,
            deadline=deadline,
        )


def validators(tenant: Tenant, start: Start) -> Sequence[Validator]:  # noqa: ARG001
    """What else may end an answer with `policy`, as it is let through: add your own here."""
    return ()


def _bounds(start: Start, past: Past) -> dict[str, Any]:
    """How much an answer may say, from its beginning on, by what its tenant's budget has for it."""
    ask, allowance = start.ask(), past.allowance
    if allowance is None:
        return {"ask": ask}
    if start.max_tokens is not None and allowance >= start.max_tokens:
        # The model keeps to it by its own count. Ours is rough, and for one that does not.
        return {"ask": ask, "chars_max": allowance * CHARS_A_TOKEN_MAX}
    ask = replace(ask, max_tokens=allowance)
    return {"ask": ask, "chars_max": allowance * CHARS_A_TOKEN, "short": True}


def dynamodb(settings: Settings) -> DynamoDB:
    return DynamoDB(
        {table.name: getattr(settings, f"{table.name}_table") for table in TABLES},
        region=settings.region,
        endpoint=settings.dynamodb_endpoint,
    )


def spans(settings: Settings, function: str) -> Spans:
    """Whom the function of this name tells of spans. Raises `ValueError` for what is no URL."""
    if not settings.otlp_endpoint:
        return UNTOLD
    from functions.otlp import Otlp

    resource = {
        "service.name": f"sluice-{function}",
        "service.namespace": settings.metrics_namespace,
        "service.version": settings.version,
    }
    secret = settings.otlp_headers_secret
    return Spans(Otlp(settings.otlp_endpoint, resource, lambda: _secret(secret) if secret else ""))


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


def open_endpoints(services: Services) -> list[Endpoint]:
    """What every function serves to anyone."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": services.settings.version})

    async def openapi(_: Request) -> Response:
        from shared.dialects.openapi import encoded  # of no use to a cold start

        return Response(encoded(services.settings.version), media_type="application/json")

    return [
        Endpoint("GET", "/healthz", None, healthz),
        Endpoint("GET", "/openapi.json", None, openapi),
    ]


def app(endpoints: Sequence[Endpoint], services: Services) -> ASGIApp:
    """Endpoints behind the middleware, with those that are open."""
    everything = [*endpoints, *open_endpoints(services)]
    routes = [endpoint.guarded(services.log, services.quotas) for endpoint in everything]
    # No redirects: their address would be the one that the request came by.
    router = Router(routes, redirect_slashes=False)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        # With an app in its scope a router raises what it cannot serve, and so leaves it to us.
        scope["app"] = router
        try:
            await router(scope, receive, send)
        except HTTPException as error:
            raise _translated(error, scope, router) from None

    return stack(
        routed,
        services.authority,
        services.audit,
        services.metrics,
        services.spans,
        edge_digest=services.settings.edge_digest,
    )


@contextmanager
def without_texts() -> Iterator[None]:
    """What a handler on Lambda's own runtime does meanwhile. That logs the text of what is raised,
    and keeps it with an event that has failed.
    """
    try:
        yield
    except SluiceError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is
        log_unhandled(error)
        raise RuntimeError(type(error).__name__) from None


async def read_body(request: Request) -> bytes:
    """The request's body. Raises `TooLarge` as soon as that is known, and `InvalidRequest`."""
    body = bytearray()
    try:
        async with aclosing(request.stream()) as parts:
            async for part in parts:
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
        return await asyncio.to_thread(_secret, settings.openai_api_key_secret)

    return from_secret


def _secret(arn: str) -> str:
    from aws_lambda_powertools.utilities.parameters import get_secret

    # Kept for five minutes by the library, so a rotated one is taken up without a deployment.
    return str(get_secret(arn, max_age=300))


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
