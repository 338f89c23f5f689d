"""Starting: once, whatever is asked twice, lost or late."""

import asyncio
from dataclasses import replace

import pytest

from shared.authority import Caller
from shared.breaker import FAILURES_MIN, JUDGED_AFTER_S
from shared.errors import (
    Forbidden,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    PolicyViolated,
    ProviderFailed,
    TooLarge,
    Unavailable,
)
from shared.idempotency import Idempotency
from shared.identity import SCOPES, Identity
from shared.identity.keys import DEFAULT_SCOPES
from shared.lifecycle import LOST_TRIES_MAX
from shared.models import Message, Models
from shared.pacing import Pacing
from shared.records import DAY_S, Kind, Record
from shared.starting import (
    OPENED_BYTES_MAX,
    PARENT_S,
    Replayed,
    Start,
    Started,
    Starting,
)
from shared.steering import check_replay
from tests.simulation.clock import virtual
from tests.simulation.scripted import DONE, EPOCH_S, START, ScriptedModel, Stage

MODELS = Models({"scripted": ScriptedModel()})
KEY = Idempotency("key", "fingerprint")
RULES = {
    "detectors": {"email": "mask"},
    "words": [{"word": "classified"}, {"word": "forbidden", "mode": "close", "name": "ban"}],
    "prompts": True,
}


async def begin(
    stage: Stage,
    start: Start = START,
    *,
    caller: Caller | None = None,
    idempotency: Idempotency | None = None,
    epoch: int = 1,
) -> Started | Replayed:
    return await Starting(stage.lifecycle, MODELS, stage.breakers).start(
        caller or stage.caller, start, epoch=epoch, idempotency=idempotency
    )


def asked(started: Started) -> Start:
    """What the log keeps of what was asked."""
    return Start.from_body(started.opened.body)


def stranger(stage: Stage) -> Caller:
    """Who asks for another tenant."""
    tenant = replace(stage.tenant, name="other")
    return Caller(Identity("other", credential="key:other"), tenant)


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
    assert stage.streams() == 0
    assert not stage.counters()


@virtual
async def test_a_conversation_that_no_record_can_hold_starts_nothing() -> None:
    stage = Stage()
    with pytest.raises(TooLarge) as raised:
        await begin(stage, replace(START, messages=(Message("user", "é" * OPENED_BYTES_MAX),)))
    assert raised.value.extensions["maximum"] == OPENED_BYTES_MAX
    assert stage.streams() == 0
    assert not stage.counters()


@virtual
async def test_a_request_that_is_repeated_starts_nothing_new() -> None:
    stage = Stage()
    first = await begin(stage, idempotency=KEY)
    again = await begin(stage, idempotency=KEY)
    assert isinstance(first, Started)
    assert again == Replayed(first.key)
    assert stage.streams() == 1


@virtual
async def test_of_requests_at_the_same_time_one_starts_the_stream() -> None:
    stage = Stage()
    outcomes = await asyncio.gather(*(begin(stage, idempotency=KEY) for _ in range(20)))
    assert sum(isinstance(outcome, Started) for outcome in outcomes) == 1
    assert len({outcome.key for outcome in outcomes}) == 1
    assert stage.streams() == 1


@virtual
async def test_a_request_whose_reply_was_lost_is_answered_when_it_is_repeated() -> None:
    stage = Stage()
    stage.store.fates.extend(["lose"] * LOST_TRIES_MAX)
    first = await begin(stage, idempotency=KEY)
    assert isinstance(first, Started)  # else it would have no producer
    assert await begin(stage, idempotency=KEY) == Replayed(first.key)
    assert stage.streams() == 1


@pytest.mark.parametrize("fate", ["lose", "fail"])
@virtual
async def test_a_start_that_may_have_happened_is_asked_for_again(fate: str) -> None:
    stage = Stage()
    stage.store.fates.append(fate)  # type: ignore[arg-type]
    assert isinstance(await begin(stage, idempotency=KEY), Started)
    assert stage.streams() == 1


@virtual
async def test_a_request_that_failed_before_it_was_written_left_no_claim() -> None:
    stage = Stage()
    stage.store.fates.extend(["fail"] * LOST_TRIES_MAX)
    with pytest.raises(Unavailable):
        await begin(stage, idempotency=KEY)
    assert isinstance(await begin(stage, idempotency=KEY), Started)


