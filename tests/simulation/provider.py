"""What models say: numbered tokens, and now and then what a tenant may not want to be said."""

import asyncio
import random
import string
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from shared.errors import ProviderFailed
from shared.models import Ask, Continuation, Finish, Usage
from tests.simulation.history import History

#: What is masked where a tenant has redaction, by what stands in its place.
SECRETS: Mapping[str, str] = {"[email]": "ann@example.org", "[word]": "classified"}
#: What must not be said at all there.
FORBIDDEN = "forbidden"
#: The rules of such a tenant.
REDACTION = {
    "detectors": {"email": "mask"},
    "words": [{"word": SECRETS["[word]"]}, {"word": FORBIDDEN, "mode": "close", "name": "ban"}],
}


@dataclass
class Script:
    """What a model says when it is asked; `name` is a letter that begins each of its tokens.

    It says each of `asides` after the token of that number, in two deltas. It stops at `most`
    tokens, unless it does not keep to what it was asked.
    """

    name: str
    tokens: int
    delay_s: float
    silence_after: int
    silence_s: float
    fails: bool
    asides: Mapping[int, str]
    most: int | None = None
    #: Whether it came to its end.
    told: bool = False

    @property
    def deltas(self) -> list[str]:
        deltas = []
        for index in range(self.said_tokens):
            # No token has fewer characters than a token is taken to have.
            deltas.append(f"{self.name}{index:02}" + (".\n" if index % 7 == 6 else " "))
            if aside := self.asides.get(index):
                deltas += [aside[:5], f"{aside[5:]} "]
        # The last word is not known to be whole before the end.
        return [*deltas[:-1], deltas[-1].rstrip()] if deltas else []

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def said_tokens(self) -> int:
        return self.tokens if self.most is None else min(self.tokens, self.most)

    @property
    def finish(self) -> Finish:
        cut = self.said_tokens < self.tokens
        return Finish("length" if cut else "stop", Usage(1, self.said_tokens))


class ScriptedProvider:
    """The provider of one run. `rng` gives the dice for a purpose."""

    def __init__(self, history: History, rng: Callable[[str], random.Random]) -> None:
        self.scripts: list[Script] = []
        self._history = history
        self._rng = rng
        self._continuation = rng("continuation").choice(list(Continuation))

    def validate(self, model: str) -> None:
        pass

    def continuation(self, model: str) -> Continuation:
        return self._continuation

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        script = self._script(ask)
        for index, delta in enumerate(script.deltas):
            if index == script.silence_after:
                await asyncio.sleep(script.silence_s)
            if script.delay_s or index % 10 == 0:
                await asyncio.sleep(script.delay_s)
            yield delta
        script.told = True
        if script.fails:
            raise ProviderFailed("The script says so.", code="upstream", retryable=True)
        yield script.finish

    def _script(self, ask: Ask) -> Script:
        """A new one; but whoever replays an answer says the same again."""
        if ask.said and self._continuation is Continuation.REPLAY:
            return next(script for script in self.scripts if script.name == ask.said[0])
        return self._write_script(ask)

    def _write_script(self, ask: Ask) -> Script:
        name = string.ascii_letters[len(self.scripts)]
        dice = self._rng(f"script {name}")
        lengths = (0, 1, 10, 40) if ask.model == "short" else (0, 1, 60, 200, 200, 300)
        script = Script(
            name=name,
            tokens=dice.choice(lengths),
            delay_s=dice.choice((0.0, 0.03, 0.15, 0.3)),
            silence_after=dice.randrange(60),
            silence_s=dice.choice((0.0, 1.0, 12.0, 40.0)),
            fails=dice.random() < 0.15,
            asides={dice.randrange(100): aside for aside in dice.choices(_ASIDES, k=4)},
            most=None if dice.random() < 0.3 else ask.max_tokens,
        )
        self.scripts.append(script)
        self._history.add("provider", "script", script)
        return script


_ASIDES = (*SECRETS.values(), *SECRETS.values(), "of course", "of course", FORBIDDEN)
