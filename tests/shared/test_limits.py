"""Limits: documents that are checked, and what holds for one caller."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.dialects import native
from shared.errors import InvalidRequest
from shared.limits import (
    COUNT_MAX,
    DEFAULT_LIMITS,
    EACH,
    MODELS_MAX,
    NO_LIMITS,
    Bounds,
    Limits,
)
from shared.tenants import Policy, Tenant

GROUPS = ("limits", "user_limits", "address_limits")
NUMBERS = tuple(name for name in Limits().to_document() if name != "models")
ADDRESS = "192.0.2.1"
#: Those of which the smallest holds.
LEAST = ("max_tokens", "wait_s", "page", "idle_s", "connection_s")


def refusal(**document: Any) -> dict[str, Any]:
    """What is said of a document that cannot be."""
    with pytest.raises(InvalidRequest) as raised:
        Policy.from_document(document)
    return raised.value.extensions


def tenant(**document: Any) -> Tenant:
    return Tenant("acme", Policy.from_document(document), False, b"s" * 32, 0, 0)


def bounds(user: str | None = "ada", address: str | None = ADDRESS, **document: Any) -> Bounds:
    return tenant(**document).bounds(user, address)


# Documents


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_limit_is_a_whole_number_or_none(group: str, name: str) -> None:
    least, most = EACH.get(name, (0, COUNT_MAX))
    beside = {"tokens_per_minute": 5} if name == "tokens_burst" else {}
    for good in (least, least + 1, most, None):
        policy = Policy.from_document({group: beside | {name: good}})
        assert getattr(getattr(policy, group), name) == good
    field = f"{group}.{name}"
    for bad in (least - 1, most + 1, 10**30):
        found = refusal(**{group: beside | {name: bad}})
        assert found == {"field": field, "minimum": least, "maximum": most}
    wrongs: tuple[Any, ...] = (True, 1.5, "1", [])
    for wrong in wrongs:
        assert refusal(**{group: beside | {name: wrong}}) == {"field": field}


def test_limits_that_are_not_named_keep_their_defaults() -> None:
    policy = Policy.from_document({"limits": {"tokens_per_day": 9}, "user_limits": {}})
    assert policy.limits == replace(DEFAULT_LIMITS, tokens_per_day=9)
    assert policy.user_limits == policy.address_limits == NO_LIMITS


def test_a_burst_needs_what_fills_it() -> None:
    assert refusal(limits={"tokens_burst": 9}) == {"field": "limits.tokens_burst"}
    both = {"tokens_per_minute": 5, "tokens_burst": 9}
    assert refusal(user_limits=both | {"tokens_per_minute": None})["field"].endswith("burst")
    assert Policy.from_document({"limits": both}).limits.tokens_burst == 9


@pytest.mark.parametrize("group", GROUPS)
def test_models_are_a_list_of_names(group: str) -> None:
    assert refusal(**{group: {"models": ["demo", ""]}})["field"] == f"{group}.models[1]"
    assert refusal(**{group: {"models": ["x" * 201]}})["maximum"] == 200
    assert refusal(**{group: {"models": ["x"] * (MODELS_MAX + 1)}})["maximum"] == MODELS_MAX
    wrongs: tuple[Any, ...] = (None, "demo", {})
    for wrong in wrongs:
        assert refusal(**{group: {"models": wrong}}) == {"field": f"{group}.models"}


def test_no_tenant_allows_more_than_the_wire_does() -> None:
    assert EACH["max_tokens"][1] == native.MAX_TOKENS_MAX
    assert EACH["wait_s"][1] == native.WAIT_S_MAX
    assert EACH["page"][1] == native.LIMIT_MAX


# What holds for a caller


def test_who_has_no_limits_has_those_of_the_tenant() -> None:
    assert bounds() == Bounds(None, (), {}, 20, 1000, 60, 900)
    some = {"max_tokens": 7, "models": ["demo"], "followers": 3, "wait_s": 1, "page": 2}
    times = {"idle_s": 9, "connection_s": 11}
    assert bounds(limits=some | times) == Bounds(7, (("demo",),), {"": 3}, 1, 2, 9, 11)


def test_without_any_limit_there_are_the_bounds_of_sluice() -> None:
    unlimited = dict.fromkeys(NUMBERS)
    assert bounds(limits=unlimited) == Bounds(None, (), {}, 20, 1000, 900, 900)


VALUES = {name: st.none() | st.integers(*EACH[name]) for name in LEAST}
SOME = st.fixed_dictionaries({}, optional=VALUES)


@given(SOME, SOME, SOME, st.booleans(), st.booleans())
def test_the_tightest_of_all_who_ask_holds(
    whole: dict[str, Any],
    users: dict[str, Any],
    addresses: dict[str, Any],
    is_user: bool,
    is_located: bool,
) -> None:
    found = bounds(
        "ada" if is_user else None,
        ADDRESS if is_located else None,
        limits=whole,
        user_limits=users,
        address_limits=addresses,
    )
    asking = [DEFAULT_LIMITS.to_document() | whole]
    asking += [users] if is_user else []
    asking += [addresses] if is_located else []
    for name in LEAST:
        given = [limits[name] for limits in asking if limits.get(name) is not None]
        none = None if name == "max_tokens" else EACH[name][1]
        assert getattr(found, name) == min(given, default=none)


def test_models_are_names_or_beginnings_of_names() -> None:
    some = bounds(limits={"models": ["demo", "openai/*"]})
    assert [some.allows(m) for m in ("demo", "openai/x", "openai/")] == [True] * 3
    assert not any(some.allows(m) for m in ("demo2", "dem", "openai", "OpenAI/x", "*"))
    assert bounds().allows("whatever")


def test_a_model_must_be_open_to_all_who_ask() -> None:
    document = {
        "limits": {"models": ["demo*", "openai/*"]},
        "user_limits": {"models": ["demo2", "openai/*", "x"]},
        "address_limits": {"models": ["openai/a", "demo*"]},
    }
    models = ("demo", "demo2", "openai/a", "openai/b", "x")

    def opened(user: str | None, address: str | None) -> list[str]:
        return [m for m in models if bounds(user, address, **document).allows(m)]

    assert opened(None, None) == ["demo", "demo2", "openai/a", "openai/b"]
    assert opened("ada", None) == ["demo2", "openai/a", "openai/b"]
    assert opened(None, ADDRESS) == ["demo", "demo2", "openai/a"]
    assert opened("ada", ADDRESS) == ["demo2", "openai/a"]


def test_followers_are_bounded_for_each_who_asks() -> None:
    each = {"followers": 2}
    document: dict[str, Any] = {
        "limits": {"followers": 9},
        "user_limits": each,
        "address_limits": each,
    }
    ada, bob = (bounds(user, **document).followers for user in ("ada", "bob"))
    assert list(ada.values()) == list(bob.values()) == [9, 2, 2]
    # They share what is their tenant's and what is their address's.
    assert len(ada.keys() & bob.keys()) == 2
    assert list(bounds(None, None, **document).followers) == [""]


# Subjects


def test_a_subject_is_told_apart_and_nobody_learns_whose_it_is() -> None:
    limited = tenant(user_limits={"page": 5}, address_limits={"page": 5})
    whole, user, address = limited.subjects("ada", ADDRESS)
    assert (whole.kind, whole.name, whole.limits) == ("tenant", "", DEFAULT_LIMITS)
    assert (user.kind, address.kind) == ("user", "address")
    assert "ada" not in user.name
    assert ADDRESS not in address.name
    # Nor by who knows the name: each tenant has its own secret.
    other = replace(limited, secret=b"t" * 32)
    assert {s.name for s in limited.subjects("ada", ADDRESS)} & {
        s.name for s in other.subjects("ada", ADDRESS)
    } == {""}
    assert limited.subjects("ada", ADDRESS) == limited.subjects("ada", ADDRESS)
    assert len(limited.subjects("x" * 128, None)[1].name) == len(user.name)
