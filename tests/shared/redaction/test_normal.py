"""Normalisation: what becomes of characters that nobody can see."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.redaction.normal import HELD_MAX, Normaliser

TEXTS = st.text(
    st.sampled_from("ab \t\n\r\x00\x1b\x85é謝👩\u200b\u200c\u200d\u200e\ufe0f\ufeff\u202e\u2066")
    | st.sampled_from("\ud83d\udc69\ud800\udfff\u00ad\U000e0041😀"),
    max_size=30,
)


def normal(*parts: str) -> str:
    normaliser = Normaliser()
    return "".join(map(normaliser.feed, parts)) + normaliser.finish()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain, with\ttabs\nand lines — é 謝", "plain, with\ttabs\nand lines — é 謝"),
        ("a\r\nb\rc\n\rd\r\r\n", "a\nb\nc\n\nd\n\n"),
        ("\ud83d\udc69 \ud83d \udc69 \udc69\ud83d", "👩 \ufffd \ufffd \ufffd\ufffd"),
        ("a\x00b\x07c\x1b[31md\x7fe\x9bf\ufeffg", "abc[31mdefg"),
        ("user\u202egnp.exe\u202c \u2066x\u2069", "usergnp.exe x"),
        ("jane\u200b@exa\u00admple\u2060.com", "jane@example.com"),
        ("jane\u200d@exam\u200cple\ufe0f.com", "jane@example.com"),
        ("a\U000e0041\U000e0042b", "ab"),
        (
            "👩\u200d💻 نمی\u200cخواهم 1\ufe0f\u20e3 ❤\ufe0f",
            "👩\u200d💻 نمی\u200cخواهم 1\ufe0f\u20e3 ❤\ufe0f",
        ),
        ("🏴\U000e0067\U000e0062\U000e007f!", "🏴\U000e0067\U000e0062\U000e007f!"),
        ("C++\u200e שלום", "C++\u200e שלום"),
        ("a" + "\u200d" * 17 + "é", "aé"),
        ("a" + "\u200d" * 16 + "é", "a" + "\u200d" * 16 + "é"),
    ],
)
def test_what_becomes_of_a_text(text: str, wanted: str) -> None:
    assert normal(text) == wanted
    assert normal(*text) == wanted


@given(TEXTS, st.randoms())
def test_no_split_changes_it(text: str, randomness: st.DataObject) -> None:
    whole = normal(text)
    assert normal(*text) == whole
    for first, second in itertools.combinations(range(len(text) + 1), 2):
        assert normal(text[:first], text[first:second], text[second:]) == whole


@given(TEXTS)
def test_what_is_normal_stays_and_can_be_stored(text: str) -> None:
    whole = normal(text)
    assert normal(whole) == whole
    whole.encode()
    assert not set(whole) & set("\r\x00\x1b\x85\ufeff\u202e\u2066\u200b")


@pytest.mark.parametrize("char", ["\u200d", "\r", "\ud83d", "\x00", "\u202e", "\ufe0f"])
def test_little_is_held(char: str) -> None:
    normaliser = Normaliser()
    normaliser.feed("a")
    for _ in range(1000):
        normaliser.feed(char)
        assert normaliser.held <= HELD_MAX
