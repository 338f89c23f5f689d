"""What is said and not written: within bounds, redacted, and not twice."""

import math

import pytest

from shared.errors import ProviderFailed
from shared.held import CHUNK_CHARS_MAX, Held
from shared.models import Continuation
from shared.pacing import Pacer, Pacing
from shared.redaction import PolicyViolation, Redactor, Rules

RULES = {
    "detectors": {"email": "mask"},
    "words": [{"word": "forbidden", "mode": "close", "name": "ban"}],
}
SAID = "Write to ann@example.org, or to bob@example.org. Then wait."
SHOWN = "Write to [email], or to [email]. Then wait."


def held(*, chars_max: int | None = None) -> Held:
    redactor = Redactor(Rules.from_document(RULES), secret=b"s")
    return Held(redactor, Pacer(Pacing()), chars_max)


def told(held: Held) -> str:
    """All that it holds, in as many chunks as that takes."""
    chunks = []
    while held:
        chunks.append(held.take())
    return "".join(chunks)


async def test_nothing_is_due_where_nothing_is_held_and_a_full_chunk_is_at_once() -> None:
    some = held()
    assert some.due() == math.inf
    some.feed("x " * CHUNK_CHARS_MAX)
    assert some.due() == -math.inf
    assert len(some.take()) == CHUNK_CHARS_MAX


async def test_what_was_not_written_comes_first_again() -> None:
    some = held()
    some.feed("One two ")
    text = some.take()
    some.feed("three ")
    some.give_back(text)
    assert told(some) == "One two three "


async def test_a_bound_is_on_what_the_model_says() -> None:
    some = held(chars_max=10)
    assert some.feed("12345")
    assert not some.feed("678901")
    some.finish(whole=True)
    assert told(some) == "1234567890"
    assert some.said_chars == 10


async def test_what_comes_before_a_violation_may_be_written() -> None:
    some = held()
    with pytest.raises(PolicyViolation):
        some.feed("Not this: forbidden. ")
    assert told(some) == "Not this: "


@pytest.mark.parametrize("written", range(len(SHOWN) + 1))
async def test_a_replay_adds_what_was_not_written(written: int) -> None:
    """Wherever a redactor may have let go, and however the model's words come."""
    for step in (1, 7, 100):
        some = held()
        some.go_on(SHOWN[:written], Continuation.REPLAY)
        for start in range(0, len(SAID), step):
            some.feed(SAID[start : start + step])
        some.finish(whole=True)
        assert told(some) == SHOWN[written:]


async def test_a_replay_that_differs_adds_nothing() -> None:
    some = held()
    some.go_on("One two", Continuation.REPLAY)
    with pytest.raises(ProviderFailed):
        some.feed("One too many. ")
    some.finish(whole=False)
    assert not some


async def test_a_replay_that_ends_within_what_was_written_adds_nothing() -> None:
    some = held()
    some.go_on("One two three", Continuation.REPLAY)
    some.feed("One two")
    some.finish(whole=True)
    assert not some


async def test_a_replay_that_is_cut_off_does_not_compare_half_a_value() -> None:
    some = held()
    some.go_on(SHOWN, Continuation.REPLAY)
    some.feed(SAID[:14])  # in the midst of the address
    some.finish(whole=False)
    assert not some


async def test_a_replay_is_bounded_from_its_beginning_and_all_else_from_what_was_said() -> None:
    for how, rest in ((Continuation.REPLAY, "4567"), (Continuation.PROMPT, "1234")):
        some = held(chars_max=7)
        some.go_on("123", how)
        some.feed("123456789")
        some.finish(whole=True)
        assert told(some) == rest
    some = held(chars_max=3)
    some.go_on("12345", Continuation.PREFILL)
    assert not some.feed("6")


# One that counts began anew with each producer.
@pytest.mark.parametrize("how", Continuation)
async def test_validators_see_the_whole_answer_once(how: Continuation) -> None:
    seen: list[str] = []
    redactor = Redactor(Rules.from_document(RULES), secret=b"s", validators=[seen.append])
    some = Held(redactor, Pacer(Pacing()), None)
    some.go_on(SHOWN[:6], how)
    some.feed(SAID if how is Continuation.REPLAY else SAID[6:])
    some.finish(whole=True)
    assert "".join(seen) == SHOWN
    assert SHOWN[:6] + told(some) == SHOWN


@pytest.mark.parametrize(
    ("said", "more", "rest"),
    [
        ("One ", " two", "two"),
        ("One ", "two", "two"),
        ("One.\n", "\n\nTwo", "\nTwo"),
        ("One", " two", " two"),
    ],
)
async def test_white_space_at_the_seam_of_a_prefill_is_there_once(
    said: str, more: str, rest: str
) -> None:
    some = held()
    some.go_on(said, Continuation.PREFILL)
    for char in more:
        some.feed(char)
    some.finish(whole=True)
    assert told(some) == rest
