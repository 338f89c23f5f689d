"""What is told of readers: one entry a connection, and one or two a session of polls."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.audit import Chain, Event
from shared.audit.trail import Audit
from shared.authority import Caller, actor
from shared.elapsed import elapsed
from shared.errors import Unavailable
from shared.follower import Page
from shared.logger import logger
from shared.metrics import POLLING, SILENT, Metrics
from shared.records import StreamKey

#: After so long without a poll a session is over.
SESSION_S = 300.0
#: How many sessions a process remembers; beyond, the one that has not polled for longest is over.
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


@dataclass(slots=True)
class _Session:
    """What a caller has polled of a stream: from after `start` to `end`; and what was `told`."""

    key: StreamKey
    caller: Caller
    start: int
    end: int
    over_at: float = 0.0
    told: tuple[int, int] | None = None
    polls: int = 0
    #: How many of them the metrics were told of.
    counted: int = 0


class Polls:
    """The sessions of polls that this process serves: each of one caller, on one stream.

    A session is told when it begins, with what its first poll got, and once more with all that it
    got: when it comes to the end of its stream, or after it is over, by the next poll of anyone. So
    a process that ends may leave untold how far a session went that never came to an end. And it
    knows nothing of what others serve: a session has its entries in each that it comes to.
    """

    def __init__(
        self,
        audit: Audit,
        metrics: Metrics = SILENT,
        *,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._audit = audit
        self._metrics = metrics
        self._clock = clock
        #: In the order of their last polls.
        self._sessions: dict[tuple[StreamKey, str, str | None], _Session] = {}

    async def polled(self, key: StreamKey, caller: Caller, after: int, page: Page) -> None:
        """Take note of a poll, and tell what there is to be told."""
        name = (key, caller.identity.credential, caller.identity.user)
        over = self._over(name)
        session = self._sessions.pop(name, None) or _Session(key, caller, after, page.next)
        session.start, session.end = min(session.start, after), max(session.end, page.next)
        session.over_at = self._clock() + SESSION_S
        session.polls += 1
        self._sessions[name] = session
        ends = page.newest.closes and page.newest.seq == page.next
        for each in (*over, session) if ends or session.told is None else over:
            self._count(each)
            if each.told != (each.start, each.end):
                each.told = (each.start, each.end)
                await note_reading(
                    self._audit, each.key, each.caller, Event.POLLED, each.start, each.end
                )

    def _count(self, session: _Session) -> None:
        """Tell the metrics of the polls since the last time."""
        figures = {
            "PollSessions": int(not session.counted),
            "Polls": session.polls - session.counted,
        }
        session.counted = session.polls
        self._metrics.tell(POLLING, figures, **session.key.names)

    def _over(self, name: tuple[StreamKey, str, str | None]) -> list[_Session]:
        """The sessions that are over, of which this poll takes care: its own, and the oldest."""
        full = name not in self._sessions and len(self._sessions) >= SESSIONS_MAX
        oldest = next(iter(self._sessions), name)
        over = []
        for each in dict.fromkeys((name, oldest)):
            session = self._sessions.get(each)
            if session and (full or session.over_at <= self._clock()):
                over.append(self._sessions.pop(each))
        return over
