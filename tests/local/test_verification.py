"""`sluice audit verify`: every tampering, done in the table or in an exported file."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.moments import shown
from shared.audit import Actor, Chain, Entry, Event, heads_pk
from shared.audit.trail import Audit
from shared.records import Item
from shared.schema import AUDIT, TENANTS
from shared.table import Found, Query
from tests.local.conftest import Operator, Said
from tests.model_store import ModelStore

CHAIN = "01" * 16
Tampering = Callable[["Tampered"], None]


class Tampered:
    """A store, and direct hands on the entries of one chain."""

    def __init__(self, store: ModelStore, chain: str = CHAIN) -> None:
        self.store = store
        self.chain = Chain("acme", chain)

    def __getitem__(self, n: int) -> Item:
        return self.store.items[(AUDIT.name, self.chain.pk, n)]

    def __setitem__(self, n: int, item: Item) -> None:
        self.store.items[(AUDIT.name, self.chain.pk, n)] = {**item, "n": n}

    def __delitem__(self, n: int) -> None:
        del self.store.items[(AUDIT.name, self.chain.pk, n)]

    @property
    def head(self) -> Item:
        return self.store.items[self._head]

    @property
    def _head(self) -> tuple[str, str, str]:
        return (TENANTS.name, heads_pk("acme"), self.chain.name)

    def behead(self) -> None:
        del self.store.items[self._head]

    def entry(self, n: int) -> Entry:
        return Entry.from_item(self[n])


@pytest.fixture
def told(sluice: Operator) -> Operator:
    """With a chain of five entries beside the tenant's own."""
    sluice.done("tenant", "add", "acme")
    audit = Audit(sluice.store)

    async def append() -> None:
        for number in range(5):
            entry = audit.entry(
                Chain("acme", CHAIN), Event.FOLLOWED, Actor("ann"), details={"from": number}
            )
            await audit.append(entry)

    asyncio.run(append())
    return sluice


def test_a_whole_audit(told: Operator) -> None:
    said = told.done("audit", "verify", "acme")
    assert (said.out, said.err) == ("6 entries in 2 chains: whole\n", "")
    assert told.done("audit", "verify", "acme", "--json").json == {
        "whole": True,
        "chains": 2,
        "entries": 6,
        "faults": [],
        "remarks": [],
    }


def changed(it: Tampered) -> None:
    it[2]["details"] = '{"from":7}'


def changed_time(it: Tampered) -> None:
    it[2]["at"] = int(it[2]["at"]) - 1


def garbage(it: Tampered) -> None:
    it[2]["actor"] = "{{{"


def rehashed(it: Tampered) -> None:
    """With a hash of its own that fits."""
    it[2]["outcome"] = "refused"
    it[2]["hash"] = it.entry(2).digest()


def removed(it: Tampered) -> None:
    del it[2]


def removed_first(it: Tampered) -> None:
    del it[0]


def reordered(it: Tampered) -> None:
    it[2], it[3] = it[3], it[2]


def cut_off(it: Tampered) -> None:
    del it[3]
    del it[4]


def cut_off_all(it: Tampered) -> None:
    for n in range(5):
        del it[n]


def foreign(it: Tampered) -> None:
    other = Tampered(it.store, "tenant")
    it[2] = other[0] | {"pk": it.chain.pk}


def headless(it: Tampered) -> None:
    it.behead()


def set_back(it: Tampered) -> None:
    third = it.entry(2)
    it.head.update(n=2, hash=third.hash, at=third.at, entry_expires_at=third.expires_at)


def changed_head(it: Tampered) -> None:
    it.head["hash"] = "0" * 64


KINDS = [
    (changed, 2, "changed", "was changed"),
    (changed_time, 2, "changed", "was changed"),
    (garbage, 2, "changed", "was changed"),
    (rehashed, 2, "changed", "was changed"),
    (removed, 2, "removed", "was removed"),
    (removed_first, 0, "removed", "was removed"),
    # An entry's number is its place in the table, so that it cannot leave it unchanged.
    (reordered, 2, "changed", "was changed"),
    (cut_off, 3, "cut-off", "was cut off, with all that came after it"),
    (cut_off_all, 0, "cut-off", "was cut off, with all that came after it"),
    (headless, 4, "headless", "is the last, and the chain's head was removed"),
    (set_back, 3, "behind-head", "comes after the chain's head, which was set back"),
    (changed_head, 4, "unlike-head", "is not what the chain's head names"),
]