@virtual
async def test_a_key_belongs_to_one_body_of_one_user_of_one_tenant() -> None:
    stage = Stage()
    await begin(stage, idempotency=KEY)
    with pytest.raises(IdempotencyKeyReused):
        await begin(stage, idempotency=replace(KEY, fingerprint="another"))
    users = [stage.caller_by(user, user=user) for user in ("ann", "bob")]
    for caller in (*users, stranger(stage)):
        assert isinstance(await begin(stage, caller=caller, idempotency=KEY), Started)
    assert isinstance(await begin(stage, idempotency=replace(KEY, key="other")), Started)


@virtual
async def test_without_a_key_every_request_starts_a_stream() -> None:
    stage = Stage()
    await begin(stage)
    await begin(stage)
    assert stage.streams() == 2


@virtual
async def test_a_key_is_kept_nowhere_in_the_clear() -> None:
    stage = Stage()
    await begin(stage, idempotency=Idempotency("very-secret", "fingerprint"))
    assert "very-secret" not in repr(stage.store.items)


@virtual
async def test_a_repeated_request_is_told_that_the_first_still_runs() -> None:
    stage = await Stage().begin()
    with pytest.raises(IdempotencyInFlight) as raised:
        await check_replay(stage.takeovers, stage.key, may_run=False)
    assert raised.value.headers["Location"] == f"/v1/streams/{stage.key.stream}/events"
    await check_replay(stage.takeovers, stage.key, may_run=True)


@virtual
async def test_a_repeated_request_gets_an_answer_or_what_the_first_was_told() -> None:
    answered, failed, broke = [await Stage().begin() for _ in range(3)]
    error = ProviderFailed("It broke.", code="throttled", retryable=True)
    await answered.produce("a", DONE)
    await failed.produce(error)
    await broke.produce("a", 1, error)
    await check_replay(answered.takeovers, answered.key, may_run=False)
    await check_replay(broke.takeovers, broke.key, may_run=False)
    with pytest.raises(ProviderFailed) as raised:
        await check_replay(failed.takeovers, failed.key, may_run=False)
    # With this key it will be the same again.
    assert raised.value.brief() == {**error.brief(), "retryable": False}


@pytest.mark.parametrize(
    "kind", [Kind.HEARTBEAT, Kind.EXPIRING, Kind.PAUSE, Kind.GRANT, Kind.EPOCH]
)
@virtual
async def test_what_came_before_a_failure_without_text_does_not_make_it_an_answer(
    kind: Kind,
) -> None:
    stage = await Stage().begin()
    between = Record(1, kind, 1, stage.log.now_ms(), stage.opened.by)
    await stage.log.append(stage.key, between)
    error = PolicyViolated("ban", field="messages")
    await stage.lifecycle.close_abandoned(stage.key, between, error)
    with pytest.raises(PolicyViolated) as raised:
        await check_replay(stage.takeovers, stage.key, may_run=False)
    assert raised.value.problem() == error.problem()


@virtual
async def test_a_claim_may_outlive_its_stream() -> None:
    stage = await Stage(retention_days=1).begin()
    await stage.produce("a", DONE)
    await check_replay(stage.takeovers, stage.key, may_run=True)
    await asyncio.sleep(DAY_S)
    with pytest.raises(NotFound):
        await check_replay(stage.takeovers, stage.key, may_run=True)


@virtual
async def test_a_repeated_request_has_somebody_go_on_with_a_stream_whose_producer_died() -> None:
    stage = await Stage().begin()
    await asyncio.sleep(16)
    with pytest.raises(IdempotencyInFlight):
        await check_replay(stage.takeovers, stage.key, may_run=False)
    assert await stage.told() == ["opened", "vacant lost"]
    assert stage.launched == [stage.key]


@virtual
async def test_a_stream_is_continued_from_its_parents_conversation_and_text() -> None:
    stage = await Stage().begin()
    await stage.produce("Two ", 1, "words", DONE)
    more = Message("user", "More.")
    child = await begin(stage, Start("scripted", (more,), parent=stage.key.stream))
    assert isinstance(child, Started)
    answer = Message("assistant", "Two words")
    assert asked(child).messages == (*START.messages, answer, more)
    assert (await stage.log.summary(child.key)).parent == stage.key.stream


@virtual
async def test_a_parent_that_still_runs_is_cancelled_first() -> None:
    stage = await Stage().begin()
    production = stage.start(ScriptedModel("a", 3, "b", DONE))
    await asyncio.sleep(1)
    child = await begin(stage, Start("scripted", (), parent=stage.key.stream))
    await production
    assert isinstance(child, Started)
    assert asked(child).messages[-1] == Message("assistant", "a")
    assert await stage.told() == ["opened", "a", "cancel", "cancelled"]


