"""Circuit breakers: which models are not asked for a while, known to the whole fleet.

    closed ── failures ──▶ open ── its cool-down is over ──▶ half-open: one call probes
      ▲                     ▲                                    │
      └─── it answers ──────┴──────────── it fails ──────────────┘

Each model has one small item in the tenants' table, if it has ever failed. Every transition raises
the item's `generation` and is written on the generation that it was decided on. So of all processes
one opens a breaker and one probes, and what a call of an earlier generation tells is dropped.

Half-open needs no attribute: who probes sets the breaker open for the time that a probe may take. A
prober that dies leaves an open breaker, which the next one finds half-open again.

A breaker must not make things worse: where the store fails or is slow, calls pass.
"""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from types import TracebackType
from typing import Self

from shared.errors import Unavailable
from shared.logger import logger
from shared.metrics import BREAKER, SILENT, Metrics
from shared.records import Item
from shared.schema import TENANTS
from shared.table import Put, Store, Update, Write

#: A breaker opens after so many failures within a window, if they are half of its calls or more.
FAILURES_MIN = 5
#: How long a window is; and how long where it has so many calls.
WINDOW_S = 60.0
WINDOW_BUSY_S = 20.0
CALLS_BUSY = 20
#: For how long a model's item is not read again.
CACHE_S = 5.0
#: Only then have all processes heard of a window, and told their successes.
JUDGED_AFTER_S = 2 * CACHE_S
#: How long a breaker is open: it doubles with each probe that fails. Up to a fifth is taken off.
COOLDOWN_MIN_S = 10.0
COOLDOWN_MAX_S = 120.0
#: A first token later than this counts as a failure. Models that think long need more.
SLOW_FIRST_TOKEN_S = 30.0
#: What a probe may take beyond that to tell its outcome; then the next call may probe.
PROBE_MARGIN_S = 10.0
#: What the store may take of a call's time, each time that it is asked.
STORE_S = 0.5
#: How often a failure is counted again after the item has changed meanwhile.
COUNT_TRIES_MAX = 3
#: How many models' items are remembered.
CACHE_MODELS_MAX = 1000
#: No call runs as long as an item stays after its last change: a generation is never met again.
RETENTION_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class State:
    """What an item holds of its model. Times are in ms since 1970."""

    generation: int = 0
    #: 0 while it is closed.
    open_until: int = 0
    #: How many times in a row it has opened.
    opens: int = 0
    #: Who probes, while one does.
    prober: str = ""
    #: The window of the counts: it begins with a failure, and nothing is counted without one.
    since: int = 0
    calls: int = 0
    failures: int = 0

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**{f.name: item[f.name] for f in fields(cls) if f.name in item})  # type: ignore[arg-type]

    def counts_at(self, now_ms: int) -> bool:
        """Whether a window is under way."""
        length_s = WINDOW_BUSY_S if self.calls >= CALLS_BUSY else WINDOW_S
        return self.since <= now_ms < self.since + length_s * 1000

    def fails_at(self, now_ms: int) -> bool:
        """Whether the window shows a model that does not work."""
        judged = now_ms >= self.since + JUDGED_AFTER_S * 1000
        return judged and self.failures >= FAILURES_MIN and 2 * self.failures >= self.calls

    def opened(self, now_ms: int) -> Self:
        cooldown_s = min(COOLDOWN_MIN_S * 2 ** min(self.opens, 10), COOLDOWN_MAX_S)
        cooldown_s *= random.uniform(0.8, 1)  # noqa: S311 (jitter, not a secret)
        return type(self)(
            self.generation + 1, now_ms + int(cooldown_s * 1000), opens=self.opens + 1
        )


_CHANGED = {"BreakerChanges": 1}
#: Also where there is no item: an item has a window or a generation.
_NEW = State()


