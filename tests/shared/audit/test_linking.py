"""Entries, and how they come to stand in their chains."""

import hashlib
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from shared.audit import Actor, Chain, Entry, Event, Head, head_of
from shared.audit.linking import HEAD_EXTRA_S, TEXT_CHARS_MAX, Details, again, draft, link, writes
from shared.errors import Unavailable
from shared.records import Item, Status, StreamKey
from shared.schema import AUDIT, TENANTS
from shared.table import Put, Update
from tests.shared.audit.chains import ACTOR, CHAIN, DETAILS, T0_MS, chain_of, chains, drafted


@given(chains())
def test_an_entry_comes_back_as_it_was(entries: list[Entry]) -> None:
    for entry in entries:
        assert Entry.from_item(entry.to_item()) == entry
        assert Entry.from_document(entry.to_document()) == entry
        assert all(isinstance(value, str | int) for value in entry.to_item().values())


def test_what_an_entry_says() -> None:
    entry = draft(
        Chain.of(StreamKey("acme", "0" * 32)),
        Event.CLOSED,
        ACTOR,
        at_ms=T0_MS,
        nonce="00000000000000ff",
        outcome=Status.COMPLETED,
        details={"output_tokens": 500, "finish_reason": "stop"},
        retention_days=1,
    )
    document = entry.to_document()
    assert document.pop("hash") == entry.hash
    assert document == {
        "tenant": "acme",
        "chain": "0" * 32,
        "n": 0,
        "id": "001800000000000#00000000000000ff",
        "at": T0_MS,
        "event": "closed",
        "outcome": "completed",
        "actor": {"user": "ann", "credential": "key:3f9a1c2e", "address": "203.0.113.0/24"},
        "details": {"output_tokens": 500, "finish_reason": "stop"},
        "expires_at": T0_MS // 1000 + 86400,
        "prev": "",
        "prev_expires_at": 0,
    }
    item = entry.to_item()
    assert (item["pk"], item["day"]) == (f"acme#{'0' * 32}", "acme#2027-01-15")
    assert set(item) == {
        *("pk", "n", "day", "id"),
        *AUDIT.indexes[0].projected,
    }


def test_the_hash_is_what_anybody_can_compute() -> None:
    """What is in tables and exports must stay verifiable: another form needs another tag."""
    for entry in chain_of(3):
        document = entry.to_document()
        del document["hash"]
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        tagged = b"sluice audit entry 1\n" + text.encode()
        assert entry.hash == hashlib.sha256(tagged).hexdigest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"details": {"text": "x" * (TEXT_CHARS_MAX + 1)}}, "details"),
        ({"details": {"nested": {"a": 1}}}, "details"),
        ({"details": {"cost": 0.5}}, "details"),
        ({"details": {"Ann's prompt": 1}}, "details"),
        ({"details": {f"d{n}": n for n in range(25)}}, "details"),
        ({"details": {"big": 2**53}}, "canonical"),
        ({"actor": Actor(user="x" * (TEXT_CHARS_MAX + 1))}, "texts"),
        ({"actor": Actor(credential="x" * (TEXT_CHARS_MAX + 1))}, "texts"),
        ({"outcome": "x" * (TEXT_CHARS_MAX + 1)}, "texts"),
        ({"chain": Chain("tenant", "a#b")}, "names"),
        ({"chain": Chain("ten#ant", "ab")}, "names"),
        ({"chain": Chain("tenant", "")}, "names"),
    ],
)
def test_what_is_no_entry_is_not_drafted(changes: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"chain": CHAIN, "event": Event.STARTED, "actor": ACTOR, **changes}
    with pytest.raises(ValueError, match=message):
        draft(at_ms=T0_MS, nonce="0" * 16, **asked)


@given(chains(least=2))
def test_no_entry_expires_before_its_predecessor(entries: list[Entry]) -> None:
    for before, entry in pairwise(entries):
        assert entry.prev_expires_at == before.expires_at <= entry.expires_at


@given(chains(), DETAILS)
def test_an_entry_may_be_linked_any_number_of_times(
    entries: list[Entry], details: dict[str, Any]
) -> None:
    entry = drafted(99, details=details)
    for before in reversed(entries):
        linked = link(entry, Head.of(before))
        assert linked.fits
        assert link(linked, None) == link(entry, None) or linked.expires_at > entry.expires_at
        assert (linked.id, linked.at, linked.details) == (entry.id, entry.at, entry.details)
        assert (linked.n, linked.prev) == (before.n + 1, before.hash)


def test_the_first_entry_makes_the_head_and_each_other_moves_it() -> None:
    first, second = chain_of(2)
    put, made = writes(first)
    assert isinstance(made, Put)
    assert put == Put(AUDIT, first.to_item())
    assert made.table == TENANTS
    assert head_of(made.item) == Head.of(first)
    assert made.item["expires_at"] == first.expires_at + HEAD_EXTRA_S
    put, moved = writes(second)
    assert isinstance(moved, Update)
    assert moved.where == {"hash": first.hash}
    assert moved.key == {"pk": "chain#tenant", "what": CHAIN.name}
    assert head_of(moved.applied(made.item)) == Head.of(second)


def head_item(entry: Entry) -> Item:
    """The head that names this entry."""
    moved = writes(entry)[1]
    return moved.item if isinstance(moved, Put) else moved.applied({})


def test_after_a_conflict_an_entry_stands_behind_the_new_head() -> None:
    first, second, third = chain_of(3)
    late = link(drafted(9), Head.of(first))
    assert again(late, second.to_item(), head_item(third)) == link(drafted(9), Head.of(third))
    assert again(drafted(9), first.to_item(), head_item(third)) == link(drafted(9), Head.of(third))


def test_an_entry_that_holds_its_slot_was_written() -> None:
    first, second, third = chain_of(3)
    assert again(second, second.to_item(), head_item(third)) is None
    assert again(first, first.to_item(), head_item(first)) is None


def test_an_entry_in_whose_way_nothing_stands_is_offered_as_it_is() -> None:
    _, second = chain_of(2)
    assert again(second, None, None) == second


def test_a_chain_whose_head_has_expired_begins_anew() -> None:
    _, second = chain_of(2)
    assert again(second, None, {}) == link(second, None)


def test_a_chain_that_lost_its_head_takes_no_entry() -> None:
    first, second = chain_of(2)
    with pytest.raises(Unavailable):
        again(link(second, None), first.to_item(), None)


def size(item: Item) -> int:
    """The bytes that DynamoDB counts: of names, of text, and of numbers two digits a byte."""
    return sum(
        len(name) + (len(value.encode()) if isinstance(value, str) else len(str(value)) // 2 + 2)
        for name, value in item.items()
    )


def test_a_usual_entry_takes_one_write_unit() -> None:
    details: Details = {
        "seq": 57,
        "epoch": 2,
        "finish_reason": "stop",
        "model": "bedrock/anthropic.claude-sonnet-4-5",
        "input_tokens": 12_345,
        "output_tokens": 4_096,
        "estimated": False,
    }
    entry = draft(
        Chain("a-tenant-with-a-long-name", CHAIN.name),
        Event.CLOSED,
        Actor("c4a760a8-dbcf-4e0f-9a1b-4c1b0c7d3f5e", "jwt:3f9a1c2e4d5b", "2001:db8:1234::/48"),
        at_ms=T0_MS,
        nonce="0" * 16,
        outcome="completed",
        details=details,
    )
    assert size(link(entry, Head.of(chain_of(1)[0])).to_item()) <= 1024
