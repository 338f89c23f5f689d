"""A Lambda Runtime API for one function: gives it events and takes its answers."""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any, Self

from bench.client import KEY, TIMEOUT_S, read_frame, read_head


class RuntimeApi:
    """`idle` is set while the function waits for an event; `asked_ns` is when it first did."""

    def __init__(self) -> None:
        self.address = ""
        self.asked_ns = 0
        self.idle = asyncio.Event()
        # None ends a question for an event that is still open.
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._serving: set[asyncio.Task[None]] = set()
        self._answer: asyncio.Future[bytes] = asyncio.Future()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._events.put_nowait(None)
        await asyncio.gather(*self._serving)

    async def invoke(self, event: dict[str, Any]) -> bytes:
        """The body of the answer, once the function is done with it and waits again."""
        async with asyncio.timeout(TIMEOUT_S):
            await self.idle.wait()
            self.idle.clear()
            self._answer = asyncio.Future()
            self._events.put_nowait(json.dumps(event).encode())
            body = await self._answer
            await self.idle.wait()
        return body

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            line, headers = await read_head(reader)
            path = line.split()[1]
            if path.endswith("/invocation/next"):
                self.asked_ns = self.asked_ns or time.monotonic_ns()
                self.idle.set()
                if event := await self._events.get():
                    await self._reply(writer, 200, event)
            elif path.endswith("/response"):
                body = await self._body(reader)
                await self._reply(writer, 202, b"")
                self._answer.set_result(body)
            else:
                told = await reader.readexactly(int(headers["content-length"]))
                await self._reply(writer, 202, b"")
                self._answer.set_exception(RuntimeError(f"{path}: {told.decode()}"))
        writer.close()

    @staticmethod
    async def _body(reader: asyncio.StreamReader) -> bytes:
        """What a client would get: without the prelude, which ends in eight NULs."""
        frames = []
        while frame := await read_frame(reader):
            frames.append(frame)
        while await reader.readline() != b"\r\n":
            pass
        return b"".join(frames).partition(b"\0" * 8)[2]

    @staticmethod
    async def _reply(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        writer.write(
            f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nLambda-Runtime-Aws-Request-Id: bench\r\n"
            f"Lambda-Runtime-Deadline-Ms: {int(time.time() * 1000) + 900_000}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: bench\r\n\r\n".encode()
            + body
        )
        await writer.drain()


def post_event(model: str) -> dict[str, Any]:
    """What a function URL makes of a request to start an answer."""
    messages = [{"role": "user", "content": "How does an answer travel?"}]
    return {
        "version": "2.0",
        "rawPath": "/v1/streams",
        "rawQueryString": "",
        "headers": {"host": "bench.lambda-url", "authorization": f"Bearer {KEY}"},
        "requestContext": {
            "http": {"method": "POST", "path": "/v1/streams", "sourceIp": "192.0.2.7"}
        },
        "body": json.dumps({"model": model, "messages": messages}),
        "isBase64Encoded": False,
    }
