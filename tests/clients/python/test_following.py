"""The core of an answer: what it asks next, whatever becomes of what it asked before."""

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_client import (
    Chunk,
    Closed,
    GaveUp,
    Opened,
    Paused,
    Polling,
    Reconnecting,
    Refused,
    Streaming,
    Unreachable,
)
from sluice_client.following import REST_MIN_S, Following
from sluice_client.machine import Ask, Lost, Passage, Times
from sluice_client.question import Question

from tests.clients.python.world import (
    HTML,
    JSON,
    PROBLEM,
    SSE,
    STREAM,
    TEXTS,
    UNAVAILABLE,
    Reply,
    World,
    event,
)

WHOLE = "".join(TEXTS)
QUESTION = Question({"model": "demo", "messages": []}, "key")
ENDED = Reply(
    401,
    PROBLEM,
    json.dumps({"type": "urn:sluice:problem:credential-ended", "detail": "It ended."}).encode(),
)

NOTHING_NEW = json.dumps(
    {"chunks": [], "next": -1, "status": "open", "closed": False, "poll_after_ms": 250}
).encode()

Fault = Callable[[World, Ask], Reply]
Trace = Callable[[FrameType, str, Any], Any]


def always(reply: Reply) -> Fault:
    return lambda *_: reply


def cut(at: int, how: Lost | None = Lost.CUT) -> Fault:
    def fault(world: World, ask: Ask) -> Reply:
        reply = world.serve(ask)
        reply.body, reply.lost = reply.body[:at], how
        return reply

    return fault


def unheard(world: World, ask: Ask) -> Reply:
    """It was carried out, and the reply lost."""
    return Reply(lost=Lost.CUT, headless=True)


UNREACHED = always(Reply(lost=Lost.UNREACHED, headless=True))
HELD = always(Reply(lost=Lost.SILENT, headless=True, takes_s=4.0))
BODY_HELD = always(Reply(200, SSE, lost=Lost.SILENT, takes_s=4.0))
BUSY = always(Reply(503, {**PROBLEM, "retry-after": "2"}, UNAVAILABLE))
GATEWAY = always(Reply(502, HTML, b"<html>"))


def following(world: World, **more: object) -> Following:
    return Following(world.conditions(), QUESTION, **more)  # type: ignore[arg-type]


def test_without_a_fault_one_request_is_enough() -> None:
    world = World()
    answer = following(world)
    events = list(world.run(answer))
    assert [type(e) for e in events] == [Opened, *[Chunk] * len(TEXTS), Closed]
    assert answer.text == WHOLE
    assert (answer.id, answer.after, answer.status) == (STREAM, 13, "completed")
    assert [ask.method for ask in world.asked] == ["POST"]


