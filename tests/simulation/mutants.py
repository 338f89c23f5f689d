"""Planted bugs: one or more for each check, which must find it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from shared import follower, lifecycle, live, log, producer, starting, takeover
from shared.answer import Answer
from shared.audit import Entry
from shared.audit.linking import writes
from shared.authority import Caller
from shared.erasure import BATCH, Erasure, Erasures
from shared.errors import Unavailable
from shared.held import Held
from shared.idempotency import Idempotency
from shared.identity import Identity, keys
from shared.log import SUMMARY_SEQ, Log, Page
from shared.past import Past
from shared.permit import Permit
from shared.quotas.counters import Book
from shared.records import PRODUCED, Item, Kind, Record, StreamKey
from shared.redaction import Redactor
from shared.schema import STREAMS, TENANTS
from shared.starting import Start, Starting
from shared.steering import cancel
from shared.table import Conflict, Put, Query, Update, Write
from shared.takeover import Takeovers
from tests.simulation.store import Database

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    plant: Plant
    #: The check that must find it.
    found_by: str


MUTANTS: dict[str, Mutant] = {}


def _found_by(check: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        MUTANTS[plant.__name__] = Mutant(plant, check)
        return plant

    return add


@_found_by("contiguous")
def goes_on_at_the_next_slot(patch: pytest.MonkeyPatch) -> None:
    """A write that failed is tried again one slot further."""
    offer = producer.Producer._offer

    async def offer_elsewhere(self: producer.Producer, record: Record) -> Record:
        if record.kind != Kind.TEXT:
            return await offer(self, record)
        while True:
            try:
                holder = await self._log.append(self.key, record)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
                record = replace(record, seq=record.seq + 1)
        self._accept(holder)
        return holder

    patch.setattr(producer.Producer, "_offer", offer_elsewhere)


@_found_by("text_in_order")
def does_not_know_its_own_write(patch: pytest.MonkeyPatch) -> None:
    """A chunk whose reply was lost is taken for another's, and written again behind it."""
    offer = producer.Producer._offer

    async def offer_again(self: producer.Producer, record: Record) -> Record:
        if record.kind != Kind.TEXT:
            return await offer(self, record)
        try:
            holder = await self._log.append(self.key, record)
        except Unavailable:
            await offer(self, record)
            return await offer(self, replace(record, seq=self._seq))
        self._accept(holder)
        return holder

    patch.setattr(producer.Producer, "_offer", offer_again)


@_found_by("text_in_order")
def forgets_what_lost_its_slot(patch: pytest.MonkeyPatch) -> None:
    """A chunk that loses its slot is not offered again at the next."""

    offer = producer.Producer._offer

    async def offer_once(self: producer.Producer, record: Record) -> Record:
        holder = await offer(self, record)
        return record if record.kind == Kind.TEXT else holder

    patch.setattr(producer.Producer, "_offer", offer_once)


@_found_by("one_writer_an_epoch")
def ignores_its_successor(patch: pytest.MonkeyPatch) -> None:
    """A producer that is told of a successor, and goes on."""
    accept = producer.Producer._accept

    def accept_all(self: producer.Producer, record: Record) -> None:
        try:
            accept(self, record)
        except producer._Over:
            if record.closes:
                raise

    patch.setattr(producer.Producer, "_accept", accept_all)


@_found_by("ends_once")
def writes_behind_the_end(patch: pytest.MonkeyPatch) -> None:
    """A producer that finds its stream closed, and goes on."""
    accept = producer.Producer._accept

    def accept_the_end(self: producer.Producer, record: Record) -> None:
        try:
            accept(self, record)
        except producer._Over:
            if not record.closes:
                raise

    patch.setattr(producer.Producer, "_accept", accept_the_end)


@_found_by("ends_once")
def takes_nobody_for_dead(patch: pytest.MonkeyPatch) -> None:
    """Readers and sweeps that wait for a producer that has died."""
    patch.setattr(Log, "is_dead", lambda self, newest: False)


