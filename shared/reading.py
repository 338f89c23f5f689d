"""What is told of readers: one entry a connection, and one a session of polls."""

import time
from collections.abc import Callable

from shared.audit import Chain, Event
from shared.audit.trail import Audit
from shared.authority import Caller, actor
from shared.errors import Unavailable
from shared.follower import Page
from shared.logger import logger
from shared.records import StreamKey

#: After so long without a poll the next one begins a new session.
SESSION_S = 300.0
#: How many sessions a process remembers; who is forgotten is told of again.
SESSIONS_MAX = 1000


async def note_reading(
    audit: Audit, key: StreamKey, caller: Caller, event: Event, start: int, end: int
) -> None:
    """Say that a caller has read a stream from after `start` to `end`.

    What was read cannot be taken back, so where the store does not answer the log has to do.
    """
    entry = audit.entry(
        Chain.of(key),
        event,
        actor(caller),
        details={"from": start, "to": end},
        retention_days=caller.tenant.policy.audit_retention_days,
    )
    try:
        await audit.append(entry)
    except Unavailable:
        logger.error("audit lost", extra={"event": event, "stream": key.stream})


class Polls:
    """The sessions of polls that this process serves: of one caller, on one stream.

    A session is told when it begins, and when it has come to the end of its stream. A process knows
    nothing of what others serve, so a session has an entry or two of each that it comes to.
    """

    def __init__(self, audit: Audit, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._clock = clock
        self._sessions: dict[tuple[StreamKey, str, str | None], float] = {}

    async def polled(self, key: StreamKey, caller: Caller, after: int, page: Page) -> None:
        """Tell of a poll, where it begins or ends a session."""
        name = (key, caller.identity.credential, caller.identity.user)
        begins = self._clock() >= self._sessions.pop(name, 0.0)
        ends = page.newest.closes and page.newest.seq == page.next
        if begins or (ends and page.next > after):
            await note_reading(self._audit, key, caller, Event.POLLED, after, page.next)
        if len(self._sessions) >= SESSIONS_MAX:
            self._sessions.pop(next(iter(self._sessions)))
        self._sessions[name] = self._clock() + SESSION_S
