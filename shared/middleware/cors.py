"""Which pages may call: CORS, and the origins that each tenant lists.

There are two parts, because a preflight comes without a key:

    Cors                   answers preflights; lets pages read the answers that are for them
    → problems
    → authentication
    → OriginPolicy         refuses what a page of another origin asks, before anything is done

What browsers make of it is in the Fetch standard (https://fetch.spec.whatwg.org), under "CORS
protocol", "CORS-preflight fetch" and "CORS check". A page sends its key or ticket itself, and the
browser adds nothing: there are no cookies. So `Access-Control-Allow-Credentials` is not sent.
"""

import re
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import InvalidRequest, OriginNotAllowed, SluiceError
from shared.middleware.problems import Problems
from shared.origins import ORIGIN_CHARS_MAX

#: What a page may ask with.
METHODS = ("GET", "HEAD", "POST", "DELETE")
#: A list of headers that a page may send is the one that it asks for. `*` would not do: it never
#: covers `Authorization`. Nor is it a header's name here, though HTTP would let it be one.
HEADERS_CHARS_MAX = 4096
_HEADERS = re.compile(r"[\w!#$%&'+.^`|~-]+(?:[ \t]*,[ \t]*[\w!#$%&'+.^`|~-]+)*", re.ASCII)
#: What a page may read of an answer, beside `Content-Type` and others that every page may.
RESPONSE_HEADERS = (
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Request-Id",
    "Retry-After",
    "Stream-Id",
    "Trace-Id",
)
#: Chromium keeps a preflight's answer no longer.
MAX_AGE_S = 7200
_PREFLIGHT_VARY = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")


class Origins(Protocol):
    """The lists of the tenants, of origins as `parse_origin` writes them.

    Both methods raise `Unavailable` where the lists cannot be read.
    """

    async def anywhere(self, origin: str) -> bool:
        """Whether any tenant allows it."""
        ...

    async def allowed(self, tenant: str, origin: str) -> bool:
        """Whether this tenant allows it."""
        ...


class Cors:
    """Answers preflights, and tells the browser which page may read an answer.

    An answer to a tenant's request is for the origins of that tenant. One that comes before a
    tenant is known, such as a 401, is for the origins of all of them: it tells nothing that anyone
    without a browser could not ask.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins
        self._preflight = Problems(self._answer_preflight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = _origin(scope)
        preflight = origin is not None and _is_preflight(scope)

        async def shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Also where no origin was sent: a cache must not give that answer to a page.
                _vary(headers, _PREFLIGHT_VARY if preflight else ("Origin",))
                if origin is not None and await self._may_read(scope, origin):
                    headers["access-control-allow-origin"] = origin
                    headers["access-control-expose-headers"] = ", ".join(RESPONSE_HEADERS)
            await send(message)

        await (self._preflight if preflight else self._app)(scope, receive, shared)

    async def _answer_preflight(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _origin(scope) or ""
        allowed = _may_be_listed(origin) and await self._origins.anywhere(origin)
        _decide(scope, allowed)
        if not allowed:
            raise OriginNotAllowed("No tenant lets pages of this origin call.")
        headers = {
            "access-control-allow-methods": ", ".join(METHODS),
            "access-control-max-age": str(MAX_AGE_S),
        }
        if asked := _asked_headers(scope):
            headers["access-control-allow-headers"] = asked
        await Response(status_code=204, headers=headers)(scope, receive, send)

    async def _may_read(self, scope: Scope, origin: str) -> bool:
        state = scope.get("state", {})
        if "origin_allowed" in state:
            return bool(state["origin_allowed"])
        if _tenant(scope) is not None or not _may_be_listed(origin):
            return False
        try:
            return await self._origins.anywhere(origin)
        except SluiceError:
            return False  # The answer goes its way all the same, only unread.


class OriginPolicy:
    """Raises `OriginNotAllowed` for a page whose origin the tenant does not list.

    That its answer stays hidden is not enough: a simple request is sent without a preflight, and
    would be done. Pages of our own origin are always allowed, `Origin: null` is never. Who sends no
    `Origin` is no page, or an image or a link of one: those only read, and see nothing.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            origin, tenant = _origin(scope), _tenant(scope)
            if origin is not None and tenant is not None and not _is_ours(scope, origin):
                allowed = _may_be_listed(origin) and await self._origins.allowed(tenant, origin)
                _decide(scope, allowed)
                if not allowed:
                    raise OriginNotAllowed("Your tenant does not let pages of this origin call.")
        await self._app(scope, receive, send)


def _origin(scope: Scope) -> str | None:
    return Headers(scope=scope).get("origin")


def _tenant(scope: Scope) -> str | None:
    """The tenant of a request, once the authentication has found it."""
    caller = scope.get("state", {}).get("caller")
    return caller.identity.tenant if caller else None


def _decide(scope: Scope, allowed: bool) -> None:
    """What was decided inside, for the headers that are added outside."""
    scope.setdefault("state", {})["origin_allowed"] = allowed


def _is_preflight(scope: Scope) -> bool:
    asked = "access-control-request-method" in Headers(scope=scope)
    return bool(scope["method"] == "OPTIONS" and asked)


def _asked_headers(scope: Scope) -> str:
    """The headers that a page asks to send. Raises `InvalidRequest` where these are no names."""
    asked = Headers(scope=scope).get("access-control-request-headers", "")
    if len(asked) > HEADERS_CHARS_MAX or (asked and not _HEADERS.fullmatch(asked)):
        raise InvalidRequest(
            "`Access-Control-Request-Headers` must be names of headers, with commas between them, "
            f"in at most {HEADERS_CHARS_MAX} characters.",
            field="Access-Control-Request-Headers",
            maximum=HEADERS_CHARS_MAX,
        )
    return asked


def _may_be_listed(origin: str) -> bool:
    """Whether a list may hold it at all: what is longer is not even looked up."""
    return origin != "null" and 0 < len(origin) <= ORIGIN_CHARS_MAX


def _is_ours(scope: Scope, origin: str) -> bool:
    """Whether the page comes from where the request goes.

    Browsers say so themselves, in a header that no page can set (W3C Fetch Metadata), and they know
    the host even where an edge in front of us has changed it. Over plain HTTP they say nothing.
    There the hosts are compared, without the schemes, because TLS may end before us.
    """
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin" and origin != "null"
    host = headers.get("host", "")
    return host != "" and origin in (f"https://{host}", f"http://{host}")


def _vary(headers: MutableHeaders, names: tuple[str, ...]) -> None:
    """Add to the names that a response varies by already."""
    said = [name.strip() for line in headers.getlist("vary") for name in line.split(",")]
    known = {name.lower() for name in said}
    if "*" not in known:
        more = [name for name in names if name.lower() not in known]
        headers["vary"] = ", ".join([*filter(None, said), *more])
