"""Starting and cancelling: once, whatever is asked twice, lost or late."""

import asyncio
from dataclasses import replace

import pytest

from shared.errors import (
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    ProducerLost,
    ProviderFailed,
    TooLarge,
    Unavailable,
)
from shared.log import Log
from shared.models import Message, Models
from shared.pacing import Pacing
from shared.records import Kind, Record, StreamKey
from shared.starting import (
    CONTROL_TRIES_MAX,
    OPEN_TRIES_MAX,
    OPENED_BYTES_MAX,
    Replayed,
    Start,
    Started,
    cancel,
    check_replay,
    start_stream,
)
from shared.tenants import Idempotency, Identity, Tenants
from tests.simulation.clock import virtual
from tests.simulation.scripted import DONE, START, ScriptedModel, Stage

MODELS = Models({"scripted": ScriptedModel()})
TENANT = Identity("tenant")
KEY = Idempotency("key", "fingerprint")


async def begin(
    stage: Stage,
    start: Start = START,
    *,
    identity: Identity = TENANT,
    idempotency: Idempotency | None = None,
    epoch: int = 1,
) -> Started | Replayed:
    return await start_stream(
        stage.log,
        Tenants(stage.store),
        MODELS,
        identity,
        start,
        epoch=epoch,
        idempotency=idempotency,
    )


def streams(stage: Stage) -> int:
    return sum(key[2] == 0 for key in stage.store.items)


@virtual
async def test_what_was_asked_is_kept_in_the_opened_record() -> None:
    stage = Stage()
    start = Start(
        model="scripted",
        messages=(Message("system", "Be brief."), Message("user", "Grüezi")),
        max_tokens=7,
        pacing=Pacing((0, 9), 5, "none"),
        throttle=True,
        metadata={"a": "b"},
    )
    started = await begin(stage, start, epoch=0)
    assert isinstance(started, Started)
    (opened,) = (await stage.log.read(started.key)).records
    assert (opened.kind, opened.epoch, opened.by) == ("opened", 0, started.opened.by)
    assert Start.from_body(opened.body) == start
    summary = await stage.log.summary(started.key)
    assert (summary.status, summary.model, summary.metadata) == ("open", "scripted", {"a": "b"})


@virtual
async def test_a_model_that_is_not_there_starts_nothing() -> None:
    stage = Stage()
    with pytest.raises(InvalidRequest):
        await begin(stage, replace(START, model="other"))
    assert not stage.store.items


@virtual
async def test_a_conversation_that_no_record_can_hold_starts_nothing() -> None:
    stage = Stage()
    with pytest.raises(TooLarge) as raised:
        await begin(stage, replace(START, messages=(Message("user", "é" * OPENED_BYTES_MAX),)))
    assert raised.value.extensions["maximum"] == OPENED_BYTES_MAX
    assert not stage.store.items


@virtual
async def test_a_request_that_is_repeated_starts_nothing_new() -> None:
    stage = Stage()
    first = await begin(stage, idempotency=KEY)
    again = await begin(stage, idempotency=KEY)
    assert isinstance(first, Started)
    assert again == Replayed(first.key)
    assert streams(stage) == 1


@virtual
async def test_of_requests_at_the_same_time_one_starts_the_stream() -> None:
    stage = Stage()
    outcomes = await asyncio.gather(*(begin(stage, idempotency=KEY) for _ in range(20)))
    assert sum(isinstance(outcome, Started) for outcome in outcomes) == 1
    assert len({outcome.key for outcome in outcomes}) == 1
    assert streams(stage) == 1


@virtual
async def test_a_request_whose_reply_was_lost_is_answered_when_it_is_repeated() -> None:
    stage = Stage()
    stage.store.fates.extend(["lose"] * OPEN_TRIES_MAX)
    with pytest.raises(Unavailable):
        await begin(stage, idempotency=KEY)
    assert isinstance(await begin(stage, idempotency=KEY), Replayed)
    assert streams(stage) == 1


@pytest.mark.parametrize("fate", ["lose", "fail"])
@virtual
async def test_a_start_that_may_have_happened_is_asked_for_again(fate: str) -> None:
    stage = Stage()
    stage.store.fates.append(fate)  # type: ignore[arg-type]
    assert isinstance(await begin(stage, idempotency=KEY), Started)
    assert streams(stage) == 1


