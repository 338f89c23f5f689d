"""The producer, against scripted models and stores, in virtual time."""

import asyncio
from itertools import pairwise, repeat

import pytest

from shared.errors import OutOfTime, ProviderFailed, Unavailable
from shared.models import Finish
from shared.pacing import Pacing
from shared.producer import CHUNK_CHARS_MAX, DEADLINE_MARGIN_S, HELD_CHARS_MAX
from shared.records import Kind
from shared.starting import cancel
from tests.simulation.clock import virtual
from tests.simulation.scripted import DONE, ScriptedModel, Stage

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
    await cancel(stage.log, stage.key)
    await production
    assert await stage.told() == ["opened", "a", "heartbeat", "cancel", "cancelled"]
    assert asyncio.get_running_loop().time() < 11
    assert model.closed


@virtual
async def test_behind_a_cancel_there_is_no_more_text() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 2, "b", "c", DONE))
    await asyncio.sleep(1)
    await cancel(stage.log, stage.key)
    await production
    assert await stage.told() == ["opened", "a", "cancel", "cancelled"]
    summary = await stage.log.summary(stage.key)
    assert (summary.status, summary.finish_reason) == ("cancelled", "cancelled")


@virtual
async def test_a_stream_cancelled_before_its_producer_is_there_asks_no_model() -> None:
    stage = await Stage().begin()
    await cancel(stage.log, stage.key)
    model = ScriptedModel("a", DONE)
    await stage.producer(model).run(await stage.records())
    assert await stage.told() == ["opened", "cancel", "cancelled"]
    assert model.taken == 0


@virtual
async def test_a_deadline_ends_the_stream_with_its_text_kept() -> None:
    stage = await Stage().begin()
    producer = await stage.produce("a", 3600, deadline=18.0)
    assert await stage.told() == ["opened", "a", "heartbeat", "failed out-of-time"]
    assert isinstance(producer.error, OutOfTime)
    assert asyncio.get_running_loop().time() == 18.0 - DEADLINE_MARGIN_S


# The model was read on behind the deadline, which a fast one so never met.
@virtual
async def test_a_deadline_holds_against_a_model_that_is_faster_than_the_writes() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 0.02
    steps: list[str | float] = ["a", 0.001] * 30_000
    producer = await stage.produce(*steps, DONE, deadline=12.0)
    assert isinstance(producer.error, OutOfTime)
    assert asyncio.get_running_loop().time() < 12.0 - DEADLINE_MARGIN_S + 1


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
async def test_an_interrupted_producer_says_so_and_keeps_what_it_holds() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 0.1, "b", 3600), pacing=Pacing((3000, 3000), 0))
    await asyncio.sleep(1)
    production.cancel()
    with pytest.raises(asyncio.CancelledError):
        await production
    assert await stage.told() == ["opened", "a", "b", "failed interrupted"]


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
    assert await stage.told() == ["opened", "a", "b", "failed interrupted"]


# A chunk that was under way, and lost its slot to a control, was dropped.
@virtual
async def test_an_interruption_during_a_write_that_loses_its_slot_keeps_its_text() -> None:
    stage = await Stage().begin()
    stage.store.write_s = 0.5
    production = stage.start(ScriptedModel("a", 0.1, "b", 3600))
    await asyncio.sleep(0.2)
    stage.store.write_s = 0
    await stage.append(stage.record(1, Kind.GRANT))
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
    await stage.log.close(stage.key, stage.record(2, Kind.CLOSED, epoch=2, body=body))
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
    await stage.append(stage.record(2, Kind.GRANT))
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