@pytest.mark.parametrize("how", [Lost.CUT, Lost.SILENT, None])
@pytest.mark.parametrize("piece", [1, 1000])
def test_a_cut_at_any_byte_loses_nothing_and_repeats_nothing(how: Lost | None, piece: int) -> None:
    whole = len(World().serve(Ask("POST", "/v1/streams", 1, 1)).body)
    for at in range(whole):
        world = World(cut(at, how), cut(at // 3, how))
        answer = following(world)
        seqs = [e.seq for e in world.run(answer, piece=piece) if hasattr(e, "seq")]
        assert answer.text == WHOLE, at
        assert seqs == sorted(set(seqs)), at


FAULTS = st.one_of(
    st.sampled_from([UNREACHED, HELD, BODY_HELD, BUSY, GATEWAY, unheard]),
    st.builds(cut, st.integers(0, 700), st.sampled_from([Lost.CUT, Lost.SILENT, None])),
)


@given(
    faults=st.lists(FAULTS, max_size=12),
    polls=st.booleans(),
    follows=st.booleans(),
    piece=st.integers(1, 64),
)
def test_whatever_befalls_it_the_text_is_whole(
    faults: list[Fault], polls: bool, follows: bool, piece: int
) -> None:
    world = World(*faults)
    world.passage.heard = True
    conditions = world.conditions(retry_s=600)
    answer = Following(
        conditions, None if follows else QUESTION, id=STREAM if follows else None, polls=polls
    )
    events = list(world.run(answer, piece=piece))
    assert answer.text == WHOLE
    assert answer.text == "".join(e.text for e in events if isinstance(e, Chunk))
    seqs = [e.seq for e in events if hasattr(e, "seq")]
    assert seqs == sorted(set(seqs))
    assert isinstance(events[-1], Closed)
    starts = {a.headers["Idempotency-Key"] for a in world.asked if a.path == "/v1/streams"}
    assert starts <= {"key"}


@given(faults=st.lists(FAULTS, min_size=1, max_size=4), polls=st.booleans())
def test_who_gives_up_does_so_in_time_and_keeps_the_text(faults: list[Fault], polls: bool) -> None:
    world = World(*faults, *[UNREACHED] * 100)
    world.passage.heard = True
    answer = following(world, polls=polls)
    gave_up, text = None, ""
    try:
        for happened in world.run(answer):
            text += happened.text if isinstance(happened, Chunk) else ""
    except GaveUp as error:
        gave_up = error
    assert (gave_up.text if gave_up else WHOLE) == text
    assert world.now - 1000 < 60 + len(faults) * 12


def test_who_gave_up_goes_on_where_it_was() -> None:
    world = World(cut(300), *[UNREACHED] * 12)
    answer = Following(world.conditions(retry_s=20), QUESTION)
    with pytest.raises(GaveUp, match="within 20 s"):
        list(world.run(answer))
    assert WHOLE.startswith(answer.text)
    assert answer.text
    world.faults = iter(())
    answer.begin()
    list(world.run(answer))
    assert answer.text == WHOLE


def test_an_address_where_nothing_ever_answered_is_given_up_soon() -> None:
    world = World(*[UNREACHED] * 100)
    with pytest.raises(Unreachable, match="Look whether it is right"):
        list(world.run(following(world)))
    assert world.now - 1000 <= 6


@pytest.mark.parametrize("held", [HELD, BODY_HELD])
def test_a_stream_that_is_held_back_is_polled(held: Fault) -> None:
    world = World(held)
    answer = following(world)
    events = list(world.run(answer))
    assert isinstance(events[0], Polling)
    assert answer.text == WHOLE
    assert world.now - 1000 < 5
    assert {a.headers.get("Idempotency-Key") for a in world.asked} == {"key", None}


def test_streaming_is_tried_again_later_and_later() -> None:
    tried: list[float] = []

    def goes(world: World, ask: Ask) -> Reply:
        """Streams are held back three times. What is polled is not over."""
        if not ask.streams:
            return world.serve(ask)
        tried.append(world.now)
        return HELD(world, ask) if len(tried) < 4 else Reply(200, SSE, b": hb\n")

    world = World(*[goes] * 2000)
    world.log.pop()
    running = world.run(following(world), requests=2000)
    kinds = [type(next(running)) for _ in range(len(TEXTS) + 2)]
    assert kinds == [Polling, *[Chunk] * len(TEXTS), Streaming]
    assert [round(b - a) for a, b in pairwise(tried)] == [24, 44, 84]


def test_that_it_streams_again_is_told_before_what_streams() -> None:
    """Also where that is the end alone."""
    world = World(HELD, always(Reply(200, JSON, NOTHING_NEW)))
    world.log = [world.log[0], world.log[-1]]
    world.times = Times(stream_again_s=0.1)
    world.passage = Passage(world.times)
    kinds = [type(event) for event in world.run(Following(world.conditions(), None, id=STREAM))]
    assert kinds == [Polling, Streaming, Opened, Closed]


def test_what_was_not_handed_out_is_kept_for_who_comes_again() -> None:
    world = World()
    answer = following(world)
    running = world.run(answer, piece=100_000)  # all of it comes at once
    taken = [next(running) for _ in range(3)]
    running.close()
    assert (answer.text, answer.after) == (TEXTS[0] + TEXTS[1], 3)
    taken += world.run(answer)
    assert [type(e) for e in taken] == [Opened, *[Chunk] * len(TEXTS), Closed]
    assert (answer.text, answer.after) == (WHOLE, 13)
    assert len(world.asked) == 1


@pytest.mark.parametrize("polls", [False, True])
def test_at_whatever_line_it_is_interrupted_the_text_is_whole(polls: bool) -> None:
    """Who goes on after Ctrl-C has all of it, and nothing twice."""
    for line in count(1):
        world = World()
        answer = following(world, polls=polls)
        interrupted = False
        try:
            with interrupting(line):
                list(world.run(answer, piece=100_000))
        except KeyboardInterrupt:
            interrupted = True
        seqs = [e.seq for e in world.run(answer) if isinstance(e, Chunk)]
        assert answer.text == WHOLE, line
        assert seqs == sorted(set(seqs)), line
        if not interrupted:
            return


@contextmanager
def interrupting(line: int) -> Iterator[None]:
    """Ctrl-C comes in front of so many-th line of what follows a stream."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Trace | None:
        nonlocal left
        if frame.f_code.co_filename != inspect.getsourcefile(Following):
            return None
        left -= event == "line"
        if left == 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_a_stream_that_has_come_through_once_is_given_more_time() -> None:
    world = World(cut(300, Lost.SILENT))
    list(world.run(following(world)))
    first, second = world.asked
    assert (first.silence_s, second.silence_s) == (4.0, 40.0)
    assert world.waited == []


def test_a_start_that_runs_already_is_followed() -> None:
    running = Reply(409, {**PROBLEM, "location": f"/v1/streams/{STREAM}/events"}, b"{}")
    world = World(unheard, always(running))
    answer = following(world)
    events = list(world.run(answer))
    assert answer.text == WHOLE
    assert [ask.path for ask in world.asked[1:]] == ["/v1/streams", f"/v1/streams/{STREAM}/events"]
    assert isinstance(events[0], Reconnecting)


def test_what_was_seen_to_its_end_is_told_how_it_ended() -> None:
    world = World()
    answer = Following(world.conditions(), None, id=STREAM, after=13)
    assert [type(e) for e in world.run(answer)] == [Closed]
    assert answer.status == "completed"


def test_the_server_says_when_to_come_again() -> None:
    def parked(world: World, ask: Ask) -> Reply:
        after = int(ask.headers.get("Last-Event-ID", "-1"))
        data = b"".join(event(*e) for e in world.log[:2] if e[0] > after)
        data += event(2, "paused", {"reason": "requested"}) if after < 2 else b""
        return Reply(200, SSE, data + b"retry: 15000\nevent: reconnect\ndata: {}\n\n")

    world = World(*[parked] * 30)
    answer = following(world)
    events = list(world.run(answer))
    assert world.waited == [15.0] * 30
    assert [e.reason for e in events if isinstance(e, Paused)] == ["requested"]
    assert answer.text == WHOLE


def test_who_resumes_connects_again_at_once() -> None:
    data = event(0, "opened", {"id": STREAM, "model": "demo", "at": 0})
    paused = data + event(1, "paused", {"reason": "requested"})
    parked = Reply(200, SSE, paused + b"retry: 15000\nevent: reconnect\ndata: {}\n\n")
    world = World(always(parked))
    answer = following(world)
    for happened in world.run(answer, piece=len(paused)):
        if isinstance(happened, Paused):
            answer.steered("open")
    assert world.waited == [pytest.approx(REST_MIN_S)]


def test_an_ended_credential_is_asked_for_anew_once() -> None:
    world = World(always(ENDED))
    answer = Following(world.conditions(renewable=True), QUESTION)
    list(world.run(answer))
    assert [ask.renews for ask in world.asked] == [False, True]
    assert answer.text == WHOLE

    for renewable, asked in ((True, 2), (False, 1)):
        world = World(*[always(ENDED)] * 9)
        with pytest.raises(Refused, match="It ended"):
            list(world.run(Following(world.conditions(renewable=renewable), QUESTION)))
        assert len(world.asked) == asked


def test_who_could_not_give_a_credential_is_asked_again_by_who_goes_on() -> None:
    world = World(always(ENDED))
    answer = Following(world.conditions(renewable=True), QUESTION)
    first = answer.next()
    assert isinstance(first, Ask)
    answer.began(ENDED.status, ENDED.headers)
    answer.received(ENDED.body)
    answer.ended()
    assert answer.next().renews  # type: ignore[union-attr] # and there was none to be had
    list(world.run(answer))
    assert [ask.renews for ask in world.asked] == [False, True]
    assert answer.text == WHOLE


@pytest.mark.parametrize(
    ("name", "data"),
    [("expiring", {"expires_at": 1}), ("paused", {"reason": "expired"})],
)
def test_a_fresh_credential_is_granted_where_the_stream_wants_one(name: str, data: object) -> None:
    head = event(0, "opened", {"id": STREAM, "model": "demo", "at": 0})
    asks_for_one = Reply(200, SSE, head + event(1, name, data) + event(3, "chunk", {"text": "x"}))
    world = World(always(asks_for_one))
    answer = Following(world.conditions(renewable=True), QUESTION)
    list(world.run(answer))
    grant = world.asked[1]
    assert (grant.path, grant.renews) == (f"/v1/streams/{STREAM}/grant", True)
    assert world.asked[2].headers["Last-Event-ID"] == "1"


@pytest.mark.parametrize(("reason", "granted"), [("expired", True), ("requested", False)])
def test_a_poll_that_finds_it_paused_grants_where_that_helps(reason: str, granted: bool) -> None:
    page = {"chunks": [], "next": 3, "status": "paused", "reason": reason, "closed": False}
    body = json.dumps({**page, "poll_after_ms": 250}).encode()
    paused = Reply(200, {"content-type": "application/json"}, body)
    world = World(always(paused))
    answer = Following(world.conditions(renewable=True), None, id=STREAM, polls=True)
    events = list(world.run(answer))
    assert [e.reason for e in events if isinstance(e, Paused)] == [reason]
    assert any(ask.path.endswith("/grant") for ask in world.asked) is granted


@pytest.mark.parametrize(
    "failure",
    [Reply(lost=Lost.CUT, headless=True), Reply(503, PROBLEM, UNAVAILABLE)],
    ids=["lost", "refused"],
)
def test_a_grant_that_did_not_arrive_is_made_again_by_who_polls(failure: Reply) -> None:
    page = {"chunks": [], "next": 0, "status": "paused", "reason": "expired", "closed": False}
    paused = Reply(200, JSON, json.dumps({**page, "poll_after_ms": 250}).encode())
    world = World(always(paused), always(failure), always(paused))
    answer = Following(world.conditions(renewable=True), None, id=STREAM, polls=True)
    events = list(world.run(answer))
    grants = [ask.path.endswith("/grant") for ask in world.asked]
    assert grants == [False, True, False, True, False]
    assert len([e for e in events if isinstance(e, Paused)]) == 1
    assert (answer.text, answer.status) == (WHOLE, "completed")


def test_a_server_that_does_not_say_why_it_is_paused_has_no_reason() -> None:
    """As the one before polls told of it."""
    page = {"chunks": [], "next": 0, "status": "paused", "closed": False, "poll_after_ms": 250}
    world = World(always(Reply(200, JSON, json.dumps(page).encode())))
    answer = Following(world.conditions(), None, id=STREAM, polls=True)
    assert [e.reason for e in world.run(answer) if isinstance(e, Paused)] == [""]


def test_what_was_never_asked_for_is_cancelled_without_asking() -> None:
    world = World()
    answer = following(world)
    assert answer.abandon()
    assert list(world.run(answer)) == []
    assert (answer.status, world.asked) == ("cancelled", [])


def test_the_same_question_is_asked_again_in_the_same_way() -> None:
    world = World()
    answer = following(world, polls=True)
    list(world.run(answer))
    list(world.run(answer.regenerated("other")))
    starts = [ask for ask in world.asked if ask.path == "/v1/streams"]
    assert [ask.headers["Idempotency-Key"] for ask in starts] == ["key", "other"]
    assert {ask.body for ask in starts} == {QUESTION.body()}
    assert not any(ask.streams for ask in world.asked)


def test_a_further_message_names_what_it_goes_on_from() -> None:
    world = World()
    answer = following(world)
    with pytest.raises(ValueError, match="no name"):
        answer.refined("shorter", "other")
    list(world.run(answer))
    asked = json.loads(answer.refined("shorter", "other").question.body())  # type: ignore[union-attr]
    assert asked == {
        "model": "demo",
        "messages": [{"role": "user", "content": "shorter"}],
        "parent": STREAM,
    }
