"""The native dialect: requests in, Server-Sent Events and pages of chunks out. No I/O.

Events follow the WHATWG HTML standard, section 9.2. Two liberties of other servers are not taken,
because clients break on them: a heartbeat is one comment line without a blank line after it, and
`retry:` rides on an event instead of standing alone.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shared import fields
from shared.errors import InvalidRequest
from shared.follower import Page
from shared.idempotency import Idempotency
from shared.models import Message
from shared.pacing import Pacing
from shared.quotas import Left
from shared.records import DAY_S, Kind, Record, Status, StreamKey, Summary, dump, is_stream_id
from shared.starting import Start

BODY_BYTES_MAX = 256 * 1024
MODEL_CHARS_MAX = 200
MESSAGES_MAX = 200
MAX_TOKENS_MAX = 200_000
METADATA_MAX = 16
METADATA_NAME_CHARS_MAX = 64
METADATA_CHARS_MAX = 512
IDEMPOTENCY_KEY_CHARS_MAX = 255
USER_CHARS_MAX = 128
SEQ_MAX = 10**9
LIMIT_MAX = 1000
LIMIT_DEFAULT = 200
LIST_LIMIT_MAX = 100
LIST_LIMIT_DEFAULT = 20
WAIT_S_MAX = 20
#: The last moment that can be asked for, in ms since 1970: the year 5138.
MS_MAX = 10**14 - 1
ROLES = ("system", "user", "assistant")
BACKPRESSURES = ("buffer", "throttle")

#: Silence on the wire after which a comment line is sent.
SILENCE_S_MAX = 15.0
HEARTBEAT = b": hb\n"
#: What a client is told to wait before it connects again.
RETRY_MS = 1000

EVENT_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    # `no-transform` and the second header keep proxies from gathering events to compress them.
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}

_START = (
    "model",
    "messages",
    "max_tokens",
    "pacing",
    "backpressure",
    "metadata",
    "parent",
)


def decode_start(raw: bytes) -> Start:
    """The body of `POST /v1/streams`. Raises `InvalidRequest`, which names the field."""
    body = fields.parse_json(raw)
    fields.known(body, _START)
    for name in ("model", "messages"):
        if name not in body:
            raise InvalidRequest(f"`{name}` is missing.", field=name)
    optional = {name: value for name, value in body.items() if value is not None}
    backpressure = fields.one_of(
        optional.get("backpressure", "buffer"), "backpressure", BACKPRESSURES
    )
    max_tokens = optional.get("max_tokens")
    if max_tokens is not None:
        fields.whole(max_tokens, "max_tokens", least=1, most=MAX_TOKENS_MAX)
    return Start(
        model=fields.text(body["model"], "model", most=MODEL_CHARS_MAX),
        messages=_messages(body["messages"]),
        max_tokens=max_tokens,
        pacing=Pacing.from_document(optional["pacing"]) if "pacing" in optional else None,
        throttle=backpressure == "throttle",
        metadata=_metadata(optional.get("metadata", {})),
        parent=_parent(optional.get("parent")),
    )


def _messages(value: Any) -> tuple[Message, ...]:
    messages = []
    for index, item in enumerate(fields.items(value, "messages", least=1, most=MESSAGES_MAX)):
        path = f"messages[{index}]"
        message = fields.mapping(item, path)
        fields.known(message, ("role", "content"), path)
        for name in ("role", "content"):
            if name not in message:
                raise InvalidRequest(f"`{path}.{name}` is missing.", field=f"{path}.{name}")
        role = fields.one_of(message["role"], f"{path}.role", ROLES)
        content = fields.text(message["content"], f"{path}.content", most=BODY_BYTES_MAX)
        messages.append(Message(role, content))  # type: ignore[arg-type] # one_of has checked it
    if not any(message.role == "user" for message in messages):
        raise InvalidRequest("`messages` must hold one of role `user`.", field="messages")
    return tuple(messages)


def _metadata(value: Any) -> dict[str, str]:
    metadata = fields.mapping(value, "metadata")
    if len(metadata) > METADATA_MAX:
        raise InvalidRequest(
            f"`metadata` has {len(metadata)} entries; allowed are 0 to {METADATA_MAX}.",
            field="metadata",
            maximum=METADATA_MAX,
        )
    for name, entry in metadata.items():
        if not 1 <= len(name) <= METADATA_NAME_CHARS_MAX:
            raise InvalidRequest(
                f"A name in `metadata` has {len(name)} characters; allowed are 1 to "
                f"{METADATA_NAME_CHARS_MAX}.",
                field="metadata",
                minimum=1,
                maximum=METADATA_NAME_CHARS_MAX,
            )
        fields.text(entry, f"metadata.{name}", least=0, most=METADATA_CHARS_MAX)
    return metadata


def _parent(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and is_stream_id(value)):
        return value
    raise InvalidRequest("`parent` must be the id of a stream.", field="parent")


def prefers_async(headers: Mapping[str, str]) -> bool:
    """Whether the client asks not to wait for the answer (`Prefer: respond-async`, RFC 7240)."""
    preferences = headers.get("prefer", "").lower().split(",")
    return any(p.split(";")[0].strip() == "respond-async" for p in preferences)


def decode_idempotency(headers: Mapping[str, str], raw: bytes) -> Idempotency | None:
    """The request's Idempotency-Key, quoted or plain. `raw` is the body that it stands for."""
    if "idempotency-key" not in headers:
        return None
    key = headers["idempotency-key"].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not (1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"`Idempotency-Key` must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII "
            "characters.",
            field="Idempotency-Key",
            minimum=1,
            maximum=IDEMPOTENCY_KEY_CHARS_MAX,
        )
    return Idempotency(key, hashlib.sha256(raw).hexdigest())


