"""Canonical JSON, against the samples of RFC 8785 and against what JavaScript makes of it."""

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.audit.canonical import WHOLE_MAX, canonical

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-WHOLE_MAX, WHOLE_MAX) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)

#: RFC 8785, sections 3.2.2 (without its numbers) and 3.2.3.
PRIMITIVES = r"""{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
 "literals": [null, true, false]}"""
MEMBERS = r"""{"\u20ac": "Euro Sign", "\r": "Carriage Return", "1": "One",
 "\ufb33": "Hebrew Letter Dalet With Dagesh", "\ud83d\ude00": "Emoji: Grinning Face",
 "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}"""
ORDERED = (
    '{"\\r":"Carriage Return","1":"One","\x80":"Control",'
    '"ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign",'
    '"😀":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}'
)
SAMPLES = [
    (PRIMITIVES, r"""{"literals":[null,true,false],"string":"€$\u000f\nA'B\"\\\\\"/"}"""),
    (MEMBERS, ORDERED),
]


@pytest.mark.parametrize(("given_text", "expected"), SAMPLES)
def test_the_samples_of_the_standard(given_text: str, expected: str) -> None:
    assert canonical(json.loads(given_text)).decode() == expected


@given(JSON)
def test_it_is_the_same_value_and_the_same_text_again(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


@given(st.dictionaries(TEXTS, st.integers(0, 9)))
def test_the_order_of_members_does_not_matter(value: dict[str, int]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@pytest.mark.parametrize(
    "value",
    [
        *(0.5, 1e30, float("nan"), 2**53, -(2**53)),
        *({1: "x"}, {"a": [{"b": 1.0}]}, "\ud800", {"\udfff": 1}, ("a",), b"a", {"a"}),
    ],
)
def test_what_has_no_canonical_form_here_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its text is nobody's concern)
        canonical(value)


#: The rules of RFC 8785 in the language that it takes them from.
SCRIPT = """
const canonical = (value) =>
  Array.isArray(value) ? `[${value.map(canonical).join(",")}]`
  : value && typeof value === "object"
    ? `{${Object.keys(value).sort().map((n) => `${JSON.stringify(n)}:${canonical(value[n])}`)}}`
    : JSON.stringify(value);
const values = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(values.map(canonical)));
"""


@pytest.mark.e2e
def test_javascript_makes_the_same_text() -> None:
    values: list[Any] = [
        chr(code) for code in range(0x3000) if not 0xD800 <= code <= 0xDFFF
    ]  # every control character, and what some encoders escape
    values += [{"\ufb33": 1, "😀": 2, "\u2028": [WHOLE_MAX, -WHOLE_MAX, 0]}, {"b": {}, "a": []}]

    @settings(max_examples=200)
    @given(JSON)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    run = subprocess.run(
        ["node", "-e", SCRIPT], input=json.dumps(values).encode(), capture_output=True, check=True
    )
    assert [canonical(value).decode() for value in values] == json.loads(run.stdout)
