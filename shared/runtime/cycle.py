"""One invocation: the app is run, and what it sends becomes a streaming response."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from shared.runtime import report
from shared.runtime.client import PARTING_S, ClientGone, Invocation, ResponseStream, RuntimeApi
from shared.runtime.events import NotHttp, request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: Lambda looks for the end of the prelude within the first 16 KB.
PRELUDE_BYTES_MAX = 16 * 1024 - 8

_PROBLEM_HEADERS = [(b"content-type", b"application/problem+json")]
_PROBLEM = (
    b'{"type":"urn:sluice:problem:internal",'
    b'"title":"Something went wrong on our side","status":500}'
)


class State(Enum):
    WAITING = auto()  # nothing was sent; next: http.response.start
    STREAMING = auto()  # the prelude is out; next: http.response.body
    COMPLETE = auto()  # the response has ended; nothing may follow


class Incomplete(Exception):
    """The app returned before its response was complete."""


async def respond(app: App, api: RuntimeApi, invocation: Invocation) -> None:
    """Answer one invocation; returns only when the app has, however early its client left.

    An app that fails before its response starts is answered for with a problem of status 500,
    later with the trailers that mark a failure. Raises `NotHttp` when there is nothing to run.
    """
    cycle = Cycle(api, invocation)
    try:
        await cycle.run(app)
    except NotHttp:
        raise
    except (Exception, asyncio.CancelledError) as error:
        if _being_cancelled():
            raise
        if not _for_want_of_a_client(error):
            report.log_failure("The app failed", error, request_id=invocation.request_id)
        with suppress(ClientGone, TimeoutError):
            async with asyncio.timeout(PARTING_S):
                await cycle.fail(error)
    finally:
        await cycle.release()


class Cycle:
    """The two ends of one ASGI HTTP connection, `receive` and `send`."""

    def __init__(self, api: RuntimeApi, invocation: Invocation) -> None:
        self._api = api
        self._invocation = invocation
        self._state = State.WAITING
        self._stream: ResponseStream | None = None
        self._body: bytes | None = None
        self._bodiless = False
        self._over = asyncio.Event()

    async def run(self, app: App) -> None:
        scope, self._body = request(self._invocation)
        self._bodiless = scope["method"] == "HEAD"
        await app(scope, self.receive, self.send)
        if self._state is not State.COMPLETE:
            raise ClientGone if self._gone() else Incomplete

    async def receive(self) -> Message:
        """The whole request at once; then, when it is known, that nobody listens any more."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take one message of the app; raises `ClientGone`, an OSError as ASGI 2.4 asks for."""
        match self._state, message["type"]:
            case State.WAITING, "http.response.start":
                await self._start(message["status"], message.get("headers", ()))
            case State.STREAMING, "http.response.body":
                await self._send_body(message.get("body", b""), message.get("more_body", False))
            case state, kind:
                raise RuntimeError(f"unexpected {kind} while {state.name.lower()}")

    async def fail(self, error: BaseException) -> None:
        """Tell the client, as well as that can still be done; raises `ClientGone`."""
        if self._state is State.WAITING:
            await self._start(500, _PROBLEM_HEADERS)
            await self._send_body(_PROBLEM, more=False)
        elif self._state is State.STREAMING:
            # The text of the exception stays here: it may hold what the client sent.
            await self._end(
                {
                    "errorType": report.error_type(error),
                    "requestId": self._invocation.request_id,
                }
            )

    async def release(self) -> None:
        """Close the connection, and log where it did not take the whole response."""
        if self._stream is not None:
            await self._stream.release()
        status = self._stream.status if self._stream else None
        request_id = self._invocation.request_id
        if status is not None and not 200 <= status < 300:
            # 410: Lambda has given this invocation up. Others: too large, or malformed.
            report.log(
                "WARN", "The Runtime API refused a response", status=status, request_id=request_id
            )
        elif self._state is State.STREAMING or (self._stream and status is None):
            report.log("INFO", "Nobody took the response to its end", request_id=request_id)

    async def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        prelude = _prelude(status, headers)
        self._bodiless = self._bodiless or status < 200 or status in (204, 304)
        self._state = State.STREAMING
        self._stream = await self._api.respond(self._invocation, prelude, self._over.set)

    async def _send_body(self, body: bytes, more: bool) -> None:
        if self._stream is None:
            raise ClientGone
        if not self._bodiless:
            await self._stream.write(body)
        if not more:
            await self._end()

    async def _end(self, error: Mapping[str, str] | None = None) -> None:
        if self._stream is None or self._stream.gone:
            raise ClientGone
        # Not only once it has arrived: who gives up waiting for that must not end it anew.
        self._state = State.COMPLETE
        await self._stream.end(error)
        self._over.set()

    def _gone(self) -> bool:
        """Whether the client has left, or takes nothing, for which its app may give it up."""
        stream = self._stream
        return self._state is State.STREAMING and (stream is None or stream.gone or stream.stuck)


def _prelude(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The JSON in front of the body; raises ValueError where Lambda would not find its end."""
    joined: dict[str, str] = {}
    cookies = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name == "set-cookie":
            cookies.append(value)
        else:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
    prelude = json.dumps({"statusCode": status, "headers": joined, "cookies": cookies}).encode()
    if len(prelude) > PRELUDE_BYTES_MAX:
        raise ValueError(f"the response's headers take more than {PRELUDE_BYTES_MAX} bytes")
    return prelude


def _for_want_of_a_client(error: BaseException) -> bool:
    """Whether the app failed only because `send` did: frameworks wrap that in their own error."""
    return isinstance(error, ClientGone) or isinstance(
        error.__cause__ or error.__context__, ClientGone
    )


def _being_cancelled() -> bool:
    """Whether this task itself is cancelled, as on Ctrl-C, and not a task that the app awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
