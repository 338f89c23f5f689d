"""A run as it is told at its end: all that the checks look at."""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

from shared.audit import Chain, Entry, Head, head_of
from shared.records import Item, Kind, Record, StreamKey
from shared.schema import AUDIT, STREAMS, TENANTS, Table
from shared.table import Query
from tests.simulation.clients import Client
from tests.simulation.clock import run_virtually
from tests.simulation.history import Fact, History
from tests.simulation.provider import Script
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Told:
    """One stream at the end, with its audit and who looked at it."""

    key: StreamKey
    #: As they lie in the database; where they were erased, as they were before.
    records: Sequence[Record]
    #: What lies there where it was erased.
    shells: Sequence[Item]
    summary: Item
    #: What happened to its records, and each state that its summary had.
    facts: Sequence[Fact]
    summaries: Sequence[Item]
    clients: Sequence[Client]
    entries: Sequence[Entry]
    head: Head | None

    @property
    def erased(self) -> bool:
        return self.summary["status"] == Kind.ERASED

    @property
    def closed(self) -> Record | None:
        return self.records[-1] if self.records[-1].closes else None


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one seed: everything that the checks look at."""

    seed: int
    world: World
    streams: Sequence[Told]

    @property
    def history(self) -> History:
        return self.world.history

    @property
    def scripts(self) -> Sequence[Script]:
        return self.world.provider.scripts

    def items(self, table: Table) -> list[Item]:
        """What lies in a table at the end."""
        return [item for key, item in self.world.database.items.items() if key[0] == table.name]


def simulate(seed: int) -> Run:
    """Do the run of one seed."""
    state, dice = random.getstate(), random.Random(seed)
    random.seed(seed)
    try:
        with patch.object(secrets, "token_hex", lambda count: dice.randbytes(count).hex()):
            return run_virtually(_simulate(seed))
    finally:
        random.setstate(state)


async def _simulate(seed: int) -> Run:
    world = World(seed)
    await world.run()
    return tell(world)


def tell(world: World) -> Run:
    """What has come of a world, once nothing happens in it any more."""
    return Run(world.seed, world, [_told(world, key) for key in world.streams()])


def _told(world: World, key: StreamKey) -> Told:
    database = world.database
    facts = [fact for fact in world.history.facts if fact.key == key]
    summary, *items = database.query_now(database.items, Query(STREAMS, key.pk, 10_000)).items
    records, shells = [Record.from_item(item) for item in items], []
    if summary["status"] == Kind.ERASED:
        written = {f.record.seq: f.record for f in reversed(facts) if _is_content(f)}
        records, shells = [written[seq] for seq in sorted(written)], items
    chain = Chain.of(key)
    entries = database.query_now(database.items, Query(AUDIT, chain.pk, 10_000)).items
    return Told(
        key=key,
        records=records,
        shells=shells,
        summary=summary,
        facts=facts,
        summaries=world.history.summaries.get(key, []),
        clients=[client for client in world.clients if client.key == key],
        entries=[Entry.from_item(item) for item in entries],
        head=head_of(database.get_now(TENANTS, chain.head_key)),
    )


def _is_content(fact: Fact) -> bool:
    return fact.what == "wrote" and fact.record.kind != Kind.ERASED