@virtual
async def test_a_request_that_failed_before_it_was_written_left_no_claim() -> None:
    stage = Stage()
    stage.store.fates.extend(["fail"] * OPEN_TRIES_MAX)
    with pytest.raises(Unavailable):
        await begin(stage, idempotency=KEY)
    assert isinstance(await begin(stage, idempotency=KEY), Started)


@virtual
async def test_a_key_belongs_to_one_body_of_one_user_of_one_tenant() -> None:
    stage = Stage()
    await begin(stage, idempotency=KEY)
    with pytest.raises(IdempotencyKeyReused):
        await begin(stage, idempotency=replace(KEY, fingerprint="another"))
    for identity in (Identity("tenant", "user"), Identity("tenant", "user2"), Identity("other")):
        assert isinstance(await begin(stage, identity=identity, idempotency=KEY), Started)
    assert isinstance(await begin(stage, idempotency=replace(KEY, key="other")), Started)


@virtual
async def test_without_a_key_every_request_starts_a_stream() -> None:
    stage = Stage()
    await begin(stage)
    await begin(stage)
    assert streams(stage) == 2


@virtual
async def test_a_key_is_kept_nowhere_in_the_clear() -> None:
    stage = Stage()
    await begin(stage, idempotency=Idempotency("very-secret", "fingerprint"))
    assert "very-secret" not in repr(stage.store.items)


@virtual
async def test_a_repeated_request_is_told_that_the_first_still_runs() -> None:
    stage = await Stage().begin()
    with pytest.raises(IdempotencyInFlight) as raised:
        await check_replay(stage.log, stage.key, may_run=False)
    assert raised.value.headers["Location"] == f"/v1/streams/{stage.key.stream}/events"
    await check_replay(stage.log, stage.key, may_run=True)


@virtual
async def test_a_repeated_request_gets_an_answer_or_what_the_first_was_told() -> None:
    answered, failed, broke = [await Stage().begin() for _ in range(3)]
    error = ProviderFailed("It broke.", code="throttled", retryable=True)
    await answered.produce("a", DONE)
    await failed.produce(error)
    await broke.produce("a", 1, error)
    await check_replay(answered.log, answered.key, may_run=False)
    await check_replay(broke.log, broke.key, may_run=False)
    with pytest.raises(ProviderFailed) as raised:
        await check_replay(failed.log, failed.key, may_run=False)
    # With this key it will be the same again.
    assert raised.value.brief() == {**error.brief(), "retryable": False}


@virtual
async def test_a_repeated_request_closes_a_stream_whose_producer_died() -> None:
    stage = await Stage().begin()
    await asyncio.sleep(16)
    with pytest.raises(ProducerLost):
        await check_replay(stage.log, stage.key, may_run=False)
    assert await stage.told() == ["opened", "failed producer-lost"]


@virtual
async def test_a_stream_is_continued_from_its_parents_conversation_and_text() -> None:
    stage = await Stage().begin()
    await stage.produce("Two ", 1, "words", DONE)
    more = Message("user", "More.")
    child = await begin(stage, Start("scripted", (more,), parent=stage.key.stream))
    assert isinstance(child, Started)
    answer = Message("assistant", "Two words")
    assert child.start.messages == (*START.messages, answer, more)
    assert (await stage.log.summary(child.key)).parent == stage.key.stream


@virtual
async def test_a_parent_that_still_runs_is_cancelled_first() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 3, "b", DONE))
    await asyncio.sleep(1)
    child = await begin(stage, Start("scripted", (), parent=stage.key.stream))
    await production
    assert isinstance(child, Started)
    assert child.start.messages[-1] == Message("assistant", "a")
    assert await stage.told() == ["opened", "a", "cancel", "cancelled"]


# The parent was read as far as an eventually consistent read shows it, and lost its end.
@virtual
async def test_no_text_of_a_parent_is_missed_however_stale_the_reads() -> None:
    stage = await Stage().begin()
    await stage.produce("a", 1, "b", DONE)
    stage.store.hidden = {2, 3}
    child = await begin(stage, Start("scripted", (), parent=stage.key.stream))
    assert isinstance(child, Started)
    assert child.start.messages[-1] == Message("assistant", "ab")


