import asyncio
import re
import selectors
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from shared.errors import InvalidRequest
from shared.models import Ask, Finish, Message, Usage
from shared.models.demo import BOUNDS, PROMPT_CHARS_MAX, Demo
from tests.shared.models.asking import ask, collect, until_failure

T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    """Waiting takes no time here: the clock jumps to whatever is due next."""

    def __init__(self) -> None:
        self.now = 1000.0
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop.now += timeout or 0
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def jump(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


async def timed(model: str, max_tokens: int | None = None) -> list[tuple[float, str | Finish]]:
    """Each item of an answer, with the seconds from the start at which it came."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    return [
        (round(loop.time() - start, 6), item)
        async for item in Demo().stream(ask(model=model, max_tokens=max_tokens))
    ]


def plain(prompt: str = "Why is the sky blue?") -> str:
    deltas, finish = jump(collect(Demo(), ask(prompt, "demo")))
    assert finish.reason == "stop"
    return "".join(deltas)


def outside_code(markdown: str) -> Iterator[str]:
    fenced = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield line
    assert not fenced, "a fence is left open"


def assert_well_formed(markdown: str) -> None:
    lines = list(outside_code(markdown))
    for line in lines:
        assert line.count("`") % 2 == 0, line
        assert re.sub("`[^`]*`", "", line).count("*") % 2 == 0, line
    rows = [(i, line.count("|")) for i, line in enumerate(lines) if line.startswith("|")]
    for (i, cells), (j, more_cells) in pairwise(rows):
        assert j > i + 1 or cells == more_cells, lines[j]


def test_the_plain_answer_is_well_formed_markdown() -> None:
    text = plain()
    assert_well_formed(text)
    assert "`Why is the sky blue?`" in text
    assert re.search(r"^## ", text, re.MULTILINE)
    assert re.search(r"^- ", text, re.MULTILINE)
    assert "\n```python\n" in text
    assert "\n|---|---|---|\n" in text
    for whole in ("🌊", "👩\u200d💻", "🇨🇭", "👍🏽", "žluťoučký kůň", "東京"):
        assert whole in text


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " \n ",
        "```\ncode\n```",
        "| a | b |\n|---|",
        "**bold `and* <script>alert(1)</script>",
        "\u202e\x00\x1b[31m\ud83d",
        "x" * 1_000_000,
        "`" * 81,
        "👩\u200d💻 " * 50,
    ],
    ids=str.__len__,
)
def test_no_prompt_breaks_the_markdown(prompt: str) -> None:
    text = plain(prompt)
    assert_well_formed(text)
    text.encode()
    first = text.split("\n")[2]
    assert len(first.partition(". No model")[0]) <= PROMPT_CHARS_MAX + len("You asked: ``")
    assert "\x1b" not in text
    assert "\x00" not in text


def test_the_last_user_message_is_the_prompt() -> None:
    messages = (
        Message("system", "be nice"),
        Message("user", "first"),
        Message("assistant", "yes?"),
        Message("user", "second, please"),
    )
    deltas, finish = jump(collect(Demo(), Ask("demo", messages)))
    assert "`second, please`" in "".join(deltas)
    assert finish.usage == Usage(2 + 1 + 2 + 3, len(deltas))


@pytest.mark.parametrize("tokens", [1, 2, 39, 500, 5000])
async def test_as_many_tokens_as_asked_for(tokens: int) -> None:
    deltas, finish = await collect(Demo(), ask(model=f"demo?tokens={tokens}&rate=0&ttft=0"))
    assert len(deltas) == tokens
    assert finish == Finish("stop", Usage(2, tokens))


async def test_a_long_answer_counts_its_sections() -> None:
    deltas, _ = await collect(Demo(), ask(model="demo?tokens=5000&rate=0&ttft=0"))
    text = "".join(deltas)
    sections = text.split("\n## Section ")
    assert len(sections) > 50
    assert len(set(sections)) == len(sections)
    assert_well_formed("\n## Section ".join(sections[:-1]))
    lines = [line for line in text.splitlines() if line and line[:3] not in ("```", "|--")]
    assert len(set(lines)) == len(lines), "two lines cannot be told apart"


async def test_the_same_ask_gives_the_same_deltas() -> None:
    asked = ask(model="demo?tokens=300&rate=0&ttft=0")
    one, other = await collect(Demo(), asked), await collect(Demo(), asked)
    assert one == other
    shorter, _ = await collect(Demo(), ask(model="demo?tokens=200&rate=0&ttft=0"))
    assert one[0][:200] == shorter
    different, _ = await collect(Demo(), ask("Else", model="demo?tokens=300&rate=0&ttft=0"))
    assert different != one[0]


@pytest.mark.parametrize(
    ("max_tokens", "reason", "said"),
    [(1, "length", 1), (9, "length", 9), (10, "stop", 10), (11, "stop", 10)],
)
async def test_max_tokens(max_tokens: int, reason: str, said: int) -> None:
    asked = ask(model="demo?tokens=10&rate=0&ttft=0", max_tokens=max_tokens)
    deltas, finish = await collect(Demo(), asked)
    assert (len(deltas), finish.reason) == (said, reason)


def test_each_token_comes_when_it_is_due() -> None:
    items = jump(timed("demo?tokens=5&rate=10&ttft=200"))
    assert [at for at, _ in items] == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_silence_moves_everything_after_it() -> None:
    items = jump(timed("demo?tokens=4&rate=10&ttft=0&silence_after=2&silence=8"))
    assert [at for at, _ in items] == [0, 0.1, 8.2, 8.3, 8.4]


def test_a_slow_consumer_adds_no_drift() -> None:
    async def dawdle() -> list[float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        seen = []
        async for _ in Demo().stream(ask(model="demo?tokens=20&rate=10&ttft=0")):
            seen.append(round(loop.time() - start, 6))
            if len(seen) == 1:
                await asyncio.sleep(1)
        return seen

    seen = jump(dawdle())
    assert seen[1:11] == [1.0] * 10  # those that became due meanwhile, at once
    assert seen[11:] == [round(n / 10, 6) for n in range(11, 21)]


@pytest.mark.parametrize("fail_after", [0, 1, 7, 10])
async def test_a_failure_after_so_many_tokens(fail_after: int) -> None:
    asked = ask(model=f"demo?tokens=10&rate=0&ttft=0&fail_after={fail_after}")
    failure, said = await until_failure(Demo().stream(asked))
    assert len(said) == fail_after
    assert (failure.code, failure.retryable) == ("upstream", True)


async def test_without_a_pace_it_still_gives_way() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    await collect(Demo(), ask(model="demo?tokens=10000&rate=0&ttft=0"))
    ticker.cancel()
    assert ticks > 100


@pytest.mark.parametrize("name", BOUNDS)
def test_every_parameter_has_bounds(name: str) -> None:
    low, high = BOUNDS[name]
    for good in (low, high):
        Demo().validate(f"demo?{name}={good}")
    for bad in (low - 1, high + 1, "", "x", "1.5", "+1", "1_0", " 1", "٣", "1e3", "9" * 5000):
        with pytest.raises(InvalidRequest) as caught:
            Demo().validate(f"demo?{name}={bad}")
        assert caught.value.extensions["field"] == "model"
        for part in (f"'{name}'", str(low), str(high)):
            assert part in caught.value.detail


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("demon", "demo"),
        ("demo?speed=1", "'speed'"),
        ("demo?speed=1", "tokens, rate"),
        ("demo?tokens=1&tokens=1", "'tokens'"),
        ("demo?tokens", "'tokens'"),
        ("demo?tokens=1&", "''"),
        ("demo?" + "x" * 5000, "'xxxx"),
    ],
)
def test_models_that_it_has_not(model: str, named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Demo().validate(model)
    assert named in caught.value.detail
    assert len(caught.value.detail) < 200


async def test_closing_ends_it() -> None:
    async with aclosing(Demo().stream(ask(model="demo?ttft=60000"))) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)
