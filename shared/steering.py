"""Steering: what a request does to a stream that somebody else produces.

A control is a record at the tail, in a race with the producer that the slot decides: so the
producer learns of it from the write that it makes anyway.
"""

from collections.abc import Callable
from dataclasses import replace

from shared import authority
from shared.audit import Event
from shared.authority import Caller, actor
from shared.errors import IdempotencyInFlight, revive
from shared.lifecycle import Lifecycle
from shared.log import Log, unknown_stream
from shared.models import tokens_of
from shared.past import QUOTA, REQUESTED, Past
from shared.quotas import OUTPUT_TOKENS_DEFAULT, Wanted
from shared.records import Kind, Record, Status, StreamKey
from shared.takeover import Takeovers

#: A pause that only a resume ends, and a fresh credential alone does not.
_BY_RESUME = (REQUESTED, QUOTA)


async def check_replay(takeovers: Takeovers, key: StreamKey, *, may_run: bool) -> Record:
    """The newest record of the first request's stream, for a repeated one to go on with.

    Raises what it must be told instead: `IdempotencyInFlight` while the stream runs, unless it
    `may_run`, and the stream's own error where it failed before its first text, because then it was
    not an answer. Raises `NotFound` where the claim has outlived the stream.
    """
    log = takeovers.log
    if log.is_expired(key):
        raise unknown_stream(key.stream)
    newest = await takeovers.settle(key)
    if not newest.closes and not may_run:
        raise IdempotencyInFlight(
            "The first request with this Idempotency-Key still runs; follow its stream instead.",
            headers={"Location": f"{key.path}/events", "Retry-After": "2"},
            stream=key.stream,
        )
    if newest.closes and newest.body["status"] == Status.FAILED:
        # Not by its number: pauses, heartbeats and other producers may have come before it.
        records = await log.all_records(key)
        if not any(record.text for record in records):
            error = revive(newest.body["error"] or {})
            # With this key it will be told the same again: another try needs another key.
            error.retryable = False
            raise error
    return newest


async def cancel(lifecycle: Lifecycle, key: StreamKey, caller: Caller) -> Record:
    """Ask a stream's producer to stop. Returns the record that says so, or the one that closed it.

    Cancelling twice, or after the end, changes nothing. Where there is no producer the stream is
    closed here. Raises `NotFound`, `Unavailable`.
    """
    log = lifecycle.log
    produced = True

    def wish(newest: Record) -> Record | None:
        nonlocal produced
        if newest.closes or (newest.kind == Kind.CANCEL and not log.is_dead(newest)):
            return None
        produced = not (newest.vacant or newest.parked or log.is_dead(newest))
        return _control(log, newest, Kind.CANCEL)

    newest = await lifecycle.steer(key, wish, Event.CANCELLED, actor(caller))
    if newest.kind == Kind.CANCEL and not produced:
        return await lifecycle.close_abandoned(key, newest)
    return newest


async def pause(lifecycle: Lifecycle, key: StreamKey, caller: Caller) -> Record:
    """Have nothing more produced until a `resume`; what there is stays.

    Returns the record that says so, or that made it needless: the stream is over, or only a resume
    lets it go on already. Raises `NotFound`, `Unavailable`.
    """
    log = lifecycle.log

    def wish(newest: Record) -> Record | None:
        if _is_over(newest) or (newest.parked and newest.body["reason"] in _BY_RESUME):
            return None
        return _control(log, newest, Kind.PAUSE, reason=REQUESTED, parked=True)

    return await lifecycle.steer(key, wish, Event.PAUSED, actor(caller))


async def resume(takeovers: Takeovers, key: StreamKey, caller: Caller) -> Record:
    """Let a paused stream go on, by the caller's credential and from the caller's quotas: what is
    there is sent again, and it may have come to the end of what it had.

    Returns the record that says so, or that made it needless: the stream is over, or is not paused.
    Raises `NotFound`, `Unavailable`, `LimitExceeded`, `TooLarge`.
    """
    newest = await takeovers.log.tail(key)
    if newest.parked:
        return await _extend(takeovers, key, caller, newest)
    return await _grant(
        takeovers, key, caller, Event.RESUMED, lambda newest: newest.kind == Kind.PAUSE
    )


async def grant(takeovers: Takeovers, key: StreamKey, caller: Caller) -> Record:
    """Let a stream go on by the caller's credential, past the end of the one before.

    A stream that was paused by hand, or for want of tokens, is left as it is: `resume` takes a
    credential, too. Returns as `resume` does. Raises `NotFound`, `Unavailable`.
    """
    # A grant is a record like any other: behind it a dead stream would look alive again.
    await takeovers.settle(key)
    return await _grant(
        takeovers,
        key,
        caller,
        Event.GRANTED,
        lambda newest: not (newest.parked and newest.body["reason"] in _BY_RESUME),
    )


async def _extend(takeovers: Takeovers, key: StreamKey, caller: Caller, newest: Record) -> Record:
    """Behind a pause where nobody waits: only another control, or the end, can come between."""
    log = takeovers.log
    past = Past.of(await log.all_records(key))
    body = authority.to_body(caller.identity) | {"vacant": True}
    asked = replace(_control(log, newest, Kind.GRANT, **body), by=log.new_writer())
    wanted = _more(past, newest.body["reason"])
    record = await takeovers.lifecycle.extend(key, asked, Event.RESUMED, caller, wanted)
    if record.by == asked.by:
        await takeovers.launch(key)
    return record


def _more(past: Past, reason: str) -> Wanted:
    """What it takes to go on: the conversation is sent again, with the answer so far; and more of
    an answer, where that has come to the end of what it had.
    """
    body, said = past.opened.body, len(past.said)
    sent = sum(len(message["content"]) for message in body["messages"]) + said
    more = 0
    if reason == QUOTA:
        most = body["max_tokens"]
        more = max(most - tokens_of(said), 1) if most else OUTPUT_TOKENS_DEFAULT
    return Wanted(tokens_of(sent), more, permits=0)


async def _grant(
    takeovers: Takeovers,
    key: StreamKey,
    caller: Caller,
    event: Event,
    wanted: Callable[[Record], bool],
) -> Record:
    lifecycle, log = takeovers.lifecycle, takeovers.log
    parked = False

    def wish(newest: Record) -> Record | None:
        nonlocal parked
        parked = newest.parked or (newest.kind == Kind.PAUSE and log.is_dead(newest))
        if _is_over(newest) or not wanted(newest):
            return None
        # A stream that waits for a producer does so behind this record, too.
        waits = {"vacant": True} if parked or newest.vacant else {}
        return _control(log, newest, Kind.GRANT, **authority.to_body(caller.identity), **waits)

    record = await lifecycle.steer(key, wish, event, actor(caller))
    if record.kind == Kind.GRANT and parked:
        await takeovers.launch(key)
    return record


def _is_over(newest: Record) -> bool:
    return newest.closes or newest.kind == Kind.CANCEL


def _control(log: Log, newest: Record, kind: Kind, **body: object) -> Record:
    """A control behind a record; whoever writes it fills in its name."""
    return Record(newest.seq + 1, kind, newest.epoch, log.now_ms(), "", body=body)
