"""How models go on with an answer that was begun."""

import asyncio
from dataclasses import replace

import pytest

from shared.models import Ask, Continuation, Message, Usage, continued
from shared.models.bedrock import Bedrock
from shared.models.demo import Demo
from shared.models.openai import OpenAI
from tests.shared.models.asking import ask, collect
from tests.simulation.clock import virtual

QUESTION = Message("user", "Count.")
BEGUN = Ask("m", (QUESTION,), max_tokens=100, said="One, two, t")


def test_a_new_answer_is_asked_for_as_it_is() -> None:
    asked = replace(BEGUN, said="")
    assert all(continued(asked, how) == asked for how in Continuation)


def test_a_prefill_ends_with_what_was_said() -> None:
    asked = continued(BEGUN, Continuation.PREFILL)
    assert asked.messages == (QUESTION, Message("assistant", "One, two, t"))
    assert asked.max_tokens == 97


def test_a_prompt_asks_in_words() -> None:
    asked = continued(BEGUN, Continuation.PROMPT)
    assert asked.messages[:2] == (QUESTION, Message("assistant", "One, two, t"))
    assert asked.messages[2].role == "user"
    assert asked.max_tokens == 97


def test_a_replay_has_all_that_the_answer_had() -> None:
    assert continued(BEGUN, Continuation.REPLAY) == BEGUN


def test_there_is_a_token_left_to_end_with() -> None:
    asked = continued(replace(BEGUN, max_tokens=2), Continuation.PROMPT)
    assert asked.max_tokens == 1
    assert continued(replace(BEGUN, max_tokens=None), Continuation.PROMPT).max_tokens is None


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ("anthropic.claude-3-5-sonnet-20240620-v1:0", "prefill"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", "prefill"),
        ("anthropic.claude-opus-4-1-20250805-v1:0", "prefill"),
        ("global.anthropic.claude-haiku-4-5-20251001-v1:0", "prefill"),
        ("us.anthropic.claude-opus-4-6-v1", "prompt"),
        ("anthropic.claude-sonnet-4-6", "prompt"),
        ("anthropic.claude-sonnet-5", "prompt"),
        ("amazon.nova-lite-v1:0", "prompt"),
    ],
)
def test_claude_completes_a_turn_of_its_own_up_to_4_5(model: str, how: str) -> None:
    assert Bedrock((model,), region="us-east-1").continuation(model) == how


def test_of_an_upstream_nobody_knows_whether_it_completes() -> None:
    assert OpenAI("http://127.0.0.1:9/v1", "").continuation("m") is Continuation.PROMPT


@virtual
async def test_the_demo_says_at_once_what_was_said_and_then_keeps_its_pace() -> None:
    loop = asyncio.get_running_loop()
    asked = ask(model="demo?tokens=100&rate=10&silence_after=20&silence=30")
    whole, _ = await collect(Demo(), asked)
    took_s = loop.time()
    said = "".join(whole[:60])
    again, finish = await collect(Demo(), replace(asked, said=said))
    assert again == whole
    assert finish.usage == Usage(finish.usage.input_tokens if finish.usage else 0, 100)
    assert loop.time() - took_s == pytest.approx(4.0, abs=0.2)
