"""The floor: the same model as Server-Sent Events, with no log, no keys and no limits.

What it cannot do is what the log is for. It is what a relay costs at least.
"""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from shared.models import Ask, Finish, Message, Models
from shared.models.demo import Demo


def create() -> ASGIApp:
    """The app for the Runtime API."""
    return build(Models({"demo": Demo()}))


def build(models: Models) -> ASGIApp:
    async def start(request: Request) -> StreamingResponse:
        body = await request.json()
        provider, name = models.resolve(body["model"])
        messages = tuple(Message(**message) for message in body["messages"])

        async def events() -> AsyncIterator[bytes]:
            async with aclosing(provider.stream(Ask(name, messages))) as deltas:
                seq = 0
                async for delta in deltas:
                    last = isinstance(delta, Finish)
                    data = json.dumps({"text": "" if isinstance(delta, Finish) else delta})
                    event = "closed" if last else "chunk"
                    yield f"id: {seq}\nevent: {event}\ndata: {data}\n\n".encode()
                    seq += 1

        return StreamingResponse(events(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/streams", start, methods=["POST"])])
