"""An audit in a file, as `sluice audit export` writes it: JSON lines that can be verified alone.

    {"format": "sluice audit 1", "tenant": …, "exported_at": …, "since": …}
    {"chain": …, "head": {…}, "read_at": …}    for each chain: its head, null where it has none,
    {"entry": {…}}                             then all its entries in order
    {"end": {"chains": …, "entries": …}}

Times are in ms since 1970, but for `expires_at`, in s. The heads let verification see that an end
was cut off, the last line that chains were. What had expired when its chain was read may be
missing: an export may take hours, and the table goes on removing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from local.errors import Failed
from local.terminal import counted
from shared.audit import Chain, Entry, Head
from shared.records import dump

FORMAT = "sluice audit 1"
#: An entry has a few hundred.
LINE_CHARS_MAX = 64 * 1024

_HEAD = {"n": int, "hash": str, "at": int, "expires_at": int}


@dataclass(frozen=True, slots=True)
class Whole:
    """A chain as it was read: all its entries, and its head. `read_at` is when that was, in ms."""

    chain: Chain
    entries: Sequence[Entry]
    head: Head | None
    read_at: int


def in_chains(entries: int, chains: int) -> str:
    return f"{counted(entries, 'entry', 'entries')} in {counted(chains, 'chain')}"


class Writer:
    """Writes an export. Nothing but `end` makes it whole."""

    def __init__(self, file: TextIO, tenant: str, *, exported_at: int, since: int | None) -> None:
        self._file = file
        self.chains = 0
        self.entries = 0
        self._write(
            {"format": FORMAT, "tenant": tenant, "exported_at": exported_at, "since": since}
        )

    def add(self, whole: Whole) -> None:
        head = asdict(whole.head) if whole.head else None
        self._write({"chain": whole.chain.name, "head": head, "read_at": whole.read_at})
        for entry in whole.entries:
            self._write({"entry": entry.to_document()})
        self.chains += 1
        self.entries += len(whole.entries)

    def __str__(self) -> str:
        return in_chains(self.entries, self.chains)

    def end(self) -> None:
        self._write({"end": {"chains": self.chains, "entries": self.entries}})

    def _write(self, line: dict[str, Any]) -> None:
        print(dump(line), file=self._file)


class Reader:
    """Reads an export. Raises `Failed`, also from `chains`, for what is none.

    `end` is what the last line says, once all chains are read; None where that is missing.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._number = 0
        self.end: Any = None
        first = self._line() or {}
        if first.get("format") != FORMAT:
            raise Failed(f"{name} is not what `sluice audit export` writes")
        self.tenant = str(first.get("tenant"))

    def chains(self) -> Iterator[Whole]:
        """The chains, one after the other; entries as they stand, whatever they are."""
        whole: Whole | None = None
        entries: list[Entry] = []
        while line := self._line():
            if "entry" in line and whole:
                entries.append(Entry.from_document(line["entry"]))
            elif "chain" in line or "end" in line:
                if whole:
                    yield whole
                entries = []
                whole = self._begun(line, entries) if "chain" in line else None
                self.end = line.get("end")
            else:
                raise self._failed("does not belong there")
        if whole:
            yield whole

    def _begun(self, line: dict[str, Any], entries: Sequence[Entry]) -> Whole:
        chain = Chain(self.tenant, str(line["chain"]))
        head, read_at = line.get("head"), line.get("read_at")
        if type(read_at) is not int:
            raise self._failed("does not tell when its chain was read")
        if head is None:
            return Whole(chain, entries, None, read_at)
        if not isinstance(head, dict) or {n: type(v) for n, v in head.items()} != _HEAD:
            raise self._failed("holds no head of a chain")
        return Whole(chain, entries, Head(**head), read_at)

    def _line(self) -> dict[str, Any] | None:
        self._number += 1
        try:
            text = self._file.readline(LINE_CHARS_MAX)
            line = json.loads(text) if text else None
        except (ValueError, RecursionError):
            raise self._failed("is not JSON in UTF-8") from None
        if line is not None and (not line or not isinstance(line, dict)):
            raise self._failed("is not a JSON object")
        return line

    def _failed(self, what: str) -> Failed:
        return Failed(f"line {self._number} of {self._name} {what}")
