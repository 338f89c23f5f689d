"""How long nobody has used what a provider keeps of connections."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.elapsed import elapsed

#: As long as httpx keeps an idle connection by its own clock, which stands still while Lambda has
#: frozen us: meanwhile the other side ends it, or the network forgets it, and nothing here tells.
KEPT_S = 5.0


class Idle:
    """Of one provider. `clock` tells how much time has passed, in s, that of a freeze included."""

    def __init__(self, clock: Callable[[], float] = elapsed) -> None:
        self._clock = clock
        self._users = 0
        self._since = clock()

    @contextmanager
    def used(self) -> Iterator[bool]:
        """Meanwhile they are used. Whether those that are kept are too old for that."""
        stale = not self._users and self._clock() - self._since > KEPT_S
        self._users += 1
        try:
            yield stale
        finally:
            self._users -= 1
            self._since = self._clock()
