"""The Lambda Runtime API (AWS documentation: "Using the Lambda runtime API for custom runtimes").

`RuntimeApi` asks and tells, one short blocking call each; `ResponseStream` is a response that is
under way, over asyncio, because its app runs meanwhile.
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from typing import Any, Self

from shared.runtime import report

_VERSION = "/2018-06-01/runtime"
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
_INVOCATION_ID = "Lambda-Runtime-Invocation-Id"

#: How long a response that is over waits for who does not take the rest of it.
PARTING_S = 2.0


class RuntimeApiError(Exception):
    """The Runtime API does not give out work any more: the process should end."""


class ClientGone(OSError):
    """Nobody takes this response any more: the client left, or Lambda refused or cut it."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What `/next` answered. `invocation_id`, where given, is to be echoed with the response."""

    request_id: str
    event: bytes
    deadline_ms: int | None = None
    function_arn: str | None = None
    trace_id: str | None = None
    invocation_id: str | None = None

    def echo(self) -> dict[str, str]:
        return {_INVOCATION_ID: self.invocation_id} if self.invocation_id else {}


class RuntimeApi:
    """The Runtime API at `host:port`, or `host:port/prefix` as emulators have it.

    Each call makes a connection of its own: on loopback that is cheap, and no connection has to
    survive a frozen or restored environment.
    """

    def __init__(self, address: str) -> None:
        self.host, slash, prefix = address.partition("/")
        self.root = slash + prefix.rstrip("/") + _VERSION

    def next(self) -> Invocation:
        """Wait for the next invocation, for as long as it takes."""
        headers, event = self._get("/invocation/next")
        request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        if not request_id:
            raise RuntimeApiError("an invocation without a request id")
        return Invocation(
            request_id=request_id,
            event=event,
            deadline_ms=_future(headers["Lambda-Runtime-Deadline-Ms"]),
            function_arn=headers["Lambda-Runtime-Invoked-Function-Arn"],
            trace_id=headers["Lambda-Runtime-Trace-Id"],
            invocation_id=headers[_INVOCATION_ID],
        )

    def restore_next(self) -> None:
        """Let Lambda take its snapshot; return in an environment restored from it."""
        self._get("/restore/next")

    def init_error(self, error: BaseException, kind: str | None = None) -> None:
        self._post("/init/error", report.described(error, kind))

    def restore_error(self, error: BaseException, kind: str) -> None:
        self._post("/restore/error", report.described(error, kind))

    def invocation_error(self, invocation: Invocation, kind: str, message: str) -> None:
        """Answer an invocation with an error; only before its response has started."""
        self._post(
            f"/invocation/{invocation.request_id}/error",
            {"errorType": kind, "errorMessage": message, "stackTrace": []},
            invocation.echo(),
        )

    async def respond(
        self, invocation: Invocation, prelude: bytes, on_gone: Callable[[], None]
    ) -> "ResponseStream":
        """Start a streaming response; raises `ClientGone`. The caller releases what it gets.

        `prelude` is JSON, `{"statusCode": int, "headers": {…}, "cookies": […]}`; `on_gone` is
        called once, when nothing that is written will arrive any more.
        """
        head = [
            f"POST {self.root}/invocation/{invocation.request_id}/response HTTP/1.1",
            f"Host: {self.host}",
            "Connection: close",
            "Content-Type: application/vnd.awslambda.http-integration-response",
            "Lambda-Runtime-Function-Response-Mode: streaming",
            "Transfer-Encoding: chunked",
            f"Trailer: {_ERROR_TYPE}, {_ERROR_BODY}",
            *(f"{name}: {value}" for name, value in invocation.echo().items()),
            "\r\n",
        ]
        # The NULs are a chunk of their own: emulators take the first chunk for the prelude.
        start = "\r\n".join(head).encode("latin-1") + _chunk(prelude) + _chunk(b"\0" * 8)
        return await ResponseStream.open(self.host, start, on_gone)

    def _get(self, path: str) -> tuple[HTTPMessage, bytes]:
        status, headers, body = self._call("GET", path)
        if status != 200:
            raise RuntimeApiError(f"GET {path} answered {status}")
        return headers, body

    def _post(
        self, path: str, error: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        head = {
            "Content-Type": "application/vnd.aws.lambda.error+json",
            _ERROR_TYPE: error["errorType"],
            **(headers or {}),
        }
        status, _, _ = self._call("POST", path, json.dumps(error).encode(), head)
        if not 200 <= status < 300:
            # 410 is an invocation that Lambda has given up; the others are no reason to end either.
            report.log("WARN", "The Runtime API refused an error", path=path, status=status)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, HTTPMessage, bytes]:
        connection = HTTPConnection(self.host)
        try:
            connection.request(method, self.root + path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.msg, response.read()
        finally:
            connection.close()


class ResponseStream:
    """The body of one POST to `/response`, chunked by hand so that it can end in trailers.

    What is written is bounded by the transport's buffer (64 KiB): `write` waits while Lambda does
    not read. `status` is the Runtime API's answer, None until there is one.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_gone: Callable[[], None],
    ) -> None:
        self.status: int | None = None
        self._writer = writer
        self._transport = writer.transport
        self._answered = asyncio.Event()
        self._watch = asyncio.create_task(self._watching(reader, on_gone))

    @classmethod
    async def open(cls, address: str, start: bytes, on_gone: Callable[[], None]) -> Self:
        """Connect, and send the request's head with the first bytes of its body."""
        host, _, port = address.partition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port or 80))
        except OSError as error:
            on_gone()
            raise ClientGone from error
        writer.write(start)
        return cls(reader, writer, on_gone)

    @property
    def gone(self) -> bool:
        """Whether nothing that is written will arrive any more."""
        return self._transport.is_closing()

    @property
    def stuck(self) -> bool:
        """Whether something that was written is not taken."""
        return self._transport.get_write_buffer_size() > 0

    async def write(self, data: bytes) -> None:
        """Pass bytes on; raises `ClientGone`."""
        if data:  # an empty chunk would end the body
            await self._put(_chunk(data))

    async def end(self, error: Mapping[str, str] | None = None) -> None:
        """End the body and wait for the Runtime API's `status`; raises `ClientGone`.

        With an `error` (`errorType`, …) the body ends in the trailers that mark a failure.
        """
        trailers = b""
        if error is not None:
            told = b64encode(json.dumps(error).encode()).decode()
            trailers = f"{_ERROR_TYPE}: {error['errorType']}\r\n{_ERROR_BODY}: {told}\r\n".encode()
        self._writer.write(b"0\r\n" + trailers + b"\r\n")
        await self._answered.wait()
        if self.status is None:
            raise ClientGone

    async def release(self) -> None:
        """Flush what was written, where it is taken within `PARTING_S`, and close the connection.

        Lambda does not read while its client does not: who waited for that would wait, and be
        billed, to the end of the invocation.
        """
        self._watch.cancel()
        await asyncio.wait([self._watch])
        self._writer.close()
        with suppress(OSError):  # as is a TimeoutError
            async with asyncio.timeout(PARTING_S):
                await self._writer.wait_closed()
        self._transport.abort()

    async def _put(self, frame: bytes) -> None:
        try:
            if not self.gone:
                self._writer.write(frame)
                await self._writer.drain()
        except OSError as error:
            raise ClientGone from error
        # Asked again: a drain that was waiting when the connection was aborted returns in peace.
        if self.gone:
            raise ClientGone

    async def _watching(self, reader: asyncio.StreamReader, on_gone: Callable[[], None]) -> None:
        """Take the answer, which may come before the body's end, then wait for the connection's."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.status = int(head.split(None, 2)[1])
            self._answered.set()
            while self.status < 300 and await reader.read(65536):
                pass
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass
        # Also wakes a `write` that waits for a reader which will not read again.
        self._transport.abort()
        self._answered.set()
        on_gone()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _future(deadline_ms: str | None) -> int | None:
    """A deadline that is still to come; emulators send one of 1970."""
    if deadline_ms is None or not deadline_ms.isdecimal():
        return None
    return int(deadline_ms) if int(deadline_ms) > time.time() * 1000 else None
