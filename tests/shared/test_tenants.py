"""Tenants: documents that are checked, what is remembered, and the ways that lead to a tenant."""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidRequest, Unavailable
from shared.identity.tokens import Issuer
from shared.limits import COUNT_MAX, DEFAULT_LIMITS, EACH, MODELS_MAX, Limits
from shared.models import FALLBACKS_MAX
from shared.records import OWNER_TAG_BYTES
from shared.redaction.detectors import NAMES
from shared.redaction.rules import Mode
from shared.schema import TENANTS
from shared.table import Write
from shared.tenants import (
    _CHOICES,
    _NUMBERS,
    CACHE_MAX,
    CACHE_S,
    ISSUERS_MAX,
    LIST_MAX,
    ORIGINS_MAX,
    Policy,
    Tenant,
    Tenants,
    adding,
    changing,
    is_tenant,
    removing,
)
from tests.clock import Clock
from tests.model_store import ModelStore
from tests.simulation.clock import run_virtually
from tests.simulation.scripted import ScriptedStore

GROUPS = ("limits", "user_limits", "address_limits")
LIMITS = tuple(Limits().to_document())
FIELDS = tuple(Policy().to_document())
ISSUERS: list[dict[str, Any]] = [
    Issuer(f"https://{name}.example/", f"https://{name}.example/keys", "sluice").to_document()
    for name in "abc"
]
ORIGINS = ["https://a.example", "https://b.example", "http://localhost:5173"]
USERS = st.none() | st.text(max_size=20)
NOTHING_SANE: tuple[Any, ...] = ("x", -1, 1.5, True, None, [], {}, [None], {"x": None}, [[]])


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def tenants(store: ScriptedStore, clock: Clock) -> Tenants:
    return Tenants(store, clock=clock)


def do(store: ModelStore, writes: Iterable[Write]) -> None:
    for write in writes:
        assert store.write_now(write) is None


def add(store: ModelStore, name: str = "acme", **document: Any) -> Tenant:
    do(store, adding(name, Policy.from_document(document), 7))
    return stored(store, name)


def stored(store: ModelStore, name: str = "acme") -> Tenant:
    return Tenant.from_item(store.items[TENANTS.name, name, "settings"])


def change(store: ModelStore, name: str = "acme", **document: Any) -> Tenant:
    tenant = stored(store, name)
    policy = Policy.from_document(tenant.policy.to_document() | document)
    do(store, changing(tenant, policy, suspended=tenant.suspended))
    return stored(store, name)


def tenant_with(secret: bytes) -> Tenant:
    return Tenant("acme", Policy(), False, secret * 32, 0, 0)


def refusal(**document: Any) -> dict[str, Any]:
    """What is said of a document that cannot be."""
    with pytest.raises(InvalidRequest) as raised:
        Policy.from_document(document)
    return raised.value.extensions


# Names


@pytest.mark.parametrize("name", ["a", "acme-2", "0", "a" * 63])
def test_a_tenants_name(name: str) -> None:
    assert is_tenant(name)


@pytest.mark.parametrize("name", ["", "-a", "A", "a#b", "a b", "ü", "a" * 64, "a\n"])
def test_what_is_no_tenants_name(name: str) -> None:
    assert not is_tenant(name)


# Documents


def test_who_has_set_nothing_has_the_defaults() -> None:
    assert Policy.from_document({}) == Policy()
    assert Policy.from_document(Policy().to_document()) == Policy()
    assert Policy().limits == DEFAULT_LIMITS
    assert Policy().user_limits == Policy().address_limits == Limits()


def test_a_field_that_nobody_would_read_is_refused() -> None:
    assert refusal(retention=3) == {"field": "retention"}
    assert refusal(limits={"streams": 3}) == {"field": "limits.streams"}
    assert refusal(redaction={"rules": []}) == {"field": "redaction.rules"}
    assert refusal(issuers=[ISSUERS[0], ISSUERS[1] | {"x": 1}]) == {"field": "issuers[1].x"}


# Whatever the field: what is no value of it is refused, and the field named.
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", NOTHING_SANE)
def test_a_value_is_taken_or_the_field_is_named(name: str, value: Any) -> None:
    if _may_be(name, value):
        policy = Policy.from_document({name: value})
        assert Policy.from_document(policy.to_document()) == policy
    else:
        field = refusal(**{name: value})["field"]
        assert field.partition(".")[0].partition("[")[0] == name


