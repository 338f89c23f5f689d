"""What happens to an answer, as typed events. Those with a `seq` are the log's own, in order."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sluice_client.sse import Frame

#: Longer ones are no offsets.
_SEQ = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream exists. `at` is in ms since 1970."""

    seq: int
    id: str
    model: str
    at: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the text. All of them, joined, are the answer."""

    seq: int
    text: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """Another producer goes on. `continuation` says how: `prefill`, `prompt` (some words may come
    again, or the tone change) or `replay`; None where nothing had been said before.
    """

    seq: int
    epoch: int
    continuation: str | None


@dataclass(frozen=True, slots=True)
class Expiring:
    """The credential that the stream runs by ends soon. `expires_at` is in s since 1970."""

    seq: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Paused:
    """Nothing is produced any more. `reason` is `requested`, `quota`, `expired`, `revoked` or
    `suspended`; empty where an older server does not tell who polls.
    """

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Granted:
    """The stream may go on, by a credential that ends at `expires_at` (s since 1970; None: never).
    A poll does not tell.
    """

    seq: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """`estimated` where the model's provider never came to say."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """The end. `status` is `completed`, `cancelled` or `failed`; `error` are the problem details of
    what failed.
    """

    seq: int
    status: str
    finish_reason: str
    usage: TokenUsage | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """A notice: the connection was lost, `why` says how; the next try comes after `delay_s`."""

    attempt: int
    delay_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Polling:
    """A notice: from here on the answer is polled."""

    why: str


@dataclass(frozen=True, slots=True)
class Streaming:
    """A notice: the answer is polled no more, streaming works again."""


LogEvent = Opened | Chunk | Epoch | Expiring | Paused | Granted | Closed
Event = LogEvent | Reconnecting | Polling | Streaming


class Foreign(Exception):
    """These are not bytes of Sluice."""


def decode(frame: Frame, after: int) -> tuple[int, LogEvent | None]:
    """The seq of an event behind the offset `after`, and the event.

    None for one that was seen, and for a kind that only a later server knows: a client skips those,
    with an id or without. Raises `Foreign`.
    """
    numbered = _SEQ.fullmatch(frame.id or "")
    seq = int(frame.id or "") if numbered else after
    read = _READ.get(frame.event)
    if not frame.event or (read and not numbered):
        raise Foreign("an event has no name, or no offset")
    if read is None or seq <= after:
        return max(seq, after), None
    try:
        return seq, read(seq, json.loads(frame.data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Foreign(f"an event `{frame.event}` is not whole") from error


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a poll: what `next` is after, and when the next poll is worth its price."""

    chunks: tuple[Chunk, ...]
    next: int
    status: str
    #: Why it is paused, where it is.
    reason: str
    poll_after_s: float
    closed: Closed | None


def decode_page(body: Any) -> Page:
    """Raises `Foreign`."""
    try:
        after = int(body["next"])
        return Page(
            tuple(chunk(int(each["seq"]), each) for each in body["chunks"]),
            after,
            _string(body["status"]),
            str(body.get("reason") or ""),
            int(body["poll_after_ms"]) / 1000,
            closed(after, body) if body["closed"] else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Foreign("a page of chunks is not whole") from error


def closed(seq: int, body: Mapping[str, Any]) -> Closed:
    """The end that an event or the last page of a poll tells of. Raises as a bad mapping does."""
    return Closed(
        seq,
        _string(body["status"]),
        _string(body["finish_reason"]),
        token_usage(body.get("usage")),
        dict(body["error"]) if body.get("error") else None,
    )


def token_usage(usage: Any) -> TokenUsage | None:
    """None where it is not told, or in words that this client does not know."""
    try:
        counts = int(usage["input_tokens"]), int(usage["output_tokens"])
        return TokenUsage(*counts, usage.get("estimated") is True)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def chunk(seq: int, body: Mapping[str, Any]) -> Chunk:
    return Chunk(seq, _string(body["text"]))


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


_READ: Mapping[str, Callable[[int, Any], LogEvent]] = {
    "opened": lambda seq, body: Opened(
        seq, _string(body["id"]), _string(body["model"]), int(body["at"])
    ),
    "chunk": chunk,
    "epoch": lambda seq, body: Epoch(seq, int(body["epoch"]), body.get("continuation")),
    "expiring": lambda seq, body: Expiring(seq, int(body["expires_at"])),
    "paused": lambda seq, body: Paused(seq, _string(body["reason"])),
    "granted": lambda seq, body: Granted(seq, body.get("expires_at")),
    "closed": closed,
}
