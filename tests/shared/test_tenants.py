"""Tenants: documents that are checked, what is remembered, and the ways that lead to a tenant."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidRequest, Unavailable
from shared.identity.tokens import Issuer
from shared.models import FALLBACKS_MAX
from shared.redaction.detectors import NAMES
from shared.redaction.rules import Mode
from shared.schema import TENANTS
from shared.table import Write
from shared.tenants import (
    _CHOICES,
    _NUMBERS,
    CACHE_MAX,
    CACHE_S,
    COUNT_MAX,
    DEFAULT_LIMITS,
    ISSUERS_MAX,
    LIST_MAX,
    MODELS_MAX,
    ORIGINS_MAX,
    Limits,
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
    assert not Policy().user_limits.any


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
    if name in _NUMBERS:
        return value is None and _NUMBERS[name][2]
    if name in ("models", "origins", "issuers"):
        return isinstance(value, list) and not value
    return name not in _CHOICES and isinstance(value, dict) and not value


@pytest.mark.parametrize("name", _NUMBERS)
def test_a_number_has_bounds(name: str) -> None:
    least, most, may_be_null = _NUMBERS[name]
    for good in (least, most):
        assert getattr(Policy.from_document({name: good}), name) == good
    for bad in (least - 1, most + 1, 10**30):
        assert refusal(**{name: bad}) == {"field": name, "minimum": least, "maximum": most}
    wrongs: tuple[Any, ...] = (True, float(least), str(least), [least])
    for wrong in wrongs:
        assert refusal(**{name: wrong}) == {"field": name}
    if may_be_null:
        assert getattr(Policy.from_document({name: None}), name) is None
    else:
        assert refusal(**{name: None}) == {"field": name}


@pytest.mark.parametrize("name", _CHOICES)
def test_a_choice_is_one_of_a_few(name: str) -> None:
    for choice in _CHOICES[name]:
        assert getattr(Policy.from_document({name: choice}), name) == choice
    wrongs: tuple[Any, ...] = ("", "Full", 1, None, [_CHOICES[name][0]])
    for wrong in wrongs:
        assert refusal(**{name: wrong}) == {"field": name}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_a_whole_number_or_none(group: str, name: str) -> None:
    beside = {"tokens_per_minute": 5} if name == "tokens_burst" else {}
    for good in (0, 1, COUNT_MAX, None):
        policy = Policy.from_document({group: beside | {name: good}})
        assert getattr(getattr(policy, group), name) == good
    field = f"{group}.{name}"
    for bad in (-1, COUNT_MAX + 1):
        found = refusal(**{group: beside | {name: bad}})
        assert found == {"field": field, "minimum": 0, "maximum": COUNT_MAX}
    wrongs: tuple[Any, ...] = (True, 1.5, "1", [])
    for wrong in wrongs:
        assert refusal(**{group: beside | {name: wrong}}) == {"field": field}


def test_limits_that_are_not_named_keep_their_defaults() -> None:
    policy = Policy.from_document({"limits": {"tokens_per_day": 9}, "user_limits": {}})
    assert policy.limits == replace(DEFAULT_LIMITS, tokens_per_day=9)
    assert policy.user_limits == Limits()


def test_a_burst_needs_what_fills_it() -> None:
    assert refusal(limits={"tokens_burst": 9}) == {"field": "limits.tokens_burst"}
    both = {"tokens_per_minute": 5, "tokens_burst": 9}
    assert refusal(user_limits=both | {"tokens_per_minute": None})["field"].endswith("burst")
    assert Policy.from_document({"limits": both}).limits.tokens_burst == 9


def test_models_are_names_or_beginnings_of_names() -> None:
    policy = Policy.from_document({"models": ["demo", "openai/*"]})
    assert [policy.allows(m) for m in ("demo", "openai/x", "openai/")] == [True] * 3
    assert not any(policy.allows(m) for m in ("demo2", "dem", "openai", "OpenAI/x", "*"))
    assert Policy().allows("whatever")
    assert refusal(models=["demo", ""])["field"] == "models[1]"
    assert refusal(models=["x" * 201])["maximum"] == 200
    assert refusal(models=["x"] * (MODELS_MAX + 1))["maximum"] == MODELS_MAX


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


def numbers(name: str) -> st.SearchStrategy[int | None]:
    least, most, may_be_null = _NUMBERS[name]
    return (st.none() if may_be_null else st.nothing()) | st.integers(least, most)


COUNTS = st.none() | st.integers(0, COUNT_MAX)
SOME_LIMITS = st.fixed_dictionaries({}, optional=dict.fromkeys(LIMITS, COUNTS)).filter(
    lambda limits: limits.get("tokens_burst") is None or limits.get("tokens_per_minute") is not None
)
MODES = st.sampled_from([str(mode) for mode in Mode])
MODELS = st.lists(st.text(min_size=1, max_size=9), max_size=3)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(GROUPS, SOME_LIMITS),
        **{name: numbers(name) for name in _NUMBERS},
        **{name: st.sampled_from(choices) for name, choices in _CHOICES.items()},
        "models": MODELS,
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


def test_a_setting_of_another_version_does_not_stop_this_one(store: ScriptedStore) -> None:
    add(store, retention_days=3)
    item = store.items[TENANTS.name, "acme", "settings"]
    item["policy"] = str(item["policy"]).replace("{", '{"from_the_future":[1],', 1)
    assert stored(store).policy.retention_days == 3


# Tenants in the table


def test_a_tenants_secret_is_its_own(store: ScriptedStore) -> None:
    first, second = add(store), add(store, "other")
    assert len(first.secret) == len(second.secret) == 32
    assert first.secret != second.secret
    assert change(store, retention_days=3).secret == first.secret


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
    reads = store.reads
    await tenants.get("acme")
    assert store.reads == reads
    assert len(tenants._indexes) == CACHE_MAX
    for number in range(CACHE_MAX + 10):
        await tenants.get(f"guess-{number}")
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
