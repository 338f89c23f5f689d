"""The core without I/O: what to ask next, what became of it, how long to wait.

A machine is driven like this, by the few lines of `sync.py` and of `aio.py`:

    machine.begin()
    while step := machine.next():
        Wait: wait so long
        Ask:  send it; began(status, headers), received(bytes)… while it listens, ended()
              or lost(how, error), wherever the connection broke

and hands out its events by `drain()` at any time between; some may be left from before `begin()`.
Clock and chance are given to it.
"""

import json
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from sluice_client.errors import GaveUp, NotSluice, Refused, SluiceError, Unreachable
from sluice_client.events import Event, Reconnecting

#: A reply that is no stream. A page of a poll has at most 512 Ki characters of text, as JSON.
REPLY_BYTES_MAX = 8 * 1024 * 1024
#: What passes by itself; other refusals stay what they are.
_TEMPORARY = frozenset({"unavailable", "busy", "limit-exceeded", "idempotency-in-flight"})
_PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Times:
    """How long to wait for what, in seconds."""

    #: For a connection.
    connect_s: float = 10.0
    #: For the first bytes of a stream, before it counts as held back by something in between.
    first_byte_s: float = 4.0
    #: For the next bytes. The server breaks every silence after 15 s.
    silence_s: float = 40.0
    #: For a reply that is no stream; functions have 29 s for it.
    reply_s: float = 35.0
    #: For the next text, by the server, before it answers a poll with nothing.
    poll_s: int = 10
    #: For a server of which nothing was ever heard.
    unheard_s: float = 5.0
    #: Before the next try, at most: after the first failure, and twice that after each further one.
    backoff_s: float = 0.5
    backoff_max_s: float = 8.0
    #: Polling, before streaming is tried again; each time that it is held back again, twice that.
    stream_again_s: float = 20.0
    stream_again_max_s: float = 320.0


TIMES = Times()


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send. `streams` are those that are served where streams are; of their replies
    the first bytes have to come within `first_byte_s`, and of each the next within `silence_s`.
    """

    method: str
    path: str
    first_byte_s: float
    silence_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    streams: bool = False
    #: The credential is to be asked for anew first.
    renews: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


class Lost(Enum):
    """How a connection ended before its time."""

    UNREACHED = "there is no connection to the server"
    SILENT = "nothing came for too long"
    CUT = "the connection was lost"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is no stream, whole. `headers` are looked up by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises ValueError."""
        return json.loads(self.body)

    @property
    def problem(self) -> Mapping[str, Any] | None:
        """The problem details that Sluice refuses with; None where somebody else speaks."""
        if not self.headers.get("content-type", "").startswith(_PROBLEM):
            return None
        try:
            problem = self.json()
        except ValueError:
            return None
        return problem if isinstance(problem, dict) else None

    @property
    def retry_after_s(self) -> float | None:
        value = self.headers.get("retry-after", "")
        if value.isascii() and value.isdigit():
            return float(value)
        # Proxies name a moment, too. It is counted by their clock: ours may be wrong.
        try:
            until, now = (
                parsedate_to_datetime(moment) for moment in (value, self.headers.get("date", ""))
            )
            return max((until - now).total_seconds(), 0.0)
        except (ValueError, TypeError):
            return None

    @property
    def refusal(self) -> Refused:
        return Refused(self.problem or {}, self.status, self.retry_after_s)

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may pass later."""
        if self.problem is None:
            return self.status in (408, 429) or self.status >= 500
        # A stream's own failure is told again with its status, for ever: then not `retryable`.
        return self.refusal.retryable and self.refusal.type in _TEMPORARY


class Passage:
    """What a client knows of the way to its server. Shared by all that it asks."""

    def __init__(self, times: Times) -> None:
        self._times = times
        #: Whether Sluice has ever answered.
        self.heard = False
        #: Whether streams come through: the first bytes of one have, and none was silent since.
        self.streams = False
        self._held_until = -math.inf
        self._again_s = times.stream_again_s

    def opened(self) -> None:
        """The first bytes of a stream are here."""
        self.heard = self.streams = True
        self._again_s = self._times.stream_again_s
        self._held_until = -math.inf

    def holds_back(self, now: float) -> None:
        """A stream has brought nothing: something in between waits for its end, or refuses it."""
        self.streams = False
        self._held_until = now + self._again_s
        self._again_s = min(self._again_s * 2, self._times.stream_again_max_s)

    def held(self, now: float) -> bool:
        """Whether to poll; after a while streaming is worth another try."""
        return now < self._held_until


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all machines of a client work under. `retry_s` is the time without a sign of life after
    which they give up; `chance` is between 0 and 1; `renewable` whether a credential can be asked
    for anew.
    """

    times: Times
    passage: Passage
    retry_s: float
    renewable: bool
    clock: Callable[[], float]
    chance: Callable[[], float]


