"""What the calls give back. Times are in ms since 1970, unless they are `_s`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sluice_client.events import TokenUsage, token_usage


@dataclass(frozen=True, slots=True)
class Summary:
    """A stream without its text. `status` is `open`, `paused`, `completed`, `cancelled` or
    `failed`; `error` are the problem details of what failed.
    """

    id: str
    status: str
    model: str
    created_at: int
    closed_at: int | None
    finish_reason: str | None
    usage: TokenUsage | None
    error: Mapping[str, Any] | None
    metadata: Mapping[str, str]
    parent: str | None
    last_seq: int | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            id=str(body["id"]),
            status=str(body["status"]),
            model=str(body["model"]),
            created_at=int(body["created_at"]),
            closed_at=body.get("closed_at"),
            finish_reason=body.get("finish_reason"),
            usage=token_usage(body.get("usage")),
            error=body.get("error"),
            metadata=body.get("metadata") or {},
            parent=body.get("parent"),
            last_seq=body.get("last_seq"),
        )


@dataclass(frozen=True, slots=True)
class SummaryPage:
    streams: tuple[Summary, ...]
    next_page: str | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        return cls(tuple(Summary.of(each) for each in body["streams"]), body.get("next_page"))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a stream stands behind what was asked of it. A cancel leaves it `open` until its producer
    obeys. `expires_at` (s since 1970) is when the credential ends by which it goes on.
    """

    id: str
    status: str
    expires_at: int | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        return cls(str(body["id"]), str(body["status"]), body.get("expires_at"))


@dataclass(frozen=True, slots=True)
class Limit:
    """What is left of a limit. It is full again in `reset_s`; one without a `window_s` bounds what
    is there at once.
    """

    policy: str
    limit: int
    left: int
    window_s: int | None
    reset_s: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """The limits on who asks, and the tokens of its tenant by day and month."""

    limits: tuple[Limit, ...]
    tokens: Mapping[str, int]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        limits = (
            Limit(
                str(each["policy"]),
                int(each["limit"]),
                int(each["left"]),
                each.get("window_s"),
                each.get("reset_s"),
            )
            for each in body["limits"]
        )
        return cls(tuple(limits), dict(body["tokens"]))
