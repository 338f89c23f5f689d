"""Fallback: another model is asked only while nothing was sent, and whoever fails is known."""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial

import pytest

from shared.breaker import (
    COOLDOWN_MIN_S,
    FAILURES_MIN,
    JUDGED_AFTER_S,
    SLOW_FIRST_TOKEN_S,
    STORE_S,
    Breakers,
    State,
)
from shared.errors import InvalidRequest, ProviderFailed, Unavailable
from shared.models import FALLBACKS_MAX, Ask, Continuation, Finish, Models, Usage
from shared.models.demo import Demo
from shared.models.fallback import Candidate, Fallback
from shared.records import Item
from shared.schema import TENANTS
from tests.model_store import ModelStore, key_of
from tests.shared.models.asking import ask, until_failure
from tests.simulation.clock import virtual

EPOCH_S = 1_800_000_000
GOOD = "demo?tokens=3&rate=10"
OTHER = "demo?tokens=5&rate=10"
BROKEN = "demo?fail_after=0"
CUT = "demo?fail_after=2"
SLOW = "demo?tokens=3&silence=50"

ANSWER = Finish("stop", Usage(2, 3))
OTHER_ANSWER = Finish("stop", Usage(2, 5))


def now() -> float:
    return EPOCH_S + asyncio.get_running_loop().time()


def clock() -> float:
    return asyncio.get_running_loop().time()


class Silent(ModelStore):
    """A store that says nothing from some moment on."""

    silent = False

    async def _arrive(self) -> None:
        await super()._arrive()
        if self.silent:
            await asyncio.Event().wait()


@dataclass
class Scripted:
    """A provider that does as it is told, and keeps when it was asked and closed."""

    script: Sequence[str | Finish | float | Exception]
    asked: list[tuple[float, Ask]] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)

    def validate(self, model: str) -> None:
        pass

    def continuation(self, model: str) -> Continuation:
        return Continuation.PROMPT

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        self.asked.append((clock(), ask))
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.closed.append(clock())


async def collect(source: Fallback | Demo, asked: Ask) -> tuple[list[str | Finish], str | Finish]:
    """The deltas of a whole answer, and its finish."""
    *deltas, finish = [item async for item in source.stream(asked)]
    return deltas, finish


def failure(code: str = "throttled", *, retryable: bool = True) -> ProviderFailed:
    return ProviderFailed(f"It is {code}.", code=code, retryable=retryable)


def scripted(*steps: str | Finish | float | Exception) -> Scripted:
    return Scripted(steps)


class World:
    """A store, a process with breakers, and models: names of the demo's, or scripted ones."""

    def __init__(self) -> None:
        self.store = Silent()
        self.breakers = Breakers(self.store, now=now)
        self.scripted: dict[str, Scripted] = {}

    def fallback(self, *models: str | Scripted) -> Fallback:
        return Fallback([self._candidate(model) for model in models], self.breakers)

    def _candidate(self, model: str | Scripted) -> Candidate:
        if isinstance(model, str):
            return Candidate(model, Demo(), model)
        return Candidate(f"scripted/{id(model)}", model, "inner-name")

    def state(self, model: str | Scripted) -> State:
        """What the table holds of a model; a new state where it holds nothing."""
        key: Item = {"pk": f"breaker#{self._candidate(model).model}", "what": "breaker"}
        return State.from_item(self.store.items.get(key_of(TENANTS, key), {}))

    async def trip(self, *models: str | Scripted) -> None:
        """Have the breakers of these models open."""
        for left in range(FAILURES_MIN)[::-1]:
            for model in models:
                call = await self.breakers.admit(self._candidate(model).model)
                assert call
                async with call:
                    call.failed()
            if left == 1:
                await asyncio.sleep(JUDGED_AFTER_S)
        for model in models:
            assert self.state(model).open_until

    async def trip_for_long(self, model: str | Scripted) -> None:
        """Have its breaker open for a minute."""
        await self.trip(model)
        for _ in range(3):
            name = self._candidate(model).model
            await asyncio.sleep(await self.breakers.wait_s(name) + 0.01)
            call = await self.breakers.admit(name)
            assert call
            async with call:
                call.failed()

    async def half_open(self, *models: str | Scripted) -> None:
        await self.trip(*models)
        await asyncio.sleep(COOLDOWN_MIN_S)


@virtual
async def test_the_model_that_was_asked_for_answers() -> None:
    world = World()
    fallback = world.fallback(GOOD, OTHER)
    said, finish = await collect(fallback, ask(model="ignored"))
    assert (said, finish) == await collect(Demo(), ask(model=GOOD))
    assert finish == ANSWER
    assert fallback.model == GOOD
    assert (world.store.reads, world.store.writes) == (1, 0)


@virtual
async def test_deltas_come_when_the_model_has_them() -> None:
    seen = [clock() async for _ in World().fallback(GOOD).stream(ask())]
    assert seen == pytest.approx([0.08, 0.18, 0.28, 0.38])


