"""The audit on a store: appended once each, in races and over lost replies; read in pages."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.audit import Chain, Entry, Event, Head
from shared.audit.linking import writes
from shared.audit.pages import PARTITIONS_MAX
from shared.audit.trail import MOMENT_MAX, PATIENCE_S, Audit, Verdict
from shared.audit.verify import Fault, Wrong
from shared.errors import InvalidRequest, Unavailable
from shared.records import DAY_S, Item
from shared.schema import AUDIT, TENANTS
from shared.table import Conflict, Found, Put, Query, Store, Update, Write
from tests.model_store import ModelStore, key_of
from tests.shared.audit.chains import ACTOR, CHAIN, T0_MS, chain_of, everything
from tests.simulation.clock import run_virtually, virtual
from tests.simulation.history import History
from tests.simulation.scripted import ScriptedStore
from tests.simulation.store import Database, Faults, FaultyStore

DAY_MS = DAY_S * 1000


def audit_on(store: Store, seed: int = 1) -> Audit:
    """An audit in the loop's own time."""
    loop = asyncio.get_running_loop()
    dice = random.Random(seed)
    return Audit(store, now=lambda: T0_MS / 1000 + loop.time(), randomness=dice.randbytes)


async def written(store: Store, count: int, chain: Chain = CHAIN) -> list[Entry]:
    """A chain in the store, in one go each."""
    entries = chain_of(count, chain)
    for entry in entries:
        assert await store.transact(writes(entry), entry.hash[:36]) is None
    return entries


# Appending


@virtual
async def test_entries_stand_in_the_order_in_which_they_were_appended() -> None:
    audit = audit_on(ModelStore())
    entries = [audit.entry(CHAIN, event, ACTOR) for event in (Event.STARTED, Event.CLOSED)]
    for entry in entries:
        assert await audit.append(entry) is None
    found, head = await audit.read(CHAIN)
    assert [(entry.n, entry.id) for entry in found] == [(n, e.id) for n, e in enumerate(entries)]
    assert head == Head.of(found[-1])
    assert await audit.verify(CHAIN) == Verdict(2, None)


Fate = Literal["ok", "fail", "lose"]


@pytest.mark.parametrize("fates", [["lose"], ["fail"], ["lose", "lose"], ["fail", "lose", "fail"]])
@pytest.mark.parametrize("remembered", [True, False])
@virtual
async def test_an_entry_whose_reply_is_lost_is_written_once(
    fates: list[Fate], remembered: bool
) -> None:
    store = ScriptedStore()
    audit = audit_on(store)
    await written(store, 2)
    if not remembered:
        store._done = Forgetful()  # a database remembers a token for some minutes
    store.fates.extend(fates)
    assert await audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR)) is None
    assert await audit.verify(CHAIN) == Verdict(3, None)


class Forgetful(dict[str, str]):
    def __setitem__(self, token: str, writes: str) -> None:
        pass


@virtual
async def test_an_entry_that_was_overtaken_after_its_lost_reply_is_written_once() -> None:
    class Blind(ScriptedStore):
        """It can not be read what became of the entry."""

        async def query(self, query: Query) -> Found:
            if blind:
                raise Unavailable
            return await super().query(query)

    blind, store = True, Blind()
    store._done = Forgetful()
    audit = audit_on(store)
    store.fates.append("lose")
    slow = asyncio.create_task(audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR)))
    for _ in range(6):  # until it was written, and pauses
        await asyncio.sleep(0)
    assert store.writes == 2
    assert await audit.append(audit.entry(CHAIN, Event.POLLED, ACTOR)) is None
    assert await slow is None
    blind = False
    assert [entry.event for entry in (await audit.read(CHAIN))[0]] == ["followed", "polled"]


@virtual
async def test_what_became_of_an_entry_is_read_where_its_reply_was_lost() -> None:
    store = ScriptedStore()
    audit = audit_on(store)
    store.fates.append("lose")
    assert await audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR)) is None
    assert asyncio.get_running_loop().time() == 0