@_found_by("ends_once")
def leaves_what_is_paused(patch: pytest.MonkeyPatch) -> None:
    """A sweep that never closes what nobody lets go on."""
    tend = Takeovers.tend

    async def tend_in_time(self: Takeovers, key: StreamKey, pause_s: float) -> str | None:
        return await tend(self, key, 1e9)

    patch.setattr(Takeovers, "tend", tend_in_time)


@_found_by("vacant_is_silent")
def goes_on_in_a_vacancy(patch: pytest.MonkeyPatch) -> None:
    """A producer that was given up, and does not mind."""
    patch.setattr(producer, "FENCING", PRODUCED)


@_found_by("taken_over_within_bounds")
def takes_over_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A stream that no producer survives, and that is never closed for it."""
    of = Past.of

    def forgetful(records: Sequence[Record]) -> Past:
        return replace(of(records), takeovers=-1)

    patch.setattr(takeover, "Past", SimpleNamespace(of=forgetful))


@_found_by("launched_once")
def launches_without_the_slot(patch: pytest.MonkeyPatch) -> None:
    """Everybody who notices that a producer is dead has another one start."""
    rescue = Takeovers.rescue

    async def rescue_anyway(self: Takeovers, key: StreamKey, newest: Record) -> Record:
        holder = await rescue(self, key, newest)
        if holder.kind == Kind.VACANT:
            await self.launch(key)
        return holder

    patch.setattr(Takeovers, "rescue", rescue_anyway)


@_found_by("not_looked_for_any_more")
def stays_among_the_open(patch: pytest.MonkeyPatch) -> None:
    """A stream that is closed and stays in the index of those that are not."""
    transact = Log._transact

    async def keep(self: Log, writes: Sequence[Write]) -> Conflict | None:
        kept = [replace(w, remove=()) if isinstance(w, Update) else w for w in writes]
        return await transact(self, kept)

    patch.setattr(Log, "_transact", keep)


@_found_by("text_in_order")
def says_it_again(patch: pytest.MonkeyPatch) -> None:
    """A replay of which what is there already is not skipped."""
    patch.setattr(Held, "go_on", lambda self, said, how: None)


# Found by the simulation: what a dying producer's last write brought was said again.
@_found_by("text_in_order")
def overlooks_a_late_write(patch: pytest.MonkeyPatch) -> None:
    """A producer that goes on from what it had read, whatever has come since."""
    begin = producer.Producer._begin

    async def begin_blindly(self: producer.Producer, known: Sequence[Record]) -> None:
        said = self._past.said
        await begin(self, known)
        self._past = replace(self._past, said=said)

    patch.setattr(producer.Producer, "_begin", begin_blindly)


@_found_by("paused_is_silent")
def does_not_stop_at_a_pause(patch: pytest.MonkeyPatch) -> None:
    """A producer that takes somebody's pause for any other record."""
    accept = producer.Producer._accept

    def accept_all(self: producer.Producer, record: Record) -> None:
        ours = record.by == self._by
        accept(self, record if ours or not record.parked else replace(record, kind="news"))

    patch.setattr(producer.Producer, "_accept", accept_all)


