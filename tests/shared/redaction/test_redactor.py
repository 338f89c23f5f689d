"""The redactor: what it lets through, whatever the splits, and never too early."""

import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.redaction import HELD_MAX, Mode, PolicyViolation, Redactor, Rules, redact
from shared.redaction.detectors import NAMES
from shared.redaction.machine import State
from shared.redaction.rules import MATCH_MAX
from tests.shared.redaction.oracle import outcome, redacted

CORPUS = Path(__file__).parent / "corpus"
ALL = Rules.from_document({"detectors": dict.fromkeys(NAMES, "mask")})
#: Every mode; patterns that begin and end anywhere; words that overlap with what detectors find.
MIXED = Rules.from_document(
    {
        "detectors": {
            **dict.fromkeys(NAMES, "mask"),
            "email": "hash",
            "phone": "drop",
            "jwt": "hash",
            "bearer": "drop",
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
    *("%40", "&#64;", "＠", "．", "１", "ａ", "：", "４１１１", "\u3000", "e\u0301"),
    *("EMP-123", "EMP-1234", "aa-bb", "-cc", "com", "!", "STOP", "ST0", "P", "\u00a0", "\u2011"),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)
RULES = st.sampled_from([ALL, MIXED, CLOSING])


def labelled() -> list[tuple[str, str]]:
    """The labelled lines as they are, and as they are to be when masked."""
    lines = (CORPUS / "positive.txt").read_text().splitlines()
    texts = [_LINE_END.sub("\n", line).replace(r"\\n", r"\n") for line in lines if line[0] != "#"]
    return [
        (_VALUE.sub(lambda value: value[2], text), _VALUE.sub(lambda value: f"[{value[1]}]", text))
        for text in texts
    ]


_VALUE = re.compile(r"⟦(\w+)\|(.*?)⟧", re.DOTALL)
_LINE_END = re.compile(r"(?<!\\)\\n")


def unlabelled() -> Iterator[tuple[str, str]]:
    """The files without values, and their names."""
    for path in sorted(CORPUS.iterdir()):
        if path.name != "positive.txt":
            yield path.name, path.read_text()


def splits(text: str, randomness: random.Random) -> Iterator[str]:
    while text:
        length = randomness.choice((1, 1, 2, 3, 5, 8, 40))
        yield text[:length]
        text = text[length:]


def feed(redactor: Redactor, text: str) -> str:
    """What is let through when a text comes one character at a time."""
    return "".join(redactor.feed(char) for char in text)


@settings(max_examples=150, deadline=None)
@given(TEXTS, RULES)
def test_the_outcome_is_the_one_defined(text: str, rules: Rules) -> None:
    assert outcome([text], rules) == redacted(text, rules)


@settings(max_examples=150, deadline=None)
@given(TEXTS, RULES, st.randoms())
def test_no_split_changes_the_outcome(text: str, rules: Rules, randomness: random.Random) -> None:
    assert outcome(splits(text, randomness), rules) == outcome([text], rules)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), RULES, st.randoms())
def test_no_split_of_any_text_changes_it(
    text: str, rules: Rules, randomness: random.Random
) -> None:
    assert outcome(splits(text, randomness), rules) == outcome([text], rules)


def test_every_split_in_two_of_what_is_labelled_gives_the_same() -> None:
    for text, _ in labelled():
        whole = outcome([text], MIXED)
        for cut in range(len(text)):
            assert outcome([text[:cut], text[cut:]], MIXED) == whole


@pytest.mark.parametrize(
    "text",
    [
        "To a.b@example.org, falcon",
        "+49 30 12345678 EMP-1234",
        "4111 1111 1111 1111 123",
        "DE89 3704 0044 0532 0130 00 is",
        "at 10.0.0.1. ssn 123-45-6789",
        "fe80::1ff:fe23:1:2 aa-bb-cc",
        "Bearer abcdef0123456789ab.",
        "eyJhbGciOiJI.eyJzdWIi.c_d. e",
        "-----BEGIN PRIVATE KEY-----MI-----END PRIVATE KEY-----x",
        "a\r\n\u200db\ud83d\ude00c@d\u200d.org",
    ],
)
@pytest.mark.parametrize("rules", [ALL, MIXED, CLOSING])
def test_every_split_in_three_gives_the_same(text: str, rules: Rules) -> None:
    whole = outcome([text], rules)
    for first, second in itertools.combinations(range(len(text) + 1), 2):
        parts = text[:first], text[first:second], text[second:]
        assert outcome(parts, rules) == whole