@virtual
async def test_an_entry_stays_in_its_chain_while_it_may_have_been_written_there() -> None:
    class Vague(ModelStore):
        """It refuses some tries, and does not say why."""

        async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
            if vague:
                return vague.pop()
            return await super().transact(writes, token)

    vague = [Conflict((None, None))] * 5
    audit = audit_on(Vague())
    assert await audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR)) is None
    assert await audit.verify(CHAIN) == Verdict(1, None)


class Busy(ModelStore):
    """A transaction takes 20 ms, and one that meets another on an item is told that it is busy."""

    def __init__(self) -> None:
        super().__init__()
        self._held: set[str] = set()

    async def transact(self, writes: Sequence[Write], token: str) -> Conflict | None:
        keys = {repr(key_of(w.table, w.item if isinstance(w, Put) else w.key)) for w in writes}
        if keys & self._held:
            await asyncio.sleep(0.005)
            raise Unavailable("It is busy with this item.")
        self._held |= keys
        await asyncio.sleep(0.02)
        self._held -= keys
        return self.transact_now(writes, token)


@virtual
async def test_of_a_crowd_nobody_is_lost() -> None:
    """All followers of a stream end at the moment when it is closed."""
    store = Busy()
    audit = audit_on(store)
    await written(store, 3)
    entries = [audit.entry(CHAIN, Event.FOLLOWED, ACTOR) for _ in range(300)]
    assert set(await asyncio.gather(*map(audit.append, entries))) == {None}
    assert asyncio.get_running_loop().time() < PATIENCE_S
    assert len(await audit.family(CHAIN)) > 100
    found = await everything(audit, CHAIN)
    assert {entry.id for entry in found} >= {entry.id for entry in entries}
    assert len(found) == 303
    asked: dict[str, Any] = {"start_ms": 0, "end_ms": MOMENT_MAX, "chain": CHAIN.name}
    for limit in (7, 100):
        listed = await pages(audit, limit, **asked)
        assert [entry for page in listed for entry in page] == found
        assert all(len(page) <= limit for page in listed)


@virtual
async def test_a_store_that_does_not_answer_is_given_up_on() -> None:
    store = ScriptedStore()
    store.broken = True
    audit = audit_on(store)
    with pytest.raises(Unavailable):
        await audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR))
    assert asyncio.get_running_loop().time() < 2 * PATIENCE_S


@virtual
async def test_what_is_audited_is_written_with_its_entry_or_not_at_all() -> None:
    store = ScriptedStore()
    audit = audit_on(store)
    key: Item = {"pk": "tenant", "what": "key#1"}
    making = [Put(TENANTS, {**key, "label": "first"})]
    assert await audit.append(audit.entry(CHAIN, Event.KEY_MADE, ACTOR), making) is None
    held = {**key, "label": "first"}
    fate: Fate
    for fate in ("ok", "lose", "fail"):
        store.fates.append(fate)
        conflict = await audit.append(
            audit.entry(CHAIN, Event.KEY_MADE, ACTOR), [Put(TENANTS, {**key, "label": "second"})]
        )
        assert conflict == Conflict((held,))
    assert await audit.verify(CHAIN) == Verdict(1, None)
    store.fates.append("lose")
    changing = [Update(TENANTS, key, {"label": "new"}, where={"label": "first"})]
    store._done = Forgetful()
    assert await audit.append(audit.entry(CHAIN, Event.KEY_REVOKED, ACTOR), changing) is None
    assert await store.get(TENANTS, key) == {**key, "label": "new"}
    assert await audit.verify(CHAIN) == Verdict(2, None)


@virtual
async def test_a_chain_without_its_head_is_left_as_it_is() -> None:
    store = ModelStore()
    await written(store, 2)
    del store.items[(TENANTS.name, "chain#tenant", CHAIN.name)]
    audit = audit_on(store)
    with pytest.raises(Unavailable):
        await audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR))
    assert await audit.verify(CHAIN) == Verdict(2, Fault(CHAIN, 1, Wrong.HEADLESS))


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_in_any_race_every_entry_that_was_acknowledged_is_there_once(seed: int) -> None:
    """Processes append to two chains while calls fail, lose replies, and arrive long after."""
    run_virtually(race(seed))


