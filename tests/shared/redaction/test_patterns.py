"""Patterns and machines: they fit what `re` fits, and refuse what they could not keep bounded."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.redaction.machine import END, Machine
from shared.redaction.patterns import PatternError, begins_in_word, parse, width

ATOMS = st.sampled_from(
    ["a", "b", ".", r"\d", r"\w", r"\W", "[ab]", "[^b-]", "[a-c1]", r"\.", r"\b", "é", "(?i:B)"]
)
AROUND = st.sampled_from(["(?<![a1])", "(?![b.])", r"(?<!\w)", r"(?!\s)"])
REPEATS = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,3}", "{,2}", "{2,}"])


def _repeated(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(inner, REPEATS).map(lambda p: f"(?:{p[0]}){p[1]}" if "b" in p[0] else p[0])


PATTERNS = st.recursive(
    ATOMS | AROUND,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: f"(?:{'|'.join(options)})"),
        _repeated(inner),
    ),
    max_leaves=8,
)
TEXTS = st.text("ab1.B- \né", max_size=7)


def fits(machine: Machine, text: str) -> bool:
    state = machine.starts[END]
    for char in text:
        state = state[char]
    return 0 in state[END].ended


@settings(max_examples=250, deadline=None)
@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=8))
def test_a_pattern_means_what_it_means_to_re(pattern: str, texts: list[str]) -> None:
    try:
        node = parse(pattern)
    except PatternError:
        return  # it repeats what takes no character
    machine = Machine([node])
    least, most = width(node)
    for text in texts:
        expected = re.fullmatch(pattern, text) is not None
        assert fits(machine, text) is expected
        assert not expected or least <= len(text) <= most


@settings(max_examples=120, deadline=None)
@given(PATTERNS, TEXTS)
def test_what_cannot_begin_in_a_word_does_not(pattern: str, text: str) -> None:
    try:
        node = parse(pattern)
    except PatternError:
        return
    if not begins_in_word(node):
        for word in ("a1", "b" + text, "1B", "aa" + text):
            assert re.compile(f"(?:{pattern})(?<=.)").match("1" + word, 1) is None or not (
                word[0].isascii() and word[0].isalnum()
            )


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a)\1", "back-references"),
        (r"(?P<n>a)", "kind of group"),
        ("(?>a)", "kind of group"),
        ("(?=a)", "kind of group"),
        ("(?!ab)", "more than one character"),
        ("(?<!a|b)", "more than one character"),
        ("a+?", "lazy"),
        ("a*+", "lazy"),
        ("a{2}{3}", "lazy"),
        ("a{1001}", "out of bounds"),
        ("a{3,2}", "out of bounds"),
        ("a{x}", "begins no repetition"),
        ("a{", "begins no repetition"),
        ("*a", "repeats nothing"),
        ("(?:){9}", "takes no character"),
        (r"\b{9}", "takes no character"),
        ("^a", "a stream has no start"),
        ("a$", "a stream has no start"),
        ("(a", "without its `)`"),
        ("a)", "`)` too many"),
        ("[a", "without its `]`"),
        ("[b-a]", "out of order"),
        (r"[\d-z]x[z-\d]", "out of order"),
        (r"\q", "not known here"),
        (r"\u12", "4 hexadecimal digits"),
        (r"\U00110000", "beyond Unicode"),
        ("a\\", "ends in the middle"),
        ("(" * 20 + "a" + ")" * 20, "nests"),
    ],
)
def test_what_is_not_in_the_subset_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=re.escape(why)):
        parse(pattern)


@pytest.mark.parametrize(
    ("pattern", "widths"),
    [("a", (1, 1)), ("a{2,5}|bcd", (2, 5)), ("a*", (0, float("inf"))), (r"\ba?(?!b)", (0, 1))],
)
def test_the_width_of_a_pattern(pattern: str, widths: tuple[int, float]) -> None:
    assert width(parse(pattern)) == widths


def test_many_patterns_are_told_apart() -> None:
    machine = Machine([parse(pattern) for pattern in ("ab?", "a|ab", "[ab]{2}(?!c)", "b")])
    state = machine.starts[END]["a"]["b"]
    assert state.ended == (0, 1)
    assert state[END].ended == (0, 1, 2)
    assert state["c"].ended == (0, 1)
    assert not state["c"].nodes


def test_a_class_of_cases_knows_the_cases_of_other_scripts() -> None:
    machine = Machine([parse("(?i)straße Жук")])
    assert fits(machine, "STRAßE жУК")
    assert fits(machine, "straẞe ЖУК")
    assert not fits(machine, "strase жук")


def test_what_a_machine_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.redaction.machine.KEPT_MAX", 500)
    machine = Machine([parse("(?:a|b){0,20}a(?:a|b){12}c")])
    text = "abbabaaabbabbbabababaabbbaabababbabaabab" * 5
    for at in range(len(text)):
        state = machine.starts[END]
        for char in text[at:]:
            state = state[char]
        assert machine._kept <= 600
        assert len(machine._states) <= 600


def test_the_work_of_a_pattern_bounds_the_nodes_that_any_text_visits() -> None:
    pattern = "(?:a|ab|b){1,9}(?:b?a){2,4}c"
    machine = Machine([parse(pattern)])
    for text in ("ab" * 20, "a" * 30, "b" * 30, "aab" * 15):
        state, nodes = machine.starts[END], 0
        for char in text:
            nodes += len(state.nodes)
            state = state[char]
        assert nodes <= machine.work()