def first_fault(said: Said) -> dict[str, Any]:
    [fault] = said.json["faults"]
    assert said.code == 1
    return dict(fault)


@pytest.mark.parametrize(
    ("tamper", "n", "wrong", "words"), KINDS, ids=[kind[0].__name__ for kind in KINDS]
)
@pytest.mark.parametrize("scope", [(), ("--stream", CHAIN), ("--since", "1h")])
def test_the_first_wrong_entry_is_named(
    told: Operator, scope: tuple[str, ...], tamper: Tampering, n: int, wrong: str, words: str
) -> None:
    times = [entry.at for entry in map(Tampered(told.store).entry, range(5))]
    tamper(Tampered(told.store))
    fault = first_fault(told("audit", "verify", "acme", *scope, "--json"))
    assert (fault["chain"], fault["n"], fault["wrong"]) == (CHAIN, n, wrong)
    said = told("audit", "verify", "acme", *scope)
    assert said.code == 1
    titles, row, *rest = said.rows
    assert titles == ["chain", "entry", "time", "event", "what is wrong first"]
    assert row[:2] == [CHAIN, str(n)]
    assert row[4].startswith(words)
    if wrong in ("removed", "cut-off"):
        before = f"after {shown(times[n - 1])}" if n else "–"
        assert row[2:4] == [before, "–"]
    elif tamper is garbage:
        assert row[2:4] == ["–", "unreadable"]
    else:
        assert row[3] == "followed"
    assert "1 of them broken" in rest[-1][0]


def test_an_entry_of_another_chain(told: Operator) -> None:
    foreign(Tampered(told.store))
    fault = first_fault(told("audit", "verify", "acme", "--json"))
    assert (fault["n"], fault["wrong"]) == (2, "changed")


def test_a_chain_that_is_gone_with_its_head(sluice: Operator) -> None:
    """The tenant, and the streams that are still there, tell that they had an audit."""
    sluice.done("tenant", "add", "acme")
    [first, second] = sluice.streams("acme", 2)
    for key in (first, second):
        it = Tampered(sluice.store, key.stream)
        it.behead()
        del it[0]
        del it[1]
    # Of a stream that is gone, too, nothing can be known.
    for place in [place for place in sluice.store.items if place[1] == second.pk]:
        del sluice.store.items[place]
    own = Tampered(sluice.store, "tenant")
    own.behead()
    del own[0]
    said = sluice("audit", "verify", "acme", "--json")
    assert said.code == 1
    assert [(f["chain"], f["n"], f["wrong"]) for f in said.json["faults"]] == [
        ("tenant", 0, "removed"),
        (first.stream, 0, "removed"),
    ]
    assert sluice("audit", "verify", "acme", "--stream", first.stream).code == 1


def test_what_has_expired_is_not_missed(sluice: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    sluice.done("tenant", "add", "acme", "audit_retention_days=1")
    [key] = sluice.streams("acme")
    for name in (key.stream, "tenant"):
        it = Tampered(sluice.store, name)
        it.behead()
        del it[0]
    del Tampered(sluice.store, key.stream)[1]
    later = time.time() + 2 * 86_400
    monkeypatch.setattr("time.time", lambda: later)
    assert sluice.done("audit", "verify", "acme").out == "0 entries in 0 chains: whole\n"


def test_every_broken_chain_is_named_and_whole_ones_are_not(told: Operator) -> None:
    keys = told.streams("acme", 40)
    for key in keys[::2]:
        Tampered(told.store, key.stream)[1]["outcome"] = "stop"
    said = told("audit", "verify", "acme", "--json")
    assert {fault["chain"] for fault in said.json["faults"]} == {key.stream for key in keys[::2]}
    assert (said.json["chains"], said.json["entries"]) == (42, 86)
    assert told("audit", "verify", "acme").rows[-1] == [
        "86 entries in 42 chains, 20 of them broken."
    ]


def test_not_every_fault_is_shown_to_people(
    told: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.verification.SHOWN_MAX", 2)
    for key in told.streams("acme", 3):
        Tampered(told.store, key.stream).behead()
    said = told("audit", "verify", "acme")
    assert len([row for row in said.rows if len(row) == 5]) == 1 + 2
    assert "1 more; --json tells all of them." in said.out


@pytest.mark.parametrize("stream", ["ab" * 16, "no-stream"])
def test_a_stream_that_has_no_audit(told: Operator, stream: str) -> None:
    failed = told("audit", "verify", "acme", "--stream", stream)
    assert failed.err == f"sluice: there is no audit of the stream {stream}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say whose audit: TENANT, or --file"),
        (["acme", "--file", "x"], "say whose audit: TENANT, or --file"),
        (["--file", "x", "--stream", "y"], "a file is verified as a whole"),
        (["--file", "x", "--since", "1h"], "a file is verified as a whole"),
    ],
)
def test_misuse_is_code_2(sluice: Operator, arguments: list[str], said: str) -> None:
    failed = sluice("audit", "verify", *arguments)
    assert failed.code == 2
    assert said in failed.err


