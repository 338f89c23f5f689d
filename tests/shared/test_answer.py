"""An answer as its model gives it: why it ends, and what it has cost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.answer import Answer, End, Work
from shared.errors import OutOfTime, ProviderFailed
from shared.live import Channel
from shared.models import Finish, Usage
from shared.models.fallback import Candidate, Fallback
from shared.pacing import Pacer, Pacing
from shared.past import Past
from shared.redaction import Redactor, Rules
from tests.simulation.clock import virtual
from tests.simulation.scripted import ASK, DONE, ScriptedModel, Stage

RULES = Rules.from_document({"words": [{"word": "forbidden", "mode": "close", "name": "ban"}]})


@asynccontextmanager
async def begun(*steps: Any, said: str = "", **budget: Any) -> AsyncIterator[Answer]:
    """An answer of a model that takes these steps; the last of them ends it."""
    stage = Stage()
    work = Work(
        past=Past.of([stage.opened]),
        model=Fallback([Candidate("scripted", ScriptedModel(*steps), "scripted")], stage.breakers),
        ask=ASK,
        redactor=Redactor(RULES, secret=b"s"),
        pacing=Pacing(),
        throttle=False,
        **budget,
    )
    answer = Answer(work, Pacer(work.pacing))
    answer.begin(said, Channel())
    while answer.end is None:
        await answer.held.changed.wait()
        answer.held.changed.clear()
    try:
        yield answer
    finally:
        await answer.close()


@pytest.mark.parametrize(
    ("steps", "budget", "end", "reason"),
    [
        (["a", DONE], {}, End.FINISHED, "stop"),
        (["a", Finish("length", None)], {"short": True}, End.FINISHED, "quota"),
        (["abc"], {"chars_max": 2}, End.LENGTH, "length"),
        (["abc"], {"chars_max": 2, "short": True}, End.LENGTH, "quota"),
        (["It is forbidden fruit."], {}, End.POLICY, "policy"),
        (["a"], {}, End.FAILED, None),
        (["a", KeyError("x")], {}, End.FAILED, None),
    ],
)
@virtual
async def test_why_an_answer_ends(steps: Any, budget: Any, end: End, reason: str | None) -> None:
    async with begun(*steps, **budget) as answer:
        assert (answer.end, answer.reason) == (end, reason)
        assert (answer.error is not None) == (end is End.FAILED)


@virtual
async def test_what_came_first_stands_but_for_a_control() -> None:
    async with begun("a", DONE) as answer:
        answer.halt(End.FAILED, OutOfTime())
        assert (answer.end, answer.error) == (End.FINISHED, None)
        assert not answer.over
        answer.halt(End.CANCELLED)
        assert answer.end is End.CANCELLED
        assert answer.over


@virtual
async def test_a_failure_that_a_control_came_after_is_none() -> None:
    async with begun(ProviderFailed("It broke.", code="cut", retryable=True)) as answer:
        assert answer.error
        answer.stop(End.PAUSED)
        assert answer.error is None


@virtual
async def test_an_answer_costs_what_its_model_says_or_what_can_be_seen() -> None:
    async with begun("abcde", DONE) as answer:
        assert answer.usage == Usage(1, 2)
    async with begun("abcde") as answer:
        assert answer.usage == Usage(2, 2, estimated=True)
    async with begun(KeyError("x")) as answer:
        assert answer.usage == Usage(0, 0)
    # The answer so far is sent with the conversation, and the words that ask for more.
    async with begun("abcde", Finish("stop", None), said="x" * 40) as answer:
        assert answer.usage.input_tokens > 2 + 10