def _may_be(name: str, value: Any) -> bool:
    """Whether one of these values will do."""
    if name in ("origins", "issuers"):
        return isinstance(value, list) and not value
    if name == "experiment":
        return value is None
    return name not in (*_NUMBERS, *_CHOICES) and isinstance(value, dict) and not value


@pytest.mark.parametrize("name", _NUMBERS)
def test_a_number_has_bounds(name: str) -> None:
    least, most = _NUMBERS[name]
    for good in (least, most):
        assert getattr(Policy.from_document({name: good}), name) == good
    for bad in (least - 1, most + 1, 10**30):
        assert refusal(**{name: bad}) == {"field": name, "minimum": least, "maximum": most}
    wrongs: tuple[Any, ...] = (True, float(least), str(least), [least], None)
    for wrong in wrongs:
        assert refusal(**{name: wrong}) == {"field": name}


@pytest.mark.parametrize("name", _CHOICES)
def test_a_choice_is_one_of_a_few(name: str) -> None:
    for choice in _CHOICES[name]:
        assert getattr(Policy.from_document({name: choice}), name) == choice
    wrongs: tuple[Any, ...] = ("", "Full", 1, None, [_CHOICES[name][0]])
    for wrong in wrongs:
        assert refusal(**{name: wrong}) == {"field": name}


def test_fallbacks_are_bounded_in_every_direction() -> None:
    most = {f"m{n}": ["x"] * FALLBACKS_MAX for n in range(MODELS_MAX)}
    assert len(Policy.from_document({"fallbacks": most}).fallbacks) == MODELS_MAX
    assert refusal(fallbacks=most | {"more": []})["maximum"] == MODELS_MAX
    assert refusal(fallbacks={"m": ["x"] * (FALLBACKS_MAX + 1)})["field"] == "fallbacks.m"
    assert refusal(fallbacks={"m": "x"}) == {"field": "fallbacks.m"}
    assert refusal(fallbacks={"m": [1]}) == {"field": "fallbacks.m[0]"}
    assert refusal(fallbacks={"m" * 201: []})["field"] == "fallbacks"


def test_origins_are_written_as_browsers_send_them() -> None:
    policy = Policy.from_document({"origins": ["HTTPS://App.Example:443", "http://localhost:5173"]})
    assert policy.origins == ("https://app.example", "http://localhost:5173")
    for wrong in ("*", "null", "app.example", "https://app.example/", "ftp://a", "https://*.a", 1):
        assert refusal(origins=[ORIGINS[0], wrong])["field"] == "origins[1]"
    assert refusal(origins=["https://a"] * (ORIGINS_MAX + 1))["maximum"] == ORIGINS_MAX


def test_an_issuer_is_trusted_in_one_way() -> None:
    found = refusal(issuers=[ISSUERS[0], ISSUERS[0] | {"audience": "another"}])
    assert found == {"field": "issuers"}
    many = [ISSUERS[0] | {"issuer": f"https://{n}.example"} for n in range(ISSUERS_MAX + 1)]
    assert len(Policy.from_document({"issuers": many[1:]}).issuers) == ISSUERS_MAX
    assert refusal(issuers=many)["maximum"] == ISSUERS_MAX


def limit(name: str) -> st.SearchStrategy[Any]:
    return MODELS if name == "models" else st.none() | st.integers(*EACH.get(name, (0, COUNT_MAX)))


MODES = st.sampled_from([str(mode) for mode in Mode])
MODELS = st.lists(st.text(min_size=1, max_size=9), max_size=3)
SOME_LIMITS = st.fixed_dictionaries({}, optional={name: limit(name) for name in LIMITS}).filter(
    lambda limits: limits.get("tokens_burst") is None or limits.get("tokens_per_minute") is not None
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(GROUPS, SOME_LIMITS),
        **{name: st.integers(*bounds) for name, bounds in _NUMBERS.items()},
        **{name: st.sampled_from(choices) for name, choices in _CHOICES.items()},
        "fallbacks": st.dictionaries(st.text(min_size=1, max_size=9), MODELS, max_size=3),
        "origins": st.lists(st.sampled_from(ORIGINS), max_size=3),
        "issuers": st.lists(st.sampled_from(ISSUERS), max_size=3, unique_by=str),
        "redaction": st.fixed_dictionaries(
            {},
            optional={
                "detectors": st.dictionaries(st.sampled_from(NAMES), MODES, max_size=3),
                "words": st.lists(st.builds(dict, word=st.just("x1"), mode=MODES), max_size=2),
                "patterns": st.lists(
                    st.builds(dict, pattern=st.just("[a-z]{2,5}"), mode=MODES), max_size=2
                ),
                "prompts": st.booleans(),
            },
        ),
    },
)


