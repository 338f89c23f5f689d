"""Steering: cancel, pause, resume and grant, in a race with whoever produces."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.errors import LimitExceeded, NotFound, Unavailable
from shared.lifecycle import CONTROL_TRIES_MAX
from shared.log import DEAD_AFTER_S, PAUSE_S, Log
from shared.models import Finish, Usage
from shared.past import Past
from shared.quotas import OUTPUT_TOKENS_DEFAULT, Wanted
from shared.records import DAY_S, Kind, Record, StreamKey
from shared.steering import cancel, check_replay, grant, pause, resume
from shared.table import Conflict, Write
from tests.shared.test_starting import stranger
from tests.simulation.clock import virtual
from tests.simulation.scripted import DONE, EPOCH_S, ScriptedModel, Stage


@virtual
async def test_a_cancel_is_written_once_however_often_it_is_asked() -> None:
    stage = await Stage().begin()
    first = await cancel(stage.lifecycle, stage.key, stage.caller)
    again = await cancel(stage.lifecycle, stage.key, stage.caller)
    assert (first.kind, first) == (Kind.CANCEL, again)
    assert await stage.told() == ["opened", "cancel"]


# Each look and transaction took longer than the producer's next write, and it gave up at last.
@pytest.mark.parametrize("steer", [cancel, pause])
@virtual
async def test_a_control_reaches_a_producer_that_is_faster_than_it(steer: Any) -> None:
    stage = await Stage().begin()
    stage.store.write_s, stage.store.read_s, stage.store.transact_s = 0.005, 0.002, 0.02
    steps: list[Any] = ["a", 0.006] * 2000
    production = stage.start(ScriptedModel(*steps, DONE))
    await asyncio.sleep(1)
    record = await steer(stage.lifecycle, stage.key, stage.caller)
    assert asyncio.get_running_loop().time() < 1.5
    await production
    told = await stage.told()
    assert record.kind in (Kind.CANCEL, Kind.PAUSE)
    # What the model said meanwhile waits behind the control.
    assert told[record.seq - 1] == "yield"
    assert not set(told[record.seq :]) & {"a", "aa"}


@virtual
async def test_who_has_yielded_in_vain_goes_on() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 1, "b", 0.1, "c", 1, DONE))
    await asyncio.sleep(0.5)
    await stage.append(stage.record(2, Kind.YIELD))
    await production
    assert await stage.told() == ["opened", "a", "yield", "bc", "completed"]


@virtual
async def test_a_cancel_after_the_end_changes_nothing() -> None:
    stage = await Stage().begin()
    await stage.produce("a", DONE)
    told = await stage.told()
    assert (await cancel(stage.lifecycle, stage.key, stage.caller)).closes
    assert await stage.told() == told


@virtual
async def test_a_cancel_that_races_with_the_end_is_told_how_it_ended() -> None:
    for delay_s in (0.0, 0.1, 0.2, 0.3):
        stage = await Stage().begin()
        stage.store.write_s = 0.1
        production = stage.start(ScriptedModel("a", DONE))
        await asyncio.sleep(delay_s)
        record = await cancel(stage.lifecycle, stage.key, stage.caller)
        await production
        status = (await stage.log.summary(stage.key)).status
        assert status == ("completed" if record.closes else "cancelled")


@virtual
async def test_a_cancel_closes_a_stream_whose_producer_is_dead() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    await asyncio.sleep(16)
    assert (await cancel(stage.lifecycle, stage.key, stage.caller)).closes
    assert await stage.told() == ["opened", "a", "cancel", "cancelled"]


@virtual
async def test_a_cancel_that_was_not_obeyed_is_carried_out_by_the_next() -> None:
    stage = await Stage().begin()
    await cancel(stage.lifecycle, stage.key, stage.caller)
    await asyncio.sleep(16)
    assert (await cancel(stage.lifecycle, stage.key, stage.caller)).closes
    assert (await stage.log.summary(stage.key)).status == "cancelled"


@virtual
async def test_a_cancel_gives_up_on_a_stream_that_takes_every_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = await Stage().begin()
    append, tries = Log.append_with, 0

    async def append_too_late(
        self: Log, key: StreamKey, wish: Record, also: Sequence[Write]
    ) -> Conflict | None:
        nonlocal tries
        tries += 1
        await stage.append(stage.record(wish.seq, Kind.TEXT, text="x"))
        return await append(self, key, wish, also)

    monkeypatch.setattr(Log, "append_with", append_too_late)
    with pytest.raises(Unavailable):
        await cancel(stage.lifecycle, stage.key, stage.caller)
    assert tries == CONTROL_TRIES_MAX
    assert (await stage.told())[-1] == "x"


@virtual
async def test_a_stream_of_another_tenant_cannot_be_cancelled() -> None:
    stage = await Stage().begin()
    with pytest.raises(NotFound):
        await cancel(stage.lifecycle, StreamKey("other", stage.key.stream), stranger(stage))
    assert await stage.told() == ["opened"]


@virtual
async def test_a_launch_that_failed_is_what_its_repetition_is_told() -> None:
    stage = await Stage().begin()
    await stage.lifecycle.close_abandoned(
        stage.key, stage.opened, Unavailable("No producer could be started.")
    )
    with pytest.raises(Unavailable) as raised:
        await check_replay(stage.takeovers, stage.key, may_run=True)
    assert raised.value.detail == "No producer could be started."


@virtual
async def test_a_grant_says_by_whose_credential_a_stream_goes_on() -> None:
    stage = await Stage().begin()
    ann = stage.caller_by("ann", user="ann", valid_until=EPOCH_S + 60)
    record = await grant(stage.takeovers, stage.key, ann)
    assert record == await stage.log.tail(stage.key)
    assert record.body == {"user": "ann", "credential": "key:ann", "expires_at": EPOCH_S + 60}
    entry = (await stage.entries())[-1]
    assert (entry.event, entry.actor.credential) == ("granted", "key:ann")


@virtual
async def test_a_grant_after_a_cancel_or_the_end_changes_nothing() -> None:
    stage = await Stage().begin()
    cancelled = await cancel(stage.lifecycle, stage.key, stage.caller)
    assert await grant(stage.takeovers, stage.key, stage.caller) == cancelled
    await stage.producer(ScriptedModel()).run(await stage.records())
    assert (await grant(stage.takeovers, stage.key, stage.caller)).closes
    assert await stage.audited() == ["started ok", "cancelled ok", "closed cancelled"]


@virtual
async def test_a_cancel_is_told_with_who_asked_for_it() -> None:
    stage = await Stage().begin()
    ann = stage.caller_by("ann", user="ann", address="203.0.113.7")
    await cancel(stage.lifecycle, stage.key, ann)
    entry = (await stage.entries())[-1]
    assert (entry.event, entry.details) == ("cancelled", {"seq": 1})
    assert (entry.actor.user, entry.actor.address) == ("ann", "203.0.113.0/24")


# Pause and resume


@virtual
async def test_a_pause_stops_the_producer_and_keeps_its_text() -> None:
    stage = await Stage().begin()
    model = ScriptedModel("a", 2, "b", 2, "c", DONE)
    production = stage.start(model)
    await asyncio.sleep(1)
    await pause(stage.lifecycle, stage.key, stage.caller)
    await production
    assert await stage.told() == ["opened", "a", "parked requested"]
    assert model.closed
    assert await stage.audited() == ["started ok", "paused ok"]


@virtual
async def test_a_paused_stream_is_nobodys_to_take_over() -> None:
    stage = await Stage().begin()
    paused = await pause(stage.lifecycle, stage.key, stage.caller)
    await asyncio.sleep(7200)
    assert await stage.takeovers.settle(stage.key) == paused
    assert stage.launched == []


@virtual
async def test_a_resume_has_the_next_producer_go_on_by_its_own_credential() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a ", 2, "b", DONE))
    await asyncio.sleep(1)
    await pause(stage.lifecycle, stage.key, stage.caller)
    await production
    ann = stage.caller_by("ann", user="ann")
    record = await resume(stage.takeovers, stage.key, ann)
    assert record.vacant
    assert stage.launched == [stage.key]
    await stage.revoke(stage.caller)
    await stage.succeed(ScriptedModel("c", DONE))
    assert await stage.told() == [
        *("opened", "a ", "parked requested", "grant", "epoch", "c", "completed")
    ]
    assert await stage.audited() == [*("started ok", "paused ok", "resumed ok", "closed stop")]


@virtual
async def test_pausing_and_resuming_twice_changes_nothing() -> None:
    stage = await Stage().begin()
    for _ in range(2):
        paused = await pause(stage.lifecycle, stage.key, stage.caller)
    for _ in range(2):
        resumed = await resume(stage.takeovers, stage.key, stage.caller)
    assert (paused.seq, resumed.seq) == (1, 2)
    assert await stage.told() == ["opened", "parked requested", "grant"]
    assert stage.launched == [stage.key]


@virtual
async def test_what_is_over_is_neither_paused_nor_resumed() -> None:
    stage = await Stage().begin()
    cancelled = await cancel(stage.lifecycle, stage.key, stage.caller)
    assert await pause(stage.lifecycle, stage.key, stage.caller) == cancelled
    assert await resume(stage.takeovers, stage.key, stage.caller) == cancelled
    await stage.producer(ScriptedModel(), records=await stage.records()).run(await stage.records())
    assert (await pause(stage.lifecycle, stage.key, stage.caller)).closes
    assert (await resume(stage.takeovers, stage.key, stage.caller)).closes


@virtual
async def test_a_grant_does_not_let_go_on_what_was_paused_by_hand() -> None:
    stage = await Stage().begin()
    paused = await pause(stage.lifecycle, stage.key, stage.caller)
    assert await grant(stage.takeovers, stage.key, stage.caller) == paused
    assert stage.launched == []


@virtual
async def test_a_cancel_closes_a_stream_that_nobody_produces() -> None:
    stage = await Stage().begin()
    await pause(stage.lifecycle, stage.key, stage.caller)
    assert (await cancel(stage.lifecycle, stage.key, stage.caller)).closes
    assert await stage.told() == ["opened", "parked requested", "cancel", "cancelled"]
    waiting = await Stage().begin(epoch=0)
    assert (await cancel(waiting.lifecycle, waiting.key, waiting.caller)).closes


@virtual
async def test_a_grant_behind_a_vacancy_leaves_it_one() -> None:
    stage = await Stage().begin(epoch=0)
    record = await grant(stage.takeovers, stage.key, stage.caller)
    assert record.vacant
    assert stage.launched == []  # somebody was launched when it was opened
    await stage.succeed(ScriptedModel("a", DONE))
    assert await stage.told() == ["opened", "grant", "epoch", "a", "completed"]


@virtual
async def test_a_grant_has_somebody_go_on_where_who_waited_for_it_has_died() -> None:
    stage = await Stage().begin()
    await stage.append(stage.record(1, Kind.PAUSE, body={"reason": "expired", "parked": False}))
    await asyncio.sleep(PAUSE_S + DEAD_AFTER_S + 1)
    assert (await grant(stage.takeovers, stage.key, stage.caller)).vacant
    assert stage.launched == [stage.key]


# Behind its grants, one in time each, it looked alive for ever.
@virtual
async def test_a_grant_of_a_dead_stream_has_another_go_on() -> None:
    stage = await Stage().begin()
    await asyncio.sleep(DEAD_AFTER_S + 1)
    assert (await grant(stage.takeovers, stage.key, stage.caller)).vacant
    assert await stage.told() == ["opened", "vacant lost", "grant"]
    assert stage.launched == [stage.key]


@virtual
async def test_a_pause_that_meets_the_end_of_an_answer_lets_it_end() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 1
    production = stage.start(ScriptedModel("a", DONE))
    await asyncio.sleep(1.5)  # its text is written, and its end under way
    await pause(stage.lifecycle, stage.key, stage.caller)
    await production
    assert (await stage.told())[-1] == "completed"


# A budget that ends

OTHERS = Wanted(40, 50)


async def out_of_tokens(**policy: Any) -> Stage:
    """A stream that has come to the end of what it may say, and waits for more.

    Another one has 90 of the 100 tokens of the day.
    """
    stage = Stage(limits={"tokens_per_day": 100, "streams_at_once": 2}, **policy)
    other = stage.new_key()
    assert isinstance(await stage.lifecycle.open(stage.opening(key=other, wanted=OTHERS)), tuple)
    await stage.begin(wanted=Wanted(2, 100))
    assert stage.opened.body["allowance"] == 8
    await stage.produce("x" * 40, DONE, chars_max=32, short=True, pauses=True)
    return stage


def day(stage: Stage) -> int:
    """The tokens that are taken on the day of now."""
    moment = datetime.fromtimestamp(stage.now(), UTC)
    return int(stage.counters().get(f"day:{moment:%Y-%m-%d}", 0))


@virtual
async def test_an_answer_whose_budget_ends_waits_for_more() -> None:
    stage = await out_of_tokens()
    assert await stage.told() == ["opened", "x" * 32, "parked quota"]
    assert await stage.audited() == ["started ok", "paused ok"]
    assert (stage.counters()["active"], day(stage)) == (2, 100)


@virtual
async def test_nobody_resumes_what_there_are_no_tokens_for() -> None:
    stage = await out_of_tokens()
    before = dict(stage.store.items)
    with pytest.raises(LimitExceeded) as raised:
        await resume(stage.takeovers, stage.key, stage.caller)
    assert raised.value.extensions["policy"] == "tenant-tokens-per-day"
    assert await grant(stage.takeovers, stage.key, stage.caller) == await stage.log.tail(stage.key)
    assert stage.store.items == before
    assert stage.launched == []


@virtual
async def test_a_resume_takes_what_there_is_and_the_end_settles_all_of_it() -> None:
    stage = await out_of_tokens()
    await asyncio.sleep(DAY_S)
    record = await resume(stage.takeovers, stage.key, stage.caller)
    assert record.vacant
    # The prompt and the answer so far take 10 again: 6 and 32 characters.
    assert record.body["allowance"] == 90
    assert (stage.counters()["active"], day(stage)) == (2, 100)
    assert stage.launched == [stage.key]
    past = Past.of(await stage.records())
    assert (past.allowance, len(past.holds)) == (98, 2)
    await stage.succeed(ScriptedModel("yyyy", Finish("stop", Usage(10, 1))))
    assert (await stage.told())[-3:] == ["epoch", "yyyy", "completed"]
    usage = (await stage.records())[-1].body["usage"]
    assert usage == {"input_tokens": 2 + 10, "output_tokens": 8 + 1, "estimated": True}
    assert stage.counters()["active"] == 1
    # What was taken first was used first: 10 on the first day, 11 on the second.
    assert [stage.counters()[f"day:2027-01-{n}"] for n in (15, 16)] == [100, 11]
    assert stage.counters()["month:2027-01"] == 111


@pytest.mark.parametrize("fates", [["fail"], ["lose"], ["lose", "fail"]])
@virtual
async def test_a_resume_whose_reply_is_lost_takes_its_tokens_once(fates: Any) -> None:
    stage = await out_of_tokens()
    await asyncio.sleep(DAY_S)
    stage.store.fates.extend(fates)
    with suppress(Unavailable):
        await resume(stage.takeovers, stage.key, stage.caller)
    assert (await stage.told())[-1] == "grant"
    assert (day(stage), await stage.audited()) == (100, ["started ok", "paused ok", "resumed ok"])


@virtual
async def test_of_two_resumes_one_takes_tokens() -> None:
    stage = await out_of_tokens()
    await asyncio.sleep(DAY_S)
    stage.store.write_s = 0.1
    found = await asyncio.gather(
        *(resume(stage.takeovers, stage.key, stage.caller) for _ in range(5)),
        return_exceptions=True,
    )
    granted = await stage.log.tail(stage.key)
    assert {r.by for r in found if isinstance(r, Record)} == {granted.by}
    assert day(stage) == 100
    assert stage.launched == [stage.key]


@virtual
async def test_an_answer_without_a_bound_of_its_own_may_have_as_much_again() -> None:
    stage = await Stage(limits={"tokens_per_day": 100_000}).begin(
        wanted=Wanted(2, OUTPUT_TOKENS_DEFAULT)
    )
    bound = {"chars_max": 4 * OUTPUT_TOKENS_DEFAULT, "short": True, "pauses": True}
    await stage.produce("x" * 5 * OUTPUT_TOKENS_DEFAULT, DONE, **bound)
    # To pause it by hand would only hide why it waits.
    assert (await pause(stage.lifecycle, stage.key, stage.caller)).body["reason"] == "quota"
    record = await resume(stage.takeovers, stage.key, stage.caller)
    assert record.body["allowance"] == OUTPUT_TOKENS_DEFAULT


# Who paused and resumed without end had its prompt sent as often, whatever was left of its limits.
@virtual
async def test_a_resume_takes_what_it_costs_to_send_all_again() -> None:
    stage = Stage(limits={"tokens_per_day": 25, "streams_at_once": 1})
    await stage.begin(wanted=Wanted(2, 10), body={**stage.body(), "max_tokens": 10})
    await stage.write("12345678")
    for taken in (12, 16, 20):
        assert day(stage) == taken
        await pause(stage.lifecycle, stage.key, stage.caller)
        await resume(stage.takeovers, stage.key, stage.caller)
        await stage.succeed(ScriptedModel(3600), deadline=0.0)
    await pause(stage.lifecycle, stage.key, stage.caller)
    with pytest.raises(LimitExceeded):
        await resume(stage.takeovers, stage.key, stage.caller)
    past = Past.of(await stage.records())
    assert (past.allowance, stage.counters()["active"]) == (10, 1)
    assert (await stage.told())[-1] == "parked requested"


# Its producer knew only of what the stream had when it began.
@virtual
async def test_what_a_resume_took_that_came_to_late_is_given_back() -> None:
    stage = await Stage(limits={"tokens_per_day": 1000, "streams_at_once": 1}).begin()
    production = stage.start(ScriptedModel("a", 0.5, DONE))
    stage.store.write_s = 0.4
    await asyncio.sleep(0.6)  # its text is written, and its end under way
    stage.store.write_s = 0.0
    await pause(stage.lifecycle, stage.key, stage.caller)
    await resume(stage.takeovers, stage.key, stage.caller)
    await production
    assert await stage.told() == ["opened", "a", "parked requested", "grant", "completed"]
    assert (day(stage), stage.counters()["active"]) == (3, 0)


@virtual
async def test_what_is_paused_for_a_budget_can_be_cancelled_and_is_charged() -> None:
    stage = await out_of_tokens()
    assert (await cancel(stage.lifecycle, stage.key, stage.caller)).closes
    assert (stage.counters()["active"], day(stage)) == (1, 100)


@virtual
async def test_without_that_setting_the_answer_ends_with_its_budget() -> None:
    stage = Stage(limits={"tokens_per_day": 10})
    await stage.begin(wanted=Wanted(2, 100))
    await stage.produce("x" * 40, DONE, chars_max=32, short=True)
    assert (await stage.records())[-1].body["finish_reason"] == "quota"


# Found by the simulation: who lost the slot to another resume launched a producer, too.
@pytest.mark.parametrize("steer", [resume, grant])
@virtual
async def test_of_several_who_resume_at_once_one_has_it_produced(steer: Any) -> None:
    stage = await Stage().begin()
    parked = stage.record(1, Kind.PAUSE, body={"reason": "expired", "parked": True})
    await stage.append(parked)
    stage.store.write_s = 0.1
    await asyncio.gather(*(steer(stage.takeovers, stage.key, stage.caller) for _ in range(5)))
    assert stage.launched == [stage.key]
