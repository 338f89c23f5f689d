"""The shape of every table, as plain data: the CDK app and the local run both build from it."""

from dataclasses import dataclass
from typing import Literal

AttributeType = Literal["S", "N"]


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    type: AttributeType


@dataclass(frozen=True, slots=True)
class Index:
    """A sparse global index: an item is in it while it has both attributes."""

    name: str
    partition: Attribute
    sort: Attribute
    projected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """`name` is the logical name; settings map it to the table's real one."""

    name: str
    partition: Attribute
    sort: Attribute
    expiry: str
    indexes: tuple[Index, ...] = ()


STREAMS = Table(
    name="streams",
    # tenant#stream: no request can name a partition of a tenant that it has not authenticated as.
    partition=Attribute("pk", "S"),
    # A record's number; the summary stands at -1, just before the first record.
    sort=Attribute("seq", "N"),
    expiry="expires_at",
    indexes=(
        Index(
            name="by_tenant",
            # Only summaries carry these two. Stream ids grow with time, so they sort by age.
            partition=Attribute("tenant", "S"),
            sort=Attribute("stream", "S"),
            projected=(
                "status",
                "model",
                "created_at",
                "closed_at",
                "finish_reason",
                "usage",
                "error",
                "metadata",
                "parent",
                "last_seq",
            ),
        ),
    ),
)

TENANTS = Table(
    name="tenants",
    partition=Attribute("pk", "S"),
    sort=Attribute("what", "S"),
    expiry="expires_at",
)

TABLES = (STREAMS, TENANTS)
