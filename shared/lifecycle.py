"""The lifecycle of a stream: what must happen together, in one transaction each.

    open    the opened record, the summary, what the stream takes of its quotas, the claim of its
            Idempotency-Key, the first entry of its audit
    steer   a control, and its entry
    close   the closed record, the summary, the settlement of the quotas, the last entry

So each of them happens wholly or not at all, exactly once, whoever does it and however often.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from shared.audit import Actor, Chain, Entry, Event, Head
from shared.audit.linking import again, draft, link, retention_days, writes
from shared.audit.trail import Audit
from shared.authority import Caller, actor
from shared.errors import TYPE_PREFIX, Busy, NotFound, ProducerLost, SluiceError, Unavailable
from shared.idempotency import Idempotency
from shared.log import Log, closing
from shared.metrics import ANSWER, FAILURE, SILENT, Metrics
from shared.past import Past
from shared.quotas import Admission, Left, Quotas, Wanted, settlement
from shared.records import FinishReason, Item, Kind, Record, Status, StreamKey
from shared.spans import UNTOLD, Spans
from shared.table import Conflict, Store

#: How often a start is tried again after others took from the same counters.
OPEN_TRIES_MAX = 16
PAUSE_MAX_S = 0.05
#: A start that may have happened is asked for again, so that no stream begins without its client.
LOST_TRIES_MAX = 2
DELAY_MAX_S = 0.2
#: How often a control is tried again after losing its slot to a lively producer; before each of how
#: many tries that is asked to yield.
CONTROL_TRIES_MAX = 100
YIELD_EVERY = 4
#: How often a record is tried again after others appended to the stream's audit.
AUDIT_TRIES_MAX = 10


_COUNTED: Mapping[str, str] = {
    Status.COMPLETED: "AnswersCompleted",
    Status.CANCELLED: "AnswersCancelled",
    Status.FAILED: "AnswersFailed",
}


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream that a caller may begin, if there is enough left for what is `wanted`."""

    key: StreamKey
    caller: Caller
    epoch: int
    body: Mapping[str, Any]
    wanted: Wanted
    idempotency: Idempotency | None = None


