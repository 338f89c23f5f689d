"""What a request may do: every endpoint names the scope that it needs, and none can forget to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.authority import Caller, may_see
from shared.errors import Forbidden
from shared.log import Log, unknown_stream
from shared.quotas import Quotas
from shared.records import StreamKey, is_stream_id

Serve = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path, and the scope that it needs; None where anyone may ask.

    A request counts as a poll, unless the endpoint has limits of its own (`counted` is False).
    """

    method: str
    path: str
    scope: str | None
    serve: Serve
    counted: bool = True

    def guarded(self, log: Log, quotas: Quotas) -> Route:
        """Its route, where `serve` is reached only by who may.

        A `{stream}` in the path becomes the `StreamKey` in `request.state.key`: a stream of another
        tenant, or of another user, does not exist, nor does one whose retention is over.
        """

        async def checked(request: Request) -> Response:
            request.state.path = self.path
            if self.scope is not None:
                caller = caller_of(request)
                identity = caller.identity
                if self.scope not in identity.scopes:
                    raise Forbidden(f"This needs the scope `{self.scope}`.", scope=self.scope)
                if "stream" in request.path_params:
                    request.state.key = _visible(caller, request.path_params["stream"], log)
                elif identity.stream is not None:
                    raise Forbidden("A ticket is good for its own stream only.")
                if self.counted:
                    await quotas.ask(caller.tenant, identity.user, caller.address)
            return await self.serve(request)

        return Route(self.path, checked, methods=[self.method])


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def _visible(caller: Caller, stream: str, log: Log) -> StreamKey:
    if not is_stream_id(stream):
        raise unknown_stream(stream)
    identity = caller.identity
    key = StreamKey(identity.tenant, stream)
    # Whoever had a ticket made could see its stream, maybe by a scope that a ticket does not have.
    seen = may_see(caller, key) if identity.stream is None else identity.stream == stream
    if log.is_expired(key) or not seen:
        raise unknown_stream(stream)
    return key
