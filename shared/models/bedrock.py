"""Amazon Bedrock, through ConverseStream.

botocore only knows how to block, so each answer is read on a thread of its own, which hands the
events over to the event loop.
"""

import asyncio
import codecs
import re
import threading
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

from shared.elapsed import elapsed
from shared.errors import InvalidRequest, ProviderFailed
from shared.logger import logger
from shared.models import Ask, Continuation, Finish, Usage, counted
from shared.models.idle import Idle

if TYPE_CHECKING:  # imported on the thread: a client costs a cold start 180 ms
    from botocore.eventstream import EventStream
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient

#: How far the thread may be ahead of who takes the events.
EVENTS_AHEAD_MAX = 64

#: Idle connections that are kept for the next stream.
CONNECTIONS_KEPT_MAX = 50

THREAD_NAME = "sluice-bedrock"

#: Models that complete a last turn of their own. Claude does up to 4.5; from 4.6 on it refuses.
_COMPLETES = re.compile(
    r"anthropic\.claude-(?:3-|(?:opus|sonnet)-4-2025|opus-4-1-|(?:opus|sonnet|haiku)-4-5-)"
)

_Reason = Literal["stop", "length", "policy"]
_REASONS: dict[str, _Reason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "policy",
    "content_filtered": "policy",
}

#: code, retryable, and how the sentence goes on: "The model's provider …"
_Failure = tuple[str, bool, str]
_REFUSED: _Failure = ("refused", False, "refused the request")
_CREDENTIALS: _Failure = ("denied", False, "refused Sluice's credentials")
_THROTTLED: _Failure = ("throttled", True, "is throttling")
_UNAVAILABLE: _Failure = ("unavailable", True, "is not available")
_TIMEOUT: _Failure = ("timeout", True, "did not answer in time")
_CUT: _Failure = ("cut", True, "broke off in the middle of the answer")
_UPSTREAM: _Failure = ("upstream", True, "reported an error of the model")
_NONSENSE: _Failure = ("upstream", True, "sent something that is no answer")

#: By the error's code in lower case: as a response it is `ThrottlingException`, in the stream
#: `throttlingException`.
_BY_CODE = {
    "throttlingexception": _THROTTLED,
    "toomanyrequestsexception": _THROTTLED,
    "servicequotaexceededexception": _THROTTLED,
    "modelnotreadyexception": _UNAVAILABLE,
    "serviceunavailableexception": _UNAVAILABLE,
    "internalserverexception": _UNAVAILABLE,
    "modeltimeoutexception": _TIMEOUT,
    "modelerrorexception": _UPSTREAM,
    "modelstreamerrorexception": _UPSTREAM,
    "validationexception": _REFUSED,
    "resourcenotfoundexception": _REFUSED,
    "accessdeniedexception": _CREDENTIALS,
    "expiredtokenexception": _CREDENTIALS,
    "incompletesignatureexception": _CREDENTIALS,
    "invalidsignatureexception": _CREDENTIALS,
    "missingauthenticationtokenexception": _CREDENTIALS,
    "unrecognizedclientexception": _CREDENTIALS,
}