class Breakers:
    """The breakers of all models, by their full names. `now` is the wall clock in seconds."""

    def __init__(
        self,
        store: Store,
        *,
        slow_first_token_s: float = SLOW_FIRST_TOKEN_S,
        now: Callable[[], float] = time.time,
        metrics: Metrics = SILENT,
    ) -> None:
        self.slow_first_token_s = slow_first_token_s
        self._metrics = metrics
        self._store = store
        self._now = now
        #: By model, what its item was when it was read or written last, and when that was.
        self._known: dict[str, tuple[float, State]] = {}
        self._reading: dict[str, asyncio.Task[State]] = {}

    async def wait_s(self, model: str) -> float:
        """In how many seconds a call may pass; 0 where it may now, as far as is known."""
        state = await self._state(model)
        left_s = max(state.open_until / 1000 - self._now(), 0.0)
        # The end of a probe comes sooner, as a rule, than the end of the time that it may take.
        return min(left_s, CACHE_S) if state.prober else left_s

    async def admit(self, model: str) -> "Call | None":
        """A call, which must be closed; None while the breaker is open."""
        state = await self._state(model)
        if state.open_until and state.open_until <= self._now_ms():
            return await self._probe(model, state)
        return None if state.open_until else Call(self, model, state)

    async def _probe(self, model: str, state: State) -> "Call | None":
        """Be the one that probes."""
        me = secrets.token_hex(8)
        until = self._now_ms() + int((self.slow_first_token_s + PROBE_MARGIN_S) * 1000)
        probing = replace(state, generation=state.generation + 1, open_until=until, prober=me)
        async with _harmlessly():
            state = await self._change(model, state, probing)
            if state.prober == me:  # or already was, when the first reply was lost
                return Call(self, model, state, probe=True)
        # Where the store did not answer, its cool-down is over all the same.
        passes = state.open_until <= self._now_ms()
        return Call(self, model, state) if passes else None

    async def answered(self, call: "Call") -> None:
        """Count a success, which is worth a write only where there are failures beside it."""
        async with _harmlessly():
            state = self._latest(call)
            if call.probe:
                closed = State(call.state.generation + 1)
                if await self._change(call.model, call.state, closed) == closed:
                    logger.info("breaker closed", extra={"model": call.model})
                    self._metrics.tell(BREAKER, _CHANGED, model=call.model, state="closed")
            elif state.generation == call.state.generation and state.counts_at(self._now_ms()):
                await self._write(call.model, self._counting(call.model, state, calls=1))

    async def failed(self, call: "Call", *, after_answer: bool) -> None:
        """Count a failure, and open the breaker where it is one too many."""
        async with _harmlessly():
            if call.probe:
                await self._open(call.model, call.state)
            elif await self._count_failure(call, calls=0 if after_answer else 1):
                state = await self._read(call.model)
                if state.fails_at(self._now_ms()):
                    await self._open(call.model, state)

    async def unanswered(self, call: "Call") -> None:
        """Give a probe back that has shown nothing."""
        async with _harmlessly():
            generation = call.state.generation + 1
            free = replace(call.state, generation=generation, open_until=self._now_ms(), prober="")
            await self._change(call.model, call.state, free)

    async def _open(self, model: str, state: State) -> None:
        opened = state.opened(self._now_ms())
        if await self._change(model, state, opened) == opened:
            open_s = opened.open_until / 1000 - self._now()
            logger.warning("breaker opened", extra={"model": model, "open_s": round(open_s)})
            self._metrics.tell(BREAKER, _CHANGED, model=model, state="opened")

    async def _count_failure(self, call: "Call", calls: int) -> bool:
        """False where it does not count: the call is of an earlier generation."""
        state = self._latest(call)
        for _ in range(COUNT_TRIES_MAX):
            if state.generation != call.state.generation:
                return False
            write = self._counting(call.model, state, calls=calls, failures=1)
            held = await self._write(call.model, write)
            if held is None:
                return True
            state = held
        return False

    def _counting(self, model: str, state: State, *, calls: int, failures: int = 0) -> Write:
        """The write that adds to the window under way, or begins one."""
        where: Item = {"generation": state.generation, "since": state.since}
        if state.counts_at(self._now_ms()):
            add = {"calls": calls, "failures": failures}
            return Update(TENANTS, _key(model), set=self._expiry(), add=add, where=where)
        begun = replace(state, since=self._now_ms(), calls=calls, failures=failures)
        item = asdict(begun) | self._expiry()
        if state == _NEW:
            return Put(TENANTS, _key(model) | item)
        return Update(TENANTS, _key(model), set=item, where=where)

    async def _change(self, model: str, before: State, after: State) -> State:
        """Move on from a generation, unless somebody else has. Returns what the item is now."""
        item = asdict(after) | self._expiry()
        where: Item = {"generation": before.generation}
        held = await self._write(model, Update(TENANTS, _key(model), set=item, where=where))
        if held is None:
            self._learn(model, after)
        return held or after

    async def _write(self, model: str, write: Write) -> State | None:
        """None when written; else what the item is."""
        held = await self._store.write(write)
        return None if held is None else self._learn(model, State.from_item(held))

    async def _state(self, model: str) -> State:
        read_at, state = self._known.get(model, (0.0, _NEW))
        if 0 <= self._now() - read_at < CACHE_S:
            return state
        reading = self._reading.get(model)
        if reading is None:
            reading = self._reading[model] = asyncio.create_task(self._refreshed(model, state))
        return await asyncio.shield(reading)

    async def _refreshed(self, model: str, state: State) -> State:
        try:
            async with _harmlessly():
                return await self._read(model)
            return self._learn(model, state)  # so that it is not asked again at once
        finally:
            del self._reading[model]

    async def _read(self, model: str) -> State:
        item = await self._store.get(TENANTS, _key(model))
        return self._learn(model, State.from_item(item or {}))

    def _latest(self, call: "Call") -> State:
        return self._known.get(call.model, (0.0, call.state))[1]

    def _learn(self, model: str, state: State) -> State:
        self._known.pop(model, None)
        if len(self._known) >= CACHE_MODELS_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[model] = (self._now(), state)
        return state

    def _expiry(self) -> Item:
        return {"expires_at": int(self._now()) + RETENTION_S}

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


