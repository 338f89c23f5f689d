"""Records: the value types of the log, and how each lies in the table."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

Value = str | int
#: An item of a table: strings and integers; what is nested is JSON text.
Item = dict[str, Value]

_STREAM_ID = re.compile(r"[0-9a-v]{24}")


class Kind(StrEnum):
    OPENED = "opened"
    TEXT = "text"
    HEARTBEAT = "heartbeat"
    CANCEL = "cancel"
    PAUSE = "pause"
    GRANT = "grant"
    EPOCH = "epoch"
    CLOSED = "closed"


#: What only a producer writes. Controls may come from anyone who is allowed to steer the stream.
PRODUCED = frozenset({Kind.OPENED, Kind.TEXT, Kind.HEARTBEAT, Kind.EPOCH, Kind.CLOSED})


class Status(StrEnum):
    OPEN = "open"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    QUOTA = "quota"
    POLICY = "policy"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class StreamKey:
    """Names one stream. There is no way to name one without its tenant."""

    tenant: str
    stream: str

    @property
    def pk(self) -> str:
        return f"{self.tenant}#{self.stream}"

    @property
    def path(self) -> str:
        """Where a client finds the stream; the tenant is in its key."""
        return f"/v1/streams/{self.stream}"

    @property
    def created_ms(self) -> int:
        """When the stream's id was made, in ms since 1970: the id carries it."""
        raw = base64.b32hexdecode(self.stream.upper())
        return int.from_bytes(raw[:6], "big")


def new_stream_id(now_ms: int, randomness: bytes) -> str:
    """An id of 24 characters that sorts by its time and has 72 random bits."""
    if len(randomness) != 9:
        raise ValueError("a stream id takes 9 random bytes")
    return base64.b32hexencode(now_ms.to_bytes(6, "big") + randomness).decode().lower()


def is_stream_id(text: str) -> bool:
    return _STREAM_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Record:
    """One slot of a log.

    `at` is the writer's wall clock in ms since 1970. `by` names the writer: it is drawn anew for
    each producer and each control, and a writer never offers two different records for one slot,
    so a record that holds a slot with our `by` is our own write, whatever became of its reply.
    """

    seq: int
    kind: str
    epoch: int
    at: int
    by: str
    text: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def closes(self) -> bool:
        return self.kind == Kind.CLOSED

    def to_item(self, pk: str, expires_at: int) -> Item:
        item: Item = {
            "pk": pk,
            "seq": self.seq,
            "kind": self.kind,
            "epoch": self.epoch,
            "at": self.at,
            "by": self.by,
            "expires_at": expires_at,
        }
        if self.text:
            item["text"] = self.text
        if self.body:
            item["body"] = dump(self.body)
        return item

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(
            seq=int(item["seq"]),
            kind=str(item["kind"]),
            epoch=int(item["epoch"]),
            at=int(item["at"]),
            by=str(item["by"]),
            text=str(item.get("text", "")),
            body=json.loads(str(item.get("body", "{}"))),
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of a stream. Times are in ms since 1970."""

    stream: str
    status: str
    model: str
    created_at: int
    closed_at: int | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    parent: str | None = None
    last_seq: int | None = None

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(
            stream=str(item["stream"]),
            status=str(item["status"]),
            model=str(item["model"]),
            created_at=int(item["created_at"]),
            closed_at=int(item["closed_at"]) if "closed_at" in item else None,
            finish_reason=str(item["finish_reason"]) if "finish_reason" in item else None,
            usage=_load(item, "usage"),
            error=_load(item, "error"),
            metadata=_load(item, "metadata"),
            parent=str(item["parent"]) if "parent" in item else None,
            last_seq=int(item["last_seq"]) if "last_seq" in item else None,
        )


def dump(value: Any) -> str:
    """Compact JSON with text as it is: a table counts bytes, and an escape takes six."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _load(item: Item, name: str) -> Any:
    return json.loads(str(item[name])) if name in item else None