class Machine(ABC):
    """What every exchange has: replies gathered, failures waited out, a credential renewed."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self._times = conditions.times
        self._passage = conditions.passage
        self._not_before = -math.inf
        self._failures = 0
        self._failing_since: float | None = None
        self._error: SluiceError | None = None
        self._cause: BaseException | None = None
        #: The credential is asked for anew with the next request; it was, for the last one.
        self._renews = self._renewed = False
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._body = bytearray()
        self._out: deque[Event] = deque()
        #: Whether the rest of the reply is of interest.
        self.listens = True

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether there is nothing more to ask."""

    @abstractmethod
    def _ask(self) -> Ask:
        """The next request."""

    @abstractmethod
    def _answered(self, reply: Reply) -> None:
        """A whole reply is there."""

    def begin(self) -> None:
        """Ask, or go on asking after having given up."""
        self._error = self._cause = None
        self._failures, self._failing_since = 0, None
        self._renewed = False
        self.wake()

    def next(self) -> Ask | Wait | None:
        """What to do next; None when all is done. Raises the error that ended it."""
        if self._error:
            raise self._error from self._cause
        if self.over:
            return None
        wait_s = self._not_before - self.conditions.clock()
        if wait_s > 0:
            return Wait(wait_s)
        self._body, self.listens = bytearray(), True
        ask = self._ask()
        if self._renews:
            self._renews, self._renewed = False, True
            return replace(ask, renews=True)
        return ask

    def began(self, status: int, headers: Mapping[str, str]) -> None:
        """A reply has begun. `headers` are looked up by their names in lower case."""
        self._status, self._headers = status, headers

    def received(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > REPLY_BYTES_MAX:
            self.listens = False

    def ended(self) -> None:
        """The reply is whole, or nobody listens any more."""
        if self.listens:
            self._answered(Reply(self._status, self._headers, bytes(self._body)))
        else:
            self._foreign(f"the reply is over {REPLY_BYTES_MAX} bytes")

    def lost(self, how: Lost, error: Exception) -> None:
        """The connection broke, at any moment after `next`."""
        self._failed(how.value, cause=error, reached=how is not Lost.UNREACHED)

    def drain(self) -> Iterator[Event]:
        """The events since the last time. What is not taken stays."""
        while self._out:
            yield self._out.popleft()

    def wake(self) -> None:
        """Ask at once, whatever was to be waited for."""
        self._not_before = -math.inf

    def _alive(self) -> None:
        """A sign of life: failures are counted anew."""
        self._passage.heard = True
        self._renewed = False
        self._failures, self._failing_since = 0, None

    def _rest(self, seconds: float) -> None:
        """Wait as the server wants it: no failure."""
        self._not_before = self.conditions.clock() + seconds

    def _refused(self, reply: Reply) -> None:
        """A reply that is not what was asked for."""
        if reply.status == 401 and self.conditions.renewable and not self._renewed:
            self._renews = True
        elif reply.is_temporary:
            self._failed(
                str(reply.refusal).rstrip("."), cause=reply.refusal, at_least_s=reply.retry_after_s
            )
        elif reply.problem is not None:
            self._passage.heard = True
            self._error = reply.refusal
        else:
            self._foreign(f"it answers {reply.status}")

    def _foreign(self, why: str) -> None:
        """Somebody else speaks. Where Sluice has been heard before, that may pass."""
        error = NotSluice(
            f"What answers is not Sluice: {why}. Look at the address, and for a proxy."
        )
        if self._passage.heard:
            self._failed(why, cause=error)
        else:
            self._error = error

    def _failed(
        self,
        why: str,
        *,
        cause: Exception | None = None,
        at_least_s: float | None = None,
        reached: bool = True,
    ) -> None:
        """Try again after a while, longer each time; or give up."""
        now = self.conditions.clock()
        if self._failing_since is None:
            self._failing_since = now
        unheard = not (reached or self._passage.heard)
        times, budget_s = self._times, self.conditions.retry_s
        if unheard:
            budget_s = min(budget_s, times.unheard_s)
        left_s = self._failing_since + budget_s - now
        least_s = at_least_s or 0.0
        most_s = min(times.backoff_s * 2.0 ** min(self._failures, 10), times.backoff_max_s)
        self._failures += 1
        if left_s > least_s:
            delay_s = min(max(self.conditions.chance() * most_s, least_s), left_s)
            self._rest(delay_s)
            self._out.append(Reconnecting(self._failures, delay_s, why))
        elif isinstance(cause, Refused) and least_s > budget_s:
            self._error = cause  # it says itself when to come again
        elif unheard:
            reason = f" ({cause})" if str(cause or "") else ""
            self._error, self._cause = Unreachable(_UNREACHABLE.format(reason)), cause
        else:
            gave_up = f"No sign of life within {budget_s:g} s ({why}). {_GO_ON}"
            self._error, self._cause = GaveUp(gave_up), cause


_UNREACHABLE = "Nothing answers at this address{}. Look whether it is right, and whether it runs."
_GO_ON = "Ask again to go on."