@pytest.fixture
def file(told: Operator, tmp_path: Path) -> Path:
    """What an export of it has written: the tenant's chain in line 1, the other one from line 3."""
    path = tmp_path / "acme.jsonl"
    told.done("audit", "export", "acme", "--output", str(path))
    return path


Lines = list[str]


def edited(file: Path, edit: Callable[[Lines], object]) -> None:
    lines = file.read_text().splitlines(keepends=True)
    edit(lines)
    file.write_text("".join(lines))


def test_a_whole_file(told: Operator, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told.done("audit", "verify", "--file", str(file)).out == "6 entries in 2 chains: whole\n"
    with file.open() as opened:
        monkeypatch.setattr("sys.stdin", opened)
        said = told.done("audit", "verify", "--file", "-", "--json").json
    assert (said["whole"], said["entries"]) == (True, 6)


def swap(lines: Lines, one: int, other: int) -> None:
    lines[one], lines[other] = lines[other], lines[one]


def replace(lines: Lines, number: int, old: str, new: str) -> None:
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new)


FILES: list[tuple[str, Callable[[Lines], object], list[tuple[int, str]], bool]] = [
    ("changed", lambda it: replace(it, 6, '"from":2', '"from":9'), [(2, "changed")], False),
    ("renamed", lambda it: replace(it, 6, CHAIN, "x"), [(2, "changed")], False),
    ("removed", lambda it: it.pop(6), [(2, "removed")], True),
    ("swapped", lambda it: swap(it, 6, 7), [(2, "reordered")], False),
    ("twice", lambda it: it.insert(6, it[5]), [(1, "repeated")], True),
    ("cut off", lambda it: it.__delitem__(slice(7, None)), [(3, "cut-off")], True),
    ("no last", lambda it: it.pop(8), [(4, "cut-off")], True),
    ("no head", lambda it: replace(it, 3, '"n":4', '"n":3'), [(4, "behind-head")], False),
    ("no chain", lambda it: it.__delitem__(slice(3, 9)), [], True),
    ("no end", lambda it: it.pop(), [], True),
    ("line of a chain gone", lambda it: it.pop(3), [(1, "foreign")], True),
    ("more", lambda it: it.extend(it[1:3]), [], True),
]


@pytest.mark.parametrize(
    ("edit", "faults", "remark"), [case[1:] for case in FILES], ids=[case[0] for case in FILES]
)
def test_a_file_that_was_tampered_with(
    told: Operator,
    file: Path,
    edit: Callable[[Lines], object],
    faults: list[tuple[int, str]],
    remark: bool,
) -> None:
    edited(file, edit)
    said = told("audit", "verify", "--file", str(file), "--json")
    assert said.code == 1
    assert [(fault["n"], fault["wrong"]) for fault in said.json["faults"]] == faults
    assert bool(said.json["remarks"]) is remark
    for_people = told("audit", "verify", "--file", str(file))
    assert for_people.code == 1
    assert "whole" not in for_people.out
    assert all(f"{text}." in for_people.out for text in said.json["remarks"])


def test_a_chain_that_had_no_head_when_it_was_exported(told: Operator, tmp_path: Path) -> None:
    headless(Tampered(told.store))
    path = str(tmp_path / "acme.jsonl")
    told.done("audit", "export", "acme", "--output", path)
    fault = first_fault(told("audit", "verify", "--file", path, "--json"))
    assert (fault["chain"], fault["n"], fault["wrong"]) == (CHAIN, 4, "headless")


