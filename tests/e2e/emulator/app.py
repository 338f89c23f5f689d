"""A small plain Starlette app: one route for each thing that the runtime has to carry."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


def create() -> Starlette:
    return Starlette(
        routes=[
            Route("/chunks", chunks),
            Route("/echo", echo, methods=["POST"]),
            Route("/status/{status:int}", status),
            Route("/cookies", cookies),
            Route("/binary", binary),
            Route("/extension", extension),
            Route("/breaks", breaks),
            Route("/produce", Produce()),
        ]
    )


async def chunks(request: Request) -> Response:
    """`count` lines, `delay` seconds apart; the process's id first."""
    count, delay = int(request.query_params["count"]), float(request.query_params["delay"])

    async def lines() -> AsyncIterator[str]:
        yield f"{os.getpid()}\n"
        for number in range(count):
            await asyncio.sleep(delay)
            yield f"{number} {time.time()}\n"

    return StreamingResponse(lines(), media_type="text/plain")


async def echo(request: Request) -> Response:
    body = await request.body()
    return Response(body, headers={"content-type": request.headers["content-type"]})


async def status(request: Request) -> Response:
    code = int(request.path_params["status"])
    return Response(None if code == 204 else b"body", code, {"x-seen": request.headers["x-sent"]})


async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("one", "1", httponly=True)
    response.set_cookie("two", "2", path="/v1")
    return response


async def binary(_: Request) -> Response:
    return Response(bytes(range(256)) * 1000, media_type="application/octet-stream")


async def extension(request: Request) -> Response:
    return JSONResponse(
        {
            **request.scope["extensions"]["lambda"],
            "trace_variable": os.environ.get("_X_AMZN_TRACE_ID"),
            "client": request.client,
            "query": request.url.query,
        }
    )


async def breaks(_: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        yield "some\n"
        raise ValueError("a text that no log may show")

    return StreamingResponse(lines(), media_type="text/plain")


class Produce:
    """A producer that goes on after its client has left, as those of Sluice do.

    It sends `count` lines, `delay` seconds apart, for as long as somebody takes them, and writes to
    the file `path` what has happened.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = Request(scope).query_params
        happened = Path(query["path"])
        connected = True
        await send({"type": "http.response.start", "status": 200})
        for number in range(int(query["count"])):
            append(happened, str(number))
            if connected:
                try:
                    line = f"{number}\n".encode()
                    await send({"type": "http.response.body", "body": line, "more_body": True})
                except OSError:
                    connected = False
                    append(happened, "client gone")
            await asyncio.sleep(float(query["delay"]))
        if connected:
            await send({"type": "http.response.body"})
        append(happened, "end")


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
