"""Verification: what was done to a chain, and at which entry first. No I/O.

Each entry is checked by its own hash, by its number and by its link to the one before; the last one
by the chain's head. An entry may be missing only where it has expired, which its successor tells.

What a chain cannot show is that it was removed together with its head, or written anew up to its
head: who may write both tables without conditions could do that. Against them, keep heads where
they cannot write, and compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.audit import Chain, Entry, Head


class Wrong(StrEnum):
    """What is wrong with an entry, in words that follow its name."""

    CHANGED = "was changed"
    REMOVED = "was removed"
    REORDERED = "is not in its place"
    REPEATED = "is there twice"
    FOREIGN = "belongs to another chain"
    CUT_OFF = "was cut off, with all that came after it"
    UNLIKE_HEAD = "is not what the chain's head names: it or the head was changed"
    BEHIND_HEAD = "comes after the chain's head, which was set back"
    HEADLESS = "is the last, and the chain's head was removed"


@dataclass(frozen=True, slots=True)
class Fault:
    """The first entry of a chain that is not as it was written.

    `n` is the number it had; `id` tells the entry that was found there, where there is one.
    """

    chain: Chain
    n: int
    wrong: Wrong
    id: str = ""

    def __str__(self) -> str:
        shown = f" ({self.id})" if self.id else ""
        return f"{self.chain.tenant}, chain {self.chain.name}: entry {self.n}{shown} {self.wrong}"


def verify(chain: Chain, entries: Sequence[Entry], head: Head | None, now: float) -> Fault | None:
    """The first fault of a chain, given all its entries in their order, and its head.

    `now` is in s since 1970. For entries that came without a head, `Head.of` the last one stands in
    for it: then everything is seen but a missing end.
    """
    before: Entry | None = None
    for place, entry in enumerate(entries):
        expected = before.n + 1 if before else 0
        fits = entry.fits
        if fits and entry.chain != chain:
            return Fault(chain, expected, Wrong.FOREIGN, entry.id)
        if entry.n < expected:
            return _step_back(chain, expected, entries, place)
        if entry.n > expected and not _excused(entry, before, now, fits=fits):
            return _gap(chain, expected, entries, place)
        if not fits:
            return Fault(chain, entry.n, Wrong.CHANGED, entry.id)
        if entry.n == expected and not _follows(entry, before):
            changed = before if before and _vouched(entries, place, head) else entry
            return Fault(chain, changed.n, Wrong.CHANGED, changed.id)
        before = entry
    return _end(chain, before, head, now)


def _excused(entry: Entry, before: Entry | None, now: float, *, fits: bool) -> bool:
    """Whether what is missing before `entry` has expired.

    Where the entry cannot be believed, at least what is before the gap must have: it expires first.
    """
    if fits:
        return entry.prev_expires_at <= now
    return before is None or before.expires_at <= now


def _gap(chain: Chain, expected: int, entries: Sequence[Entry], place: int) -> Fault:
    """Why this entry stands where one that has not expired should."""
    entry, rest = entries[place], entries[place + 1 :]
    if any(later.id == entry.id for later in rest):
        return Fault(chain, entry.n, Wrong.REPEATED, entry.id)
    for later in rest:
        if later.n == expected:
            return Fault(chain, expected, Wrong.REORDERED, later.id)
    return Fault(chain, expected, Wrong.REMOVED)


def _step_back(chain: Chain, expected: int, entries: Sequence[Entry], place: int) -> Fault:
    """Why this entry has a number that is past."""
    entry = entries[place]
    if not entry.fits:
        return Fault(chain, expected, Wrong.CHANGED, entry.id)
    repeated = any(earlier.id == entry.id for earlier in entries[:place])
    return Fault(chain, entry.n, Wrong.REPEATED if repeated else Wrong.REORDERED, entry.id)


def _follows(entry: Entry, before: Entry | None) -> bool:
    link = (before.hash, before.expires_at) if before else ("", 0)
    return (entry.prev, entry.prev_expires_at) == link


def _vouched(entries: Sequence[Entry], place: int, head: Head | None) -> bool:
    """Whether what comes next names this entry: then the one before it is the changed one."""
    if place + 1 < len(entries):
        return entries[place + 1].prev == entries[place].hash
    return head is not None and head.hash == entries[place].hash


def _end(chain: Chain, last: Entry | None, head: Head | None, now: float) -> Fault | None:
    """Whether the head names the last entry."""
    n = last.n if last else -1
    if head is None:
        lost = last is not None and last.expires_at > now
        return Fault(chain, n, Wrong.HEADLESS) if lost else None
    if head.n > n:
        return Fault(chain, n + 1, Wrong.CUT_OFF) if head.expires_at > now else None
    if head.n < n:
        return Fault(chain, head.n + 1, Wrong.BEHIND_HEAD)
    if last and head != Head.of(last):
        return Fault(chain, n, Wrong.UNLIKE_HEAD, last.id)
    return None