def decode_after(headers: Mapping[str, str], query: Mapping[str, str]) -> int:
    """The offset to go on after: `Last-Event-ID`, else `after`, else −1 for all.

    The header wins: an EventSource that connects again repeats its first URL, and tells only in the
    header how far it came.
    """
    after = fields.query_whole(query.get("after", "-1"), "after", least=-1, most=SEQ_MAX)
    last = headers.get("last-event-id", "")
    return fields.query_whole(last, "Last-Event-ID", least=-1, most=SEQ_MAX) if last else after


def decode_follow(headers: Mapping[str, str], query: Mapping[str, str]) -> int:
    """The offset that a follower goes on after."""
    fields.known(query, ("after",))
    return decode_after(headers, query)


def decode_poll(query: Mapping[str, str]) -> tuple[int, int, int]:
    """`after`, `limit` and `wait` (seconds) of a poll."""
    fields.known(query, ("after", "limit", "wait"))
    return (
        decode_after({}, query),
        fields.query_whole(
            query.get("limit", str(LIMIT_DEFAULT)), "limit", least=1, most=LIMIT_MAX
        ),
        fields.query_whole(query.get("wait", "0"), "wait", least=0, most=WAIT_S_MAX),
    )


def decode_user(raw: str) -> str:
    """The user that a path names."""
    return fields.text(raw, "user", most=USER_CHARS_MAX)


def decode_list(query: Mapping[str, str]) -> tuple[str | None, int]:
    """`page` and `limit` of a list."""
    fields.known(query, ("page", "limit"))
    page = query.get("page")
    if page is not None and not is_stream_id(page):
        raise InvalidRequest("`page` must be the `next_page` of a list.", field="page")
    limit = query.get("limit", str(LIST_LIMIT_DEFAULT))
    return page, fields.query_whole(limit, "limit", least=1, most=LIST_LIMIT_MAX)


class EventEncoder:
    """Records into the bytes of one SSE response."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._first = True
        self._paused: str | None = None

    def encode(self, records: Iterable[Record]) -> bytes:
        return b"".join(self._event(record) for record in records)

    def reconnect(self, after: int, *, retry_ms: int = RETRY_MS) -> bytes:
        """The end of a connection whose stream goes on: an event without an id, which those who
        reconnect by themselves ignore.
        """
        data = dump({"after": after})
        return f"retry: {retry_ms}\nevent: reconnect\ndata: {data}\n\n".encode()

    def _event(self, record: Record) -> bytes:
        shown = self._data(record)
        if shown is None:
            return b""
        event, data = shown
        retry = f"retry: {RETRY_MS}\n" if self._first else ""
        self._first = False
        return f"{retry}id: {record.seq}\nevent: {event}\ndata: {dump(data)}\n\n".encode()

    def _data(self, record: Record) -> tuple[str, Mapping[str, Any]] | None:
        """The event's name and data; None for what only steers, and for kinds not known."""
        known, self._paused = self._paused, None
        match record.kind:
            case Kind.TEXT:
                return "chunk", {"text": record.text}
            case Kind.OPENED:
                opened = {"id": self._stream, "model": record.body["model"], "at": record.at}
                return "opened", opened
            case Kind.EPOCH:
                return "epoch", {"epoch": record.epoch, **record.body}
            case Kind.PAUSE:
                self._paused = record.body["reason"]
                # One behind another may only say that nobody waits here any more.
                return ("paused", {"reason": self._paused}) if self._paused != known else None
            case Kind.GRANT:
                return "granted", {"expires_at": record.body["expires_at"]}
            case Kind.EXPIRING:
                return "expiring", record.body
            case Kind.CLOSED:
                return "closed", record.body
        return None