class Call:
    """A call that a breaker let through. It tells what becomes of it, and nobody waits for that.

    An async context, whose end waits until all is told: at most `STORE_S`.
    """

    def __init__(
        self, breakers: Breakers, model: str, state: State, *, probe: bool = False
    ) -> None:
        self.model = model
        #: The item's state when it was let through.
        self.state = state
        self.probe = probe
        self._breakers = breakers
        self._answered = False
        self._failed = False
        self._told: list[asyncio.Task[None]] = []

    def answered(self) -> None:
        """Its first token is there. It can still fail."""
        if not self._failed:
            self._tell(self._breakers.answered(self))
        self._answered = True

    def failed(self) -> None:
        """It failed, or its first token is late, by the model's fault; counted once."""
        if not self._failed:
            self._tell(self._breakers.failed(self, after_answer=self._answered))
        self._failed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.probe and not self._answered and not self._failed:
            self._tell(self._breakers.unanswered(self))
        # Who gives up waiting for it does not undo it.
        await asyncio.shield(asyncio.gather(*self._told))

    def _tell(self, telling: Coroutine[None, None, None]) -> None:
        self._told.append(asyncio.create_task(telling))


@asynccontextmanager
async def _harmlessly() -> AsyncIterator[None]:
    """Whatever the store does to what is within, it ends soon, and without an error."""
    with suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(STORE_S):
            yield


def _key(model: str) -> Item:
    # No tenant has a '#' in its name. A partition for each model: each has its own heat.
    return {"pk": f"breaker#{model}", "what": "breaker"}
