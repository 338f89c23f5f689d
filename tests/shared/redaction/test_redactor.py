"""The redactor: what it lets through, whatever the splits, and never too early."""

import itertools
import random
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.redaction import HELD_MAX, Mode, PolicyViolation, Redactor, Rules, redact
from shared.redaction.detectors import NAMES
from shared.redaction.redactor import TAG_DIGITS
from tests.shared.redaction.oracle import outcome, redacted

CORPUS = Path(__file__).parent / "corpus"
ALL = Rules.from_document({"detectors": dict.fromkeys(NAMES, "mask")})
#: Every mode; patterns that begin and end anywhere; words that overlap with what detectors find.
MIXED = Rules.from_document(
    {
        "detectors": {
            **dict.fromkeys(NAMES, "mask"),
            **{"email": "hash", "phone": "drop", "jwt": "hash", "bearer": "drop"},
        },
        "words": [
            {"word": "Falcon", "mode": "drop"},
            {"word": "call me", "name": "phrase"},
            {"word": "example", "mode": "hash"},
        ],
        "patterns": [
            {"pattern": r"EMP-\d{4,6}", "name": "employee"},
            {"pattern": r"(?i)\b[a-f]{2}(?:-[a-f]{2}){1,3}\b", "mode": "hash", "name": "pairs"},
            {"pattern": r"com.{0,3}[!?]", "name": "odd"},
        ],
    }
)
CLOSING = Rules.from_document(
    {
        "detectors": {"card": "close", "email": "mask", "private_key": "close", "phone": "mask"},
        "patterns": [{"pattern": r"ST[O0]{1,3}P", "mode": "close", "name": "stop"}],
    }
)
PIECES = (
    *("a", "b.c", "@", ".", "com", "example", "x@y.org", " ", "\n", "-", "--", "_", "+", "é", "谢"),
    *(
        "4111 1111 1111 1111",
        "4111",
        "1111",
        "5",
        "0",
        "00",
        "+49",
        "30 12345678",
        "(415) 555-2671",
    ),
    *("DE89 3704 0044 0532 0130 00", "DE89", "123-45-6789", "10.0.0.1", ".1", "fe80::1", ":"),
    *("Bearer ", "abcdef0123456789abcd", "eyJhbGciOiJI", ".eyJzdWI", "eyJ", "AKIAIOSFODNN7EXAMPLE"),
    *("-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0B", "-----END PRIVATE KEY-----"),
    *("sig=", "secret_key: ", "Q~", "ghp_", "falcon", "Falcon", "call me", "call", "ssn ", "tel "),
    *("EMP-123", "EMP-1234", "aa-bb", "-cc", "com", "!", "STOP", "ST0", "P", "\u00a0", "\u2011"),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)
RULES = st.sampled_from([ALL, MIXED, CLOSING])


def positive() -> list[str]:
    lines = (CORPUS / "positive.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def texts() -> list[str]:
    files = [path.read_text() for path in sorted(CORPUS.iterdir())]
    return [*positive(), *(part for text in files for part in text.split("\n\n"))]


def splits(text: str, randomness: random.Random) -> Iterator[str]:
    while text:
        length = randomness.choice((1, 1, 2, 3, 5, 8, 40))
        yield text[:length]
        text = text[length:]


@settings(max_examples=300, deadline=None)
@given(TEXTS, RULES)
def test_the_outcome_is_the_one_defined(text: str, rules: Rules) -> None:
    assert outcome([text], rules) == redacted(text, rules)


@settings(max_examples=300, deadline=None)
@given(TEXTS, RULES, st.randoms())
def test_no_split_changes_the_outcome(text: str, rules: Rules, randomness: random.Random) -> None:
    assert outcome(splits(text, randomness), rules) == outcome([text], rules)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), RULES, st.randoms())
def test_no_split_of_any_text_changes_it(
    text: str, rules: Rules, randomness: random.Random
) -> None:
    assert outcome(splits(text, randomness), rules) == outcome([text], rules)
