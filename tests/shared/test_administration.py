"""Administration: each change with its entry of the audit, once, or neither of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from shared.administration import USER_CHARS_MAX, Administration
from shared.audit import TENANT_CHAIN, Chain, Entry
from shared.audit.trail import Audit
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.identity import SCOPES
from shared.identity.keys import LABEL_CHARS_MAX, Key, Keys
from shared.records import DAY_S, Item
from shared.tenants import Policy, Tenants
from tests.model_store import Key as Place
from tests.simulation.clock import virtual
from tests.simulation.scripted import EPOCH_S, ScriptedStore

Operation = Callable[[Administration], Awaitable[object]]
ACME = Key("acme", "1")


class Office:
    """An operator at a store, with the tenant `acme` and its key `1`."""

    def __init__(self) -> None:
        self.store = ScriptedStore()
        self.administration = Administration(self.store, now=self.now)
        self.audit = Audit(self.store, now=self.now)

    def now(self) -> float:
        return EPOCH_S + asyncio.get_running_loop().time()

    async def open(self) -> "Office":
        await self.administration.add_tenant("acme", {})
        await self.administration.add_key("secret", ACME)
        return self

    async def entries(self, tenant: str = "acme") -> list[Entry]:
        """What the tenant's own chain tells, which must be whole."""
        chain = Chain(tenant, TENANT_CHAIN)
        assert (await self.audit.verify(chain)).fault is None
        return (await self.audit.read(chain))[0]

    async def told(self, tenant: str = "acme") -> list[str]:
        return [entry.event for entry in await self.entries(tenant)]

    def without_audit(self) -> dict[Place, Item]:
        """All there is but the audit, with which nothing else may change."""
        return {
            place: dict(item)
            for place, item in self.store.items.items()
            if place[0] != "audit" and not str(place[1]).startswith("chain#")
        }


def shorter(document: dict[str, Any]) -> None:
    document["retention_days"] = 3


def limited(document: dict[str, Any]) -> None:
    document["limits"]["streams_at_once"] = 3
    document["origins"] = ["https://app.example"]


@dataclass(frozen=True, slots=True)
class Change:
    """Something that an operator does, and what the audit tells of it."""

    do: Operation
    event: str
    details: dict[str, Any]


CHANGES = {
    "add a tenant": Change(lambda a: a.add_tenant("other", {}), "tenant-added", {}),
    "change a setting": Change(
        lambda a: a.set_policy("acme", shorter), "tenant-changed", {"changed": "retention_days"}
    ),
    "change limits": Change(
        lambda a: a.set_policy("acme", limited), "limits-changed", {"changed": "limits origins"}
    ),
    "suspend": Change(lambda a: a.suspend("acme", suspended=True), "tenant-suspended", {}),
    "add a key": Change(
        lambda a: a.add_key("another", Key("acme", "2")),
        "key-made",
        {"key": "2", "scopes": "read stream"},
    ),
    "revoke a key": Change(lambda a: a.revoke_key("acme", "1"), "key-revoked", {"key": "1"}),
}
EACH = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@EACH
@virtual
async def test_each_change_has_its_entry(change: Change) -> None:
    office = await Office().open()
    before = office.without_audit()
    await change.do(office.administration)
    assert office.without_audit() != before
    tenant = "other" if change.event == "tenant-added" else "acme"
    entry = (await office.entries(tenant))[-1]
    assert (entry.event, entry.outcome, entry.details) == (change.event, "ok", change.details)
    assert entry.actor.credential == "operator"


@EACH
@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("fates", [["fail"], ["lose"], ["fail", "lose"], ["lose"] * 3])
@virtual
async def test_a_change_happens_once_whatever_is_lost(
    change: Change, fates: list[Any], remembered: bool
) -> None:
    expected, office = await Office().open(), await Office().open()
    await change.do(expected.administration)
    if not remembered:
        office.store._done = Forgetful()
    office.store.fates.extend(fates)
    await change.do(office.administration)
    tenant = "other" if change.event == "tenant-added" else "acme"
    assert await office.told(tenant) == await expected.told(tenant)
    assert office.without_audit().keys() == expected.without_audit().keys()


class Forgetful(dict[str, str]):
    """A database that does not remember which transactions it has done."""

    def __contains__(self, _: object) -> bool:
        return False


@EACH
@virtual
async def test_a_change_that_cannot_be_written_is_not_told_either(change: Change) -> None:
    office = await Office().open()
    before = dict(office.store.items)
    office.store.broken = True
    with pytest.raises(Unavailable):
        await change.do(office.administration)
    assert office.store.items == before


@EACH
@virtual
async def test_what_is_there_already_is_not_changed_again(change: Change) -> None:
    office = await Office().open()
    await change.do(office.administration)
    before = dict(office.store.items)
    if change.event in ("tenant-added", "key-made"):
        with pytest.raises(InvalidRequest):
            await change.do(office.administration)
    else:
        await change.do(office.administration)
    assert office.store.items == before


@virtual
async def test_a_tenant_is_made_as_its_document_says() -> None:
    office = Office()
    made = await office.administration.add_tenant("acme", {"retention_days": 3})
    assert made == await office.administration.tenant("acme")
    assert (made.policy, made.created_at) == (Policy(retention_days=3), EPOCH_S * 1000)
    assert await Tenants(office.store).names() == ["acme"]


