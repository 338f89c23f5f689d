"""`sluice audit show` and `export`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from local import exported, moments
from shared.audit import Chain
from shared.audit.trail import Audit
from shared.errors import Unavailable
from tests.local.conftest import Operator


@pytest.fixture
def told(sluice: Operator) -> Operator:
    """With a tenant that has five entries of its own and two of a stream."""
    sluice.done("tenant", "add", "acme", "ticket_s=90")
    sluice.key("acme", "--user", "ann", "--label", "for ann")
    for ticket_s in (80, 70, 60):
        sluice.done("tenant", "set", "acme", f"ticket_s={ticket_s}")
    sluice.streams("acme")
    return sluice


def test_entries_are_shown_in_the_order_of_time(told: Operator) -> None:
    said = told.done("audit", "show", "acme")
    titles, *rows = said.rows
    assert titles == ["time", "chain", "n", "event", "outcome", "who", "details"]
    assert [row[1:5] for row in rows] == [
        ["tenant", "0", "tenant-added", "ok"],
        ["tenant", "1", "key-made", "ok"],
        *[["tenant", str(n), "tenant-changed", "ok"] for n in (2, 3, 4)],
        [rows[5][1], "0", "started", "ok"],
        [rows[5][1], "1", "closed", "error"],
    ]
    assert rows[1][5] == "operator"
    assert rows[5][5:] == ["key:test", "model=demo"]
    assert said.err == ""


def test_entries_as_json(told: Operator) -> None:
    document = told.done("audit", "show", "acme", "--json").json
    assert document["next_since"] is None
    assert len(document["entries"]) == 7
    key_made = document["entries"][1]
    assert (key_made["event"], key_made["chain"], key_made["n"]) == ("key-made", "tenant", 1)


def test_of_one_stream(told: Operator) -> None:
    [key] = told.streams("acme")
    rows = told.done("audit", "show", "acme", "--stream", key.stream).rows
    assert [row[1:4] for row in rows[1:]] == [
        [key.stream, "0", "started"],
        [key.stream, "1", "closed"],
    ]
    unknown = told.done("audit", "show", "acme", "--stream", "nobody-knows-it")
    assert unknown.out == "There is no entry in this time.\n"


def test_a_limit_says_where_the_rest_begins(told: Operator) -> None:
    everything = told.done("audit", "show", "acme", "--json").json["entries"]
    for limit in range(1, 8):
        said = told.done("audit", "show", "acme", "--json", "--limit", str(limit)).json
        assert said["entries"] == everything[:limit]
        rest = everything[limit:]
        assert said["next_since"] == (rest[0]["at"] if rest else None)
    said_to_people = told.done("audit", "show", "acme", "--limit", "2")
    assert len(said_to_people.rows) == 3
    since = said_to_people.err.split()[2].rstrip(",")
    assert moments.past(since) == everything[2]["at"]


def test_a_span_of_time(told: Operator) -> None:
    everything = told.done("audit", "show", "acme", "--json").json["entries"]
    third = moments.exact(everything[2]["at"])
    since = told.done("audit", "show", "acme", "--json", "--since", third).json["entries"]
    until = told.done("audit", "show", "acme", "--json", "--until", third).json["entries"]
    assert since == [entry for entry in everything if entry["at"] >= everything[2]["at"]]
    assert until == [entry for entry in everything if entry["at"] < everything[2]["at"]]
    assert told.done("audit", "show", "acme", "--until", "1h").out.startswith("There is no entry")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "acme", "--limit", "10001"], "10,000 is the most"),
        (["show", "acme", "--limit", "0"], "a whole number above 0"),
        (["show", "acme", "--since", "soon"], "a span like 90m"),
        (["export", "acme", "--output", "/"], "the name of a file is needed"),
    ],
)
def test_misuse_is_code_2(sluice: Operator, arguments: list[str], said: str) -> None:
    failed = sluice("audit", *arguments)
    assert failed.code == 2
    assert said in failed.err


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_export_holds_every_chain_whole(told: Operator) -> None:
    [key] = told.streams("acme")
    said = told.done("audit", "export", "acme")
    first, *rest, last = lines(said.out)
    assert (first["format"], first["tenant"]) == (exported.FORMAT, "acme")
    assert last == {"end": {"chains": 3, "entries": 9}}
    assert said.err == "9 entries in 3 chains.\n"
    assert next(line["chain"] for line in rest if "chain" in line) == "tenant"
    at = rest.index(next(line for line in rest if line.get("chain") == key.stream))
    entries, head = asyncio.run(Audit(told.store).read(Chain("acme", key.stream)))
    assert head
    assert rest[at]["head"] == {
        "n": 1,
        "hash": entries[1].hash,
        "at": entries[1].at,
        "expires_at": entries[1].expires_at,
    }
    assert [line["entry"] for line in rest[at + 1 : at + 3]] == [e.to_document() for e in entries]


def test_an_export_since_some_time_has_whole_chains(told: Operator) -> None:
    last = told.done("audit", "show", "acme", "--json").json["entries"][4]
    since = moments.exact(last["at"])
    told.done("tenant", "set", "acme", "ticket_s=50")
    out = told.done("audit", "export", "acme", "--since", since).out
    assert len(lines(out)) == 1 + 2 + 6 + 2 + 1
    assert len(lines(told.done("audit", "export", "acme", "--since", "0m").out)) == 2


def test_an_export_into_a_file(told: Operator, tmp_path: Path) -> None:
    file = tmp_path / "acme.jsonl"
    said = told.done("audit", "export", "acme", "--output", str(file))
    assert said.out == ""
    assert lines(file.read_text())[-1] == {"end": {"chains": 2, "entries": 7}}
    assert [path.name for path in tmp_path.iterdir()] == ["acme.jsonl"]


def test_an_export_that_breaks_off_leaves_the_file_as_it_was(
    told: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "acme.jsonl"
    file.write_text("what was there")

    async def read(*_: object) -> None:
        raise Unavailable("The database does not answer.")

    monkeypatch.setattr("shared.audit.trail.Audit.read", read)
    failed = told("audit", "export", "acme", "--output", str(file))
    assert failed.err == "sluice: the database does not answer\n"
    assert file.read_text() == "what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["acme.jsonl"]


def test_a_file_that_cannot_be_written(told: Operator, tmp_path: Path) -> None:
    file = str(tmp_path / "no" / "such.jsonl")
    failed = told("audit", "export", "acme", "--output", file)
    assert failed.err == f"sluice: {file} cannot be written: No such file or directory\n"
