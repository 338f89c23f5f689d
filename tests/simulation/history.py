"""What happened in one run, in order: every call, every write, and what every client saw."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Literal

from shared.records import Item, Record, StreamKey, dump
from shared.schema import STREAMS, TENANTS
from tests.model_store import Key

What = Literal["wrote", "acknowledged", "saw"]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to one record: it was written, acknowledged, or seen by a client."""

    what: What
    who: str
    key: StreamKey
    record: Record
    at_s: float


@dataclass
class History:
    """`facts` are for the checks; `lines` tell them and all the rest, for us."""

    facts: list[Fact] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    #: Each state that each stream's summary had.
    summaries: dict[StreamKey, list[Item]] = field(default_factory=dict)
    #: Each state that the counters of each shard of the tenant had.
    counters: list[tuple[str, Item]] = field(default_factory=list)
    #: When each key was revoked, by its id; and when the tenant was suspended and resumed.
    revoked_s: dict[str, float] = field(default_factory=dict)
    suspended: list[tuple[float, bool]] = field(default_factory=list)
    #: Errors that nothing foresees.
    crashes: list[str] = field(default_factory=list)

    def add(self, who: str, what: str, detail: object = "") -> None:
        self.lines.append(f"{self._now():10.6f} {who}: {what} {detail}")

    def wrote(self, key: Key, item: Item) -> None:
        table, partition, sort = key
        if table == STREAMS.name and sort == -1:
            self.summaries.setdefault(_stream(partition), []).append(dict(item))
            self.add("database", "summary", dict(sorted(item.items())))
        elif table == STREAMS.name:
            self._note("wrote", "database", _stream(partition), Record.from_item(item))
        else:
            self.add("database", "wrote", key)
            if table == TENANTS.name:
                self._wrote_of_tenant(str(partition), str(sort), item)

    def _wrote_of_tenant(self, partition: str, what: str, item: Item) -> None:
        if what == "counters":
            self.counters.append((partition, dict(item)))
            self.add("database", "counters", dict(sorted(item.items())))
        elif what.startswith("key#") and "revoked_at" in item:
            self.revoked_s.setdefault(str(item["id"]), self._now())
        elif what == "settings":
            self.suspended.append((self._now(), bool(item["suspended"])))

    def acknowledged(self, who: str, item: Item) -> None:
        self._note("acknowledged", who, _stream(item["pk"]), Record.from_item(item))

    def saw(self, who: str, key: StreamKey, record: Record) -> None:
        # As whoever reads it has it.
        body = json.loads(dump(record.body)) if record.body else record.body
        self._note("saw", who, key, replace(record, body=body))

    def _note(self, what: What, who: str, key: StreamKey, record: Record) -> None:
        self.facts.append(Fact(what, who, key, record, self._now()))
        shown = f"{record.seq} {record.kind} {record.epoch} {record.by} {record.text}"
        self.add(who, what, f"{key.stream[-6:]} {shown}")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def __str__(self) -> str:
        return "\n".join(self.lines)


def _stream(partition: object) -> StreamKey:
    tenant, _, stream = str(partition).partition("#")
    return StreamKey(tenant, stream)