def test_a_chain_that_was_gone_with_its_head_when_it_was_exported(
    told: Operator, tmp_path: Path
) -> None:
    [key] = told.streams("acme")
    it = Tampered(told.store, key.stream)
    it.behead()
    del it[0]
    del it[1]
    path = str(tmp_path / "acme.jsonl")
    told.done("audit", "export", "acme", "--output", path)
    fault = first_fault(told("audit", "verify", "--file", path, "--json"))
    assert (fault["chain"], fault["n"], fault["wrong"]) == (key.stream, 0, "removed")


def test_what_expires_while_an_export_is_written_is_not_missed(
    told: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes hours for a large tenant, and the table may remove what has just expired at once."""
    expires = int(Tampered(told.store)[1]["expires_at"])
    query, path = told.store.query, str(tmp_path / "acme.jsonl")

    async def slowly(asked: Query) -> Found:
        """By the time that the chain is read its first two entries have expired, and are gone."""
        if asked.partition == f"acme#{CHAIN}":
            monkeypatch.setattr("time.time", lambda: expires + 1)
            for n in (0, 1):
                told.store.items.pop((AUDIT.name, asked.partition, n), None)
        return await query(asked)

    monkeypatch.setattr("time.time", lambda: expires - 1)
    monkeypatch.setattr(told.store, "query", slowly)
    told.done("audit", "export", "acme", "--output", path)
    assert told.done("audit", "verify", "--file", path).out == "4 entries in 2 chains: whole\n"


def test_what_has_expired_since_the_export_must_still_be_in_the_file(
    told: Operator, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 500 * 86_400
    monkeypatch.setattr("time.time", lambda: later)
    assert told("audit", "verify", "--file", str(file)).code == 0
    edited(file, lambda lines: lines.pop(4))
    assert told("audit", "verify", "--file", str(file)).rows[1][1] == "0"


def test_a_file_may_not_say_that_it_is_from_the_future(told: Operator, file: Path) -> None:
    def edit(lines: Lines) -> None:
        about = json.loads(lines[3])
        lines[3] = json.dumps(about | {"read_at": 10**14}) + "\n"
        lines.pop(4)

    edited(file, edit)
    assert told("audit", "verify", "--file", str(file)).rows[1][1] == "0"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda lines: lines.clear(), "is not what `sluice audit export` writes"),
        (lambda lines: lines.pop(0), "is not what `sluice audit export` writes"),
        (lambda lines: replace(lines, 0, " 1", " 9"), "is not what `sluice audit export` writes"),
        (lambda lines: lines.insert(2, "{\n"), "line 3 of"),
        (lambda lines: lines.insert(2, "[" * 100_000), "line 3 of"),
        (lambda lines: lines.insert(2, "[1]\n"), "is not a JSON object"),
        (lambda lines: lines.insert(2, '{"x": 1}\n'), "does not belong there"),
        (lambda lines: lines.insert(1, lines[2]), "line 2 of"),
        (lambda lines: replace(lines, 3, '"n":4', '"n":"4"'), "holds no head of a chain"),
        (lambda lines: replace(lines, 3, '"n":4', '"m":4'), "holds no head of a chain"),
        (lambda lines: replace(lines, 3, "read_at", "x"), "does not tell when its chain was read"),
    ],
)
def test_a_file_that_is_no_export(
    told: Operator, file: Path, edit: Callable[[Lines], object], said: str
) -> None:
    edited(file, edit)
    failed = told("audit", "verify", "--file", str(file))
    assert (failed.code, failed.out) == (1, "")
    assert said in failed.err
    assert failed.err.count("\n") == 1


def test_a_file_that_is_not_there(sluice: Operator, tmp_path: Path) -> None:
    missing = str(tmp_path / "x")
    assert sluice("audit", "verify", "--file", missing).err == (
        f"sluice: {missing} cannot be read: No such file or directory\n"
    )
    binary = tmp_path / "y"
    binary.write_bytes(b"\xff\xfe")
    assert sluice("audit", "verify", "--file", str(binary)).err == (
        f"sluice: line 1 of {binary} is not JSON in UTF-8\n"
    )
