"""Apps for the tests, and the way to serve them."""

from collections.abc import Iterable
from typing import Any

import pytest

from shared.runtime import loop
from shared.runtime.client import RuntimeApi, RuntimeApiError
from shared.runtime.cycle import App, Message, Receive, Send
from tests.shared.runtime.fake import FakeRuntimeApi, Posted

Scope = Any


def serve(app: App, fake: FakeRuntimeApi) -> list[Posted]:
    """Run the loop until the fake has given out all of its events; return the responses."""
    with fake, pytest.raises(RuntimeApiError):
        loop.run(app, RuntimeApi(fake.address))
    return fake.responses


def start(status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def answering(*messages: Message) -> App:
    """An app that sends these messages to whoever asks."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


class Seen:
    """An app that keeps what it was asked, and answers with an empty 200."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        message = await receive()
        assert message["type"] == "http.request"
        assert message["more_body"] is False
        self.bodies.append(message["body"])
        await send(start())
        await send(body())
