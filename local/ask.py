"""`sluice ask`: an answer in the terminal, to its end, over as many connections as that takes."""

import json
import random
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from local.errors import Failed

#: The server breaks every silence after 15 s; without two such signs in a row it is gone.
READ_S = 40.0
#: A connection that lasted longer has brought such signs, even where it brought no event.
ALIVE_S = READ_S + 10.0
TIMEOUT = httpx.Timeout(10.0, read=READ_S)
CANCEL_S = 5.0
RETRY_DELAY_MAX_S = 5.0
CANCELLED_BY_USER = 130

_LOCATION = re.compile(r"/v1/streams/([0-9a-v]{32})/events")

Note = Callable[[str], None]


class _Again(Exception):
    """The server asks us to come back, after so many seconds at least."""

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__()
        self.delay_s = delay_s


class Answer:
    """One answer. `client` knows the server and carries the key; `body` is what is asked.

    `patience_s` is how long we try in vain to go on before we give up.
    """

    def __init__(
        self,
        client: httpx.Client,
        body: Mapping[str, Any],
        *,
        note: Note,
        patience_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._body = dict(body)
        self._note = note
        self._patience_s = patience_s
        self._sleep = sleep
        # The same for each try, so that the server starts one stream at most.
        self._idempotency_key = secrets.token_urlsafe(18)
        self._stream = ""
        self._after = -1
        self._closed: Mapping[str, Any] | None = None
        self._come_again_s: float | None = None

    def text(self) -> Iterator[str]:
        """The answer's text, piece by piece. Raises `Failed`, also where the stream has."""
        failures, give_up = 0, 0.0
        while self._closed is None:
            seen, began = self._after, time.monotonic()
            why, delay_s = yield from self._connected(failures)
            if self._closed is not None:
                break
            if self._come_again_s is not None:
                # The connection has ended as it should, and the stream goes on.
                self._sleep(self._come_again_s)
                self._come_again_s, failures = None, 0
                continue
            now = time.monotonic()
            if self._after > seen or now - began > ALIVE_S:
                failures = 0
            if failures == 0:
                give_up = now + self._patience_s
                self._note(f"{why}; trying again.")
            self._wait(failures, delay_s, give_up)
            failures += 1
        self._judge(self._closed)

    def _connected(self, failures: int) -> Generator[str, None, tuple[str, float]]:
        """The text of one connection; why it ended, and how long the server wants to be left."""
        try:
            for event in self._events():
                yield self._take(event)
                if self._closed is not None:
                    break
        except _Again as again:
            return "The server is busy", again.delay_s
        except httpx.TransportError as error:
            if isinstance(error, httpx.ConnectError) and not failures and not self._stream:
                raise Failed(f"nothing answers at {self._client.base_url}") from error
        return "The connection was lost", 0.0

    def cancel(self) -> bool:
        """Ask for the stream's end. False when the server could not be told."""
        with suppress(httpx.HTTPError, Failed, _Again):
            if not self._stream:
                # It may have begun before we heard of it: to ask again tells its name.
                with self._connection():
                    pass
        if not self._stream:
            return False
        with suppress(httpx.HTTPError):
            path = f"v1/streams/{self._stream}/cancel"
            return self._client.post(path, timeout=CANCEL_S).is_success
        return False

    def _wait(self, failures: int, delay_s: float, give_up: float) -> None:
        """Before the next try: not at all at first, then longer and longer."""
        if failures:
            delay_s = max(delay_s, random.uniform(0.5, 1) * 0.25 * 2.0**failures)  # noqa: S311
        delay_s = min(delay_s, RETRY_DELAY_MAX_S)
        if time.monotonic() + delay_s > give_up:
            raise Failed(f"the server was gone for {self._patience_s:.0f} s; giving up")
        self._sleep(delay_s)

    def _events(self) -> Iterator[ServerSentEvent]:
        with self._connection() as response:
            try:
                yield from EventSource(response).iter_sse()
            except SSEError as error:
                raise self._foreign() from error

    @contextmanager
    def _connection(self) -> Iterator[httpx.Response]:
        """The stream's events after the last one seen; the first time, its start."""
        headers = {"Accept": "text/event-stream"}
        if self._stream:
            path = f"v1/streams/{self._stream}/events"
            request = self._client.stream(
                "GET", path, headers={**headers, "Last-Event-ID": str(self._after)}
            )
        else:
            headers["Idempotency-Key"] = self._idempotency_key
            request = self._client.stream("POST", "v1/streams", json=self._body, headers=headers)
        with request as response:
            if found := _LOCATION.search(response.headers.get("location", "")):
                self._stream = found[1]
            if response.status_code != httpx.codes.OK:
                response.read()
                raise self._refusal(response)
            yield response

    def _refusal(self, response: httpx.Response) -> Exception:
        if response.status_code == httpx.codes.CONFLICT and self._stream:
            return _Again()
        if response.status_code == httpx.codes.NO_CONTENT:
            return Failed("the stream has ended, and its end was not seen")
        problem = _problem(response)
        temporary = response.status_code in (429, 500, 502, 503, 504)
        if problem is not None:
            # Others with these statuses are how the answer itself failed, and stay that way.
            temporary = problem.get("type") == "urn:sluice:problem:unavailable"
            temporary = temporary or response.status_code == httpx.codes.TOO_MANY_REQUESTS
        if temporary:
            return _Again(_seconds(response.headers.get("retry-after", "")))
        if problem is None:
            return Failed(f"the server answered {response.status_code}")
        return Failed(str(problem.get("detail") or problem.get("title") or "it gave no reason"))

    def _take(self, event: ServerSentEvent) -> str:
        """The text of an event that was not seen before; nothing where it has none."""
        if event.event == "reconnect":
            self._come_again_s = (event.retry or 0) / 1000
            return ""
        try:
            seq, data = int(event.id), json.loads(event.data)
            if seq <= self._after:
                return ""
            self._after = seq
            if event.event == "closed":
                self._closed = dict(data)
            if event.event == "paused":
                self._note(f"The stream is paused ({data['reason']}); it goes on when resumed.")
            return str(data["text"]) if event.event == "chunk" else ""
        except (KeyError, TypeError, ValueError) as error:
            raise self._foreign() from error

    def _judge(self, closed: Mapping[str, Any]) -> None:
        if closed.get("status") == "completed":
            if closed.get("finish_reason") == "length":
                self._note("The answer ends at its limit of tokens.")
            return
        error = closed.get("error") or {}
        raise Failed(str(error.get("detail") or f"the answer was {closed.get('status')}"))

    def _foreign(self) -> Failed:
        return Failed(f"what answers at {self._client.base_url} is not Sluice")


def ask(answer: Answer, out: BinaryIO, note: Note) -> int:
    """Write the answer's text, and nothing else, to `out`. Returns the exit code; raises `Failed`.

    To interrupt it, or to close `out`, cancels the stream: nobody wants the rest of it.
    """
    try:
        for text in answer.text():
            out.write(text.encode("utf-8", "replace"))
            out.flush()
    except KeyboardInterrupt:
        note("Cancelled." if answer.cancel() else "The stream could not be cancelled: it goes on.")
        return CANCELLED_BY_USER
    except BrokenPipeError:
        answer.cancel()
        raise
    except OSError as error:
        answer.cancel()
        raise Failed(f"the answer cannot be written: {error.strerror}") from error
    return 0


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        problem = response.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) else None


def _seconds(retry_after: str) -> float:
    # The other form of it is a date, which nothing here sends.
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
