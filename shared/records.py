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

DAY_S = 24 * 3600
#: Of an id's 20 bytes; more would be taken from what makes it one of its own.
OWNER_TAG_BYTES = 5
_STREAM_ID = re.compile(r"[0-9a-v]{32}")


class Kind(StrEnum):
    OPENED = "opened"
    TEXT = "text"
    HEARTBEAT = "heartbeat"
    CANCEL = "cancel"
    PAUSE = "pause"
    GRANT = "grant"
    #: Somebody wants to steer, and is slower than the producer: for a moment it writes no text.
    YIELD = "yield"
    #: The credential that a stream was started with is about to expire.
    EXPIRING = "expiring"
    #: Nobody produces from here on: whoever appends the next epoch does.
    VACANT = "vacant"
    EPOCH = "epoch"
    CLOSED = "closed"
    #: What a record becomes whose stream was erased: it holds its slot, and nothing else.
    ERASED = "erased"


#: What only a producer writes. Controls may come from anyone who is allowed to steer the stream.
PRODUCED = frozenset(
    {
        Kind.OPENED,
        Kind.TEXT,
        Kind.HEARTBEAT,
        Kind.EXPIRING,
        Kind.EPOCH,
        Kind.CLOSED,
        Kind.ERASED,
    }
)
#: What tells a producer that its stream has another one, or none, where its epoch is not lower.
FENCING = PRODUCED | {Kind.VACANT}
#: Above every producer's: who finds its slot erased stops.
ERASED_EPOCH = 2**53 - 1


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
    """Names one stream. There is no way to name one without its tenant.

    The id itself carries when the stream began, how long it is kept and a tag of the user whose it
    is: so whether somebody may see a stream is known before anything is read.
    """

    tenant: str
    stream: str

    @property
    def pk(self) -> str:
        return f"{self.tenant}#{self.stream}"

    @property
    def names(self) -> dict[str, str]:
        """What a line of the log, or of metrics, says of which stream it is about."""
        return {"tenant": self.tenant, "stream": self.stream}

    @property
    def path(self) -> str:
        """Where a client finds the stream; the tenant is in its key."""
        return f"/v1/streams/{self.stream}"

    @property
    def created_ms(self) -> int:
        """When the stream began, in ms since 1970."""
        return int.from_bytes(self._raw()[:6], "big")

    @property
    def expires_at(self) -> int:
        """When its retention ends, in s since 1970."""
        return self.created_ms // 1000 + int.from_bytes(self._raw()[6:8], "big") * DAY_S

    @property
    def owner_tag(self) -> bytes:
        """Whom it was begun for, by the tag that `Tenant.owner_tag` gives."""
        return self._raw()[8 : 8 + OWNER_TAG_BYTES]

    def _raw(self) -> bytes:
        return base64.b32hexdecode(self.stream.upper())


def new_stream_id(now_ms: int, randomness: bytes, *, owner_tag: bytes, retention_days: int) -> str:
    """An id of 32 characters that sorts by its time and has 56 random bits."""
    if len(randomness) != 7:
        raise ValueError("a stream id takes 7 random bytes")
    if len(owner_tag) != OWNER_TAG_BYTES:
        raise ValueError(f"an owner's tag has {OWNER_TAG_BYTES} bytes")
    began = now_ms.to_bytes(6, "big") + retention_days.to_bytes(2, "big")
    return base64.b32hexencode(began + owner_tag + randomness).decode().lower()


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

    @property
    def parked(self) -> bool:
        """Whether the stream is paused, and no producer waits for it to go on."""
        return self.kind == Kind.PAUSE and bool(self.body.get("parked"))

    @property
    def vacant(self) -> bool:
        """Whether behind this record the stream waits for a producer.

        A control behind such a record says that it does so still, so the newest record tells.
        """
        unclaimed = self.kind == Kind.OPENED and self.epoch == 0
        return unclaimed or self.kind == Kind.VACANT or bool(self.body.get("vacant"))

    def to_item(self, key: StreamKey) -> Item:
        item: Item = {
            "pk": key.pk,
            "seq": self.seq,
            "kind": self.kind,
            "epoch": self.epoch,
            "at": self.at,
            "by": self.by,
            "expires_at": key.expires_at,
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
    user: str | None = None
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
            user=str(item["user"]) if "user" in item else None,
            last_seq=int(item["last_seq"]) if "last_seq" in item else None,
        )


def dump(value: Any) -> str:
    """Compact JSON with text as it is: a table counts bytes, and an escape takes six."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _load(item: Item, name: str) -> Any:
    return json.loads(str(item[name])) if name in item else None
