"""What the clients with and without `await` have in common: all but the I/O."""

import hashlib
import random
import secrets
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, Unpack
from urllib.parse import urlsplit

import httpx

from sluice_client.call import Calls
from sluice_client.ending import Ending
from sluice_client.events import Closed, Reconnecting, TokenUsage
from sluice_client.following import Following
from sluice_client.machine import Ask, Conditions, Lost, Machine, Passage, Times
from sluice_client.question import Options, Question

A = TypeVar("A", bound="AnswerState")

#: Each answer under way has a connection of its own, and what steers it must not wait for one.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)

#: Is told when a call has to be made again.
Notify = Callable[[Reconnecting], object]


class Wire:
    """What every request of a client has in common."""

    def __init__(
        self,
        url: str,
        api_url: str | None,
        *,
        renewable: bool,
        retry_s: float,
        times: Times,
        notify: Notify | None,
    ) -> None:
        self._stream_url = _address(url)
        self._api_url = _address(api_url) if api_url else self._stream_url
        self.conditions = Conditions(
            times, Passage(times), retry_s, renewable, time.monotonic, random.random
        )
        self.calls = Calls(self.conditions)
        self._notify = notify

    def notice(self, event: object) -> None:
        """Tell of what happens to a call, which has no events of its own."""
        if self._notify and isinstance(event, Reconnecting):
            self._notify(event)

    def arguments(self, ask: Ask, key: str) -> dict[str, Any]:
        """A request, as httpx takes it. Raises ValueError for a key that no header can carry."""
        if not (key and key.isascii() and key.isprintable()):
            raise ValueError("the key is empty, or has characters that no key has")
        # A closed CloudFront origin wants the hash, and compression makes proxies gather events.
        headers = {**ask.headers, "Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
        if ask.method == "POST":
            headers["x-amz-content-sha256"] = hashlib.sha256(ask.body).hexdigest()
        if ask.body:
            headers["Content-Type"] = "application/json"
        return {
            "method": ask.method,
            "url": (self._stream_url if ask.streams else self._api_url) + ask.path,
            "headers": headers,
            "content": ask.body,
            "timeout": httpx.Timeout(self.conditions.times.connect_s, read=ask.first_byte_s),
            "follow_redirects": False,
        }


def body_timeout(response: httpx.Response, ask: Ask) -> None:
    """From the headers on, other times hold than for them. httpx reads this where a body begins."""
    timeout = response.request.extensions.get("timeout")
    if isinstance(timeout, dict):
        timeout["read"] = ask.silence_s


def loss(error: httpx.RequestError) -> Lost:
    if isinstance(error, httpx.ReadTimeout):
        return Lost.SILENT
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return Lost.UNREACHED
    return Lost.CUT


class ClientState(Generic[A]):
    """How answers are asked for. Nothing is sent before one is iterated."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def _answer(self, following: Following) -> A:
        raise NotImplementedError

    def stream(self, model: str, prompt: str | None = None, **options: Unpack[Options]) -> A:
        """An answer to `prompt`, or to `messages`. Nothing is sent before it is iterated.

        Where the reply to a start is lost the start is repeated, by its Idempotency-Key: it begins
        one stream at most. Raises ValueError.
        """
        question = Question.of(model, prompt, options, new_key())
        return self._answer(Following(self._conditions, question))

    def poll(self, model: str, prompt: str | None = None, **options: Unpack[Options]) -> A:
        """As `stream`, and polled from its start on."""
        question = Question.of(model, prompt, options, new_key())
        return self._answer(Following(self._conditions, question, polls=True))

    def follow(self, stream: str, *, after: int = -1, poll: bool = False) -> A:
        """A stream that was begun elsewhere, or before: all of it behind the offset `after`."""
        return self._answer(Following(self._conditions, None, id=stream, after=after, polls=poll))


class AnswerState:
    """What is known of an answer, at any time."""

    def __init__(self, following: Following, replaced: Following | None = None) -> None:
        self._following = following
        #: What is to be done one after the other.
        self._machines: tuple[Machine, ...] = (following,)
        if replaced is not None:
            self._machines = (Ending(following.conditions, replaced), following)

    @property
    def id(self) -> str | None:
        """The stream; None before the server has named it."""
        return self._following.id

    @property
    def text(self) -> str:
        """All chunks so far, joined."""
        return self._following.text

    @property
    def after(self) -> int:
        """The newest offset seen: what `follow` goes on after."""
        return self._following.after

    @property
    def model(self) -> str | None:
        return self._following.model

    @property
    def status(self) -> str:
        """`open`, `paused`, `completed`, `cancelled` or `failed`, as far as was seen."""
        return self._following.status

    @property
    def polling(self) -> bool:
        """Whether it is polled just now, by choice or for want of better."""
        return self._following.polling

    @property
    def finish_reason(self) -> str | None:
        """`stop`, `length`, `cancelled`, `quota`, `policy` or `error`, at the end."""
        closed = self._following.closed
        return closed.finish_reason if closed else None

    @property
    def usage(self) -> TokenUsage | None:
        """The tokens, at the end."""
        closed = self._following.closed
        return closed.usage if closed else None

    @property
    def closed(self) -> Closed | None:
        """How it ended, once that was seen."""
        return self._following.closed


def new_key() -> str:
    return secrets.token_urlsafe(18)


def _address(url: str) -> str:
    """The address, without a slash at its end. Raises ValueError."""
    try:
        httpx.URL(url)
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL) as error:
        raise ValueError(f"this is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not named:
        raise ValueError("the address must begin with https:// or http://, and name a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("the address must have no user, no query and no fragment")
    return url.rstrip("/")
