"""Takeover: who notices first has somebody go on, once, and not for ever."""

import asyncio
from typing import Any

import pytest

from shared.audit import Event
from shared.errors import Unavailable
from shared.log import DEAD_AFTER_S, PAUSE_S, VACANT_S
from shared.records import DAY_S, Kind, StreamKey
from shared.steering import cancel, pause
from shared.takeover import EXPIRY_MARGIN_S, UNFILLED_MAX, Takeovers
from tests.simulation.clock import virtual
from tests.simulation.scripted import DONE, ScriptedModel, Stage


async def dead(**policy: Any) -> Stage:
    """A stream whose producer has died after its first chunk."""
    stage = await Stage(**policy).begin()
    await stage.write("a")
    await asyncio.sleep(DEAD_AFTER_S + 1)
    return stage


@virtual
async def test_who_is_alive_is_left_alone() -> None:
    stage = await Stage().begin()
    await asyncio.sleep(DEAD_AFTER_S)
    assert await stage.takeovers.settle(stage.key) == await stage.log.tail(stage.key)
    assert await stage.told() == ["opened"]
    assert stage.launched == []


@virtual
async def test_of_many_who_notice_one_has_it_produced() -> None:
    stage = await dead()
    stage.store.write_s = 0.1
    found = await asyncio.gather(*(stage.takeovers.settle(stage.key) for _ in range(20)))
    assert await stage.told() == ["opened", "a", "vacant lost"]
    assert {record.by for record in found} == {(await stage.log.tail(stage.key)).by}
    assert stage.launched == [stage.key]
    [_, taken] = await stage.entries()
    assert (taken.event, taken.outcome, taken.details) == (Event.TAKEN_OVER, "lost", {"seq": 2})


@pytest.mark.parametrize("fate", ["fail", "lose"])
@virtual
async def test_who_cannot_know_what_became_of_its_write_launches_nobody(fate: Any) -> None:
    stage = await dead()
    stage.store.fates.append(fate)
    with pytest.raises(Unavailable):
        await stage.takeovers.settle(stage.key)
    assert stage.launched == []
    # Whoever notices that nobody comes does it.
    await asyncio.sleep(VACANT_S + 1)
    await stage.takeovers.settle(stage.key)
    assert stage.launched == [stage.key]


@virtual
async def test_a_launch_that_fails_is_made_up_for_by_the_next_who_notices() -> None:
    stage = await dead()

    async def fail(_: StreamKey) -> None:
        raise Unavailable

    await Takeovers(stage.lifecycle, fail).settle(stage.key)
    await asyncio.sleep(VACANT_S)
    await stage.takeovers.settle(stage.key)
    assert stage.launched == []
    await asyncio.sleep(1)
    await stage.takeovers.settle(stage.key)
    assert stage.launched == [stage.key]
    assert await stage.told() == ["opened", "a", "vacant lost", "vacant lost"]


@virtual
async def test_a_stream_is_taken_over_so_often_and_then_closed() -> None:
    stage = await dead(takeovers=2)
    for epoch in (2, 3):
        await stage.takeovers.settle(stage.key)
        seq = (await stage.log.tail(stage.key)).seq + 1
        await stage.append(stage.record(seq, Kind.EPOCH, epoch=epoch))
        await asyncio.sleep(DEAD_AFTER_S + 1)
    closed = await stage.takeovers.settle(stage.key)
    assert await stage.told() == [
        *("opened", "a", "vacant lost", "epoch", "vacant lost", "epoch", "failed producer-lost")
    ]
    assert closed.body["error"]["retryable"] is True
    assert len(stage.launched) == 2


# Lambda keeps an event for minutes where it may not run one more: that is nobody's death.
@virtual
async def test_a_producer_that_does_not_come_is_launched_for_as_long_as_it_may_still() -> None:
    stage = await Stage(takeovers=0).begin(epoch=0)
    for _ in range(UNFILLED_MAX):
        await asyncio.sleep(VACANT_S + 1)
        assert (await stage.takeovers.settle(stage.key)).vacant
    await asyncio.sleep(VACANT_S + 1)
    assert (await stage.takeovers.settle(stage.key)).closes
    assert len(stage.launched) == UNFILLED_MAX