# It was cancelled, and the request refused: its permit comes back with its end.
@pytest.mark.parametrize("silence_s", [0.5, 4.0])
@virtual
async def test_who_may_run_one_stream_may_refine_it_while_it_runs(silence_s: float) -> None:
    stage = Stage(user_limits={"streams_at_once": 1})
    caller = stage.caller_by("ada's", user="ada")
    parent = await begin(stage, caller=caller)
    assert isinstance(parent, Started)
    stage.key, stage.opened = parent.key, parent.opened
    production = stage.start(ScriptedModel("a", 60, "b", DONE))
    await asyncio.sleep(5.5 - silence_s)
    child = await begin(stage, Start("scripted", (), parent=parent.key.stream), caller=caller)
    await production
    assert isinstance(child, Started)
    assert (await stage.told())[-2:] == ["cancel", "cancelled"]


@virtual
async def test_a_parent_that_does_not_end_is_not_waited_for_without_end() -> None:
    stage = await Stage(limits={"streams_at_once": 1}).begin()
    with pytest.raises(LimitExceeded):
        await begin(stage, Start("scripted", (), parent=stage.key.stream))
    assert asyncio.get_running_loop().time() < PARENT_S + 1
    # Who is refused for another stream's sake does not wait for a parent that is over.
    done = await Stage(limits={"streams_at_once": 1}).begin()
    await done.produce("a", DONE)
    await begin(done)
    with pytest.raises(LimitExceeded):
        await begin(done, Start("scripted", (), parent=done.key.stream))
    assert asyncio.get_running_loop().time() < PARENT_S + 1


# The parent was read as far as an eventually consistent read shows it, and lost its end.
@virtual
async def test_no_text_of_a_parent_is_missed_however_stale_the_reads() -> None:
    stage = await Stage().begin()
    await stage.produce("a", 1, "b", DONE)
    stage.store.hidden = {2, 3}
    child = await begin(stage, Start("scripted", (), parent=stage.key.stream))
    assert isinstance(child, Started)
    assert asked(child).messages[-1] == Message("assistant", "ab")


@virtual
async def test_a_long_parent_is_read_to_its_end() -> None:
    stage = await Stage().begin()
    await stage.write(*(f"{n} " for n in range(2500)))
    child = await begin(stage, Start("scripted", (), parent=stage.key.stream))
    assert isinstance(child, Started)
    assert asked(child).messages[-1].content == "".join(f"{n} " for n in range(2500))


@virtual
async def test_a_parent_that_is_not_there_or_anothers_starts_nothing() -> None:
    stage = await Stage().begin()
    start = replace(START, parent=stage.key.stream)
    with pytest.raises(NotFound):
        await begin(stage, start, caller=stranger(stage))
    with pytest.raises(NotFound):
        await begin(stage, replace(START, parent="0" * 32))
    assert await stage.told() == ["opened"]
    assert stage.streams() == 1


# What a tenant allows


@virtual
async def test_a_model_that_is_not_open_to_a_tenant_starts_nothing() -> None:
    stage = Stage(limits={"models": ["demo", "openai/*"]})
    with pytest.raises(Forbidden) as raised:
        await begin(stage)
    assert raised.value.extensions == {"field": "model"}
    assert stage.streams() == 0
    stage.change(limits={"models": ["script*"]})
    assert isinstance(
        await begin(stage, caller=replace(stage.caller, tenant=stage.tenant)), Started
    )


@virtual
async def test_an_answer_is_bounded_by_what_its_tenant_allows() -> None:
    stage = Stage(limits={"max_tokens": 50})
    for wanted, kept in ((None, 50), (1, 1), (50, 50)):
        started = await begin(stage, replace(START, max_tokens=wanted))
        assert isinstance(started, Started)
        assert asked(started).max_tokens == kept
    with pytest.raises(InvalidRequest) as raised:
        await begin(stage, replace(START, max_tokens=51))
    assert raised.value.extensions == {"field": "max_tokens", "maximum": 50}
    assert stage.streams() == 3


@virtual
async def test_without_a_bound_an_answer_is_what_was_asked_for() -> None:
    stage = Stage()
    for wanted in (None, 10**6):
        started = await begin(stage, replace(START, max_tokens=wanted))
        assert isinstance(started, Started)
        assert asked(started).max_tokens == wanted


@virtual
async def test_a_start_takes_its_prompt_and_the_most_that_it_may_say() -> None:
    stage = Stage(limits={"tokens_per_day": 5000})
    first = await begin(stage, replace(START, max_tokens=100))
    second = await begin(stage)
    assert isinstance(first, Started)
    assert isinstance(second, Started)
    # "Count." is two tokens; who says nothing may have 4,096, or what is left.
    assert first.opened.body["held"]["tokens"] == 102
    assert second.opened.body["held"]["tokens"] == 4098
    third = await begin(stage)
    assert isinstance(third, Started)
    assert third.opened.body["allowance"] == 5000 - 102 - 4098 - 2


