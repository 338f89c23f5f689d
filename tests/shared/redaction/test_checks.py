"""Checks: what has the right shape and is not what it looks like."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.redaction import Rules, redact
from shared.redaction.checks import card, iban
from shared.redaction.detectors import DETECTORS, NAMES, Detector

ALL = Rules.from_document({"detectors": dict.fromkeys(NAMES, "mask")})


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "1234 5678 9012 3452",
        "4111 1111 1111 111",
        "a4111111111111111",
        "0.4111111111111111",
        "4111111111111111.25",
        "41 11 11 11 11 11 11 11",
        "4111\n1111\n1111\n1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "4.111111111111111",
        "registry.npmjs.org/%40angular%2fcore",
        "GB82 WEST 1234 5698 7654 33",
        "GB82 WEST 1234 5698 7654",
        "ZZ82 WEST 1234 5698 7654 32",
        "000-12-3456",
        "666-12-3456",
        "912-12-3456",
        "123-00-3456",
        "123-45-0000",
        "1-123-45-6789-0",
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "01.02.03.04",
        "v10.1.2.3",
        "127.0.0.1",
        "255.255.255.0",
        "12:30:45",
        "1:2:3:4:5:6:7",
        "::1",
        "fe80::",
        "a@b",
        "a@b.c",
        "@b.com",
        "...@b.com",
        "git@github.com",
        "icon@2x.png",
        "+0 123 456 789",
        "+12 34",
        "+999 123 456 789",
        "0123456789",
        "911-411-1234",
        "212-911-1234x",
        "01.02.2024 12:30",
        "a call 12/11/2024 10",
        "AKIA1234",
        "AKIAIOSFODNN7EXAMPLEX",
        "ghp_short",
        "Bearer of-good-news-and-of-bad-news",
        "eyJub3QiOiJhIGp3dCJ9",
        "eyJub3QiOiJhIGp3dCJ9.txt",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_what_only_looks_like_it_is_let_through(text: str) -> None:
    assert redact(f"see {text} there", ALL, secret=b"") == (f"see {text} there", {})


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_check_copes_with_all_that_has_its_shape(detector: Detector, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(detector.shape, fullmatch=True))
    span = detector.check(text)
    if span:
        begin, end = span
        assert 0 <= begin < end <= len(text)
        assert isinstance(detector.canonical(text[begin:end]), str)


def test_every_wrong_digit_of_a_card_is_noticed() -> None:
    number = "4012888888881881"
    for at, digit in enumerate(number):
        for other in set("0123456789") - {digit}:
            assert card(number[:at] + other + number[at + 1 :]) is None
    assert card(number) == (0, 16)


def test_every_wrong_or_swapped_character_of_an_iban_is_noticed() -> None:
    number = "GB82WEST12345698765432"
    assert iban(number) == (0, 22)
    for at in range(4, len(number)):
        for other in set("0123456789ABCXYZ") - {number[at]}:
            assert iban(number[:at] + other + number[at + 1 :]) is None
        swapped = number[: at - 1] + number[at] + number[at - 1] + number[at + 1 :]
        assert iban(swapped) is None or swapped == number


def test_a_cold_start_imports_nothing_heavy() -> None:
    code = "import sys, shared.redaction; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"hmac", "hashlib", "ipaddress", "unicodedata", "shared.redaction.machine"}
    assert not heavy & set(loaded)
