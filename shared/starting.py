"""Starting, cancelling: what a client's request does to a stream before a producer has its turn."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from shared.errors import IdempotencyInFlight, TooLarge, Unavailable, revive
from shared.log import Log
from shared.models import Ask, Message, Models
from shared.pacing import Pacing
from shared.records import Kind, Record, Status, StreamKey, dump
from shared.table import Conflict, Put
from shared.tenants import Idempotency, Identity, Tenants, claimed_stream

#: What one `opened` record may hold: an item has 400 KB, the conversation most of it.
OPENED_BYTES_MAX = 320 * 1024
#: How often a control is tried again after losing its slot to a lively producer.
CONTROL_TRIES_MAX = 100
#: A start that may have happened is asked for again, so that no stream begins without its client.
OPEN_TRIES_MAX = 2
OPEN_DELAY_MAX_S = 0.2


@dataclass(frozen=True, slots=True)
class Start:
    """What a client asks for, checked. It is kept in the `opened` record."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    pacing: Pacing = field(default_factory=Pacing)
    throttle: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None

    def to_body(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        pacing = body["pacing"]
        low, high = pacing["flush_interval_ms"]
        return cls(
            model=body["model"],
            messages=tuple(Message(**message) for message in body["messages"]),
            max_tokens=body["max_tokens"],
            pacing=Pacing(**{**pacing, "flush_interval_ms": (low, high)}),
            throttle=body["throttle"],
            metadata=body["metadata"],
            parent=body["parent"],
        )

    def ask(self, name: str) -> Ask:
        """What the provider is asked, which knows the model as `name`."""
        return Ask(name, self.messages, self.max_tokens)


@dataclass(frozen=True, slots=True)
class Started:
    """A stream of ours that has just begun: `opened` is durable."""

    key: StreamKey
    start: Start
    opened: Record


@dataclass(frozen=True, slots=True)
class Replayed:
    """The stream that an earlier request with the same Idempotency-Key began."""

    key: StreamKey


async def start_stream(
    log: Log,
    tenants: Tenants,
    models: Models,
    identity: Identity,
    start: Start,
    *,
    epoch: int,
    idempotency: Idempotency | None = None,
) -> Started | Replayed:
    """Begin a stream. `epoch` is 1 where the caller produces it, 0 where somebody else will.

    The claim of the idempotency key is part of the transaction that opens the stream: there is
    never one without the other. Raises `InvalidRequest`, `NotFound` (parent), `TooLarge`,
    `IdempotencyKeyReused`, `Unavailable`.
    """
    models.resolve(start.model)
    if start.parent:
        if idempotency and (key := await tenants.claimed(identity, idempotency)):
            return Replayed(key)
        start = await _continue_from(log, StreamKey(identity.tenant, start.parent), start)
    key = log.new_key(identity.tenant)
    opened = Record(0, Kind.OPENED, epoch, log.now_ms(), log.new_writer(), body=_opening(start))
    also = [tenants.claim(identity, idempotency, key)] if idempotency else []
    conflict = await _open(log, key, opened, also)
    if conflict is None:
        return Started(key, start, opened)
    held = conflict.holders[-1]
    if not idempotency or not held:
        raise Unavailable("The stream could not be opened.")
    return Replayed(claimed_stream(held, identity, idempotency))


def _opening(start: Start) -> dict[str, Any]:
    body = start.to_body()
    if len(dump(body).encode()) > OPENED_BYTES_MAX:
        raise TooLarge(
            f"The conversation, with its parent's, is over {OPENED_BYTES_MAX} bytes.",
            field="messages",
            maximum=OPENED_BYTES_MAX,
        )
    return body


async def check_replay(log: Log, key: StreamKey, *, may_run: bool) -> Record:
    """The newest record of the first request's stream, for a repeated one to go on with.

    Raises what it must be told instead: `IdempotencyInFlight` while the stream runs, unless it
    `may_run`, and the stream's own error where it failed before its first text, because then it was
    not an answer.
    """
    newest = await log.settle(key)
    if not newest.closes and not may_run:
        raise IdempotencyInFlight(
            "The first request with this Idempotency-Key still runs; follow its stream instead.",
            headers={"Location": f"{key.path}/events", "Retry-After": "2"},
            stream=key.stream,
        )
    if newest.closes and newest.seq == 1 and newest.body["status"] == Status.FAILED:
        error = revive(newest.body["error"] or {})
        # With this key it will be told the same again: another try needs another key.
        error.retryable = False
        error.headers.pop("Retry-After", None)
        raise error
    return newest


async def cancel(log: Log, key: StreamKey) -> Record:
    """Ask a stream's producer to stop. Returns the record that says so, or the one that closed it.

    Cancelling twice, or after the end, changes nothing. Where the producer is dead the stream is
    closed here. Raises `NotFound`, `Unavailable`.
    """
    newest = await log.tail(key)
    by = log.new_writer()
    for _ in range(CONTROL_TRIES_MAX):
        dead = log.is_dead(newest)
        if newest.closes or (newest.kind == Kind.CANCEL and not dead):
            return newest
        wish = Record(newest.seq + 1, Kind.CANCEL, newest.epoch, log.now_ms(), by)
        newest = await log.append(key, wish)
        if dead and newest.by == by:
            newest = await log.close_abandoned(key, newest)
    raise Unavailable("The stream moves too fast to be cancelled just now.")


async def _open(log: Log, key: StreamKey, opened: Record, also: Sequence[Put]) -> Conflict | None:
    """Open a stream; where it stays unknown whether that happened, ask again with the same."""
    for _ in range(OPEN_TRIES_MAX - 1):
        try:
            return await log.open(key, opened, also=also)
        except Unavailable:
            await asyncio.sleep(random.uniform(0, OPEN_DELAY_MAX_S))  # noqa: S311
    return await log.open(key, opened, also=also)


async def _continue_from(log: Log, parent: StreamKey, start: Start) -> Start:
    """The request with its parent's conversation before it, and the parent's text as the answer.

    A parent that still runs is cancelled: behind its `cancel` there is no more text. But only for a
    request that would be accepted with the parent's text so far.
    """
    _opening(await _with_parent(log, parent, start))
    await cancel(log, parent)
    return await _with_parent(log, parent, start)


async def _with_parent(log: Log, parent: StreamKey, start: Start) -> Start:
    records: list[Record] = []
    while page := (await log.read(parent, len(records) - 1, consistent=True)).records:
        records += page
    text = "".join(record.text for record in records)
    before = Start.from_body(records[0].body).messages
    answer = (Message("assistant", text),) if text else ()
    return replace(start, messages=before + answer + start.messages)
