"""Clients that want one answer whole, whatever becomes of the server that gives it."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from shared.models import Ask, Message
from shared.models.demo import Demo
from shared.records import Record
from tests.e2e.local_run import body

#: What a client may be told while a process dies, or its database does: to come again.
AGAIN = (409, 429, 502, 503)
RETRY_S = 1.0
#: The server breaks every silence after 15 s.
TIMEOUT = httpx.Timeout(10, read=40)

_STREAM = re.compile(r"/v1/streams/([0-9a-v]{32})")


class Reader:
    """One client and its answer, to be gone on with for as long as it takes.

    With a `stream` it is one that somebody else has started.
    """

    def __init__(
        self,
        url: str,
        model: str,
        prompt: str = "Hello",
        *,
        key: str = "demo",
        stream: str = "",
        **more: Any,
    ) -> None:
        self.stream = stream
        self.text = ""
        #: The offsets of all that was seen, in the order in which it came.
        self.offsets: list[int] = []
        self.closed: Mapping[str, Any] | None = None
        #: How often a connection was lost.
        self.losses = 0
        self.moved = asyncio.Event()
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"}
        self._body = body(model, prompt) | more
        self._once = {"idempotency-key": secrets.token_hex(8)}

    @property
    def after(self) -> int:
        return self.offsets[-1] if self.offsets else -1

    async def follow(self) -> None:
        """Start the answer, and follow it by events to its end."""
        await self._to_the_end(self._events)

    async def poll(self) -> None:
        """Start the answer, and poll it to its end."""
        await self._to_the_end(self._page)

    async def beyond(self, offset: int) -> None:
        """Return once more than that was seen."""
        while self.after <= offset:
            self.moved.clear()
            await self.moved.wait()

    async def _to_the_end(self, read: Callable[[httpx.AsyncClient], Any]) -> None:
        async with httpx.AsyncClient(headers=self._headers, timeout=TIMEOUT) as client:
            while self.closed is None:
                try:
                    await read(client)
                except httpx.TransportError:
                    self.losses += 1
                if self.closed is None:
                    await asyncio.sleep(RETRY_S)

    async def _events(self, client: httpx.AsyncClient) -> None:
        async with self._connection(client) as response:
            if self._answers(response, await _problem(response)):
                async for event in EventSource(response).aiter_sse():
                    self._take(event)

    @asynccontextmanager
    async def _connection(self, client: httpx.AsyncClient) -> AsyncIterator[httpx.Response]:
        if self.stream:
            path = f"{self._url}/v1/streams/{self.stream}/events"
            request = client.stream("GET", path, headers={"last-event-id": str(self.after)})
        else:
            path = f"{self._url}/v1/streams"
            request = client.stream("POST", path, json=self._body, headers=self._once)
        async with request as response:
            yield response

    async def _page(self, client: httpx.AsyncClient) -> None:
        if not self.stream:
            headers = {"prefer": "respond-async", **self._once}
            path = f"{self._url}/v1/streams"
            started = await client.post(path, json=self._body, headers=headers)
            self._answers(started, started.text)
            return
        path = f"{self._url}/v1/streams/{self.stream}/chunks"
        response = await client.get(path, params={"after": self.after, "wait": 5})
        if not self._answers(response, response.text):
            return
        page = response.json()
        for chunk in page["chunks"]:
            self._saw(chunk["seq"], chunk["text"])
        if page["next"] > self.after:
            self.offsets.append(page["next"])
        self.closed = page if page["closed"] else None

    def _answers(self, response: httpx.Response, said: str) -> bool:
        """Whether this is an answer, and no word to come again."""
        if found := _STREAM.match(response.headers.get("location", "")):
            self.stream = found[1]
        if response.status_code in AGAIN:
            self.losses += 1
            return False
        assert response.is_success, f"{response.status_code}: {said}"
        return True

    def _take(self, event: ServerSentEvent) -> None:
        data = json.loads(event.data)
        if event.event != "reconnect":
            self._saw(int(event.id), data["text"] if event.event == "chunk" else "")
        if event.event == "closed":
            self.closed = data

    def _saw(self, offset: int, text: str) -> None:
        assert offset > self.after, "seen twice, or out of order"
        self.offsets.append(offset)
        self.text += text
        self.moved.set()


async def _problem(response: httpx.Response) -> str:
    return "" if response.is_success else (await response.aread()).decode()


async def in_one_go(model: str, prompt: str = "Hello") -> str:
    """What the demo model says when nothing happens to it."""
    ask = Ask(model, (Message("user", prompt),))
    return "".join([delta async for delta in Demo().stream(ask) if isinstance(delta, str)])


def check_answer(reader: Reader, records: Sequence[Record], expected: str) -> None:
    """A client has seen the whole answer; and it is the log's, to the end."""
    assert reader.closed
    assert reader.closed["status"] == "completed"
    assert reader.text == expected
    assert reader.text == "".join(record.text for record in records)
    assert [record.seq for record in records] == list(range(len(records)))
    assert reader.offsets == sorted(set(reader.offsets))
    assert reader.after == records[-1].seq
    assert records[-1].closes