@virtual
async def test_what_a_start_leaves_is_told() -> None:
    started = await begin(Stage(limits={"streams_at_once": 3}))
    assert isinstance(started, Started)
    assert ("tenant-streams-at-once", 2) in {(left.policy, left.left) for left in started.left}


# Who only repeats a request must not be refused for what the first one took.
@virtual
async def test_a_repeated_request_is_not_refused_for_what_the_first_one_took() -> None:
    stage = Stage(limits={"streams_at_once": 1})
    first = await begin(stage, idempotency=KEY)
    assert await begin(stage, idempotency=KEY) == Replayed(first.key)
    with pytest.raises(LimitExceeded):
        await begin(stage, idempotency=replace(KEY, key="other"))
    with pytest.raises(LimitExceeded):
        await begin(stage)
    with pytest.raises(IdempotencyKeyReused):
        await begin(stage, idempotency=replace(KEY, fingerprint="other"))


@virtual
async def test_a_repeated_request_is_answered_while_nothing_can_be_written() -> None:
    stage = Stage()
    first = await begin(stage, idempotency=KEY)
    stage.store.broken = True
    assert await begin(stage, idempotency=KEY) == Replayed(first.key)
    with pytest.raises(Unavailable):
        await begin(stage)


@virtual
async def test_a_repeated_request_is_answered_while_its_model_fails() -> None:
    stage = Stage()
    first = await begin(stage, idempotency=KEY)
    await _trip(stage)
    assert await begin(stage, idempotency=KEY) == Replayed(first.key)
    with pytest.raises(Unavailable) as raised:
        await begin(stage)
    assert int(raised.value.headers["Retry-After"]) > 1


async def _trip(stage: Stage) -> None:
    """Open the breaker of the model."""
    for number in range(FAILURES_MIN):
        if number == FAILURES_MIN - 1:
            await asyncio.sleep(JUDGED_AFTER_S)
        call = await stage.breakers.admit("scripted")
        assert call
        async with call:
            call.failed()


@virtual
async def test_a_stream_is_of_the_user_and_the_credential_that_asked() -> None:
    stage = Stage()
    ann = stage.caller_by("ann", user="ann", valid_until=EPOCH_S + 60)
    started = await begin(stage, caller=ann)
    assert isinstance(started, Started)
    assert started.key.owner_tag == stage.tenant.owner_tag("ann")
    body = started.opened.body
    assert (body["user"], body["credential"], body["expires_at"]) == (
        *("ann", "key:ann", EPOCH_S + 60),
    )
    assert (await stage.log.summary(started.key)).user == "ann"


@virtual
async def test_a_stream_is_kept_for_as_long_as_its_tenant_wants() -> None:
    stage = Stage(retention_days=3)
    started = await begin(stage)
    assert started.key.expires_at == EPOCH_S + 3 * DAY_S


# Parents


@pytest.mark.parametrize(
    ("owner", "by", "scopes", "found"),
    [
        ("ann", "ann", DEFAULT_SCOPES, True),
        ("ann", "bob", DEFAULT_SCOPES, False),
        (None, "ann", DEFAULT_SCOPES, False),
        ("ann", "bob", SCOPES, True),
        ("ann", None, DEFAULT_SCOPES, True),
        (None, None, DEFAULT_SCOPES, True),
    ],
)
@virtual
async def test_a_parent_must_be_ones_own(
    owner: str | None, by: str | None, scopes: frozenset[str], found: bool
) -> None:
    stage = Stage()
    parent = await begin(stage, caller=stage.caller_by("first", user=owner))
    caller = stage.caller_by("second", user=by, scopes=scopes)
    start = replace(START, parent=parent.key.stream)
    if found:
        assert isinstance(await begin(stage, start, caller=caller), Started)
        return
    with pytest.raises(NotFound):
        await begin(stage, start, caller=caller)
    assert stage.streams() == 1
    assert (await stage.log.tail(parent.key)).kind == Kind.OPENED


@virtual
async def test_a_parent_whose_retention_is_over_is_not_there() -> None:
    stage = Stage(retention_days=1)
    parent = await begin(stage)
    await asyncio.sleep(DAY_S - 1)
    start = replace(START, parent=parent.key.stream)
    assert isinstance(await begin(stage, start), Started)
    await asyncio.sleep(1)
    with pytest.raises(NotFound):
        await begin(stage, start)
    assert stage.streams() == 2


