"""Plain characters: what only looks different is found, and what stands beside it hides nothing."""

import pytest

from shared.redaction import Mode, Rules, redact
from shared.redaction.detectors import NAMES
from shared.redaction.plain import plain

ALL = Rules.from_document({"detectors": dict.fromkeys(NAMES, "mask")})
CARD = "4111111111111111"
WIDE = {code: code + 0xFEE0 for code in range(ord("!"), ord("~") + 1)} | {ord(" "): 0x3000}
BOLD = {ord("a") + n: 0x1D5EE + n for n in range(26)}


def masked(text: str) -> str:
    return redact(text, ALL, secret=b"")[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("card", "4111 1111 1111 1111"),
        ("email", "jane.doe@example.com"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("ssn", "123-45-6789"),
        ("ip", "203.0.113.9"),
        ("ip", "2001:db8::8a2e:370:7334"),
        ("phone", "+49 30 12345678"),
        ("phone", "(415) 555-2671"),
        ("cloud_key", "AKIAIOSFODNN7EXAMPLE"),
        ("jwt", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UifQ"),
    ],
)
def test_a_value_in_full_width_is_found_and_has_the_same_tag(name: str, value: str) -> None:
    wide = value.translate(WIDE)
    assert wide != value == plain(wide)
    assert masked(f"は {wide} です") == f"は [{name}] です"
    rules = Rules({name: Mode.HASH})
    assert redact(wide, rules, secret=b"k") == redact(value, rules, secret=b"k")


def test_a_font_hides_nothing() -> None:
    assert masked("jane@example.com".translate(BOLD)) == "[email]"


@pytest.mark.parametrize(
    "hidden",
    [
        *(mark.join(CARD) for mark in "\u200b\u00ad\u2060\u200d\u200f\ufe0f\u3164\uffa0\u115f"),
        "\u200d".join(CARD.translate(WIDE)),
        *(f"4111{mark} 1111{mark} 1111{mark} 1111" for mark in "\u200c\u200e\u061c"),
        "4111\u20021111\u30001111\u205f1111",
        "4111\uff0d1111\uff0d1111\uff0d1111",
    ],
    ids=ascii,
)
def test_what_nobody_sees_hides_no_number(hidden: str) -> None:
    assert masked(hidden) == "[card]"


def test_an_accent_of_its_own_is_part_of_a_letter() -> None:
    assert masked("Rene\u0301e.x@exa\u0302mple.com") == "[email]"
    assert masked("jane@example.com\u0301") == "[email]\u0301"


@pytest.mark.parametrize("note", ["\u00b9", "\u2074", "\u2460", "\u20e3"])
def test_a_note_beside_a_value_does_not_hide_it(note: str) -> None:
    assert masked(f"{CARD}{note}") == f"[card]{note}"
    assert masked(f"{note}{CARD}") == f"{note}[card]"
    assert masked(f"jane@example.com{note}") == f"[email]{note}"


def test_a_tenants_words_and_patterns_are_found_in_full_width_and_may_be_written_so() -> None:
    words = Rules.from_document(
        {
            "words": [{"word": "Falcon"}],
            "patterns": [{"pattern": r"社員＃\d{4}"}, {"pattern": "X-[1-9]"}],
        }
    )
    for text in ("Ｆａｌｃｏｎ", "falcon"):
        assert redact(text, words, secret=b"")[0] == "[word]"
    for text in ("社員＃１２３４", "社員＃1234", "X-1", "Ｘ－１"):
        assert redact(text, words, secret=b"")[0] == "[pattern]"
