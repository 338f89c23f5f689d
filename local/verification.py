"""`sluice audit verify`: whether an audit is as it was written; if not, what is wrong first."""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from local.audit import exists, read
from local.errors import Failed
from local.exported import Reader, Whole, in_chains
from local.moments import shown as moment
from local.terminal import Cell, Progress, show_json, show_table
from local.where import Place
from local.where import run as run_at
from shared.audit import Entry
from shared.audit.verify import Fault, Wrong, verify

#: Faults that are shown; JSON has all.
SHOWN_MAX = 100


@dataclass(frozen=True, slots=True)
class Found:
    """A chain's first fault; the entry that it names, else the last one before it."""

    fault: Fault
    entry: Entry | None
    before: Entry | None

    @classmethod
    def of(cls, fault: Fault, entries: list[Entry]) -> "Found":
        def named(entry: Entry) -> bool:
            if fault.id:
                return entry.id == fault.id
            return entry.n == fault.n and fault.wrong not in (Wrong.REMOVED, Wrong.CUT_OFF)

        before = [entry for entry in entries if entry.n < fault.n]
        return cls(fault, next(filter(named, entries), None), before[-1] if before else None)

    def encode(self) -> dict[str, Any]:
        """As JSON shows it; times are in ms since 1970."""
        return {
            "chain": self.fault.chain.name,
            "n": self.fault.n,
            "id": self.fault.id or None,
            "at": self.entry.at if self.entry else None,
            "event": self.entry.event if self.entry else None,
            "after": self.before.at if self.before else None,
            "wrong": self.fault.wrong.name.lower().replace("_", "-"),
            "detail": str(self.fault),
        }

    def row(self) -> tuple[Cell, ...]:
        fault, time_ = self.fault, None
        if self.entry:
            time_ = moment(self.entry.at) if self.entry.at else None
        elif self.before:
            time_ = f"after {moment(self.before.at)}"
        event = self.entry.event if self.entry else None
        return (fault.chain.name, fault.n, time_, event, fault.wrong.value)


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found. `remarks` are on a file, not on a chain."""

    chains: int = 0
    entries: int = 0
    found: list[Found] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, whole: Whole) -> None:
        self.chains += 1
        self.entries += len(whole.entries)
        if fault := _fault(whole):
            self.found.append(Found.of(fault, list(whole.entries)))

    def __str__(self) -> str:
        broken = f", {len(self.found):,} of them broken" if self.found else ""
        return f"{in_chains(self.entries, self.chains)}{broken}"

    def show(self, *, as_json: bool) -> int:
        """Tell all of it; returns the exit code."""
        is_whole = not self.found and not self.remarks
        if as_json:
            show_json(
                {
                    "whole": is_whole,
                    "chains": self.chains,
                    "entries": self.entries,
                    "faults": [found.encode() for found in self.found],
                    "remarks": self.remarks,
                }
            )
        elif is_whole:
            print(f"{self}: whole")
        else:
            self._show_faults()
        return int(not is_whole)

    def _show_faults(self) -> None:
        if self.found:
            columns = ("chain", "entry", "time", "event", "what is wrong first")
            show_table(columns, [found.row() for found in self.found[:SHOWN_MAX]])
            if len(self.found) > SHOWN_MAX:
                print(f"… and {len(self.found) - SHOWN_MAX:,} more; --json tells all of them.")
            print()
        for remark in self.remarks:
            print(f"{remark}.")
        print(f"{self}.")


def _fault(whole: Whole) -> Fault | None:
    if not whole.entries and not whole.head:
        return Fault(whole.chain, 0, Wrong.REMOVED)
    # A file may say that it is from the future, where all has expired.
    return verify(whole.chain, whole.entries, whole.head, min(whole.read_at / 1000, time.time()))


def run(options: Namespace) -> int:
    if (options.tenant is None) == (options.file is None):
        options.parser.error("say whose audit: TENANT, or --file")
    if options.file is None:
        return run_at(options, lambda place: _stored(place, options))
    if options.stream or options.since:
        options.parser.error("a file is verified as a whole: without --stream and --since")
    with _opened(options.file) as file, Progress() as progress:
        report = verify_export(Reader(file, options.file), progress)
    return report.show(as_json=options.json)


async def _stored(place: Place, options: Namespace) -> int:
    await exists(place, options.tenant)
    report = Report()
    with Progress() as progress:
        async for whole in read(place, options.tenant, options.since, options.stream):
            report.add(whole)
            progress(str(report))
    if options.stream and not report.chains:
        raise Failed(f"there is no audit of the stream {options.stream}")
    return report.show(as_json=options.json)


def verify_export(export: Reader, progress: Progress) -> Report:
    """What is wrong in an export, without the database that it is of."""
    report = Report()
    for whole in export.chains():
        report.add(whole)
        progress(str(report))
    if export.end is None:
        report.remarks.append("The last line is missing: the end of the file was cut off")
    elif export.end != {"chains": report.chains, "entries": report.entries}:
        report.remarks.append("Lines are missing, or too many: the last one tells other numbers")
    return report


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdin
        return
    try:
        with Path(name).open(encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise Failed(f"{name} cannot be read: {error.strerror}") from error