@_found_by("summarized_once")
def closes_in_two_steps(patch: pytest.MonkeyPatch) -> None:
    """The closed record and the summary are written one after the other."""

    async def close(
        self: Log, key: StreamKey, closed: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        conflict = await self._transact([log._put(key, closed), *also])
        if conflict:
            return Conflict((conflict.holders[0], None, *conflict.holders[1:]))
        change: Item = {
            "status": closed.body["status"],
            "finish_reason": closed.body["finish_reason"],
            "last_seq": closed.seq,
        }
        summary: Item = {"pk": key.pk, "seq": SUMMARY_SEQ}
        await self._transact([Update(STREAMS, summary, change)])
        return None

    patch.setattr(Log, "close", close)


@_found_by("durable_before_visible")
def shows_before_it_writes(patch: pytest.MonkeyPatch) -> None:
    """A chunk goes to the followers here while its write is still under way."""
    offer = producer.Producer._offer

    async def offer_shown(self: producer.Producer, record: Record) -> Record:
        self._channel.publish(record)
        return await offer(self, record)

    patch.setattr(producer.Producer, "_offer", offer_shown)


@_found_by("seen_in_order")
def follows_across_gaps(patch: pytest.MonkeyPatch) -> None:
    """A follower takes what a stale read shows it, with records missing."""
    patch.setattr(log, "_contiguous", lambda items, first: tuple(map(Record.from_item, items)))


@_found_by("seen_in_order")
def shows_twice(patch: pytest.MonkeyPatch) -> None:
    """A channel that keeps what a second producer of its process tells it again."""

    def publish(self: live.Channel, record: Record) -> None:
        self._recent.append(record)
        self.wake()

    patch.setattr(live.Channel, "publish", publish)


@_found_by("resumed")
def polls_past_the_page(patch: pytest.MonkeyPatch) -> None:
    """A page that sends its client on after the newest record, not after its own last."""
    page = follower.Follower.page

    async def page_past(self: follower.Follower, **arguments: Any) -> follower.Page:
        found = await page(self, **arguments)
        return replace(found, next=found.newest.seq)

    patch.setattr(follower.Follower, "page", page_past)


@_found_by("drained")
def keeps_controls_back(patch: pytest.MonkeyPatch) -> None:
    """A follower that hands out only what it knows a use for."""
    batches = follower.Follower.batches

    async def batches_without(self: follower.Follower) -> AsyncIterator[tuple[Record, ...]]:
        async with aclosing(batches(self)) as every:
            async for records in every:
                yield tuple(record for record in records if record.kind != Kind.GRANT)

    patch.setattr(follower.Follower, "batches", batches_without)


@_found_by("complete")
def ends_before_its_text(patch: pytest.MonkeyPatch) -> None:
    """A producer that closes when its model is done, with text still in its hands."""
    due = producer.Producer._something_due

    async def due_or_done(self: producer.Producer) -> None:
        await due(self)
        if self._answer.end:
            self._answer.held.discard()

    patch.setattr(producer.Producer, "_something_due", due_or_done)


@_found_by("cancel_is_obeyed")
def ignores_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """A producer that takes a cancel for any other record."""
    accept = producer.Producer._accept

    def accept_all(self: producer.Producer, record: Record) -> None:
        accept(self, replace(record, kind="news") if record.kind == Kind.CANCEL else record)

    patch.setattr(producer.Producer, "_accept", accept_all)


@_found_by("foreseen")
def trusts_a_stale_read(patch: pytest.MonkeyPatch) -> None:
    """Reads that take what an eventually consistent query shows for all that there is."""

    async def read(self: Log, key: StreamKey, after: int = -1, **_: Any) -> Page:
        items = (await self._store.query(Query(STREAMS, key.pk, 1000, start=after))).items
        records = log._contiguous(items[1:], after + 1)
        return Page(Record.from_item(items[0]) if after >= 0 else None, records, more=False)

    patch.setattr(Log, "read", read)


@_found_by("acknowledged_is_kept")
def loses_an_acknowledged_write(patch: pytest.MonkeyPatch) -> None:
    """A store that says it has written, and has not."""
    write_now = Database.write_now

    def written_or_not(self: Database, write: Write) -> Item | None:
        lost = isinstance(write, Put) and write.item.get("seq") == 3
        return None if lost else write_now(self, write)

    patch.setattr(Database, "write_now", written_or_not)


@_found_by("written_once")
def overwrites(patch: pytest.MonkeyPatch) -> None:
    """Puts without their condition."""

    def write_now(self: Database, write: Write) -> Item | None:
        self._do(write)
        return None

    patch.setattr(Database, "write_now", write_now)


#: A write that changes nothing that matters, in the place of one that would.
NOTHING = Update(TENANTS, {"pk": "nothing", "what": "nothing"}, {"v": 1}, where=None)


@_found_by("settled")
def settles_beside_the_end(patch: pytest.MonkeyPatch) -> None:
    """The settlement has a transaction of its own, and is forgotten where that is not reached."""
    close = Log.close

    async def close_then_settle(
        self: Log, key: StreamKey, closed: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        conflict = await close(self, key, closed, also=also[:2])
        if conflict is None:
            await self._store.transact(also[2:], self.new_writer())
        return conflict

    patch.setattr(Log, "close", close_then_settle)


@_found_by("settled")
def settles_with_each_try(patch: pytest.MonkeyPatch) -> None:
    """The settlement comes before the end, each time that somebody tries to close."""
    close = Log.close

    async def settle_then_close(
        self: Log, key: StreamKey, closed: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        await self._store.transact(also[2:], self.new_writer())
        return await close(self, key, closed, also=also[:2])

    patch.setattr(Log, "close", settle_then_close)


@_found_by("within_limits")
def takes_what_another_has_taken(patch: pytest.MonkeyPatch) -> None:
    """Counters are written whatever has become of them since they were read."""
    taking = Book.taking

    def taking_anyway(self: Book, tokens: int, permits: int = 1) -> Write:
        write = taking(self, tokens, permits)
        return replace(write, where=None) if isinstance(write, Update) else write

    patch.setattr(Book, "taking", taking_anyway)


@_found_by("claimed")
def claims_nothing(patch: pytest.MonkeyPatch) -> None:
    """An Idempotency-Key that is written down where nobody looks."""
    claim = Idempotency.claim

    def claim_elsewhere(self: Idempotency, identity: Identity, key: StreamKey) -> Put:
        return Put(TENANTS, claim(self, identity, key).item | {"pk": f"claim#{key.stream}"})

    patch.setattr(Idempotency, "claim", claim_elsewhere)


@_found_by("audited")
def leaves_the_head_behind(patch: pytest.MonkeyPatch) -> None:
    """An entry is written, and its chain's head stays where it was."""

    def writes_without_head(entry: Entry) -> tuple[Put, Update]:
        put, _ = writes(entry)
        return put, NOTHING

    patch.setattr(lifecycle, "writes", writes_without_head)


@_found_by("audited")
def closes_without_an_entry(patch: pytest.MonkeyPatch) -> None:
    """The end of a stream that its audit does not tell."""
    close = Log.close

    async def close_alone(
        self: Log, key: StreamKey, closed: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        return await close(self, key, closed, also=[NOTHING, NOTHING, *also[2:]])

    patch.setattr(Log, "close", close_alone)


@_found_by("audited_alone")
def tells_of_a_start_before_it(patch: pytest.MonkeyPatch) -> None:
    """The entry of a stream is written, and then the stream, if it may start."""
    begin = Log.open

    async def tell_then_open(
        self: Log, key: StreamKey, opened: Record, *, also: Sequence[Write] = ()
    ) -> Conflict | None:
        await self._store.transact(also[:2], self.new_writer())
        return await begin(self, key, opened, also=[NOTHING, NOTHING, *also[2:]])

    patch.setattr(Log, "open", tell_then_open)


@_found_by("permitted")
def asks_nobody(patch: pytest.MonkeyPatch) -> None:
    """A producer that goes on whatever has become of its credential."""

    async def never(self: Permit) -> str | None:
        return None

    patch.setattr(Permit, "ended", never)


@_found_by("permitted")
def remembers_for_too_long(patch: pytest.MonkeyPatch) -> None:
    """A key counts for a minute as it was."""
    patch.setattr(keys, "CACHE_S", 60.0)


@_found_by("paused_is_silent")
def goes_on_without_a_grant(patch: pytest.MonkeyPatch) -> None:
    """A producer that says it has paused, and does not wait."""

    async def go_on(self: producer.Producer, reason: str) -> None:
        pass

    patch.setattr(producer.Producer, "_paused", go_on)


@_found_by("redacted")
def goes_past_the_redactor(patch: pytest.MonkeyPatch) -> None:
    """What the model says goes into the log as it is."""
    patch.setattr(Redactor, "feed", lambda self, delta: delta)
    patch.setattr(Redactor, "finish", lambda self: "")


@_found_by("redacted")
def keeps_prompts_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """A tenant that has its prompts redacted, and they are not."""
    patch.setattr(starting, "_redacted", lambda tenant, start: (start, Counter()))


@_found_by("complete")
def keeps_the_last_words_back(patch: pytest.MonkeyPatch) -> None:
    """What the redactor holds at the end of an answer stays there."""
    patch.setattr(Answer, "_flush", lambda self: None)


# Found by the simulation: the answer was closed as completed.
@_found_by("complete")
def ends_well_without_its_text(patch: pytest.MonkeyPatch) -> None:
    """An answer that nobody has granted in time is told to be complete."""

    async def drop(self: producer.Producer, reason: str) -> None:
        self._answer.held.discard()

    patch.setattr(producer.Producer, "_paused", drop)


@_found_by("progresses")
def waits_too_long_for_a_launch(patch: pytest.MonkeyPatch) -> None:
    """A stream whose launch is lost, and that nobody looks after for ten minutes."""
    patch.setattr(log, "VACANT_S", 600.0)


@_found_by("refined")
def reads_before_it_cancels(patch: pytest.MonkeyPatch) -> None:
    """A parent that goes on while its text is already taken."""

    async def continue_early(self: Starting, caller: Caller, start: Start) -> Start:
        parent = StreamKey(caller.tenant.name, start.parent or "")
        found = await self._with_parent(parent, start)
        await cancel(self._lifecycle, parent, caller)
        return found

    patch.setattr(Starting, "_continue_from", continue_early)


@_found_by("erased")
def erases_the_first_page(patch: pytest.MonkeyPatch) -> None:
    """An erasure that takes one page of a stream for all there is."""

    async def overwrite(self: Erasures, key: StreamKey) -> None:
        found = await self._store.query(Query(STREAMS, key.pk, 10, start=0, consistent=True))
        seqs = [int(item["seq"]) for item in found.items]
        for first in range(0, len(seqs), BATCH):
            shells = [self._shell(key, seq) for seq in seqs[first : first + BATCH]]
            await self._store.overwrite(STREAMS, shells)

    patch.setattr(Erasures, "_overwrite", overwrite)


@_found_by("drained")
def hides_the_summary_alone(patch: pytest.MonkeyPatch) -> None:
    """A stream that is erased and can still be read."""
    patch.setattr(log, "_is_erased", lambda item: False)


@_found_by("erased_in_the_end")
def counts_beside_the_release(patch: pytest.MonkeyPatch) -> None:
    """An erasure that lets go of a stream, and then counts it."""
    release = Erasures._release

    async def release_then_count(self: Erasures, key: StreamKey, job: Erasure) -> bool:
        released = await release(self, key, replace(job, stream=key.stream))
        if released and job.stream is None:
            await self._store.write(Update(TENANTS, job.key, add={"streams": 1}))
        return released

    patch.setattr(Erasures, "_release", release_then_count)


def first_found(mutant: Mutant, seeds: Sequence[int], find: Callable[[int], list[str]]) -> int:
    """The first seed whose run fails the mutant's check; −1 where none does."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.plant(patch)
        for seed in seeds:
            if any(complaint.startswith(f"{mutant.found_by}:") for complaint in find(seed)):
                return seed
    return -1