@given(DOCUMENTS)
def test_a_document_comes_back_from_the_table_as_it_was(document: dict[str, Any]) -> None:
    policy = Policy.from_document(document)
    assert Policy.from_document(policy.to_document()) == policy
    tenant = add(ModelStore(), **document)
    assert (tenant.policy, tenant.suspended, tenant.rev) == (policy, False, 0)


FULL: dict[str, Any] = {
    "retention_days": 3,
    "user_limits": {"followers": 3, "models": ["demo"]},
    "fallbacks": {"demo": ["x"]},
    "issuers": ISSUERS[:2],
    "redaction": {
        "detectors": {"email": "mask"},
        "words": [{"word": "hush"}],
        "patterns": [{"pattern": "[a-z]{2,5}", "mode": "drop"}],
    },
}


def newer(value: Any) -> Any:
    """A document with a name more in each object of it, but where all names are free."""
    if isinstance(value, list):
        return [newer(each) for each in value]
    if not isinstance(value, dict):
        return value
    more = {name: each if name == "fallbacks" else newer(each) for name, each in value.items()}
    return {"from_the_future": [{"x": 1}], **more}


def test_a_setting_of_another_version_does_not_stop_this_one(store: ScriptedStore) -> None:
    policy = add(store, **FULL).policy
    item = store.items[TENANTS.name, "acme", "settings"]
    document = newer(json.loads(str(item["policy"])))
    item["policy"] = json.dumps(document)
    assert str(item["policy"]).count("from_the_future") == 10
    assert stored(store).policy == policy
    # From anyone else it would be a mistake.
    with pytest.raises(InvalidRequest):
        Policy.from_document(document)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('"followers":3', '"followers":"3"'),
        ('"email":"mask"', '"email":"blur"'),
        ('"fallbacks":{', '"shards":{},"fallbacks":{'),
        ('"word":"hush"', '"word":{}'),
    ],
)
async def test_a_value_of_another_version_is_not_made_up(
    store: ScriptedStore, tenants: Tenants, good: str, bad: str
) -> None:
    add(store, **FULL)
    item = store.items[TENANTS.name, "acme", "settings"]
    assert good in str(item["policy"])
    item["policy"] = str(item["policy"]).replace(good, bad)
    # A client is not told that its request is wrong.
    with pytest.raises(Unavailable):
        await tenants.get("acme")


# Tenants in the table


def test_a_tenants_secret_is_its_own(store: ScriptedStore) -> None:
    first, second = add(store), add(store, "other")
    assert len(first.secret) == len(second.secret) == 32
    assert first.secret != second.secret
    assert change(store, retention_days=3).secret == first.secret


@given(USERS, USERS)
def test_no_two_owners_of_a_tenant_have_one_tag(user: str | None, other: str | None) -> None:
    assert (tenant_with(b"a").owner_tag(user) == tenant_with(b"a").owner_tag(other)) == (
        user == other
    )


@given(USERS)
def test_users_of_one_name_have_another_tag_in_each_tenant(user: str | None) -> None:
    assert tenant_with(b"a").owner_tag(user) != tenant_with(b"b").owner_tag(user)
    assert len(tenant_with(b"a").owner_tag(user)) == OWNER_TAG_BYTES


def test_a_tenant_that_is_made_again_has_other_tags(store: ScriptedStore) -> None:
    """So of names alone, the tenant's and the user's, nobody can make one."""
    before = add(store)
    do(store, removing(before))
    assert add(store).owner_tag("ann") != before.owner_tag("ann")


def test_a_name_is_taken_once(store: ScriptedStore) -> None:
    before = add(store)
    assert store.transact_now(adding("acme", Policy(), 8), "again")
    assert stored(store) == before


def test_of_two_changes_at_once_one_happens(store: ScriptedStore) -> None:
    tenant = add(store)
    first, second = (
        changing(tenant, Policy(retention_days=days), suspended=False) for days in (1, 2)
    )
    assert store.transact_now(first, "first") is None
    assert store.transact_now(second, "second")
    assert (stored(store).policy.retention_days, stored(store).rev) == (1, 1)