@virtual
async def test_a_long_parent_is_read_to_its_end() -> None:
    stage = await Stage().begin()
    await stage.write(*(f"{n} " for n in range(2500)))
    child = await begin(stage, Start("scripted", (), parent=stage.key.stream))
    assert isinstance(child, Started)
    assert child.start.messages[-1].content == "".join(f"{n} " for n in range(2500))


@virtual
async def test_a_parent_that_is_not_there_or_anothers_starts_nothing() -> None:
    stage = await Stage().begin()
    start = replace(START, parent=stage.key.stream)
    with pytest.raises(NotFound):
        await begin(stage, start, identity=Identity("other"))
    with pytest.raises(NotFound):
        await begin(stage, replace(START, parent="0" * 24))
    assert await stage.told() == ["opened"]
    assert streams(stage) == 1


@virtual
async def test_a_cancel_is_written_once_however_often_it_is_asked() -> None:
    stage = await Stage().begin()
    first = await cancel(stage.log, stage.key)
    again = await cancel(stage.log, stage.key)
    assert (first.kind, first) == (Kind.CANCEL, again)
    assert await stage.told() == ["opened", "cancel"]


@virtual
async def test_a_cancel_after_the_end_changes_nothing() -> None:
    stage = await Stage().begin()
    await stage.produce("a", DONE)
    told = await stage.told()
    assert (await cancel(stage.log, stage.key)).closes
    assert await stage.told() == told


@virtual
async def test_a_cancel_that_races_with_the_end_is_told_how_it_ended() -> None:
    for delay_s in (0.0, 0.1, 0.2, 0.3):
        stage = await Stage().begin()
        stage.store.write_s = 0.1
        production = stage.start(ScriptedModel("a", DONE))
        await asyncio.sleep(delay_s)
        record = await cancel(stage.log, stage.key)
        await production
        status = (await stage.log.summary(stage.key)).status
        assert status == ("completed" if record.closes else "cancelled")


@virtual
async def test_a_cancel_closes_a_stream_whose_producer_is_dead() -> None:
    stage = await Stage().begin()
    await stage.write("a")
    await asyncio.sleep(16)
    assert (await cancel(stage.log, stage.key)).closes
    assert await stage.told() == ["opened", "a", "cancel", "cancelled"]


@virtual
async def test_a_cancel_that_was_not_obeyed_is_carried_out_by_the_next() -> None:
    stage = await Stage().begin()
    await cancel(stage.log, stage.key)
    await asyncio.sleep(16)
    assert (await cancel(stage.log, stage.key)).closes
    assert (await stage.log.summary(stage.key)).status == "cancelled"


@virtual
async def test_a_cancel_gives_up_on_a_stream_that_takes_every_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = await Stage().begin()
    append, tries = Log.append, 0

    async def append_too_late(self: Log, key: StreamKey, wish: Record) -> Record:
        nonlocal tries
        tries += 1
        await append(self, key, stage.record(wish.seq, Kind.TEXT, text="x"))
        return await append(self, key, wish)

    monkeypatch.setattr(Log, "append", append_too_late)
    with pytest.raises(Unavailable):
        await cancel(stage.log, stage.key)
    assert tries == CONTROL_TRIES_MAX
    assert (await stage.told())[-1] == "x"


@virtual
async def test_a_stream_of_another_tenant_cannot_be_cancelled() -> None:
    stage = await Stage().begin()
    with pytest.raises(NotFound):
        await cancel(stage.log, StreamKey("other", stage.key.stream))
    assert await stage.told() == ["opened"]


@virtual
async def test_a_launch_that_failed_is_what_its_repetition_is_told() -> None:
    stage = await Stage().begin()
    await stage.log.close_abandoned(
        stage.key, stage.opened, Unavailable("No producer could be started.")
    )
    with pytest.raises(Unavailable) as raised:
        await check_replay(stage.log, stage.key, may_run=True)
    assert raised.value.detail == "No producer could be started."
