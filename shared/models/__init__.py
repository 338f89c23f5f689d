"""Models: one small protocol, one file a provider.

A model is named `provider/name` (`openai/gpt-5`, `bedrock/anthropic.claude-…`); the built-in `demo`
stands alone and takes its settings as a query (`demo?tokens=500&rate=50`).
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, Protocol

from shared.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation. `content` is plain text."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What a provider is asked: `model` is the name without its provider's prefix.

    `said` is the beginning of the answer, where a producer before has come so far.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    said: str = ""


class Continuation(StrEnum):
    """How a model goes on with an answer that another producer has begun."""

    #: The beginning is the model's own last turn, which it completes.
    PREFILL = "prefill"
    #: It is asked, in words, to go on where the beginning ends.
    PROMPT = "prompt"
    #: It says the same again from the start, and what is there already is skipped.
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer. `estimated` where a provider never came to say."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class Finish:
    """The last thing that a provider yields: why the answer ended, and what it cost."""

    reason: Literal["stop", "length", "policy"]
    usage: Usage | None


#: How many models may stand in for the one that is asked for.
FALLBACKS_MAX = 4
#: More than any answer has, and so few that all sums of them can be counted.
TOKENS_MAX = 10**9
#: The rule of thumb for what nobody has counted.
CHARS_A_TOKEN = 4
#: More than any text has that people read.
CHARS_A_TOKEN_MAX = 12


def counted(input_tokens: int, output_tokens: int) -> Usage | None:
    """What a provider says that it has counted. None where that makes no sense: it is no reason to
    lose an answer, and is estimated then.
    """
    least, most = sorted((input_tokens, output_tokens))
    return Usage(input_tokens, output_tokens) if least >= 0 and most <= TOKENS_MAX else None


def estimate(ask: Ask, output_chars: int) -> Usage:
    """Tokens by their characters, where a provider could not say."""
    input_chars = sum(len(message.content) for message in ask.messages)
    return Usage(tokens_of(input_chars), tokens_of(output_chars), estimated=True)


def tokens_of(chars: int) -> int:
    """What so many characters are taken for where nobody has counted."""
    return -(-chars // CHARS_A_TOKEN)


_GO_ON = (
    "Your answer was cut off. Go on exactly where it ends, even in the middle of a word. "
    "Repeat nothing of it, and say nothing about the interruption. If it was whole, say nothing."
)


def continued(ask: Ask, how: Continuation) -> Ask:
    """What a model is asked so that it goes on behind what was `said`."""
    if not ask.said or how is Continuation.REPLAY:
        return ask
    left = ask.max_tokens
    if left is not None:
        left = max(left - tokens_of(len(ask.said)), 1)
    turns = [Message("assistant", ask.said)]
    if how is Continuation.PROMPT:
        turns.append(Message("user", _GO_ON))
    return replace(ask, messages=(*ask.messages, *turns), max_tokens=left)


class Provider(Protocol):
    """Turns a request into deltas.

    `stream` yields each delta as a non-empty `str` as soon as it is there, and exactly one `Finish`
    as its last item. `aclose()` on the generator stops the upstream at once and frees what it
    holds. Every failure is raised as `ProviderFailed`; nothing blocks the event loop.
    """

    def validate(self, model: str) -> None:
        """Raise `InvalidRequest` (field `model`) where this provider cannot serve `model`."""
        ...

    def continuation(self, model: str) -> Continuation:
        """How `model` goes on with an answer. `stream` is asked as `continued` says."""
        ...

    def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]: ...


class Models:
    """The providers of a deployment, by their prefix."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = dict(providers)

    def resolve(self, model: str) -> tuple[Provider, str]:
        """The provider for a full model name, and the name it knows the model by.

        Raises `InvalidRequest` with field `model` when nothing here serves it.
        """
        prefix, slash, name = model.partition("/")
        if not slash:
            prefix, name = model.partition("?")[0], model
        provider = self._providers.get(prefix)
        if provider is None:
            known = " or ".join(f"`{name}`" for name in sorted(self._providers))
            raise InvalidRequest(
                f"There is no model '{model[:100]}' here. Names begin with {known}.", field="model"
            )
        provider.validate(name)
        return provider, name