async def race(seed: int) -> None:
    dice = random.Random(seed)
    history = History()
    database = Database(history, remembers_tokens=dice.random() < 0.5)
    chains = [CHAIN, Chain("tenant", "tenant")]
    acknowledged: dict[Chain, list[str]] = {chain: [] for chain in chains}
    offered: dict[Chain, list[str]] = {chain: [] for chain in chains}

    async def process(name: str) -> None:
        before, after, late, slow = (dice.choice((0.0, 0.1, 0.3)) for _ in range(4))
        faults = Faults(before, after, late, slow, until_s=60.0)
        store = FaultyStore(name, database, history, random.Random(dice.random()), faults)
        audit = audit_on(store, seed=dice.randrange(2**32))
        for _ in range(dice.randint(1, 4)):
            chain = dice.choice(chains)
            entry = audit.entry(chain, Event.FOLLOWED, ACTOR)
            offered[chain].append(entry.id)
            try:
                assert await audit.append(entry) is None
                acknowledged[chain].append(entry.id)
            except Unavailable:
                pass
            await asyncio.sleep(dice.uniform(0, 0.05))

    await asyncio.gather(*(process(f"process {n}") for n in range(dice.randint(2, 8))))
    await asyncio.sleep(60)  # until the last call that was late has arrived
    for chain in chains:
        audit = audit_on(database)
        entries = await everything(audit, chain)
        ids = [entry.id for entry in entries]
        assert len(set(ids)) == len(ids)
        assert set(acknowledged[chain]) <= set(ids) <= set(offered[chain])


# Reading


#: When what the tests have written is read.
LATER_MS = T0_MS + 200 * DAY_MS


def audit_at(store: Store, ms: int) -> Audit:
    return Audit(store, now=lambda: ms / 1000)


async def filled(store: Store, moments: Sequence[int], chain: Chain = CHAIN) -> list[Entry]:
    """A chain with an entry at each of these moments, in ms."""
    for moment in moments:
        audit = audit_at(store, moment)
        assert await audit.append(audit.entry(chain, Event.POLLED, ACTOR)) is None
    return (await audit_at(store, LATER_MS).read(chain))[0]


async def pages(audit: Audit, limit: int, **asked: Any) -> list[list[Entry]]:
    """All pages of a list."""
    found: list[list[Entry]] = []
    after = None
    for _ in range(1000):
        page = await audit.page("tenant", after=after, limit=limit, **asked)
        found.append([*page.entries])
        if (after := page.next) is None:
            return found
    raise AssertionError("the pages do not end")


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 5 * DAY_MS), max_size=12),
    st.integers(0, 5 * DAY_MS),
    st.integers(0, 5 * DAY_MS),
    st.integers(1, 5),
)
def test_pages_by_time_hold_every_entry_of_it_once(
    moments: list[int], start: int, end: int, limit: int
) -> None:
    async def check() -> None:
        store = ModelStore()
        entries = await filled(store, [T0_MS + moment for moment in moments])
        await filled(store, [T0_MS + 1], Chain("other", CHAIN.name))
        span = {"start_ms": T0_MS + start, "end_ms": T0_MS + end}
        found = [e for page in await pages(audit_at(store, LATER_MS), limit, **span) for e in page]
        within = [e for e in entries if span["start_ms"] <= e.at < span["end_ms"]]
        assert found == sorted(within, key=lambda entry: entry.id)
        of_chain = await pages(audit_at(store, LATER_MS), limit, chain=CHAIN.name, **span)
        assert [entry for page in of_chain for entry in page] == within
        assert all(len(page) <= limit for page in of_chain)

    run_virtually(check())