@virtual
async def test_another_answers_for_one_that_fails() -> None:
    world = World()
    fallback = world.fallback(BROKEN, BROKEN + "&ttft=7", OTHER, GOOD)
    said, finish = await collect(fallback, ask())
    assert (len(said), finish) == (5, OTHER_ANSWER)
    assert fallback.model == OTHER
    assert (world.state(BROKEN).calls, world.state(BROKEN).failures) == (1, 1)
    assert world.state(OTHER) == world.state(GOOD) == State()


@virtual
async def test_after_the_first_delta_a_failure_is_final() -> None:
    world = World()
    other = scripted("never")
    fallback = world.fallback(CUT, other)
    failed, said = await until_failure(fallback.stream(ask()))
    assert (failed.code, len(said)) == ("upstream", 2)
    assert other.asked == []
    assert fallback.model == CUT
    assert world.state(CUT).failures == 1


@virtual
async def test_each_is_asked_by_the_name_that_its_provider_knows() -> None:
    model = scripted("text", ANSWER)
    asked = ask("What?", max_tokens=7)
    await collect(World().fallback(BROKEN, model), asked)
    assert model.asked[0][1] == Ask("inner-name", asked.messages, 7)


@virtual
async def test_a_slow_first_token_moves_on_and_stops_the_slow_one() -> None:
    world = World()
    slow = scripted(100.0, "late", ANSWER)
    fallback = world.fallback(slow, OTHER)
    _, finish = await collect(fallback, ask())
    assert finish == OTHER_ANSWER
    assert slow.closed == [SLOW_FIRST_TOKEN_S]
    assert (world.state(slow).calls, world.state(slow).failures) == (1, 1)


@virtual
async def test_the_slowest_is_waited_for_where_there_is_nobody_else() -> None:
    world = World()
    _, finish = await collect(world.fallback(SLOW), ask())
    assert finish == ANSWER
    assert (world.state(SLOW).calls, world.state(SLOW).failures) == (1, 1)


@virtual
async def test_it_is_waited_for_where_the_others_are_open() -> None:
    world = World()
    await world.trip_for_long(GOOD)
    fallback = world.fallback(SLOW, GOOD)
    begun = clock()
    await collect(fallback, ask())
    assert fallback.model == SLOW
    assert clock() - begun > 50
    assert world.state(SLOW).failures == 1


@virtual
async def test_silence_after_the_first_delta_is_not_slowness() -> None:
    world = World()
    silent = "demo?tokens=3&silence_after=1&silence=100"
    _, finish = await collect(world.fallback(silent, OTHER), ask())
    assert finish == ANSWER
    assert world.state(silent) == State()


@virtual
async def test_an_open_breaker_is_passed_over() -> None:
    world = World()
    broken = scripted(failure())
    await world.trip(broken)
    fallback = world.fallback(broken, OTHER)
    await fallback.check()
    _, finish = await collect(fallback, ask())
    assert finish == OTHER_ANSWER
    assert broken.asked == []


@virtual
async def test_while_all_are_open_it_says_so_at_once_and_when_to_come_back() -> None:
    world = World()
    first, second = scripted("one"), scripted("two")
    await world.trip_for_long(second)
    await world.trip(first)
    fallback = world.fallback(second, first)
    wait_s = world.state(first).open_until / 1000 - now()
    begun = clock()
    for asking in (fallback.check, partial(collect, fallback, ask())):
        with pytest.raises(Unavailable) as caught:
            await asking()
        assert caught.value.status == 503
        assert caught.value.headers["Retry-After"] == str(math.ceil(wait_s))
    assert clock() == begun
    assert first.asked == second.asked == []


@virtual
async def test_after_that_time_it_is_tried_again() -> None:
    world = World()
    await world.trip(GOOD)
    fallback = world.fallback(GOOD)
    with pytest.raises(Unavailable) as caught:
        await fallback.check()
    await asyncio.sleep(int(caught.value.headers["Retry-After"]))
    await fallback.check()
    _, finish = await collect(fallback, ask())
    assert finish == ANSWER


@virtual
async def test_a_check_of_a_healthy_model_costs_one_read_with_its_stream() -> None:
    world = World()
    fallback = world.fallback(GOOD, OTHER)
    await fallback.check()
    await collect(fallback, ask())
    assert (world.store.reads, world.store.writes) == (1, 0)


@pytest.mark.parametrize("code", ["throttled", "unavailable", "timeout", "upstream", "cut"])
def test_what_is_the_models_fault_counts_and_moves_on(code: str) -> None:
    @virtual
    async def run() -> None:
        world = World()
        broken = scripted(failure(code))
        _, finish = await collect(world.fallback(broken, GOOD), ask())
        assert finish == ANSWER
        assert world.state(broken).failures == 1

    run()


@virtual
async def test_what_no_retry_can_mend_moves_on_and_does_not_count() -> None:
    world = World()
    broken = scripted(failure("upstream", retryable=False))
    _, finish = await collect(world.fallback(broken, GOOD), ask())
    assert finish == ANSWER
    assert world.state(broken) == State()


