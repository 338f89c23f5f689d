"""Whatever is done to a chain is found, and the first entry that it was done to is named."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.audit import Actor, Chain, Entry, Head
from shared.audit.verify import Fault, Wrong, verify
from shared.records import Item
from tests.shared.audit.chains import CHAIN, DETAILS, NOW, chain_of, chains, drafted

STRANGERS = [Chain(CHAIN.tenant, "1" * 32), Chain("stranger", CHAIN.name)]


def check(entries: list[Entry], of: list[Entry], now: float = NOW) -> Fault | None:
    """What is wrong with the entries, where the head is that of another list."""
    return verify(CHAIN, entries, Head.of(of[-1]) if of else None, now)


def place(data: st.DataObject, entries: list[Entry], beyond: int = 0) -> int:
    return data.draw(st.integers(0, len(entries) - 1 + beyond))


@given(chains(least=0))
def test_an_untouched_chain_is_clean(entries: list[Entry]) -> None:
    assert check(entries, entries) is None
    assert check([Entry.from_document(e.to_document()) for e in entries], entries) is None
    assert check([Entry.from_item(e.to_item()) for e in entries], entries) is None
    exported = json.loads(json.dumps([entry.to_document() for entry in entries]))
    assert check([Entry.from_document(document) for document in exported], entries) is None


def changed(data: st.DataObject, value: Any) -> Any:
    """Another value, often of another type."""
    other = data.draw(
        st.one_of(
            st.just(value + 1 if type(value) is int else f"{value} "),
            st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(),
            st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.none()),
        )
    )
    assume(type(other) is not type(value) or other != value)
    return other


@given(chains(), st.data())
def test_a_change_of_any_field_of_an_exported_entry(
    entries: list[Entry], data: st.DataObject
) -> None:
    n = place(data, entries)
    document = json.loads(json.dumps(entries[n].to_document()))
    inner = data.draw(st.sampled_from([None, "actor", "details"]))
    target = document[inner] if inner else document
    name = data.draw(st.sampled_from([*target, "new"]))
    if name in target and data.draw(st.booleans()):
        del target[name]
    else:
        target[name] = changed(data, target.get(name))
    found = [*entries]
    found[n] = Entry.from_document(document)
    fault = check(found, entries)
    assert fault
    assert n == fault.n or fault.id == entries[n].id


@given(chains(), st.data())
def test_a_change_of_any_attribute_of_an_item(entries: list[Entry], data: st.DataObject) -> None:
    n = place(data, entries)
    item = entries[n].to_item()
    # Another key makes it another item: then this one was removed.
    name = data.draw(st.sampled_from(sorted({*item, "new"} - {"pk", "n"})))
    if name in item and data.draw(st.booleans()):
        del item[name]
    else:
        value = data.draw(st.integers() | st.text(max_size=5))
        assume(value != item.get(name))
        item[name] = value
    found = [*entries]
    found[n] = Entry.from_item(item)
    assert check(found, entries) == Fault(CHAIN, n, Wrong.CHANGED, found[n].id)


@given(chains(), st.data())
def test_text_that_says_the_same_in_other_words_is_a_change(
    entries: list[Entry], data: st.DataObject
) -> None:
    n = place(data, entries)
    item: Item = entries[n].to_item()
    item["actor"] = json.dumps(json.loads(str(item["actor"])), indent=1)
    found = [*entries]
    found[n] = Entry.from_item(item)
    fault = check(found, entries)
    assert fault
    assert (fault.n, fault.wrong) == (n, Wrong.CHANGED)


@given(chains(), DETAILS, st.data())
def test_a_changed_entry_that_was_hashed_anew(
    entries: list[Entry], details: Mapping[str, Any], data: st.DataObject
) -> None:
    n = place(data, entries)
    assume(details != entries[n].details)
    prev = data.draw(st.sampled_from([entries[n].prev, "0" * 64]))
    forged = replace(entries[n], details=details, prev=prev)
    forged = replace(forged, hash=forged.digest())
    fault = check([*entries[:n], forged, *entries[n + 1 :]], entries)
    assert fault
    assert (fault.n, fault.id) == (n, forged.id)


@given(chains(), st.data())
def test_a_removal(entries: list[Entry], data: st.DataObject) -> None:
    n = place(data, entries)
    last = n == len(entries) - 1
    fault = check(entries[:n] + entries[n + 1 :], entries)
    assert fault == Fault(CHAIN, n, Wrong.CUT_OFF if last else Wrong.REMOVED)


@given(chains(least=2), st.data())
def test_a_swap(entries: list[Entry], data: st.DataObject) -> None:
    first, second = sorted(
        data.draw(st.sets(st.integers(0, len(entries) - 1), min_size=2, max_size=2))
    )
    found = [*entries]
    found[first], found[second] = entries[second], entries[first]
    assert check(found, entries) == Fault(CHAIN, first, Wrong.REORDERED, entries[first].id)


@given(chains(least=2), st.data())
def test_a_swap_of_what_two_slots_hold(entries: list[Entry], data: st.DataObject) -> None:
    first, second = sorted(
        data.draw(st.sets(st.integers(0, len(entries) - 1), min_size=2, max_size=2))
    )
    items = [entry.to_item() for entry in entries]
    items[first]["n"], items[second]["n"] = second, first
    found = [Entry.from_item(i) for i in sorted(items, key=lambda item: item["n"])]
    assert check(found, entries) == Fault(CHAIN, first, Wrong.CHANGED, found[first].id)


@given(chains(), st.data())
def test_an_end_that_was_cut_off(entries: list[Entry], data: st.DataObject) -> None:
    left = place(data, entries)
    assert check(entries[:left], entries) == Fault(CHAIN, left, Wrong.CUT_OFF)


@given(chains(), st.data())
def test_an_entry_that_is_there_twice(entries: list[Entry], data: st.DataObject) -> None:
    n, at = place(data, entries), place(data, entries, beyond=1)
    found = [*entries[:at], entries[n], *entries[at:]]
    assert check(found, entries) == Fault(CHAIN, n, Wrong.REPEATED, entries[n].id)


@given(chains(), st.sampled_from(STRANGERS), st.booleans(), st.data())
def test_an_entry_of_another_chain(
    entries: list[Entry], stranger: Chain, instead: bool, data: st.DataObject
) -> None:
    others = chain_of(8, stranger)
    at, other = place(data, entries, beyond=not instead), place(data, others)
    found = [*entries[:at], others[other], *entries[at + instead :]]
    assert check(found, entries) == Fault(CHAIN, at, Wrong.FOREIGN, others[other].id)


@given(chains(least=2), st.data())
def test_a_head_that_was_set_back(entries: list[Entry], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(entries) - 2))
    assert check(entries, entries[: n + 1]) == Fault(CHAIN, n + 1, Wrong.BEHIND_HEAD)


@given(chains(), st.sampled_from(["hash", "at", "expires_at"]))
def test_a_head_that_was_changed(entries: list[Entry], name: str) -> None:
    head = Head.of(entries[-1])
    other: dict[str, Any] = {"hash": "0" * 64, "at": head.at + 1, "expires_at": head.expires_at + 1}
    fault = verify(CHAIN, entries, replace(head, **{name: other[name]}), NOW)
    assert fault == Fault(CHAIN, head.n, Wrong.UNLIKE_HEAD, entries[-1].id)


@given(chains())
def test_a_head_that_was_removed(entries: list[Entry]) -> None:
    fault = verify(CHAIN, entries, None, NOW)
    assert fault == Fault(CHAIN, len(entries) - 1, Wrong.HEADLESS)


@given(chains(least=2), st.data())
def test_what_has_expired_may_be_missing_and_nothing_else(
    entries: list[Entry], data: st.DataObject
) -> None:
    now = data.draw(st.sampled_from(entries)).expires_at
    expired = [entry for entry in entries if entry.expires_at <= now]
    gone = data.draw(st.sets(st.sampled_from([entry.n for entry in expired])))
    left = [entry for entry in entries if entry.n not in gone]
    assert check(left, entries, now) is None
    if len(expired) == len(entries):
        assert verify(CHAIN, left, None, now) is None
        return
    n = data.draw(st.integers(len(expired), len(entries) - 1))
    fault = check([entry for entry in left if entry.n != n], entries, now)
    assert fault
    assert fault.wrong in (Wrong.REMOVED, Wrong.CUT_OFF)
    # Of neighbours that are missing, nobody can say which had expired: the first is named.
    assert fault.n == n or all(missing in gone for missing in range(fault.n, n))


@given(chains(least=3))
def test_a_change_behind_expired_entries(entries: list[Entry]) -> None:
    forged = replace(entries[-1], outcome="forged")
    now = entries[-2].expires_at
    fault = check([entries[0], forged], entries, now)
    assert fault == Fault(CHAIN, forged.n, Wrong.CHANGED, forged.id)


def test_a_number_that_was_changed_to_one_that_is_past() -> None:
    entries = chain_of(5)
    found = [*entries]
    found[3] = replace(entries[3], n=1)
    assert check(found, entries) == Fault(CHAIN, 3, Wrong.CHANGED, entries[3].id)


@pytest.mark.parametrize("name", ["user", "credential", "address"])
def test_an_actor_without_a_member_is_a_change_though_it_says_the_same(name: str) -> None:
    entry = drafted(0, actor=Actor())
    document = entry.to_document()
    del document["actor"][name]
    fault = check([Entry.from_document(document)], [entry])
    assert fault == Fault(CHAIN, 0, Wrong.CHANGED, entry.id)


def test_a_fault_is_told_in_a_sentence() -> None:
    fault = Fault(Chain("acme", "tenant"), 7, Wrong.CHANGED, "000001800000007#3f")
    assert str(fault) == "acme, chain tenant: entry 7 (000001800000007#3f) was changed"
    assert str(replace(fault, id="", wrong=Wrong.CUT_OFF)) == (
        "acme, chain tenant: entry 7 was cut off, with all that came after it"
    )


@pytest.mark.parametrize("garbage", [None, 1, [], {}, {"n": 3}, {"n": "3"}, {"actor": []}])
def test_what_is_no_entry_at_all_is_one_that_does_not_fit(garbage: Any) -> None:
    assert not Entry.from_document(garbage).fits