def test_one_character_at_a_time_gives_the_same_for_whole_files() -> None:
    for _, text in unlabelled():
        assert outcome(text, ALL) == outcome([text], ALL)


ENDINGS = (
    "",
    "1",
    "1 1111",
    "@b.com",
    "com",
    ".eyJzdWI",
    "-----END ",
    "\n",
    "aaaaaaaaaaaaaaaaaaaa",
)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_let_through_stands_however_the_text_goes_on(ending: str) -> None:
    for text, _ in labelled():
        redactor, out = Redactor(ALL, secret=b"secret"), ""
        for at, char in enumerate(text[:100], 1):
            out += redactor.feed(char)
            if at % 3 == 0:
                whole, _ = redact(text[:at] + ending, ALL, secret=b"secret")
                assert whole.startswith(out)


def test_every_labelled_value_is_found() -> None:
    missed = [
        (wanted, out)
        for text, wanted in labelled()
        if (out := redact(text, ALL, secret=b"")[0]) != wanted
    ]
    assert missed == []


#: What is found where nothing is: a number of 16 digits that passes for a card, and a section.
FALSE_POSITIVES = {"code.txt": {"card": 1}, "tables.txt": {"ip": 1}}


def test_little_else_is_found() -> None:
    found = {name: dict(redact(text, ALL, secret=b"")[1]) for name, text in unlabelled()}
    print(found)
    assert {name: counts for name, counts in found.items() if counts} == FALSE_POSITIVES


@pytest.mark.parametrize("part", ["a", "a.", "1", "1 ", "-", "1:", "é", "谢", "AB12", "()", "+1 "])
def test_little_is_held_of_any_text(part: str) -> None:
    redactor = Redactor(ALL, secret=b"")
    for _ in range(1000):
        redactor.feed(part)
        assert redactor.held <= HELD_MAX


def test_of_prose_no_more_is_held_than_the_word_under_way() -> None:
    redactor = Redactor(ALL, secret=b"")
    text = "It's a well-known fact, said Mr. O'Brien; the rest (as they say) is history.\n" * 3
    for at, char in enumerate(text, 1):
        redactor.feed(char)
        assert redactor.held <= at - max(text.rfind(edge, 0, at) for edge in " \n(")


def test_a_value_may_span_any_number_of_deltas_and_its_tail_is_not_held() -> None:
    redactor = Redactor(ALL, secret=b"")
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEF\n" * 5000
    assert feed(redactor, "x " + key) == "x "
    assert redactor.held <= HELD_MAX
    assert feed(redactor, "-----END PRIVATE KEY-----y ") == "[private_key]y "
    assert redactor.finish() == ""


def test_a_key_that_never_ends_is_taken_to_the_end_of_the_text() -> None:
    redactor = Redactor(ALL, secret=b"")
    assert (
        feed(redactor, "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG\nnot out " * 99)
        == ""
    )
    assert redactor.finish() == "[private_key]"


@pytest.mark.parametrize("length", range(MATCH_MAX - 2, MATCH_MAX + 3))
def test_a_match_has_at_most_so_many_characters(length: int) -> None:
    mail = "a" * (length - len("@example.com")) + "@example.com"
    out, counts = redact(f"{mail} {mail}", ALL, secret=b"")
    assert counts.get("email", 0) == (2 if length <= MATCH_MAX else 0)
    assert outcome(f"{mail} {mail}", ALL) == outcome([f"{mail} {mail}"], ALL)
    assert ("@" in out) is (length > MATCH_MAX)


def test_the_modes() -> None:
    text = "a@b.org and a@b.org, c@d.org"
    outs = {
        mode: redact(text, Rules({"email": mode}), secret=b"secret")[0]
        for mode in (Mode.MASK, Mode.DROP, Mode.HASH)
    }
    assert outs[Mode.MASK] == "[email] and [email], [email]"
    assert outs[Mode.DROP] == " and , "
    first, second, third = re.findall(r"\[email:([0-9a-f]{8})\]", outs[Mode.HASH])
    assert first == second != third


