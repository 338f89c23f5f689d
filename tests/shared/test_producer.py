"""The producer, against scripted models and stores, in virtual time."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import pairwise, repeat
from typing import Any

import pytest

from shared.errors import OutOfTime, ProviderFailed, Unavailable
from shared.held import CHUNK_CHARS_MAX, HELD_CHARS_MAX
from shared.log import PAUSE_S
from shared.models import Ask, Continuation, Finish, Usage
from shared.pacing import Pacing
from shared.producer import DEADLINE_MARGIN_S
from shared.records import Kind, Record
from shared.redaction import PolicyViolation
from shared.steering import cancel, grant, pause
from shared.takeover import HANDOVERS_MAX
from tests.simulation.clock import virtual
from tests.simulation.scripted import ASK, DONE, EPOCH_S, WANTED, ScriptedModel, Stage

RULES = {
    "detectors": {"email": "mask"},
    "words": [{"word": "classified"}, {"word": "forbidden", "mode": "close", "name": "ban"}],
}
FAILS = ProviderFailed("It broke.", code="upstream", retryable=True)


@virtual
async def test_an_answer_becomes_chunks_and_an_end_with_the_models_usage() -> None:
    stage = await Stage().begin()
    producer = await stage.produce("a", 1, "b", 1, DONE)
    assert await stage.told() == ["opened", "a", "b", "completed"]
    closed = (await stage.records())[-1]
    assert closed.body["usage"] == {"input_tokens": 1, "output_tokens": 2, "estimated": False}
    assert closed.body["finish_reason"] == "stop"
    assert producer.begun.is_set()
    assert producer.error is None
    assert producer.written_chars == 2


@virtual
async def test_an_answer_without_text_ends_too() -> None:
    stage = await Stage().begin()
    await stage.produce(Finish("length", None))
    assert await stage.told() == ["opened", "completed"]
    closed = (await stage.records())[-1]
    assert closed.body["finish_reason"] == "length"
    assert closed.body["usage"] == {"input_tokens": 2, "output_tokens": 0, "estimated": True}


@virtual
async def test_what_arrives_during_a_write_is_the_next_chunk() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 1
    await stage.produce("a", 0.1, "b", 0.1, "c", 2, "d", DONE)
    assert await stage.told() == ["opened", "a", "bc", "d", "completed"]


@virtual
async def test_the_first_chunk_goes_out_at_once_and_the_next_after_its_interval() -> None:
    stage = await Stage().begin()
    await stage.produce(2, "a", "b", 0.1, "c", 5, DONE, pacing=Pacing((1000, 1000), 0))
    begun, first, second, *_ = await stage.records()
    assert (first.text, first.at - begun.at) == ("ab", 2000)
    assert (second.text, second.at - begun.at) == ("c", 3000)


@virtual
async def test_a_silent_producer_shows_that_it_lives() -> None:
    stage = await Stage().begin()
    await stage.produce("a", 12, "b", DONE)
    assert await stage.told() == ["opened", "a", "heartbeat", "heartbeat", "b", "completed"]
    records = await stage.records()
    assert [later.at - earlier.at for earlier, later in pairwise(records[1:4])] == [5000, 5000]


@virtual
async def test_a_cancel_in_a_silence_is_obeyed_at_the_next_heartbeat() -> None:
    stage = await Stage().begin()
    model = ScriptedModel("a", 3600, "b", DONE)
    production = stage.start(model)
    await asyncio.sleep(7)
    await cancel(stage.lifecycle, stage.key, stage.caller)
    await production
    assert await stage.told() == ["opened", "a", "heartbeat", "cancel", "cancelled"]
    assert asyncio.get_running_loop().time() < 11
    assert model.closed


@virtual
async def test_behind_a_cancel_there_is_no_more_text() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 2, "b", "c", DONE))
    await asyncio.sleep(1)
    await cancel(stage.lifecycle, stage.key, stage.caller)
    await production
    assert await stage.told() == ["opened", "a", "cancel", "cancelled"]
    summary = await stage.log.summary(stage.key)
    assert (summary.status, summary.finish_reason) == ("cancelled", "cancelled")


@virtual
async def test_a_stream_cancelled_before_its_producer_is_there_asks_no_model() -> None:
    stage = await Stage().begin()
    await cancel(stage.lifecycle, stage.key, stage.caller)
    model = ScriptedModel("a", DONE)
    await stage.producer(model).run(await stage.records())
    assert await stage.told() == ["opened", "cancel", "cancelled"]
    assert model.taken == 0


@virtual
async def test_before_its_deadline_a_producer_hands_over() -> None:
    stage = await Stage().begin()
    producer = await stage.produce("a", 3600, deadline=28.0)
    assert await stage.told() == ["opened", "a", "heartbeat", "vacant deadline"]
    assert stage.launched == [stage.key]
    assert producer.error is None
    assert asyncio.get_running_loop().time() == 28.0 - DEADLINE_MARGIN_S
    assert await stage.audited() == ["started ok", "taken-over deadline"]


@virtual
async def test_an_answer_is_not_handed_over_for_ever() -> None:
    stage = await Stage().begin()
    for number in range(HANDOVERS_MAX):
        seq, epoch = 1 + 2 * number, 1 + number
        vacant = stage.record(seq, Kind.VACANT, epoch=epoch, body={"reason": "deadline"})
        await stage.append(vacant)
        await stage.append(stage.record(seq + 1, Kind.EPOCH, epoch=epoch + 1))
    producer = await stage.succeed(ScriptedModel("a", 3600), deadline=28.0)
    assert (await stage.told())[-3:] == ["a", "heartbeat", "failed out-of-time"]
    assert isinstance(producer.error, OutOfTime)


# The model was read on behind the deadline, which a fast one so never met.
@virtual
async def test_a_deadline_holds_against_a_model_that_is_faster_than_the_writes() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 0.02
    steps: list[str | float] = ["a", 0.001] * 30_000
    await stage.produce(*steps, DONE, deadline=22.0)
    assert (await stage.told())[-1] == "vacant deadline"
    assert asyncio.get_running_loop().time() < 22.0 - DEADLINE_MARGIN_S + 1


@virtual
async def test_a_provider_that_fails_before_its_first_text_leaves_an_early_end() -> None:
    stage = await Stage().begin()
    producer = await stage.produce(FAILS)
    assert await stage.told() == ["opened", "failed provider-failed"]
    assert producer.begun.is_set()
    assert producer.error is FAILS
    assert producer.written_chars == 0


@virtual
async def test_a_provider_that_fails_later_keeps_its_text() -> None:
    stage = await Stage().begin()
    producer = await stage.produce("a", 1, "b", "c", FAILS)
    assert await stage.told() == ["opened", "a", "bc", "failed provider-failed"]
    assert producer.written_chars == 3
    assert (await stage.records())[-1].body["error"]["retryable"] is True


@virtual
async def test_an_error_that_nobody_foresaw_ends_the_stream_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = await Stage().begin()
    await stage.produce("a", KeyError("secret"))
    assert await stage.told() == ["opened", "a", "failed internal"]
    assert "secret" not in repr(await stage.records())
    assert "secret" not in caplog.text


@virtual
async def test_an_answer_that_just_stops_was_cut() -> None:
    stage = await Stage().begin()
    await stage.produce("a")
    assert await stage.told() == ["opened", "a", "failed provider-failed"]
    assert (await stage.records())[-1].body["error"]["code"] == "cut"


@virtual
async def test_a_long_delta_is_split_into_records_that_fit() -> None:
    stage = await Stage().begin()
    text = "é" * (2 * CHUNK_CHARS_MAX) + "end"
    await stage.produce(text, DONE)
    chunks = [r.text for r in await stage.records() if r.kind == Kind.TEXT]
    assert [len(chunk) for chunk in chunks] == [CHUNK_CHARS_MAX, CHUNK_CHARS_MAX, 3]
    assert "".join(chunks) == text


@virtual
async def test_a_model_is_read_no_further_than_may_be_held() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 10
    delta = "x" * 1024
    model = ScriptedModel(*repeat(delta, 1000), DONE)
    production = stage.start(model)
    await asyncio.sleep(9)
    # The first chunk is under way.
    assert model.taken * len(delta) <= HELD_CHARS_MAX + CHUNK_CHARS_MAX + len(delta)
    await production
    assert "".join(r.text for r in await stage.records()) == delta * 1000


@virtual
async def test_what_is_no_text_in_utf_8_is_made_so() -> None:
    stage = await Stage().begin()
    await stage.produce("a", 1, "\ud83d", "\ude00", 1, "b\udc00c", DONE)
    assert await stage.told() == ["opened", "a", "😀", "b\ufffdc", "completed"]


@virtual
async def test_an_interrupted_producer_writes_what_it_holds_and_hands_over() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 0.1, "b", 3600), pacing=Pacing((3000, 3000), 0))
    await asyncio.sleep(1)
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert await stage.told() == ["opened", "a", "b", "vacant shutdown"]


@pytest.mark.parametrize("fate", ["ok", "fail", "lose"])
@virtual
async def test_an_interruption_during_a_write_neither_loses_nor_doubles_it(fate: str) -> None:
    stage = await Stage().begin()
    stage.store.write_s = 0.2
    stage.store.fates.append(fate)  # type: ignore[arg-type]
    production = stage.start(ScriptedModel("a", 0.05, "b", 3600))
    await asyncio.sleep(0.1)
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert await stage.told() == ["opened", "a", "b", "vacant shutdown"]


# A chunk that was under way, and lost its slot to a control, was dropped.
@virtual
async def test_an_interruption_during_a_write_that_loses_its_slot_keeps_its_text() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 0.5
    production = stage.start(ScriptedModel("a", 0.1, "b", 3600))
    await asyncio.sleep(0.2)
    stage.store.write_s = 0
    await grant(stage.takeovers, stage.key, stage.caller)
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert "".join(r.text for r in await stage.records()) == "ab"


@virtual
async def test_an_interrupted_producer_does_not_wait_for_a_dead_store() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 3600))
    await asyncio.sleep(1)
    stage.store.broken = True
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert asyncio.get_running_loop().time() < 4


@pytest.mark.parametrize("fate", ["fail", "lose"])
@virtual
async def test_a_store_that_fails_for_a_moment_costs_nothing_but_time(fate: str) -> None:
    stage = await Stage().begin()
    stage.store.fates.extend([fate] * 3)  # type: ignore[list-item]
    await stage.produce("a", 1, "b", DONE)
    assert await stage.told() == ["opened", "a", "b", "completed"]


@virtual
async def test_a_producer_gives_up_a_store_that_is_away_for_too_long() -> None:
    stage = await Stage().begin()
    model = ScriptedModel("a", 1, "b", 3600)
    production = stage.start(model)
    await asyncio.sleep(0.5)
    stage.store.broken = True
    with pytest.raises(Unavailable):
        await production
    assert 15 < asyncio.get_running_loop().time() < 19
    assert model.closed


@virtual
async def test_a_successor_stops_a_producer_at_once() -> None:
    stage = await Stage().begin()
    model = ScriptedModel("a", 2, "b", 2, "c", DONE)
    production = stage.start(model)
    await asyncio.sleep(1)
    await stage.append(stage.record(2, Kind.EPOCH, epoch=2))
    await production
    assert await stage.told() == ["opened", "a", "epoch"]
    assert asyncio.get_running_loop().time() < 2.1
    assert model.closed


@virtual
async def test_a_stream_closed_by_another_stops_its_producer() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 2, "b", DONE))
    await asyncio.sleep(1)
    body = {"status": "failed", "finish_reason": "error", "usage": None, "error": None}
    await stage.close(body)
    await production
    assert await stage.told() == ["opened", "a", "failed"]


@virtual
async def test_of_two_producers_of_one_epoch_the_first_has_the_stream() -> None:
    stage = await Stage().begin()
    producers = [
        stage.producer(ScriptedModel(name, 1, name, DONE), epoch=2, by=stage.log.new_writer())
        for name in ("a", "b")
    ]
    known = await stage.records()
    await asyncio.gather(*(producer.run(known) for producer in producers))
    assert await stage.told() == ["opened", "epoch", "a", "a", "completed"]


@virtual
async def test_a_late_write_of_a_predecessor_is_part_of_the_text() -> None:
    stage = await Stage().begin()
    known = await stage.records()
    await stage.write("late")
    by = stage.log.new_writer()
    await stage.producer(ScriptedModel("a", DONE), epoch=2, by=by).run(known)
    assert await stage.told() == ["opened", "late", "epoch", "a", "completed"]


@virtual
async def test_a_control_that_is_not_for_us_costs_a_slot_and_nothing_else() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 2, "b", DONE))
    await asyncio.sleep(1)
    await grant(stage.takeovers, stage.key, stage.caller)
    await production
    assert await stage.told() == ["opened", "a", "grant", "b", "completed"]


@virtual
async def test_with_throttle_a_model_is_read_64_records_ahead_of_its_client() -> None:
    stage = await Stage().begin()
    steps: list[str | float] = ["a", 0.01] * 200
    model = ScriptedModel(*steps, DONE)
    with stage.live.channel(stage.key) as channel:
        channel.attach(0)
        production = stage.start(model, throttle=True)
        await asyncio.sleep(4)
        assert 64 <= model.taken <= 66
        channel.attach(10)
        await asyncio.sleep(0.5)
        assert 74 <= model.taken <= 76
        channel.attach(None)
        await production
    assert model.taken == 201


# Redaction


@virtual
async def test_what_a_tenant_has_redacted_is_never_in_the_log() -> None:
    stage = await Stage(redaction=RULES).begin()
    await stage.produce("Ask ann@exa", 1, "mple.org, it is class", 1, "ified stuff.", DONE)
    assert _text(await stage.records()) == "Ask [email], it is [word] stuff."
    assert "exa" not in repr(stage.store.items)


@virtual
async def test_what_may_still_become_a_match_waits_and_the_rest_does_not() -> None:
    stage = await Stage(redaction=RULES).begin()
    production = stage.start(ScriptedModel("One two clas", 7, "sic", DONE))
    await asyncio.sleep(1)
    assert await stage.told() == ["opened", "One two "]
    await production
    assert _text(await stage.records()) == "One two classic"


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (DONE, "completed"),
        (FAILS, "failed provider-failed"),
        (KeyError("x"), "failed internal"),
    ],
)
@virtual
async def test_however_an_answer_ends_what_was_kept_back_is_let_through(
    end: Any, told: str
) -> None:
    stage = await Stage(redaction=RULES).begin()
    await stage.produce("One ann@example.org, tw", end)
    assert _text(await stage.records()) == "One [email], tw"
    assert (await stage.told())[-1] == told


@virtual
async def test_who_hands_over_keeps_back_what_may_be_half_of_a_value() -> None:
    stage = await Stage(redaction=RULES).begin()
    production = stage.start(ScriptedModel("One ann@example.org", 3600))
    await asyncio.sleep(1)
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert (await stage.told())[1:] == ["One ", "vacant shutdown"]
    await stage.succeed(ScriptedModel("ann@example.org, two.", DONE))
    assert _text(await stage.records()) == "One [email], two."


@virtual
async def test_a_cancel_lets_nothing_more_through() -> None:
    stage = await Stage(redaction=RULES).begin()
    production = stage.start(ScriptedModel("One tw", 3600))
    await asyncio.sleep(1)
    await cancel(stage.lifecycle, stage.key, stage.caller)
    await production
    assert _text(await stage.records()) == "One "


@pytest.mark.parametrize("last", ["forbidden fruit", "forbidden"])
@virtual
async def test_a_rule_that_ends_the_answer_ends_it_before_the_match(last: str) -> None:
    stage = await Stage(redaction=RULES).begin()
    model = ScriptedModel("ann@example.org: ", 1, last, DONE, " more")
    producer = stage.producer(model)
    await producer.run((stage.opened,))
    closed = (await stage.records())[-1]
    assert _text(await stage.records()) == "[email]: "
    assert (closed.body["status"], closed.body["finish_reason"]) == ("completed", "policy")
    assert producer.error is None
    assert model.closed
    assert await stage.audited() == ["started ok", "closed policy"]


@virtual
async def test_what_was_said_before_may_end_the_answer_at_its_seam() -> None:
    def no_more_than_once(text: str) -> None:
        if "enough" in text:
            raise PolicyViolation("enough", text)

    stage = await Stage().begin()
    await stage.write("That is enough.")
    model = ScriptedModel(" More.", DONE)
    await stage.succeed(model, validators=[no_more_than_once])
    assert (await stage.told())[1:] == ["That is enough.", "epoch", "completed"]
    assert (await stage.records())[-1].body["finish_reason"] == "policy"
    assert model.closed


# Budgets


@pytest.mark.parametrize(("short", "reason"), [(True, "quota"), (False, "length")])
@virtual
async def test_an_answer_ends_where_there_is_no_more_room(short: bool, reason: str) -> None:
    stage = await Stage().begin()
    model = ScriptedModel("1234", 1, "5678", 1, "9", DONE)
    await stage.producer(model, chars_max=6, short=short).run((stage.opened,))
    closed = (await stage.records())[-1]
    assert await stage.told() == ["opened", "1234", "56", "completed"]
    assert closed.body["finish_reason"] == reason
    assert closed.body["usage"] == {"input_tokens": 2, "output_tokens": 2, "estimated": True}
    assert model.closed


@pytest.mark.parametrize(
    ("short", "said", "reason"),
    [
        (True, "length", "quota"),
        (False, "length", "length"),
        (True, "stop", "stop"),
        (True, "policy", "policy"),
    ],
)
@virtual
async def test_a_model_that_stops_by_itself_is_believed(
    short: bool, said: Any, reason: str
) -> None:
    stage = await Stage().begin()
    await stage.produce("123456", Finish(said, Usage(1, 2)), chars_max=6, short=short)
    closed = (await stage.records())[-1]
    assert (closed.body["finish_reason"], closed.body["usage"]["estimated"]) == (reason, False)


@virtual
async def test_room_is_counted_in_what_the_model_says_not_in_what_is_left_of_it() -> None:
    stage = await Stage(redaction={"words": [{"word": "classified", "mode": "drop"}]}).begin()
    await stage.produce("classified ", "abcd", DONE, chars_max=13, short=True)
    assert _text(await stage.records()) == " ab"


@virtual
async def test_an_answer_is_charged_when_it_ends() -> None:
    stage = await Stage(limits={"tokens_per_day": 1000}).begin()
    assert stage.counters()["day:2027-01-15"] == WANTED.tokens
    await stage.produce("a", DONE)
    assert stage.counters().items() >= {"active": 0, "day:2027-01-15": 3}.items()


@pytest.mark.parametrize("failure", [FAILS, KeyError("x")])
@virtual
async def test_an_answer_that_fails_before_any_text_costs_nothing(failure: Any) -> None:
    stage = await Stage(limits={"tokens_per_day": 1000}).begin()
    await stage.produce(failure)
    closed = (await stage.records())[-1]
    assert closed.body["usage"] == {"input_tokens": 0, "output_tokens": 0, "estimated": False}
    assert stage.counters().items() >= {"active": 0, "day:2027-01-15": 0}.items()


@virtual
async def test_an_answer_that_fails_after_some_text_costs_what_was_said() -> None:
    stage = await Stage(limits={"tokens_per_day": 1000}).begin()
    await stage.produce("12345", FAILS)
    assert stage.counters()["day:2027-01-15"] == 2 + 2


# Permission


async def begun(expires_s: int, **policy: Any) -> Stage:
    """A stream of somebody whose key expires so soon."""
    stage = Stage(**policy)
    return await stage.begin(stage.caller_by("short", valid_until=EPOCH_S + expires_s))


@virtual
async def test_nothing_is_written_after_an_expiry_and_nothing_is_lost_by_it() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 2, "b", 2, "c", 2, "d", 30, "e", DONE))
    await asyncio.sleep(20)
    assert await stage.told() == ["opened", "expiring", "a", "b", "pause"]
    paused = (await stage.records())[-1]
    assert paused.body == {"reason": "expired", "parked": False}
    assert paused.at >= (EPOCH_S + 3) * 1000
    await grant(stage.takeovers, stage.key, stage.caller)
    await production
    told = [kind for kind in await stage.told() if kind != "heartbeat"]
    assert told[5:] == ["grant", "cd", "e", "completed"]
    assert await stage.audited() == ["started ok", "paused ok", "granted ok", "closed stop"]


@virtual
async def test_a_revocation_pauses_a_stream_within_half_a_minute() -> None:
    stage = Stage()
    caller = stage.caller_by("second")
    await stage.begin(caller)
    steps: list[str | float] = ["x", 1.0] * 60
    production = stage.start(ScriptedModel(*steps, DONE))
    await asyncio.sleep(5)
    await stage.revoke(caller)
    revoked_at = stage.log.now_ms()
    await asyncio.sleep(40)
    records = await stage.records()
    assert (records[-1].kind, records[-1].body["reason"]) == ("pause", "revoked")
    assert 0 < records[-1].at - revoked_at <= 20_000
    await grant(stage.takeovers, stage.key, stage.caller)
    await production
    assert _text(await stage.records()) == "x" * 60


@virtual
async def test_a_suspended_tenants_stream_goes_on_when_the_tenant_may() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 25, "b", 30, "c", DONE))
    await asyncio.sleep(1)
    stage.change(suspended=True)
    await asyncio.sleep(29)
    assert (await stage.told())[-1] == "pause"
    stage.change(suspended=False)
    await production
    assert _text(await stage.records()) == "abc"
    assert [r.body["reason"] for r in await stage.records() if r.kind == Kind.PAUSE] == [
        "suspended"
    ]


@virtual
async def test_a_stream_that_nobody_grants_is_left_paused_without_what_was_not_sent() -> None:
    stage = await begun(expires_s=3)
    model = ScriptedModel("a", 4, "withheld", 3600)
    await stage.start(model)
    assert await stage.told() == ["opened", "expiring", "a", "pause", "parked expired"]
    assert 4 + PAUSE_S <= asyncio.get_running_loop().time() < 4 + PAUSE_S + 3
    assert model.closed
    assert "withheld" not in repr(stage.store.items)


# The model had said it, and nobody paid.
@virtual
async def test_what_was_said_and_not_sent_is_charged_all_the_same() -> None:
    stage = await begun(expires_s=3, limits={"tokens_per_day": 1000})
    await stage.produce("abcd", 4, "x" * 40, 3600)
    parked = (await stage.records())[-1]
    assert parked.body == {"reason": "expired", "parked": True, "unsent_chars": 40}
    await stage.lifecycle.close_abandoned(stage.key, parked)
    assert (await stage.records())[-1].body["usage"]["output_tokens"] == 1 + 10
    assert stage.counters()["day:2027-01-15"] == 2 + 1 + 10


# Found by the simulation: it was closed as completed.
@virtual
async def test_an_answer_that_came_to_its_end_in_a_pause_is_not_complete_before_a_grant() -> None:
    stage = await begun(expires_s=3)
    await stage.produce("a", 4, "b", DONE)
    assert (await stage.told())[-2:] == ["pause", "parked expired"]
    await grant(stage.takeovers, stage.key, stage.caller)
    assert stage.launched == [stage.key]
    await stage.succeed(ScriptedModel("b", DONE))
    assert (await stage.told())[-4:] == ["grant", "epoch", "b", "completed"]


# It asked the model, and waited a minute for the grant: each who came after an expiry did.
@virtual
async def test_who_comes_after_an_expiry_asks_no_model_and_leaves_the_stream_paused() -> None:
    stage = await begun(expires_s=3)
    await stage.write("a")
    await asyncio.sleep(20)
    await stage.takeovers.settle(stage.key)
    model = ScriptedModel("b", DONE)
    await stage.succeed(model)
    assert await stage.told() == ["opened", "a", "vacant lost", "parked expired"]
    assert model.asked is None
    assert asyncio.get_running_loop().time() == 20
    await grant(stage.takeovers, stage.key, stage.caller)
    await stage.succeed(model)
    assert (await stage.told())[-4:] == ["grant", "epoch", "b", "completed"]
    assert [r.epoch for r in await stage.records() if r.kind == Kind.EPOCH] == [2]


@virtual
async def test_a_grant_that_is_faster_than_who_may_not_begin_lets_it() -> None:
    stage = await begun(expires_s=3)
    await asyncio.sleep(20)
    await stage.takeovers.settle(stage.key)
    stage.store.write_s = 1.0
    production = asyncio.create_task(stage.succeed(ScriptedModel("a", DONE)))
    await asyncio.sleep(0.5)
    stage.store.write_s = 0.0
    await grant(stage.takeovers, stage.key, stage.caller)
    await production
    assert await stage.told() == ["opened", "vacant lost", "grant", "epoch", "a", "completed"]


# The slot decides between who stops waiting and who grants.
@virtual
async def test_a_grant_that_is_faster_than_who_gives_up_waiting_keeps_it() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 4, "b", DONE))
    await asyncio.sleep(60)
    stage.store.write_s = 5.0
    granting = asyncio.create_task(grant(stage.takeovers, stage.key, stage.caller))
    await asyncio.gather(production, granting)
    assert (await stage.told())[-4:] == ["pause", "grant", "b", "completed"]
    assert stage.launched == []


@virtual
async def test_an_answer_of_which_all_is_written_needs_no_permission_to_end() -> None:
    stage = await begun(expires_s=3)
    await stage.produce("a", 4, DONE)
    assert await stage.told() == ["opened", "expiring", "a", "completed"]


@virtual
async def test_a_cancel_ends_a_pause() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 4, "b", 3600))
    await asyncio.sleep(10)
    await cancel(stage.lifecycle, stage.key, stage.caller)
    await production
    assert (await stage.told())[-3:] == ["pause", "cancel", "cancelled"]
    assert asyncio.get_running_loop().time() < 12


@virtual
async def test_a_successor_ends_a_pause() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 4, "b", 3600))
    await asyncio.sleep(10)
    seq = (await stage.log.tail(stage.key)).seq + 1
    await stage.append(stage.record(seq, Kind.EPOCH, epoch=2))
    await production
    assert (await stage.told())[-2:] == ["pause", "epoch"]
    assert asyncio.get_running_loop().time() < 12


@virtual
async def test_a_deadline_ends_a_pause() -> None:
    stage = await begun(expires_s=3)
    await stage.produce("a", 4, "b", 3600, deadline=40.0)
    assert (await stage.told())[-2:] == ["pause", "parked expired"]
    assert 20 <= asyncio.get_running_loop().time() < 22


# It would have been nobody's before it counted as dead.
@virtual
async def test_a_shutdown_in_a_pause_leaves_the_stream_paused_and_shows_nothing() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 4, "b", 3600))
    await asyncio.sleep(10)
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert (await stage.told())[-2:] == ["pause", "parked expired"]
    assert _text(await stage.records()) == "a"
    assert asyncio.get_running_loop().time() == 10


# It was offered again without its entry of the audit.
@pytest.mark.parametrize("fate", ["ok", "fail", "lose"])
@virtual
async def test_a_shutdown_while_a_pause_is_written_tells_of_it_all_the_same(fate: Any) -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 4, "b", 3600))
    await asyncio.sleep(3.5)
    stage.store.write_s = 1.0
    stage.store.fates.append(fate)
    await asyncio.sleep(1)
    stage.store.write_s = 0.0
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    # One that was offered already may have been written: the same is offered first.
    told = await stage.told()
    assert told[:3] + told[-1:] == ["opened", "expiring", "a", "parked expired"]
    assert set(told[3:-1]) <= {"pause"}
    assert await stage.audited() == ["started ok", *["paused ok"] * (len(told) - 3)]


@virtual
async def test_a_grant_that_is_faster_than_the_pause_makes_it_needless() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 4, "b", DONE))
    await asyncio.sleep(2)
    await grant(stage.takeovers, stage.key, stage.caller)
    await production
    assert await stage.told() == [
        *("opened", "expiring", "a", "grant", "b", "completed"),
    ]


# It was offered again at the next slot, without another question.
@virtual
async def test_a_text_that_loses_its_slot_is_written_only_if_it_still_may_be() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel(1, "a", 1, "b", 3600))
    await asyncio.sleep(1.5)
    stage.store.write_s = 2.0
    await asyncio.sleep(1)  # `b` is on its way
    stage.store.write_s = 0.0
    await stage.append(replace(stage.record(3, Kind.PAUSE), kind="news"))
    await production
    assert await stage.told() == [
        *("opened", "expiring", "a", "news", "pause", "parked expired"),
    ]


@virtual
async def test_a_grant_by_a_credential_that_has_ended_does_not_help() -> None:
    stage = await begun(expires_s=3)
    other = stage.caller_by("also-short", valid_until=EPOCH_S + 12)
    production = stage.start(ScriptedModel("a", 4, "b", 10, "c", 3600))
    await asyncio.sleep(10)
    await grant(stage.takeovers, stage.key, other)
    await production
    assert (await stage.told())[3:] == [*("pause", "grant", "b", "pause", "parked expired")]


@virtual
async def test_clients_are_told_half_a_minute_before_an_expiry_and_once() -> None:
    stage = await begun(expires_s=60)
    production = stage.start(ScriptedModel("a", 100, "b", DONE))
    await asyncio.sleep(59)
    records = await stage.records()
    (notice,) = [record for record in records if record.kind == Kind.EXPIRING]
    assert notice.body == {"expires_at": EPOCH_S + 60}
    assert 25_000 <= (EPOCH_S + 60) * 1000 - notice.at <= 30_000
    longer = stage.caller_by("longer", valid_until=EPOCH_S + 130)
    await grant(stage.takeovers, stage.key, longer)
    await production
    told = [record for record in await stage.records() if record.kind == Kind.EXPIRING]
    assert [record.body["expires_at"] - EPOCH_S for record in told] == [60, 130]
    assert _text(await stage.records()) == "ab"


@virtual
async def test_what_cannot_be_looked_up_stops_nothing_for_half_a_minute() -> None:
    stage = await Stage().begin()
    steps: list[str | float] = ["x", 1.0] * 60
    model = ScriptedModel(*steps, DONE)
    production = stage.start(model)
    await asyncio.sleep(1.5)
    stage.store.unreadable = True
    with pytest.raises(Unavailable):
        await production
    assert 29 <= asyncio.get_running_loop().time() <= 32
    assert model.closed
    stage.store.unreadable = False
    assert 28 <= len(_text(await stage.records())) <= 31


@virtual
async def test_a_pause_outlasts_a_store_that_is_away() -> None:
    stage = await begun(expires_s=3)
    production = stage.start(ScriptedModel("a", 4, "b", DONE))
    await asyncio.sleep(5)
    stage.store.unreadable = True
    await asyncio.sleep(45)
    stage.store.unreadable = False
    await grant(stage.takeovers, stage.key, stage.caller)
    await production
    assert (await stage.told())[3:] == ["pause", "grant", "b", "completed"]


def _text(records: Sequence[Record]) -> str:
    return "".join(record.text for record in records)


# To go on with what another has begun


@virtual
async def test_a_replay_goes_on_where_the_text_ends() -> None:
    stage = await Stage().begin()
    await stage.write("One ", "two ")
    replayed = ScriptedModel("One two ", "three", DONE, goes_on=Continuation.REPLAY)
    await stage.succeed(replayed)
    assert await stage.told() == ["opened", "One ", "two ", "epoch", "three", "completed"]
    assert (await stage.records())[3].body == {"continuation": "replay"}


@virtual
async def test_a_replay_that_is_another_answer_fails_with_the_text_kept() -> None:
    stage = await Stage().begin()
    await stage.write("One ", "two ")
    await stage.succeed(ScriptedModel("One too ", DONE, goes_on=Continuation.REPLAY))
    assert await stage.told() == ["opened", "One ", "two ", "epoch", "failed provider-failed"]


# Found by the simulation: it was said twice.
@virtual
async def test_what_a_dying_producer_still_writes_is_not_said_again() -> None:
    stage = await Stage().begin()
    await stage.write("One ")
    records = await stage.records()
    await stage.write("two ")
    model = ScriptedModel("One ", "two ", "three", DONE, goes_on=Continuation.REPLAY)
    successor = stage.producer(model, epoch=2, by=stage.log.new_writer(), records=records)
    await successor.run(records)
    assert await stage.told() == ["opened", "One ", "two ", "epoch", "three", "completed"]


@virtual
async def test_who_finds_the_stream_vacant_writes_nothing_more() -> None:
    stage = await Stage().begin()
    model = ScriptedModel("a", 5, "b", DONE)
    production = stage.start(model)
    await asyncio.sleep(1)
    await stage.append(stage.record(2, Kind.VACANT, body={"reason": "lost"}))
    await production
    assert await stage.told() == ["opened", "a", "vacant lost"]
    assert model.closed


# Found by the simulation: another one went on.
@virtual
async def test_who_hands_over_and_finds_the_stream_paused_leaves_it_so() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 1.0
    production = stage.start(ScriptedModel("a", 3600), deadline=24.0)
    await asyncio.sleep(4.5)  # its last record is on its way
    stage.store.write_s = 0.0
    await pause(stage.lifecycle, stage.key, stage.caller)
    await production
    assert await stage.told() == ["opened", "a", "parked requested"]
    assert stage.launched == []


# It went on behind the pause, which it took for a late write of the one before it.
@virtual
async def test_who_is_launched_and_finds_the_stream_paused_leaves_it_so() -> None:
    stage = await Stage().begin(epoch=0)
    records = await stage.records()
    await pause(stage.lifecycle, stage.key, stage.caller)
    producer = stage.producer(ScriptedModel("a", DONE), by=stage.log.new_writer())
    await producer.run(records)
    assert await stage.told() == ["opened", "parked requested"]


@virtual
async def test_of_two_that_were_launched_one_produces() -> None:
    stage = await Stage().begin()
    await stage.append(stage.record(1, Kind.VACANT, body={"reason": "lost"}))
    models = [ScriptedModel("a", 1, "b", DONE) for _ in range(2)]
    await asyncio.gather(*(stage.succeed(model) for model in models))
    assert await stage.told() == ["opened", "vacant lost", "epoch", "a", "b", "completed"]
    assert sorted(model.taken for model in models) == [0, 3]


@virtual
async def test_the_first_chunk_tells_which_model_stands_in() -> None:
    stage = await Stage().begin()
    asked = replace(ASK, model="another")
    producer = stage.producer(ScriptedModel("a", 1, "b", DONE))
    producer._answer._ask = asked
    await producer.run((stage.opened,))
    bodies = [r.body for r in await stage.records() if r.kind == Kind.TEXT]
    assert bodies == [{"model": "scripted"}, {}]


class CancelledModel(ScriptedModel):
    """One that waits for something which somebody else cancels."""

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Finish, None]:
        yield "a"
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other


# It went on with heartbeats for three hours.
@virtual
async def test_a_provider_that_is_cancelled_from_within_has_failed() -> None:
    stage = await Stage().begin()
    async with asyncio.timeout(60):
        await stage.start(CancelledModel())
    assert await stage.told() == ["opened", "a", "failed internal"]


@virtual
async def test_a_shutdown_of_who_hands_over_has_another_go_on_once() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 1.0
    production = stage.start(ScriptedModel("a", 3600), deadline=24.0)
    await asyncio.sleep(4.5)  # its last record is on its way
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert (await stage.told())[-1] == "vacant deadline"
    assert stage.launched == [stage.key]


# It left the stream vacant a second time, and two were launched.
@virtual
async def test_a_shutdown_while_another_is_launched_leaves_the_stream_vacant_once() -> None:
    stage = await Stage().begin()
    stage.launch_s = 1.0
    production = stage.start(ScriptedModel("a", 3600), deadline=24.0)
    await asyncio.sleep(4.5)
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert await stage.told() == ["opened", "a", "vacant deadline"]
    assert stage.launched == [stage.key]