@virtual
async def test_a_request_that_is_refused_is_not_asked_elsewhere() -> None:
    world = World()
    strict, other = scripted(failure("refused", retryable=False)), scripted("yes", ANSWER)
    failed, said = await until_failure(world.fallback(strict, other).stream(ask()))
    assert (failed.code, said) == ("refused", [])
    assert other.asked == []
    assert world.state(strict) == State()


@pytest.mark.parametrize(
    ("told", "failures"),
    [
        ("throttled", [failure("throttled"), failure("timeout")]),
        ("throttled", [failure("throttled"), failure("refused", retryable=False), failure()]),
        ("cut", [failure("upstream", retryable=False), failure("cut"), failure("timeout")]),
        ("upstream", [failure("upstream", retryable=False)] * 2),
    ],
)
def test_when_all_fail_the_first_is_told_that_may_be_retried(
    told: str, failures: list[ProviderFailed]
) -> None:
    @virtual
    async def run() -> None:
        fallback = World().fallback(*(scripted(each) for each in failures))
        failed, said = await until_failure(fallback.stream(ask()))
        assert (failed.code, said) == (told, [])
        assert fallback.model == fallback._candidates[0].model

    run()


@virtual
async def test_an_answer_without_text_is_an_answer() -> None:
    world = World()
    empty = scripted(Finish("policy", None))
    assert [item async for item in world.fallback(empty, GOOD).stream(ask())] == [empty.script[0]]
    assert world.state(empty) == State()


@virtual
async def test_what_is_no_failure_of_a_provider_passes_through() -> None:
    world = World()
    odd, other = scripted(KeyError("odd")), scripted("never")
    await world.half_open(odd)
    with pytest.raises(KeyError):
        await collect(world.fallback(odd, other), ask())
    assert other.asked == []
    state = world.state(odd)
    assert (state.prober, state.open_until) == ("", int(now() * 1000))


@virtual
async def test_closing_stops_the_upstream_before_anything_else() -> None:
    world = World()
    model = scripted(1.0, "text", 10.0, "more", ANSWER)
    await world.half_open(model)
    async with aclosing(world.fallback(model).stream(ask())) as stream:
        asyncio.get_running_loop().call_later(0.5, setattr, world.store, "silent", True)
        await anext(stream)
        closing = clock()
    assert model.closed == [closing]
    assert clock() == closing + STORE_S  # for its breaker was told of the first delta


@pytest.mark.parametrize("patience_s", [0.5, SLOW_FIRST_TOKEN_S + 1])
def test_cancelling_before_the_first_delta_stops_the_upstream(patience_s: float) -> None:
    @virtual
    async def run() -> None:
        world = World()
        model, other = scripted(100.0, "text", ANSWER), scripted("never")
        await world.trip_for_long(other)
        task = asyncio.create_task(collect(world.fallback(model, other), ask()))
        begun = clock()
        await asyncio.sleep(patience_s)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert model.closed == [begun + patience_s]
        assert other.asked == []

    run()


@virtual
async def test_a_probe_that_is_cancelled_shows_nothing() -> None:
    world = World()
    await world.half_open(SLOW)
    task = asyncio.create_task(collect(world.fallback(SLOW), ask()))
    await asyncio.sleep(1)
    assert world.state(SLOW).prober
    task.cancel()
    for _ in range(2):
        await asyncio.sleep(0)
    task.cancel()  # again, while it gives its probe back
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert (world.state(SLOW).prober, world.state(SLOW).opens) == ("", 1)
    assert await world.breakers.wait_s(SLOW) == 0


@virtual
async def test_a_probe_closes_the_breaker_with_its_first_delta() -> None:
    world = World()
    await world.half_open(GOOD)
    async with aclosing(world.fallback(GOOD).stream(ask())) as stream:
        await anext(stream)
        await anext(stream)
        assert world.state(GOOD).open_until == 0


@virtual
async def test_a_model_that_keeps_failing_is_not_asked_any_more() -> None:
    world = World()
    broken = scripted(failure())
    for _ in range(30):
        _, finish = await collect(world.fallback(broken, GOOD), ask())
        assert finish == ANSWER
        await asyncio.sleep(1)
    # Those until it was judged, and a probe or two.
    assert FAILURES_MIN <= len(broken.asked) <= JUDGED_AFTER_S + 3


MODELS = Models({"demo": Demo()})


def test_models_are_resolved_in_their_order() -> None:
    breakers = Breakers(ModelStore())
    fallback = Fallback.of(MODELS, GOOD, [OTHER, GOOD, "nobody/x", OTHER, BROKEN], breakers)
    assert [c.model for c in fallback._candidates] == [GOOD, OTHER, BROKEN]
    assert [c.name for c in fallback._candidates] == [GOOD, OTHER, BROKEN]


def test_the_model_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Fallback.of(MODELS, "nobody/x", [GOOD], Breakers(ModelStore()))
    assert caught.value.extensions["field"] == "model"


def test_so_many_may_stand_in() -> None:
    names = [f"demo?tokens={n}" for n in range(1, 99)]
    fallback = Fallback.of(MODELS, GOOD, names, Breakers(ModelStore()))
    assert len(fallback._candidates) == 1 + FALLBACKS_MAX
