"""A model whose every delta says when it was made.

The time is that of the monotonic clock, which all processes of a machine share on Linux. So the
client subtracts, and no answer has to be matched with a log of its producer.
"""

import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from shared.models import Ask, Continuation, Finish
from shared.models.demo import Demo

_STAMP = re.compile(r"@(\d{6,});")


class Stamped:
    """The demo model with a stamp before each token; what follows it ends as before."""

    def __init__(self) -> None:
        self._demo = Demo()

    def validate(self, model: str) -> None:
        self._demo.validate(model)

    def continuation(self, model: str) -> Continuation:
        return self._demo.continuation(model)

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        async with aclosing(self._demo.stream(ask)) as deltas:
            async for delta in deltas:
                if isinstance(delta, Finish):
                    yield delta
                else:
                    yield f"@{time.monotonic_ns()};{delta}"


def stamps(text: str) -> list[int]:
    """When each delta of a text was made, in ns."""
    return [int(stamp) for stamp in _STAMP.findall(text)]