def test_a_tag_is_of_the_value_not_of_its_spelling_and_belongs_to_a_tenant() -> None:
    rules = Rules({"card": Mode.HASH, "iban": Mode.HASH, "email": Mode.HASH, "jwt": Mode.HASH})
    spellings = (
        ("4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111"),
        ("DE89 3704 0044 0532 0130 00", "de89370400440532013000"),
        ("Jane@Example.com", "jane@example.COM"),
    )
    for same in spellings:
        assert len({redact(text, rules, secret=b"one")[0] for text in same}) == 1
        assert redact(same[0], rules, secret=b"one") != redact(same[0], rules, secret=b"two")
    jwt = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UifQ."
    assert redact(jwt + "aa", rules, secret=b"")[0] != redact(jwt + "ab", rules, secret=b"")[0]


def test_the_counts_are_of_what_stands_in_the_text_so_far_and_hold_nothing_of_it() -> None:
    redactor, out = Redactor(MIXED, secret=b""), ""
    before: dict[str, int] = {}
    text = "a@b.org, +49 30 12345678 or Falcon; EMP-1234 and c@d.org "
    for char in text:
        out += redactor.feed(char)
        assert redactor.counts.get("email", 0) == out.count("[email:")
        assert redactor.counts.get("employee", 0) == out.count("[employee]")
        assert all(before[name] <= redactor.counts[name] for name in before)
        before = dict(redactor.counts)
    redactor.feed("Bearer abcdef0123456789abcd")
    assert redactor.counts == {"email": 2, "phone": 1, "word": 1, "employee": 1}
    redactor.finish()
    assert redactor.counts == {"email": 2, "phone": 1, "word": 1, "employee": 1, "bearer": 1}
    assert Redactor(Rules(), secret=b"").counts == {}


def test_close_lets_through_what_stands_before_and_nothing_after() -> None:
    redactor = Redactor(CLOSING, secret=b"")
    assert redactor.feed("me: a@b.org, 4111 1111 1111 ") == "me: [email], "
    with pytest.raises(PolicyViolation) as caught:
        redactor.feed("1111 and more")
    assert (caught.value.rule, caught.value.text) == ("card", "")
    assert redactor.counts == {"email": 1, "card": 1}
    with pytest.raises(ValueError, match="ended"):
        redactor.feed("x")
    assert redactor.finish() == ""


def test_close_carries_what_its_own_delta_may_still_let_through() -> None:
    with pytest.raises(PolicyViolation) as caught:
        redact("before ST0P after", CLOSING, secret=b"")
    assert (caught.value.rule, caught.value.text) == ("stop", "before ")


def test_close_comes_first_where_values_begin_together_or_overlap() -> None:
    rules = Rules.from_document(
        {
            "detectors": {"email": "mask"},
            "words": [{"word": "jane", "mode": "close", "name": "person"}],
        }
    )
    for text in ("jane@example.com", "x.jane@example.com"):
        with pytest.raises(PolicyViolation) as caught:
            redact(text, rules, secret=b"")
        assert caught.value.rule == "person"


def test_a_validator_sees_what_is_let_through_and_may_stop_the_stream() -> None:
    seen: list[str] = []

    def validator(text: str) -> None:
        seen.append(text)
        if "forbidden" in "".join(seen):
            raise PolicyViolation("topic", text.partition("forbidden")[0])

    redactor = Redactor(ALL, secret=b"", validators=[validator])
    assert redactor.feed("a@b.org is ") == "[email] is "
    with pytest.raises(PolicyViolation) as caught:
        redactor.feed("so forbidden indeed")
    assert (caught.value.rule, caught.value.text) == ("topic", "so ")
    assert seen == ["[email] is ", "so forbidden "]
    with pytest.raises(ValueError, match="ended"):
        redactor.feed("more")


def test_a_check_that_fails_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor(ALL, secret=b"")
    monkeypatch.setattr(redactor._scanner, "_shapes", [None] * 99)
    with pytest.raises(AttributeError):
        redactor.feed("mail a@b.org now")
    assert redactor.finish() == ""


@pytest.mark.parametrize("part", ["a.", "1 ", "-", "a:", "4111 ", "+1 ", "01 ", "a@b.", "aB1-_"])
def test_the_work_grows_with_the_text_and_no_more(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0

    def read(state: State, char: str) -> State:
        nonlocal reads
        reads += 1
        return dict.__getitem__(state, char)

    monkeypatch.setattr(State, "__getitem__", read, raising=False)
    counts = []
    for repeated in (1000, 2000):
        reads = 0
        feed(Redactor(ALL, secret=b""), part * repeated)
        counts.append(reads)
    assert counts[1] <= 2.1 * counts[0] + MATCH_MAX
    assert counts[0] <= 24 * len(part) * 1000
