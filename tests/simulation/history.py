"""What happened in one run, in order: every call, every write, and what every client saw."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from shared.records import Item, Record
from shared.schema import STREAMS
from tests.model_store import Key

What = Literal["wrote", "acknowledged", "saw"]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to one record: it was written, acknowledged, or seen by a client."""

    what: What
    who: str
    record: Record


@dataclass
class History:
    """`facts` are for the checks; `lines` tell them and all the rest, for us."""

    facts: list[Fact] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    #: Each state that the summary had.
    summaries: list[Item] = field(default_factory=list)
    #: Errors that nothing foresees.
    crashes: list[str] = field(default_factory=list)

    def add(self, who: str, what: str, detail: object = "") -> None:
        self.lines.append(f"{asyncio.get_running_loop().time():10.6f} {who}: {what} {detail}")

    def wrote(self, key: Key, item: Item) -> None:
        if key[0] == STREAMS.name and key[2] == -1:
            self.summaries.append(dict(item))
            self.add("database", "summary", dict(sorted(item.items())))
        elif key[0] == STREAMS.name:
            self._note("wrote", "database", Record.from_item(item))
        else:
            self.add("database", "wrote", key)

    def acknowledged(self, who: str, record: Record) -> None:
        self._note("acknowledged", who, record)

    def saw(self, who: str, record: Record) -> None:
        self._note("saw", who, record)

    def _note(self, what: What, who: str, record: Record) -> None:
        record = Record.from_item(record.to_item("", 0))  # as whoever reads it has it
        self.facts.append(Fact(what, who, record))
        self.add(who, what, f"{record.seq} {record.kind} {record.epoch} {record.by} {record.text}")

    def __str__(self) -> str:
        return "\n".join(self.lines)
