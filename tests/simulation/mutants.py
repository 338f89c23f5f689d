"""Planted bugs: one or more for each check, which must find it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shared import follower, live, log, producer, table
from shared.errors import Unavailable
from shared.log import SUMMARY_SEQ, Log, Page
from shared.records import Item, Kind, Record, StreamKey
from shared.schema import STREAMS
from shared.table import Query
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

    async def append_once(self: producer.Producer, kind: Kind, text: str = "") -> None:
        if self._end is not producer._End.CANCELLED:
            await self._offer(self._record(kind, text=text))

    patch.setattr(producer.Producer, "_append", append_once)


@_found_by("one_writer_an_epoch")
def ignores_its_successor(patch: pytest.MonkeyPatch) -> None:
    """A producer that is told of a successor, and goes on."""
    accept = producer.Producer._accept

    def accept_all(self: producer.Producer, record: Record) -> None:
        try:
            accept(self, record)
        except producer._Fenced:
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
        except producer._Fenced:
            if not record.closes:
                raise

    patch.setattr(producer.Producer, "_accept", accept_the_end)


@_found_by("ends_once")
def never_closes_a_dead_stream(patch: pytest.MonkeyPatch) -> None:
    """Followers that wait for a dead producer."""
    patch.setattr(follower.Follower, "_producer_died", lambda self, channel: False)


@_found_by("summarized_once")
def closes_in_two_steps(patch: pytest.MonkeyPatch) -> None:
    """The closed record and the summary are written one after the other."""

    async def close(self: Log, key: StreamKey, closed: Record, **_: Any) -> Record:
        if held := await self._store.write(self._put(key, closed)):
            return Record.from_item(held)
        change: Item = {
            "status": closed.body["status"],
            "finish_reason": closed.body["finish_reason"],
            "last_seq": closed.seq,
        }
        summary: Item = {"pk": key.pk, "seq": SUMMARY_SEQ}
        await self._store.transact([table.Update(STREAMS, summary, change)], f"{closed.by}-two")
        return closed

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
        if self._end:
            self._held = ""

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

    def written_or_not(self: Database, write: table.Write) -> Item | None:
        lost = isinstance(write, table.Put) and write.item["seq"] == 3
        return None if lost else write_now(self, write)

    patch.setattr(Database, "write_now", written_or_not)


@_found_by("written_once")
def overwrites(patch: pytest.MonkeyPatch) -> None:
    """Puts without their condition."""

    def write_now(self: Database, write: table.Write) -> Item | None:
        self._do(write)
        return None

    patch.setattr(Database, "write_now", write_now)


def first_found(mutant: Mutant, seeds: Sequence[int], find: Callable[[int], list[str]]) -> int:
    """The first seed whose run fails the mutant's check; −1 where none does."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.plant(patch)
        for seed in seeds:
            if any(complaint.startswith(f"{mutant.found_by}:") for complaint in find(seed)):
                return seed
    return -1
