"""The native dialect: what it refuses, and the exact bytes that it writes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from shared.dialects import native
from shared.errors import InvalidRequest
from shared.follower import Page
from shared.idempotency import Idempotency
from shared.models import Message
from shared.pacing import Pacing
from shared.quotas import Left
from shared.records import DAY_S, Kind, Record, new_stream_id
from shared.starting import Start

GOOD: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
PARENT = new_stream_id(1_700_000_000_000, bytes(7), owner_tag=bytes(5), retention_days=30)
NOW_MS = 1_800_000_000_000


def raw(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_the_smallest_request_gets_the_defaults() -> None:
    start = native.decode_start(raw())
    assert start.model == "demo"
    assert start.messages == (Message("user", "hi"),)
    assert start.max_tokens is None
    assert start.pacing is None
    assert not start.throttle
    assert start.metadata == {}
    assert start.parent is None


def test_every_field_is_taken() -> None:
    start = native.decode_start(
        raw(
            max_tokens=7,
            pacing={"flush_interval_ms": [10, 20], "warm_up_ms": 0, "boundary": "none"},
            backpressure="throttle",
            metadata={"page": "7"},
            parent=PARENT,
        )
    )
    assert start.max_tokens == 7
    assert start.pacing == Pacing((10, 20), 0, "none")
    assert start.throttle
    assert start.metadata == {"page": "7"}
    assert start.parent == PARENT


def test_a_single_interval_stands_for_both_ends() -> None:
    assert native.decode_start(raw(pacing={"flush_interval_ms": 0})).pacing == Pacing((0, 0))


def test_an_optional_field_may_be_null() -> None:
    start = native.decode_start(raw(max_tokens=None, pacing=None, metadata=None, parent=None))
    assert start == native.decode_start(raw())


def test_a_request_survives_its_way_through_the_log() -> None:
    start = native.decode_start(raw(max_tokens=7, metadata={"a": "ü"}, parent=PARENT))
    for paced in (start, replace(start, pacing=Pacing((1, 2), first_chunk="sentence"))):
        kept = json.loads(json.dumps(paced.to_body()))
        assert type(start).from_body(kept) == paced


#: As the first version wrote it, and as it reads it: a name that is missing is an error, and so is
#: one more within `pacing`.
FIRST_VERSION: dict[str, Any] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": None,
    "pacing": {"flush_interval_ms": [50, 400], "warm_up_ms": 3000, "boundary": "natural"},
    "throttle": False,
    "metadata": {},
    "parent": None,
}


def test_versions_read_what_the_others_have_begun() -> None:
    start = Start.from_body(FIRST_VERSION)
    assert start == Start("demo", (Message("user", "hi"),), pacing=Pacing())
    written = json.loads(json.dumps(start.to_body()))
    assert written["pacing"] == FIRST_VERSION["pacing"]
    assert FIRST_VERSION.items() <= written.items()
    later = written | {"pacing": written["pacing"] | {"jitter": 1}, "tools": []}
    assert Start.from_body(later) == start


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (raw(modle="demo"), "modle"),
        (json.dumps({"messages": GOOD["messages"]}).encode(), "model"),
        (json.dumps({"model": "demo"}).encode(), "messages"),
        (raw(model=7), "model"),
        (raw(model=None), "model"),
        (raw(model=""), "model"),
        (raw(model="x" * 201), "model"),
        (raw(messages="hi"), "messages"),
        (raw(messages=[]), "messages"),
        (raw(messages=GOOD["messages"] * 201), "messages"),
        (raw(messages=["hi"]), "messages[0]"),
        (raw(messages=[{"role": "user"}]), "messages[0].content"),
        (raw(messages=[{"content": "hi"}]), "messages[0].role"),
        (raw(messages=[{"role": "user", "content": "hi", "name": "x"}]), "messages[0].name"),
        (raw(messages=[{"role": "tool", "content": "hi"}]), "messages[0].role"),
        (raw(messages=[{"role": ["user"], "content": "hi"}]), "messages[0].role"),
        (raw(messages=[*GOOD["messages"], {"role": "user", "content": ""}]), "messages[1].content"),
        (raw(messages=[{"role": "user", "content": ["hi"]}]), "messages[0].content"),
        (raw(messages=[{"role": "system", "content": "hi"}]), "messages"),
        (raw(max_tokens=0), "max_tokens"),
        (raw(max_tokens=200_001), "max_tokens"),
        (raw(max_tokens=1.5), "max_tokens"),
        (raw(max_tokens=True), "max_tokens"),
        (raw(max_tokens="9"), "max_tokens"),
        (raw(pacing=[]), "pacing"),
        (raw(pacing={"speed": 1}), "pacing.speed"),
        (raw(pacing={"flush_interval_ms": -1}), "pacing.flush_interval_ms"),
        (raw(pacing={"flush_interval_ms": 5001}), "pacing.flush_interval_ms"),
        (raw(pacing={"flush_interval_ms": [1]}), "pacing.flush_interval_ms"),
        (raw(pacing={"flush_interval_ms": [2, 1]}), "pacing.flush_interval_ms"),
        (raw(pacing={"warm_up_ms": 60_001}), "pacing.warm_up_ms"),
        (raw(pacing={"boundary": "word"}), "pacing.boundary"),
        (raw(backpressure="drop"), "backpressure"),
        (raw(metadata=[]), "metadata"),
        (raw(metadata={str(i): "" for i in range(17)}), "metadata"),
        (raw(metadata={"a" * 65: ""}), "metadata"),
        (raw(metadata={"a": "x" * 513}), "metadata.a"),
        (raw(metadata={"a": 1}), "metadata.a"),
        (raw(parent="nope"), "parent"),
        (raw(parent=7), "parent"),
    ],
)
def test_a_bad_field_is_named(body: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_start(body)
    assert caught.value.extensions["field"] == field
    assert field in caught.value.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'"x"',
        b"null",
        b"[" * 100_000,
        b'{"model": ' + b"9" * 5000 + b"}",
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "hi"}]}',
    ],
)
def test_what_is_not_an_object_in_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        native.decode_start(body)


def test_a_number_too_long_to_print_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_start(raw(max_tokens=10**30))
    assert caught.value.extensions["field"] == "max_tokens"


@pytest.mark.parametrize(
    ("prefer", "asynchronous"),
    [
        ("respond-async", True),
        ("Respond-Async, wait=10", True),
        ("wait=10,respond-async;q=1", True),
        ("wait=10", False),
        ("respond-asynchronously", False),
        ("", False),
    ],
)
def test_prefer(prefer: str, asynchronous: bool) -> None:
    assert native.prefers_async({"prefer": prefer}) is asynchronous


def test_an_idempotency_key_may_be_quoted() -> None:
    plain = native.decode_idempotency({"idempotency-key": "a b"}, b"x")
    quoted = native.decode_idempotency({"idempotency-key": ' "a b" '}, b"x")
    assert isinstance(plain, Idempotency)
    assert plain == quoted
    assert native.decode_idempotency({}, b"x") is None


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "ü", "a\tb"])
def test_a_malformed_idempotency_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_idempotency({"idempotency-key": key}, b"x")
    assert caught.value.extensions["field"] == "Idempotency-Key"


def test_the_last_event_id_wins_over_the_query() -> None:
    assert native.decode_after({"last-event-id": "7"}, {"after": "3"}) == 7
    assert native.decode_after({"last-event-id": ""}, {"after": "3"}) == 3
    assert native.decode_after({}, {}) == -1


@pytest.mark.parametrize("after", ["-2", "x", "1.5", "", " 1", "1000000001", "٣", "9" * 5000])
def test_a_bad_offset_is_refused(after: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_after({}, {"after": after})
    assert caught.value.extensions["field"] == "after"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"wait": "21"}, "wait"),
        ({"wait": "-1"}, "wait"),
        ({"waits": "1"}, "waits"),
    ],
)
def test_a_bad_poll_is_refused(query: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_poll(query)
    assert caught.value.extensions["field"] == field


@pytest.mark.parametrize(
    ("query", "field"), [({"page": "x"}, "page"), ({"limit": "101"}, "limit"), ({"a": "1"}, "a")]
)
def test_a_bad_list_is_refused(query: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_list(query)
    assert caught.value.extensions["field"] == field


@pytest.mark.parametrize("query", [{"after": "3"}, {}])
def test_a_follower_says_where_to_go_on(query: dict[str, str]) -> None:
    assert native.decode_follow({}, query) == int(query.get("after", "-1"))


@pytest.mark.parametrize("query", [{"aftr": "3"}, {"ticket": "x"}])
def test_what_a_follower_does_not_know_is_refused_and_not_repeated(query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_follow({}, query)
    assert caught.value.extensions["field"] == next(iter(query))


def test_the_audit_of_the_last_day_is_asked_for_unless_said() -> None:
    assert native.decode_audit({}, NOW_MS) == {
        "start_ms": NOW_MS - DAY_S * 1000,
        "end_ms": NOW_MS,
        "chain": None,
        "after": None,
        "limit": 100,
    }


def test_of_a_stream_all_of_the_audit_is_asked_for() -> None:
    asked = native.decode_audit({"stream": PARENT}, NOW_MS)
    assert asked["chain"] == PARENT
    assert asked["start_ms"] == 0
    # Its writers' clocks may be ahead of ours.
    assert asked["end_ms"] > NOW_MS + 365 * DAY_S * 1000


def test_the_audit_of_a_time_is_asked_for() -> None:
    query = {"start": "5", "end": "9", "page": "x", "limit": "7", "stream": PARENT}
    assert native.decode_audit(query, NOW_MS) == {
        "start_ms": 5,
        "end_ms": 9,
        "chain": PARENT,
        "after": "x",
        "limit": 7,
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"stream": "x"}, "stream"),
        ({"stream": "tenant"}, "stream"),
        ({"start": "-1"}, "start"),
        ({"end": str(10**14)}, "end"),
        ({"end": "soon"}, "end"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"from": "1"}, "from"),
    ],
)
def test_a_bad_question_to_the_audit_is_refused(query: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_audit(query, NOW_MS)
    assert caught.value.extensions["field"] == field


@pytest.mark.parametrize("user", ["", "x" * 129])
def test_a_bad_user_is_refused(user: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        native.decode_user(user)
    assert caught.value.extensions["field"] == "user"


def test_what_is_left_is_shown_with_null_for_what_there_is_not() -> None:
    left = [
        Left("tenant-streams-at-once", "concurrent-requests", 3, 0, 2, 0),
        Left("user-tokens-per-day", "tokens", 10, DAY_S, 4, 77),
    ]
    usage = native.encode_usage(left, {"2026-11": 6})
    assert usage["tokens"] == {"2026-11": 6}
    at_once, per_day = usage["limits"]
    assert (at_once["left"], at_once["window_s"], at_once["reset_s"]) == (2, None, None)
    assert (per_day["left"], per_day["window_s"], per_day["reset_s"]) == (4, DAY_S, 77)
    assert json.loads(json.dumps(usage)) == usage


PAUSED = {"reason": "requested", "parked": True}


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        (Kind.TEXT, {}, {"status": "open"}),
        (Kind.PAUSE, PAUSED, {"status": "paused", "reason": "requested"}),
        (Kind.GRANT, {}, {"status": "open"}),
        (Kind.EXPIRING, {}, {"status": "open"}),
    ],
)
def test_a_page_tells_the_status_by_the_newest_record(
    kind: Kind, body: dict[str, Any], told: dict[str, str]
) -> None:
    newest = Record(3, kind, 1, 7, "w", body=body)
    page = native.encode_page(Page((), 2, newest, 250))
    assert page == {"chunks": [], "next": 2, "closed": False, "poll_after_ms": 250, **told}


def test_the_bytes_of_events() -> None:
    encoder = native.EventEncoder("s")
    records = [
        Record(0, Kind.OPENED, 1, 5, "w", body={"model": "demo"}),
        Record(1, Kind.TEXT, 1, 6, "w", "one\ntwo\r ü 🌊"),
        Record(2, Kind.HEARTBEAT, 1, 7, "w"),
        Record(3, "of-a-later-version", 1, 7, "x"),
        Record(4, Kind.CANCEL, 1, 7, "x"),
        Record(5, Kind.EPOCH, 2, 7, "x"),
        Record(6, Kind.CLOSED, 2, 8, "w", body={"status": "completed"}),
    ]
    assert (
        encoder.encode(records[:2])
        == (
            'retry: 1000\nid: 0\nevent: opened\ndata: {"id":"s","model":"demo","at":5}\n\n'
            'id: 1\nevent: chunk\ndata: {"text":"one\\ntwo\\r ü 🌊"}\n\n'
        ).encode()
    )
    assert encoder.encode(records[2:5]) == b""
    assert encoder.encode(records[5:]) == (
        b'id: 5\nevent: epoch\ndata: {"epoch":2}\n\n'
        b'id: 6\nevent: closed\ndata: {"status":"completed"}\n\n'
    )


def test_retry_rides_on_the_first_event_of_a_response_even_when_it_begins_late() -> None:
    encoder = native.EventEncoder("s")
    assert encoder.encode([Record(7, Kind.HEARTBEAT, 1, 7, "w")]) == b""
    first = encoder.encode([Record(8, Kind.TEXT, 1, 7, "w", "x")])
    assert first.startswith(b"retry: 1000\nid: 8\n")


def test_the_bytes_of_pauses_and_grants() -> None:
    encoder = native.EventEncoder("s")
    encoder.encode([Record(0, Kind.OPENED, 1, 5, "w", body={"model": "demo"})])
    grant = {"user": "ada", "credential": "key:1", "expires_at": 9}
    records = [
        Record(1, Kind.EXPIRING, 1, 6, "w", body={"expires_at": 7}),
        Record(2, Kind.PAUSE, 1, 7, "w", body={"reason": "expired"}),
        Record(3, Kind.GRANT, 1, 8, "x", body=grant),
    ]
    assert encoder.encode(records) == (
        b'id: 1\nevent: expiring\ndata: {"expires_at":7}\n\n'
        b'id: 2\nevent: paused\ndata: {"reason":"expired"}\n\n'
        # Whose credential it is is nothing for a client.
        b'id: 3\nevent: granted\ndata: {"expires_at":9}\n\n'
    )


def test_a_pause_is_told_once_and_each_time_that_there_is_another() -> None:
    encoder = native.EventEncoder("s")
    encoder.encode([Record(0, Kind.OPENED, 1, 5, "w", body={"model": "demo"})])

    def told(seq: int, reason: str, *, parked: bool) -> str:
        body = {"reason": reason, "parked": parked}
        return encoder.encode([Record(seq, Kind.PAUSE, 1, 7, "w", body=body)]).decode()

    assert '"suspended"' in told(1, "suspended", parked=False)
    assert told(2, "suspended", parked=True) == ""
    # A grant does not end this one.
    assert '"requested"' in told(3, "requested", parked=True)
    # A tenant that may again goes on without a grant.
    encoder.encode([Record(4, Kind.TEXT, 1, 8, "w", "x")])
    assert '"requested"' in told(5, "requested", parked=True)


def test_the_hint_to_connect_again_has_no_id() -> None:
    """So that a client which reconnects by itself goes on after what it saw."""
    assert native.EventEncoder("s").reconnect(7) == (
        b'retry: 1000\nevent: reconnect\ndata: {"after":7}\n\n'
    )


def test_a_heartbeat_is_one_line() -> None:
    assert native.HEARTBEAT.startswith(b":")
    assert native.HEARTBEAT.count(b"\n") == 1
