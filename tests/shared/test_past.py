"""What the records of a stream tell of its producers."""

from typing import Any

from shared.models import Usage
from shared.past import Past
from shared.records import Kind, Record


def record(kind: Kind, epoch: int = 1, text: str = "", **body: Any) -> Record:
    return Record(0, kind, epoch, 0, "w", text=text, body=body)


def opened(epoch: int = 1, **body: Any) -> Record:
    messages = [{"role": "user", "content": "12345678"}]
    return record(Kind.OPENED, epoch, messages=messages, allowance=None, held={}, **body)


TEXT = record(Kind.TEXT, text="abcd")


def epoch(number: int, **body: Any) -> Record:
    return record(Kind.EPOCH, number, **body)


def test_a_stream_that_nobody_has_produced_has_cost_nothing() -> None:
    assert Past.of([opened(0), record(Kind.VACANT, 0, reason="lost")]).usage == Usage(0, 0)


def test_each_producer_was_sent_the_conversation() -> None:
    assert Past.of([opened(), TEXT, TEXT]).usage == Usage(2, 2, estimated=True)
    twice = [opened(0), epoch(1), epoch(2)]
    assert Past.of(twice).usage == Usage(4, 0, estimated=True)


def test_what_was_said_is_sent_again_or_heard_again() -> None:
    for how, used in (("prompt", (5, 2)), ("prefill", (5, 2)), ("replay", (4, 3))):
        records = [opened(), TEXT, epoch(2, continuation=how), TEXT]
        assert Past.of(records).usage == Usage(*used, estimated=True)


def test_what_was_said_is_that_of_all_producers() -> None:
    assert Past.of([opened(), TEXT, epoch(2, continuation="prompt"), TEXT]).said == "abcdabcd"


def test_the_model_that_answers_is_the_one_that_spoke_last() -> None:
    """The first chunk of an epoch names it, where it is a stand-in."""
    a, b = ([record(Kind.TEXT, text="x", model=model), TEXT] for model in ("a", "b"))
    assert Past.of([opened(), TEXT]).begun_by is None
    assert Past.of([opened(), *a, epoch(2), *b]).begun_by == "b"
    assert Past.of([opened(), *a, epoch(2), epoch(3)]).begun_by == "a"
    assert Past.of([opened(), *a, epoch(2), TEXT]).begun_by is None


def test_the_credential_is_that_of_the_last_grant() -> None:
    grants = [record(Kind.GRANT, credential=name) for name in ("key:a", "key:b")]
    assert Past.of([opened(credential="key:0")]).credential["credential"] == "key:0"
    assert Past.of([opened(), *grants]).credential["credential"] == "key:b"


def test_takeovers_and_handovers_are_counted_apart() -> None:
    records = [opened()]
    for why in ("lost", "deadline", "shutdown", "lost"):
        records += [TEXT, record(Kind.VACANT, reason=why), epoch(2)]
    past = Past.of(records)
    assert (past.takeovers, past.handovers, past.cancelled) == (2, 2, False)
    assert Past.of([opened(), record(Kind.CANCEL), TEXT]).cancelled


def test_a_vacancy_that_nobody_filled_is_no_producers_death() -> None:
    lost = record(Kind.VACANT, reason="lost")
    past = Past.of([opened(0), lost, lost])
    assert (past.takeovers, past.unfilled) == (0, 2)
    past = Past.of([opened(), lost, lost, lost])
    assert (past.takeovers, past.unfilled) == (1, 2)
    assert Past.of([opened(0), lost, lost, epoch(1), TEXT]).unfilled == 0
