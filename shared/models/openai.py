"""Any upstream that speaks OpenAI's Chat Completions: OpenAI itself, vLLM, Ollama, OpenRouter, …"""

import asyncio
import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

from shared.elapsed import elapsed
from shared.errors import InvalidRequest, ProviderFailed
from shared.models import Ask, Continuation, Finish, Usage, counted
from shared.models.idle import Idle

if TYPE_CHECKING:  # imported at the first use: it costs a cold start 60 to 95 ms
    import ssl

    import httpx

MODEL_CHARS_MAX = 200

#: How much the upstream may send that makes no event: an overlong line, or nothing but comments.
EVENT_CHARS_MAX = 1024 * 1024

#: How long the end of a finished response may take until its connection is given up.
DRAIN_S = 0.2

_REASONS: dict[str, Literal["stop", "length", "policy"]] = {
    "length": "length",
    "content_filter": "policy",
}
#: Not OpenAI's own: what OpenRouter and DeepSeek say where the model broke off.
_BROKEN = {"error", "insufficient_system_resource"}

_T = TypeVar("_T")


class OpenAI:
    """One upstream and its key. `api_key` may be a function that fetches it; empty means none."""

    def __init__(
        self,
        base_url: str,
        api_key: str | Callable[[], Awaitable[str]],
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 60.0,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
            raise ValueError("The base URL of an OpenAI upstream is http(s)://host[:port][/path]")
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._api_key = api_key
        self._timeouts_s = (connect_timeout_s, read_timeout_s)
        self._idle = Idle(clock)
        # `max_tokens` is what every compatible server knows. OpenAI has replaced it by
        # `max_completion_tokens`, its reasoning models refuse the old name, and its other models
        # take both.
        is_openai = f".{url.hostname}".endswith(".api.openai.com")
        self._limit_field = "max_completion_tokens" if is_openai else "max_tokens"
        self._held: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None

    def validate(self, model: str) -> None:
        if not 0 < len(model) <= MODEL_CHARS_MAX or not model.isprintable() or " " in model:
            raise InvalidRequest(
                "The model's name behind the '/' must be 1 to "
                f"{MODEL_CHARS_MAX} printable characters without spaces.",
                field="model",
            )

    def continuation(self, model: str) -> Continuation:  # noqa: ARG002
        # Some servers complete a last turn of the assistant, OpenAI does not, and none says so.
        return Continuation.PROMPT

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        import httpx

        answer = _Answer()
        began = False
        try:
            async with self._respond(ask) as response, aclosing(_events(response)) as events:
                began = True
                async for data in events:
                    if text := answer.take(data):
                        yield text
                    if answer.done:
                        break
                # A response that was read to its end leaves a connection for the next stream.
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_S):
                        await anext(events, None)
        except (httpx.HTTPError, ProviderFailed) as error:
            if not answer.ended:
                raise _failure(error, began=began) from None
        if not answer.ended:
            raise ProviderFailed(
                "The model's provider broke off in the middle of the answer.",
                code="cut",
                retryable=True,
            )
        if text := answer.flush():
            yield text
        yield Finish(answer.reason or "stop", answer.usage)

    async def aclose(self) -> None:
        """Close the idle connections; the next stream opens new ones."""
        held, self._held = self._held, None
        if held is not None and held[0] is asyncio.get_running_loop():
            await held[1].aclose()

    @asynccontextmanager
    async def _respond(self, ask: Ask) -> AsyncIterator["httpx.Response"]:
        body: dict[str, Any] = {
            "model": ask.model,
            "messages": [{"role": m.role, "content": m.content} for m in ask.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if ask.max_tokens is not None:
            body[self._limit_field] = ask.max_tokens
        headers = await self._headers()
        with self._idle.used() as stale:
            if stale:
                await self.aclose()
            request = self._client().stream(
                "POST", self._url, content=json.dumps(body).encode(), headers=headers
            )
            async with request as response:
                if response.status_code != 200:
                    # The body is not read: it may repeat the prompt or the key, so nothing of it
                    # may go further.
                    raise _refusal(response.status_code)
                response.encoding = "utf-8"  # SSE is always UTF-8, whatever the header says
                yield response

    async def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # a compressed stream comes in lumps
        }
        if isinstance(self._api_key, str):
            key = self._api_key.strip()
        else:
            try:
                key = (await self._api_key()).strip()
            except Exception:  # noqa: BLE001 - whatever it was, it may carry the key
                raise ProviderFailed(
                    "The key for the model's provider could not be read.",
                    code="unavailable",
                    retryable=True,
                ) from None
        if not (key.isascii() and key.isprintable()):
            # The HTTP library would refuse it too, in a message that quotes it.
            raise ProviderFailed(
                "The key for the model's provider is not a valid key.",
                code="denied",
                retryable=False,
            )
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _client(self) -> "httpx.AsyncClient":
        """The client of the running loop: its connections are of no use on another one."""
        import httpx

        loop = asyncio.get_running_loop()
        if self._held is None or self._held[0] is not loop:
            connect_s, read_s = self._timeouts_s
            timeout = httpx.Timeout(read_s, connect=connect_s, pool=connect_s)
            client = httpx.AsyncClient(timeout=timeout, verify=_tls(), follow_redirects=False)
            self._held = (loop, client)
        return self._held[1]


@cache
def _tls() -> "ssl.SSLContext":
    """Shared by all clients: reading the authorities' certificates takes 25 ms."""
    import httpx

    return httpx.create_ssl_context()


class _Answer:
    """What the upstream has said so far: the data of events in, text out. No I/O."""

    def __init__(self) -> None:
        self.done = False
        self.reason: Literal["stop", "length", "policy"] | None = None
        self.usage: Usage | None = None
        # JSON can cut a character in two (\\ud83d in one delta, \\ude80 in the next); this decoder
        # keeps the first half until the second is there, and replaces a half that stays alone.
        self._pairs = codecs.getincrementaldecoder("utf-16-le")("replace")

    @property
    def ended(self) -> bool:
        """Whether the answer is whole, however the connection ends."""
        return self.done or self.reason is not None

    def take(self, data: str) -> str:
        if data == "[DONE]":
            self.done = True
            return ""
        try:
            chunk = _as(dict, json.loads(data))
        except (ValueError, RecursionError):
            raise _nonsense() from None
        if chunk.get("error"):
            raise _reported(chunk["error"])
        self.usage = _usage(chunk.get("usage")) or self.usage
        choices = _as(list, chunk.get("choices") or [])
        if not choices:  # the usage comes in a chunk of its own, without a choice
            return ""
        choice = _as(dict, choices[0])
        if reason := _as(str, choice.get("finish_reason") or ""):
            if reason in _BROKEN:
                raise _reported(reason)
            self.reason = _REASONS.get(reason, "stop")
        delta = _as(dict, choice.get("delta") or {})
        text = "".join(_as(str, delta.get(part) or "") for part in ("content", "refusal"))
        return self._pairs.decode(text.encode("utf-16-le", "surrogatepass"))

    def flush(self) -> str:
        return self._pairs.decode(b"", final=True)


class _Bounded:
    """The part of a response that httpx-sse reads, with the bound that httpx-sse has not got."""

    def __init__(self, response: "httpx.Response") -> None:
        self.headers = response.headers
        self.waiting = 0
        self._response = response

    async def aiter_text(self) -> AsyncGenerator[str, None]:
        async with aclosing(
            cast("AsyncGenerator[str, None]", self._response.aiter_text())
        ) as texts:
            async for text in texts:
                self.waiting += len(text)
                if self.waiting > EVENT_CHARS_MAX:
                    raise _nonsense()
                yield text


async def _events(response: "httpx.Response") -> AsyncGenerator[str, None]:
    """The data of each event. A comment block after an `id:` counts as an event without data."""
    from httpx_sse import EventSource

    bounded = _Bounded(response)
    source = EventSource(cast("httpx.Response", bounded))
    async with aclosing(source.aiter_sse()) as events:
        async for event in events:
            bounded.waiting = 0
            if event.data:
                yield event.data


def _as(kind: type[_T], value: object) -> _T:
    if not isinstance(value, kind):
        raise _nonsense()
    return value


def _usage(value: object) -> Usage | None:
    match value:
        case {"prompt_tokens": int(asked), "completion_tokens": int(said)}:
            return counted(asked, said)
    return None


def _nonsense() -> ProviderFailed:
    return ProviderFailed(
        "The model's provider sent something that is no answer.", code="upstream", retryable=True
    )


def _reported(error: object) -> ProviderFailed:
    """An error in mid-stream. Its message stays here: it may repeat the prompt."""
    ours = isinstance(error, dict) and (
        error.get("type") == "invalid_request_error"
        or str(error.get("code")) in {"400", "401", "403", "404", "422"}
    )
    return ProviderFailed(
        "The model's provider reported an error in the middle of the answer.",
        code="upstream",
        retryable=not ours,
    )


def _refusal(status: int) -> ProviderFailed:
    """For every status that is not 200."""
    if status in (401, 403):
        detail = f"The model's provider refused Sluice's credentials (status {status})."
        return ProviderFailed(detail, code="denied", retryable=False)
    if status in (408, 429):
        detail = f"The model's provider is throttling (status {status})."
        return ProviderFailed(detail, code="throttled", retryable=True)
    if status == 404:
        detail = "The model's provider knows no such model, or no such address (status 404)."
        return ProviderFailed(detail, code="refused", retryable=False)
    if status >= 500:
        detail = f"The model's provider is not available (status {status})."
        return ProviderFailed(detail, code="unavailable", retryable=True)
    # Redirects too: following one would take the key to another place.
    detail = f"The model's provider refused the request (status {status})."
    return ProviderFailed(detail, code="refused", retryable=False)


def _failure(error: "httpx.HTTPError | ProviderFailed", *, began: bool) -> ProviderFailed:
    import httpx
    from httpx_sse import SSEError

    if isinstance(error, ProviderFailed):
        return error
    if isinstance(error, httpx.TimeoutException):
        detail = "The model's provider did not answer in time."
        return ProviderFailed(detail, code="timeout", retryable=True)
    if isinstance(error, SSEError):
        detail = "The model's provider did not answer with an event stream."
        return ProviderFailed(detail, code="upstream", retryable=False)
    if isinstance(error, httpx.DecodingError):
        return _nonsense()
    if began:
        detail = "The connection to the model's provider broke in the middle of the answer."
        return ProviderFailed(detail, code="cut", retryable=True)
    detail = "The model's provider could not be reached."
    return ProviderFailed(detail, code="unavailable", retryable=True)
