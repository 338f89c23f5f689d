"""A client of Sluice: answers that resume by themselves, and are polled where nothing streams."""

from sluice_client.aio import AsyncAnswer, AsyncSluice
from sluice_client.errors import (
    GaveUp,
    NotSluice,
    Refused,
    SluiceError,
    StreamFailed,
    Unreachable,
)
from sluice_client.events import (
    Chunk,
    Closed,
    Epoch,
    Event,
    Expiring,
    Granted,
    Opened,
    Paused,
    Polling,
    Reconnecting,
    Streaming,
    TokenUsage,
)
from sluice_client.machine import Times
from sluice_client.question import Message, Options
from sluice_client.results import Limit, Standing, Summary, Usage
from sluice_client.sync import Answer, Sluice

__all__ = [
    "Answer",
    "AsyncAnswer",
    "AsyncSluice",
    "Chunk",
    "Closed",
    "Epoch",
    "Event",
    "Expiring",
    "GaveUp",
    "Granted",
    "Limit",
    "Message",
    "NotSluice",
    "Opened",
    "Options",
    "Paused",
    "Polling",
    "Reconnecting",
    "Refused",
    "Sluice",
    "SluiceError",
    "Standing",
    "StreamFailed",
    "Streaming",
    "Summary",
    "Times",
    "TokenUsage",
    "Unreachable",
    "Usage",
]
