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


#: Over how many partitions the index of open streams is spread: each takes some 500 answers a
#: second, and each costs a sweep a query.
OPEN_SHARDS = 16

SUMMARY = (
    "status",
    "model",
    "created_at",
    "closed_at",
    "finish_reason",
    "usage",
    "error",
    "metadata",
    "parent",
    "user",
    "last_seq",
)

STREAMS = Table(
    name="streams",
    # tenant#stream: no request can name a partition of a tenant that it has not authenticated as.
    partition=Attribute("pk", "S"),
    # A record's number; the summary stands at -1, just before the first record.
    sort=Attribute("seq", "N"),
    expiry="expires_at",
    indexes=(
        # Only summaries carry these. Stream ids grow with time, so they sort by age.
        Index(
            name="by_tenant",
            partition=Attribute("tenant", "S"),
            sort=Attribute("stream", "S"),
            projected=SUMMARY,
        ),
        Index(
            name="by_user",
            # tenant#user, where the stream is a user's.
            partition=Attribute("owner", "S"),
            sort=Attribute("stream", "S"),
            projected=SUMMARY,
        ),
        Index(
            name="by_open",
            # A shard's number, while the stream is not closed: so to find those that nobody goes on
            # with costs what the open ones are, and not what all are.
            partition=Attribute("open", "S"),
            sort=Attribute("stream", "S"),
            projected=("tenant",),
        ),
    ),
)

TENANTS = Table(
    name="tenants",
    partition=Attribute("pk", "S"),
    sort=Attribute("what", "S"),
    expiry="expires_at",
)

AUDIT = Table(
    name="audit",
    # tenant#chain: the entries of one stream, over the days.
    partition=Attribute("pk", "S"),
    # The number of an entry in its chain. As a record's slot it is written once.
    sort=Attribute("n", "N"),
    expiry="expires_at",
    indexes=(
        Index(
            name="by_day",
            # tenant#day: a day of one tenant is read in the order of time.
            partition=Attribute("day", "S"),
            # The moment in ms, and what makes it unique.
            sort=Attribute("id", "S"),
            projected=(
                *("at", "event", "outcome", "actor", "details", "expires_at"),
                *("prev", "prev_expires_at", "hash"),
            ),
        ),
    ),
)

TABLES = (STREAMS, TENANTS, AUDIT)