def encode_page(page: Page) -> dict[str, Any]:
    """The answer to a poll: the chunks of a page, and where and when to go on."""
    body: dict[str, Any] = {
        "chunks": [
            {"seq": record.seq, "text": record.text, "at": record.at}
            for record in page.records
            if record.kind == Kind.TEXT
        ],
        "next": page.next,
        "status": status_of(page.newest),
        "closed": page.newest.closes and page.newest.seq == page.next,
        "poll_after_ms": page.poll_after_ms,
    }
    if body["status"] == Status.PAUSED:
        body["reason"] = page.newest.body["reason"]
    if body["closed"]:
        body |= {name: page.newest.body[name] for name in ("finish_reason", "usage", "error")}
    return body


def status_of(newest: Record) -> str:
    """A stream's status by its newest record."""
    if newest.closes:
        return str(newest.body["status"])
    return Status.PAUSED if newest.kind == Kind.PAUSE else Status.OPEN


def encode_control(key: StreamKey, newest: Record) -> dict[str, Any]:
    """How a stream stands behind a control, or behind what made that needless."""
    return {
        "id": key.stream,
        "status": status_of(newest),
        "seq": newest.seq,
        "expires_at": newest.body.get("expires_at"),
    }


def encode_usage(left: Sequence[Left], tokens: Mapping[str, int]) -> dict[str, Any]:
    """The limits on a caller, and the tokens of its tenant by day and month."""
    limits = [
        {
            "policy": each.policy,
            "limit": each.limit,
            "left": each.left,
            "window_s": each.window_s or None,
            "reset_s": each.reset_s or None,
        }
        for each in left
    ]
    return {"limits": limits, "tokens": dict(tokens)}


def decode_audit(query: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    """Which entries are asked for: `stream`, `start` and `end` (ms), `page`, `limit`."""
    fields.known(query, ("stream", "start", "end", "page", "limit"))
    stream = query.get("stream")
    if stream is not None and not is_stream_id(stream):
        raise InvalidRequest("`stream` must be the id of a stream.", field="stream")
    # Of one stream all there is, whatever its writers' clocks say; else the last day.
    start, end = ("0", str(MS_MAX)) if stream else (str(now_ms - DAY_S * 1000), str(now_ms))
    return {
        "start_ms": fields.query_whole(query.get("start", start), "start", least=0, most=MS_MAX),
        "end_ms": fields.query_whole(query.get("end", end), "end", least=0, most=MS_MAX),
        "chain": stream,
        "after": query.get("page"),
        "limit": fields.query_whole(
            query.get("limit", str(LIST_LIMIT_MAX)), "limit", least=1, most=LIMIT_MAX
        ),
    }


def encode_summary(summary: Summary) -> dict[str, Any]:
    """A stream as `GET /v1/streams/{id}` shows it; times are in ms since 1970."""
    return {
        "id": summary.stream,
        "status": summary.status,
        "model": summary.model,
        "created_at": summary.created_at,
        "closed_at": summary.closed_at,
        "finish_reason": summary.finish_reason,
        "usage": summary.usage,
        "error": summary.error,
        "metadata": summary.metadata or {},
        "parent": summary.parent,
        "last_seq": summary.last_seq,
        **urls(summary.stream),
    }


def urls(stream: str) -> dict[str, str]:
    return {
        "events_url": f"/v1/streams/{stream}/events",
        "chunks_url": f"/v1/streams/{stream}/chunks",
    }