@virtual
async def test_a_page_looks_through_so_many_days_and_says_where_to_go_on() -> None:
    store = ModelStore()
    entries = await filled(store, [T0_MS, T0_MS + 100 * DAY_MS])
    before = store.reads
    found = await pages(audit_at(store, LATER_MS), 10, start_ms=T0_MS, end_ms=T0_MS + 101 * DAY_MS)
    assert [entry for page in found for entry in page] == entries
    assert len(found) == 4  # of 102 days in all, the first of which is a part of one
    assert store.reads - before <= len(found) * PARTITIONS_MAX


@virtual
async def test_a_store_that_knows_where_a_partition_ends() -> None:
    class Knowing(ModelStore):
        async def query(self, query: Query) -> Found:
            assert query.limit > 0
            items = (await super().query(replace(query, limit=query.limit + 1))).items
            return Found(items[: query.limit], len(items) > query.limit)

    store = Knowing()
    entries = await filled(store, [T0_MS, T0_MS + 1, T0_MS + DAY_MS, T0_MS + DAY_MS + 1])
    span: dict[str, Any] = {"start_ms": T0_MS, "end_ms": T0_MS + 2 * DAY_MS}
    for chain in (None, CHAIN.name):
        for limit in (1, 2, 3, 4, 5):
            found = await pages(audit_at(store, LATER_MS), limit, chain=chain, **span)
            assert [entry for page in found for entry in page] == entries


@virtual
async def test_entries_of_one_moment_come_in_pages_too() -> None:
    store = ModelStore()
    entries = await filled(store, [T0_MS] * 7)
    found = await pages(audit_at(store, LATER_MS), 3, start_ms=T0_MS, end_ms=T0_MS + 1)
    assert [len(page) for page in found] == [3, 3, 1]
    assert sorted((e for page in found for e in page), key=lambda e: e.n) == entries


@pytest.mark.parametrize("after", ["", "x", "=", "MA", "é", "A" * 500, "LTE", "MDAw\n"])
@pytest.mark.parametrize("chain", [None, CHAIN.name])
@virtual
async def test_a_cursor_that_is_not_ours_is_refused(after: str, chain: str | None) -> None:
    asked: dict[str, Any] = {"start_ms": T0_MS, "end_ms": T0_MS + 1, "limit": 5, "chain": chain}
    with pytest.raises(InvalidRequest) as refused:
        await audit_at(ModelStore(), LATER_MS).page("tenant", after=after, **asked)
    assert refused.value.extensions["field"] == "page"


