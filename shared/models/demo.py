"""A model that needs nothing: the same ask always gives the same deltas, at a pace you can set.

    demo                             a Markdown answer, at about 50 tokens a second
    demo?tokens=500&rate=0           exactly 500 tokens, as fast as they are taken
    demo?fail_after=120              an upstream failure instead of token 120
    demo?silence_after=40&silence=8  8 s of silence before token 40

Tokens are counted from 0. A token is a word with the white space after it.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

from shared.errors import InvalidRequest, ProviderFailed
from shared.models import Ask, Continuation, Finish, Message, Usage

#: What may stand behind the `?`, and between which bounds.
BOUNDS = {
    "tokens": (1, 100_000),
    "rate": (0, 10_000),  # tokens a second; 0: no pace at all
    "ttft": (0, 60_000),  # milliseconds to the first token
    "fail_after": (0, 100_000),
    "silence_after": (0, 100_000),
    "silence": (0, 600),  # seconds
}

PROMPT_CHARS_MAX = 80

#: Without a pace nothing makes the generator wait, so it gives way of its own accord.
TOKENS_BETWEEN_PAUSES = 64


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a model name asks for."""

    tokens: int | None = None
    rate: int = 50
    ttft: int = 80
    fail_after: int | None = None
    silence_after: int = 0
    silence: int = 0

    def due_s(self, index: int) -> float:
        """When token `index` is due, in seconds from the start; so late tokens add no drift."""
        pace = index / self.rate if self.rate else 0.0
        return self.ttft / 1000 + pace + (self.silence if index >= self.silence_after else 0)


class Demo:
    """The built-in provider, for local runs, tests and first impressions."""

    def validate(self, model: str) -> None:
        _parse(model)

    def continuation(self, model: str) -> Continuation:  # noqa: ARG002
        return Continuation.REPLAY

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        plan = _parse(ask.model)
        tokens = _tokens(_prompt(ask.messages), plan.tokens)
        loop = asyncio.get_running_loop()
        start = loop.time()
        said_chars = 0
        for index in count():
            if said_chars < len(ask.said):
                # Nobody waits for what was said before: the pace is that of the rest.
                start = loop.time() - plan.due_s(index)
            # What comes instead of a token, a failure or the end, is due when the token would be.
            delay = start + plan.due_s(index) - loop.time()
            if delay > 0 or index % TOKENS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(max(delay, 0))
            if index == plan.fail_after:
                raise ProviderFailed(
                    "The demo model failed, as it was asked to.", code="upstream", retryable=True
                )
            token = next(tokens, None)
            if token is None or index == ask.max_tokens:
                usage = Usage(_size(ask.messages), index)
                yield Finish("stop" if token is None else "length", usage)
                return
            said_chars += len(token)
            yield token


def _parse(model: str) -> _Plan:
    name, _, query = model.partition("?")
    if name != "demo":
        raise InvalidRequest("The demo model is called 'demo'.", field="model")
    found: dict[str, int] = {}
    for pair in query.split("&") if query else ():
        key, _, value = pair.partition("=")
        if key not in BOUNDS:
            known = ", ".join(BOUNDS)
            raise InvalidRequest(
                f"The demo model has no parameter {key[:40]!r}; it takes {known}.", field="model"
            )
        if key in found:
            raise InvalidRequest(f"The demo model takes '{key}' only once.", field="model")
        low, high = BOUNDS[key]
        # int() would also take '+5', ' 5', '1_0' and digits of other scripts.
        number = int(value) if re.fullmatch("[0-9]{1,6}", value) else -1
        if not low <= number <= high:
            raise InvalidRequest(
                f"The demo model's '{key}' must be a whole number from {low} to {high}.",
                field="model",
            )
        found[key] = number
    return _Plan(**found)


def _prompt(messages: Iterable[Message]) -> str:
    """The last user message on one line, shortened, such that it can stand between backticks."""
    asked = next((m.content for m in reversed(tuple(messages)) if m.role == "user"), "")
    # More than is kept is looked at, because white space collapses; but not a whole megabyte.
    visible = "".join(
        # U+200D holds many emoji together, though it is no printable character.
        char if char.isprintable() or char == "\u200d" else " "
        for char in asked[: 10 * PROMPT_CHARS_MAX].replace("`", "'")
    )
    line = " ".join(visible.split())
    return line if len(line) <= PROMPT_CHARS_MAX else line[: PROMPT_CHARS_MAX - 1].rstrip() + "…"


def _size(messages: Iterable[Message]) -> int:
    """Input tokens, roughly: words and punctuation marks."""
    return sum(1 for m in messages for _ in re.finditer(r"\w+|[^\w\s]", m.content))


def _tokens(prompt: str, limit: int | None) -> Iterator[str]:
    asked = f"You asked: `{prompt}`" if prompt else "You asked nothing"
    parts: Iterable[str]
    if limit is None:
        parts = [_ANSWER.replace("ASKED", asked)]
    else:
        parts = (
            _SECTION.replace("ASKED", asked).replace("NUMBER", str(number)) for number in count(1)
        )
    return islice((match[0] for part in parts for match in re.finditer(r"\S+\s*", part)), limit)


_ANSWER = """\
## A short tour of a stream 🌊

ASKED. No model has thought about it: this is Sluice's built-in *demo*, which needs no account, \
no key and no network. It always gives the same answer, so that what you see depends only on how \
it travels.

### What happens to every word

1. The model yields a **delta**: a word or two.
2. Deltas that arrive together become one **chunk**, and the chunk is *written* before it is shown.
3. Every reader — first, late or reconnected — sees the same chunks, in the same order. ✅

### Reading along

```python
async for chunk in stream:
    print(chunk.text, end="", flush=True)
```

A lost connection costs nothing: come back with the last number you saw.

| You do | You get | Twice? |
|---|---|---|
| stay connected | every chunk, live | no |
| reconnect | the rest, in order | no |
| poll | the same chunks, a bit later | no |

### Some text that is easy to break

- Grüße aus Zürich, žluťoučký kůň, Ωμέγα
- 東京で雨が降る · 서울 · שלום · مرحبا
- 👩‍💻 wrote it, 🇨🇭 and 👍🏽 are one character each to the eye

That is all. Try `demo?tokens=500&rate=200` for more of it, faster. 🚀
"""

_SECTION = """\
## Section NUMBER

ASKED. This is paragraph NUMBER of the demo, whose every line says that it belongs to NUMBER. 🌊

- Point NUMBER.1 is **short**
- Point NUMBER.2 is *naïve*, as ever ✅

```text
NUMBER: a line of code
```

| Row | Section NUMBER |
|---|---|
| NUMBER.a | 東京 NUMBER |
| NUMBER.b | 👩‍💻 NUMBER |

"""
