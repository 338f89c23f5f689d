"""Rules: what a tenant's settings may ask for, and the words that they name."""

from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.redaction import Mode, Pattern, Rules, Word, redact
from shared.redaction.detectors import NAMES

DOCUMENT = {
    "detectors": {"card": "close", "email": "hash"},
    "words": [{"word": "Project X", "mode": "drop", "name": "codename"}],
    "patterns": [{"pattern": r"\bEMP-\d{4,6}", "mode": "mask", "name": "employee"}],
    "prompts": True,
}


def test_a_document_is_read_and_written() -> None:
    rules = Rules.from_document(DOCUMENT)
    assert dict(rules.detectors) == {"card": Mode.CLOSE, "email": Mode.HASH}
    assert rules.words == (Word("Project X", Mode.DROP, "codename"),)
    assert rules.patterns == (Pattern(r"\bEMP-\d{4,6}", Mode.MASK, "employee"),)
    assert rules.prompts
    assert Rules.from_document(rules.to_document()) == rules
    assert rules.to_document() | {"detectors": DOCUMENT["detectors"]} == DOCUMENT


def test_nothing_is_redacted_unless_it_is_asked_for() -> None:
    rules = Rules.from_document({})
    assert rules == Rules()
    assert redact("jane@example.com 4111 1111 1111 1111", rules, secret=b"") == (
        "jane@example.com 4111 1111 1111 1111",
        {},
    )


@pytest.mark.parametrize(
    ("document", "field", "why"),
    [
        ({"detector": {}}, "redaction.detector", "not known"),
        ({"detectors": {"mail": "mask"}}, "redaction.detectors.mail", "not known"),
        ({"detectors": {"email": "hide"}}, "redaction.detectors.email", "one of: mask, hash"),
        ({"detectors": []}, "redaction.detectors", "an object"),
        ({"words": [{"word": ""}]}, "redaction.words[0].word", "1 to 64"),
        ({"words": [{"word": " - "}]}, "redaction.words[0].word", "a letter or a digit"),
        ({"words": [{"word": "a" * 65}]}, "redaction.words[0].word", "1 to 64"),
        ({"words": [{"word": "a"}] * 501}, "redaction.words", "0 to 500"),
        ({"words": [{"word": "a", "mode": None}]}, "redaction.words[0].mode", "one of"),
        ({"words": [{"word": "a", "name": "email"}]}, "redaction.words[0].name", "detector's"),
        ({"words": [{"word": "a", "name": "No"}]}, "redaction.words[0].name", "lower-case"),
        ({"patterns": [{"pattern": "a+"}]}, "redaction.patterns[0].pattern", "{1,20}"),
        ({"patterns": [{"pattern": "a{0,3}"}]}, "redaction.patterns[0].pattern", "1 to 256"),
        ({"patterns": [{"pattern": "a{257}"}]}, "redaction.patterns[0].pattern", "1 to 256"),
        ({"patterns": [{"pattern": "(a"}]}, "redaction.patterns[0].pattern", "without its"),
        ({"patterns": [{"pattern": "a" * 513}]}, "redaction.patterns[0].pattern", "1 to 512"),
        ({"patterns": [{"pattern": "a"}] * 33}, "redaction.patterns", "0 to 32"),
        ({"patterns": [{}]}, "redaction.patterns[0].pattern", "a string"),
        ({"prompts": 1}, "redaction.prompts", "true or false"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Rules.from_document(document)
    assert caught.value.extensions["field"] == field
    assert why in caught.value.detail


@pytest.mark.parametrize(
    "patterns",
    [
        ["(?:a?){120}(?:a?){120}b"],
        ["(?:[ab]{1,10} ){1,20}c"],
        [".{0,100}x.{0,100}"],
        ["(?:(?:(?:a{0,6}){0,6}){0,6})b"],
        [r"[\w ]{1,250}x" + str(n) for n in range(32)],
        ["(?:" + "|".join("abcdefgh" * 20) + "){1,256}"],
    ],
)
def test_patterns_that_are_too_much_work_are_refused(patterns: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Rules.from_document({"patterns": [{"pattern": pattern} for pattern in patterns]})
    assert "too much work" in caught.value.detail
    assert caught.value.extensions["field"].startswith("redaction.patterns[")


# They were taken, and then there was no machine for them: each answer failed.
def test_words_that_no_machine_has_room_for_are_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Rules.from_document({"words": [{"word": "é" * 64}] * 500})
    assert caught.value.extensions["field"] == "redaction.words"


def test_there_is_a_machine_for_as_much_as_is_taken() -> None:
    words = ["".join(chr(97 + (n >> 3 * i & 7)) for i in range(64)) for n in range(500)]
    rules = Rules.from_document(
        {
            "detectors": dict.fromkeys(NAMES, "mask"),
            "words": [{"word": word} for word in words],
            "patterns": [{"pattern": r"[a-f]{1,40}-\d{1,40}"}] * 2,
        }
    )
    assert redact(f"It is {words[7]}.", rules, secret=b"")[0] == "It is [word]."


def test_patterns_that_would_make_another_engine_backtrack_are_no_trouble() -> None:
    patterns = ["(?:a{1,8}){1,8}b", "(?:a|a){1,60}b", "(?:a|aa){1,20}b", "(?:x?y?){1,20}z"]
    rules = Rules.from_document({"patterns": [{"pattern": pattern} for pattern in patterns]})
    assert redact("a" * 500 + " " + "xy" * 200, rules, secret=b"")[1] == {}
    assert redact("a" * 9 + "b " + "xy" * 9 + "z", rules, secret=b"")[0] == "[pattern] [pattern]"


@pytest.mark.parametrize(
    ("word", "text", "wanted"),
    [
        (
            "art",
            "Art, ART. party smart art-deco (art) _art_ art2",
            "#, #. party smart #-deco (#) _#_ art2",
        ),
        ("Straße", "straße STRASSE Strassen", "# # Strassen"),
        ("Zoë", "ZOË zoe\u0308 Zoe Zoëx", "# # Zoe Zoëx"),
        ("Project X", "project  x, Project\nX, ProjectX, project xy", "#, #, ProjectX, project xy"),
        ("東京", "私は東京に住む", "私は#に住む"),
        ("iPhone", "我的iPhone很好 iPhones", "我的#很好 iPhones"),
        ("서울", "서울은 서울", "#은 #"),
        ("हिन्दी", "हिन्दी में, हिन्दीभाषा", "# में, हिन्दीभाषा"),
        ("C++", "C++ is c++17, C+", "# is #17, C+"),
        ("İstanbul", "İSTANBUL'da İstanbul", "#'da #"),
        ("Ελλάς", "ΕΛΛΆΣ Ελλάσ", "# #"),
    ],
)
def test_words_are_found_whole_in_any_case(word: str, text: str, wanted: str) -> None:
    rules = Rules.from_document({"words": [{"word": word, "mode": "mask", "name": "w"}]})
    assert redact(text, rules, secret=b"")[0].replace("[w]", "#") == wanted


def test_some_hundred_words_are_found_among_each_other() -> None:
    words = [f"{first}{last}" for first in "abcdefghijklmnopqrst" for last in range(25)]
    rules = Rules.from_document({"words": [{"word": word} for word in words]})
    out, counts = redact(" ".join([*words, "a25", "u1", "xa1"]), rules, secret=b"")
    assert out == " ".join(["[word]"] * 500 + ["a25", "u1", "xa1"])
    assert counts == {"word": 500}