@pytest.mark.parametrize(("start", "end", "field"), [(-1, 1, "start"), (0, 10**14, "end")])
@virtual
async def test_a_time_out_of_all_bounds_is_refused(start: int, end: int, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await audit_at(ModelStore(), LATER_MS).page("tenant", start_ms=start, end_ms=end, limit=5)
    assert refused.value.extensions["field"] == field


@virtual
async def test_a_cursor_does_not_lead_before_the_time_that_was_asked_for() -> None:
    store = ModelStore()
    await filled(store, [T0_MS, T0_MS + DAY_MS])
    audit = audit_at(store, LATER_MS)
    first = await audit.page("tenant", start_ms=T0_MS, end_ms=T0_MS + 2 * DAY_MS, limit=1)
    later: dict[str, Any] = {"start_ms": T0_MS + DAY_MS + 1, "end_ms": T0_MS + 2 * DAY_MS}
    page = await audit.page("tenant", after=first.next, limit=5, **later)
    assert page.entries == ()


# Verifying what is in the tables


@given(st.data())
@settings(max_examples=60)
def test_any_tampering_with_the_tables_is_found(data: st.DataObject) -> None:
    async def check() -> None:
        store = ModelStore()
        entries = await written(store, data.draw(st.integers(1, 5)))
        n = data.draw(st.integers(0, len(entries) - 1))
        key = (AUDIT.name, CHAIN.pk, n)
        done = data.draw(st.sampled_from(["change", "remove", "move", "head", "no head"]))
        head = (TENANTS.name, "chain#tenant", CHAIN.name)
        if done == "change":
            store.items[key]["outcome"] = "forged"
        elif done == "no head":
            del store.items[head]
        elif done == "head":
            store.items[head][data.draw(st.sampled_from(["n", "at", "entry_expires_at"]))] = 10**10
        else:
            item = store.items.pop(key)
            if done == "move":
                place = data.draw(st.integers(-3, 9).filter(lambda p: p not in range(len(entries))))
                store.items[AUDIT.name, CHAIN.pk, place] = {**item, "n": place}
        verdict = await audit_on(store).verify(CHAIN)
        assert verdict.fault
        assert verdict.fault.chain == CHAIN
        if done in ("change", "remove"):
            assert verdict.fault.n == n

    run_virtually(check())


@virtual
async def test_a_chain_that_grows_while_it_is_read_is_clean() -> None:
    class Growing(ModelStore):
        """Each read of the head comes after another entry."""

        async def get(self, table: Any, key: Item) -> Item | None:
            if grow:
                await self.transact(writes(entry := grow.pop(0)), entry.hash[:36])
            return await super().get(table, key)

    grow = chain_of(5)
    store = Growing()
    for count in range(1, 6):
        assert await audit_on(store).verify(CHAIN) == Verdict(count, None)


@virtual
async def test_what_came_after_the_head_was_read_is_left_out() -> None:
    class Growing(ModelStore):
        """One entry comes before the head is read, and one right after."""

        async def get(self, table: Any, key: Item) -> Item | None:
            before, after = grow
            await self.transact(writes(before), before.hash[:36])
            found = await super().get(table, key)
            await self.transact(writes(after), after.hash[:36])
            return found

    store = Growing()
    await written(store, 2)
    grow = chain_of(4)[2:]
    assert await audit_on(store).verify(CHAIN) == Verdict(3, None)


@virtual
async def test_a_head_with_a_false_expiry_is_found_though_others_came_after_it() -> None:
    """It would excuse that what came before it is removed."""
    store = ModelStore()
    entries = await written(store, 2)
    store.items[TENANTS.name, "chain#tenant", CHAIN.name]["entry_expires_at"] = 1
    audit = audit_on(store)
    expected = Fault(CHAIN, 1, Wrong.UNLIKE_HEAD, entries[1].id)
    assert (await audit.verify(CHAIN)).fault == expected
    assert await audit.append(audit.entry(CHAIN, Event.FOLLOWED, ACTOR)) is None
    assert (await audit.verify(CHAIN)).fault == Fault(CHAIN, 1, Wrong.CHANGED, entries[1].id)


@virtual
async def test_chains_are_found_by_their_heads_and_by_their_entries() -> None:
    store = ModelStore()
    names = ["a", "b", "c", "tenant"]
    for day, name in enumerate(names):
        await filled(store, [T0_MS + day * DAY_MS], Chain("tenant", name))
    await filled(store, [T0_MS], Chain("other", "x"))
    audit = audit_at(store, LATER_MS)

    async def found(start: int, end: int) -> set[str]:
        span = {"start_ms": T0_MS + start * DAY_MS, "end_ms": T0_MS + end * DAY_MS}
        listed = [chain async for chain in audit.chains("tenant", **span)]
        assert len(set(listed)) == len(listed)
        assert all(chain.tenant == "tenant" for chain in listed)
        return {chain.name for chain in listed}

    assert await found(0, 4) == set(names)
    assert await found(1, 3) == {"b", "c"}
    del store.items[TENANTS.name, "chain#tenant", "b"]
    del store.items[AUDIT.name, "tenant#c", 0]
    assert await found(1, 3) == {"b", "c"}
    faults = [(await audit.verify(Chain("tenant", name))).fault for name in names]
    assert [fault and fault.wrong for fault in faults] == [
        *(None, Wrong.HEADLESS),
        *(Wrong.CUT_OFF, None),
    ]


@virtual
async def test_a_time_without_bounds_is_looked_through_as_far_as_there_may_be_entries() -> None:
    store = ModelStore()
    entries = await filled(store, [T0_MS])
    found = await pages(audit_at(store, LATER_MS), 10, start_ms=0, end_ms=MOMENT_MAX)
    assert [entry for page in found for entry in page] == entries
    assert len(found) < 3700 / PARTITIONS_MAX