class Lifecycle:
    """Opens, steers and closes streams. Every method raises `Unavailable` where the store fails."""

    def __init__(
        self,
        store: Store,
        log: Log,
        quotas: Quotas,
        audit: Audit,
        metrics: Metrics = SILENT,
        spans: Spans = UNTOLD,
    ) -> None:
        self.store = store
        self.log = log
        self.metrics = metrics
        self.spans = spans
        self._quotas = quotas
        self._audit = audit

    async def open(self, opening: Opening) -> tuple[Record, tuple[Left, ...]] | StreamKey:
        """Begin a stream: its `opened` record, and what is left of the limits afterwards.

        Or the stream that its Idempotency-Key is tied to. Raises `LimitExceeded`,
        `IdempotencyKeyReused`.
        """
        caller, by = opening.caller, self.log.new_writer()
        try:
            admission = await self._quotas.admit(
                caller.tenant, caller.identity.user, caller.address, opening.wanted
            )
            for attempt in range(OPEN_TRIES_MAX):
                outcome = await self._try_open(opening, admission, by)
                if not isinstance(outcome, Conflict):
                    return outcome
                # After the opened record, the summary and the entry with its head.
                holders = outcome.holders[4 : 4 + len(admission.writes)]
                admission = await self._quotas.again(admission, holders, opening.wanted)
                if attempt:
                    # Not at once: what the conflict has told would be outdated again.
                    await asyncio.sleep(random.uniform(0, PAUSE_MAX_S))  # noqa: S311
        except Busy:
            raise  # the counters answer, only too many ask
        except Unavailable:
            if caller.tenant.policy.on_outage == "refuse":
                raise
            return await self._open_unmetered(opening, by)
        raise Busy("Too many streams are starting at once.")

    async def _open_unmetered(
        self, opening: Opening, by: str
    ) -> tuple[Record, tuple[Left, ...]] | StreamKey:
        """Let a start pass while the counters do not answer: the end will charge all of it."""
        caller = opening.caller
        admission = self._quotas.unmetered(caller.tenant, caller.identity.user, caller.address)
        outcome = await self._try_open(opening, admission, by)
        if isinstance(outcome, Conflict):
            raise Unavailable("The stream could not be opened.")
        return outcome

    async def _try_open(
        self, opening: Opening, admission: Admission, by: str
    ) -> tuple[Record, tuple[Left, ...]] | StreamKey | Conflict:
        key, caller = opening.key, opening.caller
        entry = draft(
            Chain.of(key),
            Event.STARTED,
            actor(caller),
            at_ms=self.log.now_ms(),
            nonce=by,
            details={"model": str(opening.body["model"])},
            retention_days=caller.tenant.policy.audit_retention_days,
        )
        body = {
            **opening.body,
            "held": admission.held,
            "allowance": admission.allowance,
            "takeovers": caller.tenant.policy.takeovers,
            "chain": asdict(Head.of(entry)),
        }
        opened = Record(0, Kind.OPENED, opening.epoch, entry.at, by, body=body)
        claim = [opening.idempotency.claim(caller.identity, key)] if opening.idempotency else []
        also = [*writes(entry), *admission.writes, *claim]
        try:
            conflict = await self._ask_again(lambda: self.log.open(key, opened, also=also))
        except Unavailable:
            # It may have begun all the same, and then nobody else will produce it.
            if begun := await self._begun(key, by):
                return begun, admission.left
            raise
        if conflict is None:
            return opened, admission.left
        if (held := conflict.holders[0]) and held["by"] == by:
            # Ours, whatever became of its reply; it may be one that an earlier try offered.
            return Record.from_item(held), admission.left
        if opening.idempotency and (claimed := conflict.holders[-1]):
            return opening.idempotency.claimed_stream(claimed, caller.identity)
        return conflict

    async def _begun(self, key: StreamKey, by: str) -> Record | None:
        """The `opened` record of this writer, where it was written."""
        try:
            (opened,) = (await self.log.read(key, limit=1, consistent=True)).records
        except NotFound:
            return None
        return opened if opened.by == by else None

    async def close(self, key: StreamKey, past: Past, closed: Record) -> Record:
        """End a stream. Returns the record that holds the slot afterwards, as `Log.append` does."""
        holder = await self._close(key, past, closed)
        if holder.closes and holder.by == closed.by:
            self._tell_end(key, past.opened, holder)
        return holder

    async def _close(self, key: StreamKey, past: Past, closed: Record) -> Record:
        usage = closed.body["usage"] or {}
        tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        settled = settlement(past.holds, tokens)
        head = Head(**past.opened.body["chain"])
        entry = self._draft(key, closed, Event.CLOSED, who(past.opened), head, tokens=tokens)
        for _ in range(AUDIT_TRIES_MAX):
            conflict = await self.log.close(key, closed, also=[*writes(entry), *settled])
            if conflict is None:
                return closed
            if held := conflict.holders[0]:
                return Record.from_item(held)
            entry = _behind(entry, conflict.holders[2:4])
        raise Unavailable("The stream could not be closed.")

    async def steer(
        self,
        key: StreamKey,
        wish: Callable[[Record], Record | None],
        event: Event,
        who: Actor,
    ) -> Record:
        """Append a control at the tail, in a race with the producer for each slot.

        `wish` makes the control that should follow a record, or None where there is nothing more to
        wish for. Returns the control, else the record that made it needless.
        """
        by = self.log.new_writer()
        head = await self._audit.head(Chain.of(key))
        for attempt in range(CONTROL_TRIES_MAX):
            # A producer's write is faster than a transaction: who only went on from the record that
            # was faster would stay behind for ever.
            newest = await self.log.tail(key)
            if attempt % YIELD_EVERY == YIELD_EVERY - 1 and newest.kind == Kind.TEXT:
                # And one that writes all the time is faster than a look and a transaction.
                asked = self._asking_to_yield(newest)
                if (await self.log.append(key, asked)).by != asked.by:
                    continue
                newest = asked
            record = wish(newest)
            if record is None:
                return newest
            holder = await self._append(key, replace(record, by=by), event, who, head)
            if holder.by == by:
                return holder
        raise Unavailable("The stream moves too fast to be steered just now.")

    def _asking_to_yield(self, newest: Record) -> Record:
        log = self.log
        return Record(newest.seq + 1, Kind.YIELD, newest.epoch, log.now_ms(), log.new_writer())

    async def append(self, key: StreamKey, record: Record, event: Event, who: Actor) -> Record:
        """As `Log.append`, together with an entry of the stream's audit."""
        return await self._append(key, record, event, who, await self._audit.head(Chain.of(key)))

    async def extend(
        self, key: StreamKey, record: Record, event: Event, caller: Caller, wanted: Wanted
    ) -> Record:
        """As `append`, with more of the caller's quotas for the stream: the record tells how much.

        Raises `LimitExceeded`, `TooLarge`.
        """
        identity = caller.identity
        admission = await self._quotas.admit(caller.tenant, identity.user, caller.address, wanted)
        head = await self._audit.head(Chain.of(key))
        entry = self._draft(key, record, event, actor(caller), head)
        for _ in range(OPEN_TRIES_MAX):
            more = {"held": admission.held, "allowance": admission.allowance}
            taken = replace(record, body={**record.body, **more})
            also = [*writes(entry), *admission.writes]
            conflict = await self._ask_again(partial(self.log.append_with, key, taken, also))
            if conflict is None:
                return taken
            if held := conflict.holders[0]:
                return Record.from_item(held)
            entry = _behind(entry, conflict.holders[1:3])
            admission = await self._quotas.again(admission, conflict.holders[3:], wanted)
            await asyncio.sleep(random.uniform(0, PAUSE_MAX_S))  # noqa: S311
        raise Busy("Too many streams are starting at once.")

    async def _append(
        self, key: StreamKey, record: Record, event: Event, who: Actor, head: Head | None
    ) -> Record:
        entry = self._draft(key, record, event, who, head)
        for _ in range(AUDIT_TRIES_MAX):
            conflict = await self.log.append_with(key, record, writes(entry))
            if conflict is None:
                return record
            if held := conflict.holders[0]:
                return Record.from_item(held)
            entry = _behind(entry, conflict.holders[1:3])
        raise Unavailable("The stream could not be steered.")

    async def close_abandoned(
        self, key: StreamKey, newest: Record, error: SluiceError | None = None
    ) -> Record:
        """Close a stream that no producer will close, after `newest`, keeping its text.

        Whoever is first wins: returns the record that holds the next slot. Without an `error` its
        producers have died.
        """
        records = await self.log.all_records(key)
        if records[-1].seq > newest.seq:
            return records[newest.seq + 1]
        past = Past.of(records)
        usage = asdict(past.usage)
        if past.cancelled:
            body = closing(Status.CANCELLED, FinishReason.CANCELLED, usage=usage)
        else:
            brief = (error or ProducerLost()).brief()
            body = closing(Status.FAILED, FinishReason.ERROR, usage=usage, error=brief)
        closed = Record(
            seq=newest.seq + 1,
            kind=Kind.CLOSED,
            epoch=newest.epoch + 1,
            at=self.log.now_ms(),
            by=self.log.new_writer(),
            body=body,
        )
        return await self.close(key, past, closed)

    def _tell_end(self, key: StreamKey, opened: Record, closed: Record) -> None:
        """Tell the metrics. Who closes a stream and dies before this leaves it untold."""
        body, about = closed.body, about_stream(key, opened)
        usage, problem = body["usage"] or {}, (body["error"] or {}).get("type", "")
        figures = {
            _COUNTED[body["status"]]: 1,
            # Another's clock may have been ahead of ours.
            "AnswerTime": max(closed.at - opened.at, 0),
            "InputTokens": usage.get("input_tokens", 0),
            "OutputTokens": usage.get("output_tokens", 0),
        }
        about |= {"finish_reason": body["finish_reason"]}
        if body["status"] == Status.FAILED:
            about |= {"problem": problem.removeprefix(TYPE_PREFIX)}
            self.metrics.tell(FAILURE, {"Failures": 1}, **about)
        self.metrics.tell(ANSWER, figures, **about)

    async def _ask_again(self, ask: Callable[[], Awaitable[Conflict | None]]) -> Conflict | None:
        """Where it stays unknown whether something was written, ask again with the same."""
        for _ in range(LOST_TRIES_MAX - 1):
            try:
                return await ask()
            except Unavailable:
                await asyncio.sleep(random.uniform(0, DELAY_MAX_S))  # noqa: S311
        return await ask()

    def _draft(
        self,
        key: StreamKey,
        record: Record,
        event: Event,
        who: Actor,
        head: Head | None,
        **details: int,
    ) -> Entry:
        """The entry of a record that is about to be written."""
        entry = draft(
            Chain.of(key),
            event,
            who,
            at_ms=record.at,
            nonce=self.log.new_writer(),
            outcome=_outcome(record),
            details={"seq": record.seq, **details},
            retention_days=retention_days(head),
        )
        return link(entry, head)


def about_stream(key: StreamKey, opened: Record) -> dict[str, str]:
    """What metrics say of which stream it is."""
    told = {"model": "model", "variant": "variant", "trace_id": "trace"}
    about = {name: opened.body.get(kept) for name, kept in told.items()}
    return key.names | {name: value for name, value in about.items() if value}


def who(opened: Record) -> Actor:
    """Who has started a stream."""
    return Actor(opened.body["user"], opened.body["credential"])


def _behind(entry: Entry, holders: Sequence[Item | None]) -> Entry:
    """The entry where its chain goes on, after others have appended to it."""
    slot, head = holders
    moved = again(entry, slot, head)
    if moved is None:
        raise RuntimeError("an entry was written without its record")
    return moved


def _outcome(record: Record) -> str:
    """How an end came about, or why another producer was asked for; any other record is `ok`."""
    told = record.body.get("finish_reason") or (
        record.kind == Kind.VACANT and record.body["reason"]
    )
    return str(told or "ok")