@virtual
async def test_a_cancel_that_nobody_obeyed_ends_the_stream_whatever_came_behind_it() -> None:
    stage = await Stage().begin()
    await cancel(stage.lifecycle, stage.key, stage.caller)
    await stage.append(stage.record(2, Kind.HEARTBEAT, by=stage.opened.by))
    await asyncio.sleep(DEAD_AFTER_S + 1)
    assert (await stage.takeovers.settle(stage.key)).body["status"] == "cancelled"
    assert stage.launched == []


@virtual
async def test_a_stream_whose_producer_died_waiting_for_a_grant_stays_paused() -> None:
    stage = await Stage().begin()
    await stage.append(stage.record(1, Kind.PAUSE, body={"reason": "expired", "parked": False}))
    await asyncio.sleep(PAUSE_S + DEAD_AFTER_S)
    assert not (await stage.takeovers.settle(stage.key)).parked
    await asyncio.sleep(1)
    assert (await stage.takeovers.settle(stage.key)).parked
    await asyncio.sleep(DAY_S)
    assert (await stage.takeovers.settle(stage.key)).parked
    assert await stage.told() == ["opened", "pause", "parked expired"]


@virtual
async def test_the_next_producer_says_how_it_goes_on_and_is_charged_for_all() -> None:
    stage = await dead(limits={"tokens_per_day": 1000})
    await stage.takeovers.settle(stage.key)
    model = ScriptedModel("bcde", DONE)
    await stage.succeed(model)
    records = await stage.records()
    epoch = next(record for record in records if record.kind == Kind.EPOCH)
    assert (epoch.epoch, epoch.body) == (2, {"continuation": "prompt"})
    assert model.asked
    assert model.asked.messages[-2].content == "a"
    # "Count." and "a" by the first; what the second says of itself.
    assert records[-1].body["usage"] == {
        "input_tokens": 2 + 1,
        "output_tokens": 1 + 2,
        "estimated": True,
    }
    assert stage.counters()["day:2027-01-15"] == 6


# What a sweep does


@virtual
async def test_a_sweep_tends_only_what_needs_it() -> None:
    stage = await Stage().begin()
    assert await stage.takeovers.tend(stage.key, 60) is None
    await asyncio.sleep(DEAD_AFTER_S + 1)
    assert await stage.takeovers.tend(stage.key, 60) == "taken over"
    await stage.succeed(ScriptedModel("a", DONE))
    assert await stage.takeovers.tend(stage.key, 60) is None


@virtual
async def test_a_stream_that_is_paused_for_too_long_is_closed() -> None:
    stage = await Stage(limits={"streams_at_once": 1}).begin()
    await pause(stage.lifecycle, stage.key, stage.caller)
    await asyncio.sleep(60)
    assert await stage.takeovers.tend(stage.key, 60) is None
    await asyncio.sleep(0.1)
    assert await stage.takeovers.tend(stage.key, 60) == "closed"
    assert await stage.told() == ["opened", "parked requested", "failed abandoned"]
    assert stage.counters()["active"] == 0


@virtual
async def test_who_waits_for_a_grant_and_has_died_is_parked_by_a_sweep() -> None:
    stage = await Stage().begin()
    await stage.append(stage.record(1, Kind.PAUSE, body={"reason": "expired", "parked": False}))
    await asyncio.sleep(PAUSE_S + DEAD_AFTER_S + 1)
    assert await stage.takeovers.tend(stage.key, 60) == "parked"


# What it held was nobody's to give back once its records had expired.
@virtual
async def test_a_stream_is_closed_before_its_retention_ends() -> None:
    stage = await Stage(retention_days=1, limits={"streams_at_once": 1}).begin()
    await pause(stage.lifecycle, stage.key, stage.caller)
    await asyncio.sleep(DAY_S - EXPIRY_MARGIN_S)
    assert await stage.takeovers.tend(stage.key, 10 * DAY_S) is None
    await asyncio.sleep(1)
    assert await stage.takeovers.tend(stage.key, 10 * DAY_S) == "closed"
    assert stage.counters()["active"] == 0