class Bedrock:
    """The models of one region, of which only those in `models` are served."""

    def __init__(
        self,
        models: Collection[str],
        region: str,
        endpoint: str | None = None,
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 60.0,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._models = frozenset(models)
        self._region = region
        self._endpoint = endpoint
        self._timeouts_s = (connect_timeout_s, read_timeout_s)
        self._idle = Idle(clock)
        self._client: BedrockRuntimeClient | None = None
        self._creating = threading.Lock()

    def validate(self, model: str) -> None:
        if model not in self._models:
            served = ", ".join(sorted(self._models)) or "none"
            raise InvalidRequest(
                f"This deployment does not serve that Bedrock model. It serves: {served}.",
                field="model",
            )

    def continuation(self, model: str) -> Continuation:
        return Continuation.PREFILL if _COMPLETES.search(model) else Continuation.PROMPT

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        request = _request(ask)
        answer = _Answer()
        with self._idle.used() as stale:
            if stale and self._client:
                self._client.close()  # its connections; it makes new ones
            reader = _Reader(lambda: self._open(request))
            try:
                while (event := await reader.next()) is not None:
                    if text := answer.take(event):
                        yield text
            except ProviderFailed:
                if answer.reason is None:  # else the answer is whole, however the connection ends
                    raise
            finally:
                reader.close()
        if answer.reason is None:
            raise _failed(_CUT)
        if text := answer.flush():
            yield text
        yield Finish(answer.reason, answer.usage)

    async def aclose(self) -> None:
        """Close the idle connections; the next stream opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self, request: dict[str, Any]) -> "EventStream[Any]":
        """Blocks; called on a reader's thread."""
        with self._creating:
            if self._client is None:
                self._client = self._create_client()
            client = self._client
        return cast("EventStream[Any]", client.converse_stream(**request)["stream"])

    def _create_client(self) -> "BedrockRuntimeClient":
        from botocore.config import Config
        from botocore.session import get_session

        connect_s, read_s = self._timeouts_s
        config = Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            max_pool_connections=CONNECTIONS_KEPT_MAX,
            # A second attempt may pay for the same answer twice; who asked decides about that.
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        client = get_session().create_client(
            "bedrock-runtime",
            region_name=self._region,
            endpoint_url=self._endpoint or None,
            config=config,
        )
        return cast("BedrockRuntimeClient", client)


class _Answer:
    """What the model has said so far: events in, text out. No I/O."""

    def __init__(self) -> None:
        self.reason: _Reason | None = None
        self.usage: Usage | None = None
        # As in openai.py: JSON can cut a character in two, and its halves may come apart.
        self._pairs = codecs.getincrementaldecoder("utf-16-le")("replace")

    def take(self, event: dict[str, Any]) -> str:
        match event:
            case {"contentBlockDelta": {"delta": {"text": str(text)}}}:
                return self._pairs.decode(text.encode("utf-16-le", "surrogatepass"))
            case {"messageStop": {"stopReason": str(said)}}:
                if said.startswith("malformed_"):  # …_model_output, …_tool_use
                    raise _failed(_UPSTREAM)
                self.reason = _REASONS.get(said, "stop")
            case {"metadata": {"usage": {"inputTokens": int(asked), "outputTokens": int(said)}}}:
                self.usage = counted(asked, said)
        return ""

    def flush(self) -> str:
        return self._pairs.decode(b"", final=True)


class _Reader:
    """Reads one event stream on a thread of its own.

    At most EVENTS_AHEAD_MAX events wait for `next()`; then the thread waits too. After `close()`
    it ends by itself: at once where it reads or waits here, and where it still waits for the
    response to begin, when that begins or times out.
    """

    def __init__(self, open_stream: "Callable[[], EventStream[Any]]") -> None:
        self._open_stream = open_stream
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[dict[str, Any] | ProviderFailed | None] = asyncio.Queue()
        self._room = threading.Semaphore(EVENTS_AHEAD_MAX)
        self._closed = threading.Event()
        self._response: Any = None
        threading.Thread(target=self._run, name=THREAD_NAME, daemon=True).start()

    async def next(self) -> dict[str, Any] | None:
        """The next event; None at the end of the stream. Raises `ProviderFailed`."""
        event = await self._events.get()
        self._room.release()
        if isinstance(event, ProviderFailed):
            raise event
        return event

    def close(self) -> None:
        """Wake the thread wherever it waits. Does not block."""
        self._closed.set()
        self._room.release()
        if self._response is not None:
            # Not close(): that would wait for the read that it is meant to end. Where there is
            # nothing left to shut down, the thread has finished with it.
            with suppress(OSError, RuntimeError, TypeError, ValueError):
                self._response.shutdown()

    def _run(self) -> None:
        end: ProviderFailed | None = _failed(_NONSENSE)
        try:
            self._read()
            end = None
        except Exception as error:  # noqa: BLE001 - it is told to who waits for the end
            end = _failure(error, began=self._response is not None)
        finally:
            self._hand_over(end)

    def _read(self) -> None:
        stream: Any = self._open_stream()
        try:
            # botocore offers no way to end a blocked read; urllib3's response below it does.
            self._response = stream._raw_stream  # noqa: SLF001
            if self._closed.is_set():  # before there was anything to shut down
                return
            for event in stream:
                if not self._hand_over(event):
                    return
        finally:
            stream.close()

    def _hand_over(self, event: dict[str, Any] | ProviderFailed | None) -> bool:
        if self._closed.is_set():
            return False
        self._room.acquire()
        if self._closed.is_set():
            return False
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop was closed without closing the generator
            self._closed.set()
            return False
        return True


def _request(ask: Ask) -> dict[str, Any]:
    """Converse wants system text apart, roles that alternate from the user on, no blank text."""
    system: list[dict[str, str]] = []
    turns: list[dict[str, Any]] = []
    for message in ask.messages:
        if not message.content.strip():
            continue
        block = {"text": message.content}
        if message.role == "system":
            system.append(block)
        elif turns and turns[-1]["role"] == message.role:
            turns[-1]["content"].append(block)
        else:
            turns.append({"role": message.role, "content": [block]})
    if not turns or turns[0]["role"] != "user":
        raise ProviderFailed(
            "Bedrock wants a conversation that begins with a user's message that is not blank.",
            code="refused",
            retryable=False,
        )
    if turns[-1]["role"] == "assistant":
        # A beginning of the answer that ends in white space is refused by Anthropic's models.
        last = turns[-1]["content"][-1]
        last["text"] = last["text"].rstrip()
    request: dict[str, Any] = {"modelId": ask.model, "messages": turns}
    if system:
        request["system"] = system
    if ask.max_tokens is not None:
        request["inferenceConfig"] = {"maxTokens": ask.max_tokens}
    return request


def _failed(failure: _Failure) -> ProviderFailed:
    code, retryable, what = failure
    return ProviderFailed(f"The model's provider {what}.", code=code, retryable=retryable)


def _failure(error: Exception, *, began: bool) -> ProviderFailed:
    """What any exception of botocore and below means. Nothing of its text is kept."""
    from botocore import exceptions as aws
    from botocore.eventstream import ParserError
    from botocore.parsers import ResponseParserError
    from urllib3 import exceptions as http

    if isinstance(error, aws.ClientError):
        return _failed(_answered(error.response))
    if isinstance(error, (aws.ConnectTimeoutError, aws.ReadTimeoutError, http.TimeoutError)):
        return _failed(_TIMEOUT)
    if isinstance(error, (ParserError, ResponseParserError)):
        return _failed(_NONSENSE)
    if isinstance(error, (aws.HTTPClientError, aws.ConnectionError, http.HTTPError, OSError)):
        return _failed(_CUT if began else _UNAVAILABLE)
    # What is left is ours: no credentials, a wrong setting, or a mistake of the code.
    logger.error("Bedrock could not be asked", extra={"error": type(error).__name__})
    if isinstance(error, aws.BotoCoreError):
        return ProviderFailed(
            "Sluice has no valid credentials or settings for the model's provider.",
            code="denied",
            retryable=False,
        )
    return _failed(_NONSENSE)


def _answered(response: Any) -> _Failure:
    """What an error that the service itself reported means."""
    code = str(response.get("Error", {}).get("Code", ""))
    known = _BY_CODE.get(code.lower())
    if known is not None:
        return known
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status is None:  # an error in the stream
        return _UPSTREAM
    if status == 429:
        return _THROTTLED
    if status in (401, 403):
        return _CREDENTIALS
    return _UNAVAILABLE if status >= 500 else _REFUSED
