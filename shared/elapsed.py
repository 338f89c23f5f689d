"""How much time has passed, for what is remembered from one invocation to the next."""

import time
from collections.abc import Callable


class Elapsed:
    """Seconds since it was made: never fewer than before, and those while we were frozen, too.

    Lambda stops an environment between two invocations, and with it the monotonic clock: what is
    to be forgotten after 20 s would be known for 20 s of work, which may be a day. The wall clock
    goes on, but may be set back. So each reading adds what has passed by the one or by the other,
    whichever is more.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clocks = (wall, monotonic)
        self._read = (wall(), monotonic())
        self._passed_s = 0.0

    def __call__(self) -> float:
        before, self._read = self._read, (self._clocks[0](), self._clocks[1]())
        self._passed_s += max(now - then for now, then in zip(self._read, before, strict=True))
        return self._passed_s


#: The one of this process.
elapsed = Elapsed()