async def test_a_tenant_is_remembered_for_a_while(
    store: ScriptedStore, tenants: Tenants, clock: Clock
) -> None:
    before = add(store)
    assert await tenants.get("acme") == before
    after = change(store, retention_days=3)
    reads = store.reads
    clock.now = CACHE_S - 0.1
    assert await tenants.get("acme") == before
    assert store.reads == reads
    clock.now = CACHE_S
    assert await tenants.get("acme") == after
    assert store.reads == reads + 1


async def test_that_there_is_none_is_remembered_too(
    store: ScriptedStore, tenants: Tenants, clock: Clock
) -> None:
    assert await tenants.get("acme") is None
    add(store)
    assert await tenants.get("acme") is None
    clock.now = CACHE_S
    assert await tenants.get("acme") == stored(store)


async def test_a_store_that_does_not_answer_says_nothing_of_tenants(
    store: ScriptedStore, tenants: Tenants
) -> None:
    add(store)
    store.unreadable = True
    for ask in (partial(tenants.get, "acme"), tenants.names, partial(tenants.anywhere, ORIGINS[0])):
        with pytest.raises(Unavailable):
            await ask()
    store.unreadable = False
    assert await tenants.get("acme") == stored(store)


async def test_what_is_remembered_is_bounded_and_strangers_push_no_tenant_out(
    store: ScriptedStore, tenants: Tenants
) -> None:
    add(store)
    await tenants.get("acme")
    for number in range(CACHE_MAX + 10):
        await tenants.anywhere(f"https://{number}.example")
        await tenants.get(f"guess-{number}")  # as a made up ticket has it
    reads = store.reads
    await tenants.get("acme")
    assert store.reads == reads
    assert len(tenants._asked) == CACHE_MAX
    for number in range(CACHE_MAX + 10):
        add(store, f"tenant-{number}")
        await tenants.get(f"tenant-{number}")
    assert len(tenants._cache) == CACHE_MAX


async def test_all_tenants_are_listed_however_many_there_are(
    store: ScriptedStore, tenants: Tenants
) -> None:
    names = [f"t{number:05}" for number in range(LIST_MAX + 3)]
    for name in names:
        do(store, adding(name, Policy(), 7)[1:2])
    assert await tenants.names() == names


async def test_a_tenant_that_was_removed_is_nowhere(store: ScriptedStore, tenants: Tenants) -> None:
    tenant = add(store, origins=ORIGINS[:1], issuers=ISSUERS[:1])
    add(store, "other")
    do(store, removing(tenant))
    assert await tenants.get("acme") is None
    assert await tenants.names() == ["other"]
    assert not await tenants.anywhere(ORIGINS[0])
    assert await tenants.trusting(ISSUERS[0]["issuer"]) == {}
    assert all("acme" not in key[1:] for key in store.items)


SOME = st.tuples(st.sets(st.sampled_from(ORIGINS)), st.sets(st.sampled_from(range(3))))


# Whatever tenants change, and however often: the ways that lead to them are those they name now.
@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["acme", "other"]), SOME), max_size=6))
def test_origins_and_issuers_lead_to_who_names_them(
    changes: Sequence[tuple[str, tuple[set[str], set[int]]]],
) -> None:
    async def run() -> None:
        store = ModelStore()
        named: dict[str, tuple[set[str], set[int]]] = {}
        for name in ("acme", "other"):
            add(store, name)
            named[name] = (set(), set())
        for name, (origins, issuers) in changes:
            trusted = [ISSUERS[n] for n in sorted(issuers)]
            change(store, name, origins=sorted(origins), issuers=trusted)
            named[name] = (origins, issuers)
            await check(Tenants(store), named)

    async def check(tenants: Tenants, named: dict[str, tuple[set[str], set[int]]]) -> None:
        for origin in ORIGINS:
            holders = {name for name, (origins, _) in named.items() if origin in origins}
            assert await tenants.anywhere(origin) == bool(holders)
            for name in named:
                assert await tenants.allowed(name, origin) == (name in holders)
        for n, document in enumerate(ISSUERS):
            found = await tenants.trusting(document["issuer"])
            assert set(found) == {name for name, (_, issuers) in named.items() if n in issuers}
            assert all(issuer == Issuer.from_document(document) for issuer in found.values())

    run_virtually(run())