# A request that was refused had cancelled its parent.
@virtual
async def test_a_parent_of_a_request_that_its_rules_refuse_goes_on() -> None:
    stage = await Stage(redaction=RULES).begin()
    await stage.write("Some text.")
    message = Message("user", "More of the forbidden.")
    start = replace(START, messages=(message,), parent=stage.key.stream)
    with pytest.raises(PolicyViolated):
        await begin(stage, start)
    assert await stage.told() == ["opened", "Some text."]


# Prompts


@virtual
async def test_prompts_are_redacted_before_anything_is_stored() -> None:
    stage = Stage(redaction=RULES)
    messages = (Message("system", "Call ann@example.org."), Message("user", "It is classified."))
    started = await begin(stage, replace(START, messages=messages))
    assert isinstance(started, Started)
    shown = [message.content for message in asked(started).messages]
    assert shown == ["Call [email].", "It is [word]."]
    assert "ann@" not in repr(stage.store.items)
    assert stage.streams() == 1
    # What the model is asked comes from there.
    assert asked(started).ask().messages == asked(started).messages


@virtual
async def test_metadata_is_redacted_with_the_prompts() -> None:
    stage = Stage(redaction=RULES)
    started = await begin(stage, replace(START, metadata={"question": "Call ann@example.org."}))
    assert isinstance(started, Started)
    assert asked(started).metadata == {"question": "Call [email]."}
    assert "ann@" not in repr(stage.store.items)


@pytest.mark.parametrize("metadata", [{"question": "So forbidden!"}, {"So forbidden!": "a"}])
@virtual
async def test_metadata_that_breaks_a_rule_starts_nothing(metadata: dict[str, str]) -> None:
    stage = Stage(redaction=RULES)
    with pytest.raises(PolicyViolated) as raised:
        await begin(stage, replace(START, metadata=metadata))
    assert raised.value.extensions == {"rule": "ban", "field": "metadata"}
    assert "forbidden" not in raised.value.detail
    assert stage.streams() == 0


@pytest.mark.parametrize("name", ["ann@example.org", "It is classified.", "ａｎｎ@example.org"])
@virtual
async def test_a_name_in_metadata_that_would_be_redacted_starts_nothing(name: str) -> None:
    """Another name would be another entry."""
    stage = Stage(redaction=RULES)
    with pytest.raises(InvalidRequest) as raised:
        await begin(stage, replace(START, metadata={"a": "b", name: "c"}), idempotency=KEY)
    assert raised.value.extensions == {"field": "metadata"}
    assert name not in raised.value.detail
    assert stage.streams() == 0
    assert not stage.counters()


@virtual
async def test_a_name_in_metadata_is_kept_where_nothing_is_found_in_it() -> None:
    stage = Stage(redaction=RULES)
    metadata = {"ｔｉｔｌｅ": "b", "\ufeffa": "c", "a": "d"}
    started = await begin(stage, replace(START, metadata=metadata))
    assert isinstance(started, Started)
    assert asked(started).metadata == metadata


@virtual
async def test_prompts_are_as_they_are_where_only_answers_are_redacted() -> None:
    stage = Stage(redaction=RULES | {"prompts": False})
    messages = (Message("user", "Call ann@example.org, forbidden or not."),)
    metadata = {"ann@example.org": "forbidden"}
    started = await begin(stage, replace(START, messages=messages, metadata=metadata))
    assert isinstance(started, Started)
    assert (asked(started).messages, asked(started).metadata) == (messages, metadata)


@virtual
async def test_a_prompt_that_breaks_a_rule_starts_nothing_and_is_told_nowhere() -> None:
    stage = Stage(redaction=RULES)
    with pytest.raises(PolicyViolated) as raised:
        await begin(
            stage, replace(START, messages=(Message("user", "So forbidden!"),)), idempotency=KEY
        )
    assert raised.value.extensions == {"rule": "ban", "field": "messages"}
    assert "forbidden!" not in raised.value.detail
    assert "So " not in repr(stage.store.items)
    assert stage.streams() == 0
    assert not stage.counters()


@virtual
async def test_what_a_parent_was_asked_is_redacted_by_the_rules_of_now() -> None:
    stage = await Stage().begin()
    await stage.produce("Ask ann@example.org", DONE)
    stage.change(redaction=RULES)
    caller = replace(stage.caller, tenant=stage.tenant)
    more = Start("scripted", (Message("user", "More."),), parent=stage.key.stream)
    child = await begin(stage, more, caller=caller)
    assert isinstance(child, Started)
    assert [m.content for m in asked(child).messages] == ["Count.", "Ask [email]", "More."]
