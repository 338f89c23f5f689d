"""Assignments to a tenant's document."""

import re
from argparse import ArgumentTypeError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.document import Assignment, assign, changes, shown
from local.errors import Failed
from shared.errors import InvalidRequest
from shared.tenants import Policy

DEFAULT = Policy().to_document()


def changed(*texts: str, to: dict[str, Any] = DEFAULT) -> dict[str, Any]:
    """The document after these assignments, checked as it would be when it is set."""
    document = Policy.from_document(to).to_document()
    assign(document, [Assignment.parse(text) for text in texts])
    return Policy.from_document(document).to_document()


def differences(*texts: str, to: dict[str, Any] = DEFAULT) -> dict[str, tuple[Any, Any]]:
    return changes(Policy.from_document(to).to_document(), changed(*texts, to=to))


@pytest.mark.parametrize(
    ("text", "name", "before", "after"),
    [
        ("limits.streams_at_once=10", "limits.streams_at_once", 100, 10),
        ("limits.streams_at_once=0", "limits.streams_at_once", 100, 0),
        ("limits.streams_at_once=none", "limits.streams_at_once", 100, None),
        ("user_limits.max_tokens=null", "user_limits.max_tokens", None, None),
        ("on_outage=allow", "on_outage", "refuse", "allow"),
        # A word of this setting, and not the lack of one.
        ("addresses=none", "addresses", "truncated", "none"),
        ("redaction.prompts=true", "redaction.prompts", False, True),
        ("redaction.detectors.email=mask", "redaction.detectors.email", None, "mask"),
        ("limits.models=demo, openai/*", "limits.models", [], ["demo", "openai/*"]),
        ('limits.models=["a,b"]', "limits.models", [], ["a,b"]),
        ("limits.models=none", "limits.models", [], []),
        ("user_limits.models+=demo", "user_limits.models", [], ["demo"]),
        ("fallbacks.openai/gpt-4.1=demo,x", "fallbacks.openai/gpt-4.1", None, ["demo", "x"]),
        ("fallbacks.demo+=x", "fallbacks.demo", None, ["x"]),
        ("origins+=https://App.Example.com:443", "origins", [], ["https://app.example.com"]),
    ],
)
def test_an_assignment(text: str, name: str, before: Any, after: Any) -> None:
    expected = {name: (before, after)} if before != after else {}
    assert differences(text) == expected


def test_many_assignments_are_made_in_their_order() -> None:
    models = ("limits.models=a,b,c", "limits.models-=b,a", "limits.models+=d,c")
    document = changed(*models, "limits.tokens_per_day=5")
    assert document["limits"]["models"] == ["c", "d"]
    assert document["limits"]["tokens_per_day"] == 5


def test_what_is_free_to_come_is_free_to_go() -> None:
    full = changed(
        "fallbacks.demo=a,b", "redaction.detectors.ip=drop", "redaction.detectors.ssn=hash"
    )
    assert changed("fallbacks.demo-=a", "fallbacks.demo-=b", to=full)["fallbacks"] == {}
    assert differences("redaction.detectors.ip=none", to=full) == {
        "redaction.detectors.ip": ("drop", None)
    }
    emptied = changed("fallbacks=none", "redaction.detectors=none", to=full)
    assert emptied == DEFAULT


def test_to_take_away_the_last_model_does_not_allow_all() -> None:
    one = changed("limits.models=demo")
    with pytest.raises(
        Failed, match=r"would mean all models; if you want that, say limits.models=none"
    ):
        changed("limits.models-=demo", to=one)
    assert changed("limits.models=none", to=one)["limits"]["models"] == []


def test_an_object_in_a_list_is_named_by_its_first_member() -> None:
    words = changed('redaction.words+={"word": "hush"}', 'redaction.words+={"word": "hush hush"}')
    assert [word["word"] for word in words["redaction"]["words"]] == ["hush", "hush hush"]
    [word] = changed("redaction.words-=hush", to=words)["redaction"]["words"]
    assert word == {"word": "hush hush", "mode": "mask", "name": "word"}


def test_objects_may_be_given_whole() -> None:
    assert differences('limits={"streams_at_once": 7}') == {
        "limits.streams_at_once": (100, 7),
    }
    assert changed('fallbacks={"demo": ["x"]}')["fallbacks"] == {"demo": ["x"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limits.stream_at_once=1", "did you mean limits.streams_at_once?"),
        ("streams_at_once=1", "did you mean limits.streams_at_once?"),
        ("limts=1", "did you mean limits?"),
        ("redaction.detectors.emial=mask", "did you mean redaction.detectors.email?"),
        ("emails=mask", "did you mean redaction.detectors.email?"),
        ("origin+=https://x.test", "did you mean origins?"),
        ("limits.streams_at_once.x=1", "no setting limits.streams_at_once.x"),
        ("fallbacks.=x", "no setting fallbacks."),
        ("zzzz=1", "there is no setting zzzz"),
        ("limits.tokens_per_day+=1", "no list: say limits.tokens_per_day=1"),
        ("limits.models-=demo", "limits.models has no demo; it is: none"),
        ("models+=demo", "did you mean limits.models?"),
        ("origins-=https://x.test", "origins has no https://x.test"),
    ],
)
def test_what_cannot_be_assigned(text: str, said: str) -> None:
    with pytest.raises(Failed, match=re.escape(said)):
        changed(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limits.streams_at_once=ten", "`limits.streams_at_once` must be a whole number from 0 to"),
        ("limits.streams_at_once=-1", "`limits.streams_at_once` is -1; allowed are 0 to"),
        ("shards=65", "`shards` is 65; allowed are 1 to 64"),
        ("shards=none", "`shards` must be a whole number from 1 to 64, not null"),
        ("on_outage=panic", "`on_outage` must be one of: refuse, allow"),
        ("redaction.detectors.email=blur", "`redaction.detectors.email` must be one of"),
        ("origins+=nowhere", "`origins` must be an origin like"),
        ("limits=5", "`limits` must be an object"),
    ],
)
def test_a_wrong_value_is_told_with_its_field_and_bounds(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as failed:
        changed(text)
    assert failed.value.detail.startswith(said)


@pytest.mark.parametrize("text", ["", "abc", "=1", "-x=1", "+=1", "a b=1", "--file"])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="NAME=VALUE"):
        Assignment.parse(text)


@given(st.text(st.characters(exclude_characters="=+- \t\n"), min_size=1), st.text())
def test_a_value_may_hold_anything(name: str, value: str) -> None:
    if not any(char.isspace() for char in name):
        for sign in ("=", "+=", "-="):
            assert Assignment.parse(f"{name}{sign}{value}") == Assignment(name, sign, value)


@given(st.text(max_size=20))
def test_no_name_and_no_value_breaks_anything_but_the_rules(text: str) -> None:
    for name in (
        "limits.tokens_per_day",
        "limits.models",
        "fallbacks.demo",
        "redaction",
        text or "x",
    ):
        document = Policy().to_document()
        try:
            assign(document, [Assignment(name, "=", text)])
            Policy.from_document(document)
        except (Failed, InvalidRequest):
            pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "none"),
        ([], "none"),
        ({}, "none"),
        (False, "false"),
        (0, "0"),
        (1_000_000, "1,000,000"),
        ("text", "text"),
        (["a", "b"], "a, b"),
        ([{"word": "ü"}], '[{"word": "ü"}]'),
    ],
)
def test_how_values_are_shown(value: Any, said: str) -> None:
    assert shown(value) == said