@pytest.mark.parametrize("name", ["", "Acme", "a#b", "#tenants", "a" * 64])
@virtual
async def test_a_name_that_cannot_be_makes_nothing(name: str) -> None:
    office = Office()
    with pytest.raises(InvalidRequest) as raised:
        await office.administration.add_tenant(name, {})
    assert raised.value.extensions["field"] == "tenant"
    assert not office.store.items


@virtual
async def test_a_document_that_cannot_be_changes_nothing() -> None:
    office = await Office().open()
    before = dict(office.store.items)

    def wrong(document: dict[str, Any]) -> None:
        document["retention_days"] = 0

    with pytest.raises(InvalidRequest) as raised:
        await office.administration.set_policy("acme", wrong)
    assert raised.value.extensions["field"] == "retention_days"
    with pytest.raises(InvalidRequest):
        await office.administration.add_tenant("other", {"retention": 3})
    assert office.store.items == before


@virtual
async def test_entries_are_kept_for_as_long_as_the_tenant_wants() -> None:
    office = Office()
    await office.administration.add_tenant("acme", {"audit_retention_days": 9})
    (entry,) = await office.entries()
    assert entry.expires_at == EPOCH_S + 9 * DAY_S


@virtual
async def test_a_suspension_ends_and_changes_nothing_else() -> None:
    office = await Office().open()
    await office.administration.set_policy("acme", shorter)
    suspended = await office.administration.suspend("acme", suspended=True)
    assert (suspended.suspended, suspended.policy.retention_days) == (True, 3)
    resumed = await office.administration.suspend("acme", suspended=False)
    assert (resumed.suspended, resumed.secret) == (False, suspended.secret)
    assert (await office.told())[-2:] == ["tenant-suspended", "tenant-resumed"]


@virtual
async def test_of_two_operators_one_is_told_that_the_other_was_faster() -> None:
    office = await Office().open()
    office.store.write_s = 0.1
    outcomes = await asyncio.gather(
        office.administration.set_policy("acme", shorter),
        office.administration.set_policy("acme", limited),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) == 1
    assert len(await office.told()) == 3
    assert (await office.administration.tenant("acme")).rev == 1


@virtual
async def test_many_keys_at_once_are_all_there_and_all_told() -> None:
    office = await Office().open()
    office.store.write_s = 0.01
    await asyncio.gather(
        *(office.administration.add_key(f"secret {n}", Key("acme", f"k{n}")) for n in range(10))
    )
    assert len(await Keys(office.store).of("acme")) == 11
    page = await office.audit.page(
        "acme", start_ms=0, end_ms=2 * EPOCH_S * 1000, chain=TENANT_CHAIN, limit=100
    )
    told = [entry.details["key"] for entry in page.entries if entry.event == "key-made"]
    assert sorted(told) == sorted(["1", *(f"k{n}" for n in range(10))])


@pytest.mark.parametrize("user", ["", "a\nb", "a" * (USER_CHARS_MAX + 1)])
@virtual
async def test_a_user_that_cannot_be_gets_no_key(user: str) -> None:
    office = await Office().open()
    with pytest.raises(InvalidRequest) as raised:
        await office.administration.add_key("another", Key("acme", "2", user=user))
    assert raised.value.extensions["field"] == "user"
    label = "x" * (LABEL_CHARS_MAX + 1)
    with pytest.raises(InvalidRequest) as raised:
        await office.administration.add_key("another", Key("acme", "2", label=label))
    assert raised.value.extensions["field"] == "label"
    assert await Keys(office.store).find("another") is None


@virtual
async def test_a_key_stays_with_who_has_it() -> None:
    office = await Office().open()
    await office.administration.add_tenant("other", {})
    for key, about in (("secret", Key("other", "2")), ("another", ACME)):
        with pytest.raises(InvalidRequest) as raised:
            await office.administration.add_key(key, about)
        assert raised.value.extensions["field"] == "key"
    assert await Keys(office.store).find("secret") == ACME
    assert await office.told("other") == ["tenant-added"]


@virtual
async def test_what_is_not_there_is_said_so() -> None:
    office = await Office().open()
    operations: tuple[Operation, ...] = (
        lambda a: a.tenant("other"),
        lambda a: a.set_policy("other", shorter),
        lambda a: a.suspend("other", suspended=True),
        lambda a: a.add_key("another", Key("other", "2")),
        lambda a: a.revoke_key("other", "1"),
        lambda a: a.revoke_key("acme", "2"),
    )
    before = dict(office.store.items)
    for operation in operations:
        with pytest.raises(NotFound):
            await operation(office.administration)
    assert office.store.items == before


@virtual
async def test_ensuring_makes_what_is_missing_and_nothing_twice() -> None:
    office = Office()
    for _ in range(3):
        await office.administration.ensure("acme", "secret")
    assert await office.told() == ["tenant-added", "key-made"]
    key = await Keys(office.store).find("secret")
    assert key
    assert (key.tenant, key.scopes, key.created_at) == ("acme", SCOPES, EPOCH_S)
    await office.administration.ensure("acme", "second")
    assert len(await Keys(office.store).of("acme")) == 2
    with pytest.raises(InvalidRequest):
        await office.administration.ensure("other", "secret")
