"""The OpenAPI document by itself: that it is one, and that it says what our code does."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared import errors
from shared.dialects import native
from shared.dialects.openapi import document, encoded
from shared.dialects.openapi.operations import OPERATIONS
from shared.dialects.openapi.schemas import EVENTS, REQUESTS, STREAM_ID
from shared.errors import InvalidRequest, SluiceError
from shared.pacing import FLUSH_INTERVAL_MS_MAX
from shared.records import Kind, Record, is_stream_id, new_stream_id

DOCUMENT = document("1.2.3")
METHODS = ("get", "post", "delete")
STREAM = new_stream_id(1795357413968, b"1234567", owner_tag=bytes(5), retention_days=30)

#: One of each kind, as it is raised somewhere.
PROBLEMS = (
    SluiceError(),
    errors.InvalidRequest("The body is not valid JSON in UTF-8."),
    errors.InvalidRequest("`limit` is 0.", field="limit", minimum=1, maximum=100),
    errors.Unauthenticated(),
    *(errors.CredentialEnded(reason) for reason in ("expired", "revoked", "suspended")),
    errors.Forbidden("This needs the scope `admin`.", scope="admin"),
    errors.Forbidden("The model is not open to you.", field="model"),
    errors.OriginNotAllowed("No tenant lets pages of this origin call."),
    errors.NotFound(),
    errors.MethodNotAllowed(headers={"Allow": "GET"}),
    errors.IdempotencyInFlight(stream=STREAM),
    errors.TooLarge("The body is too large.", maximum=native.BODY_BYTES_MAX),
    errors.TooLarge("A prompt.", policy="tenant-tokens-per-day", maximum=100),
    errors.IdempotencyKeyReused(),
    errors.PolicyViolated("card", field="messages"),
    errors.LimitExceeded("tenant-polls-per-minute", limit=0, window_s=60, retry_after_s=60),
    errors.Unavailable(),
    errors.Busy(),
    errors.ProducerLost(),
    errors.Abandoned(),
    errors.OutOfTime(),
    *(
        errors.ProviderFailed("It failed.", code=code, retryable=True)
        for code in ("refused", "denied", "throttled", "unavailable", "timeout", "cut", "upstream")
    ),
)

_CLOSED = {"status": "completed", "finish_reason": "stop", "usage": None, "error": None}
_USAGE = {"input_tokens": 1, "output_tokens": 2, "estimated": True}
#: What a stream may show of itself.
RECORDS = (
    Record(0, Kind.OPENED, 1, 1795357413968, "w", body={"model": "demo", "messages": []}),
    Record(1, Kind.TEXT, 1, 0, "w", text="\u2028 \n\n"),
    Record(2, Kind.EPOCH, 2, 0, "w"),
    Record(3, Kind.EXPIRING, 2, 0, "w", body={"expires_at": 1795357443}),
    Record(4, Kind.PAUSE, 2, 0, "w", body={"reason": "expired"}),
    Record(5, Kind.GRANT, 2, 0, "w", body={"user": "ann", "credential": "k", "expires_at": None}),
    Record(6, Kind.GRANT, 2, 0, "w", body={"user": None, "credential": "k", "expires_at": 17953}),
    Record(7, Kind.CLOSED, 2, 0, "w", body=_CLOSED),
    Record(7, Kind.CLOSED, 2, 0, "w", body=_CLOSED | {"usage": _USAGE, "model": "demo"}),
    *(
        Record(7, Kind.CLOSED, 2, 0, "w", body=_CLOSED | {"status": "failed", "error": p.brief()})
        for p in PROBLEMS
    ),
)


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Judges by a schema of the document, formats included."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def component(name: str) -> jsonschema_rs.Draft202012Validator:
    return validator({"$ref": f"#/components/schemas/{name}"})


def nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a part of the document."""
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from nodes(each)


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, item[method]


def subclasses(kind: type[SluiceError]) -> Iterator[type[SluiceError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def events(stream: bytes) -> list[dict[str, Any]]:
    """The events in some bytes, as objects of their fields."""
    found = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        fields: dict[str, Any] = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append(fields | ({"retry": int(fields["retry"])} if "retry" in fields else {}))
    return found


def check_event(event: dict[str, Any]) -> None:
    component("StreamEvent").validate(event)
    data = EVENTS[event["event"]]["properties"]["data"]["contentSchema"]
    validator(data).validate(json.loads(event["data"]))


def test_it_is_an_openapi_document_of_this_version() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert json.loads(encoded("1.2.3")) == json.loads(json.dumps(DOCUMENT))
    assert encoded("1.2.3") is encoded("1.2.3")


def test_every_schema_is_one() -> None:
    for node in nodes(DOCUMENT):
        for name in ("schema", "contentSchema"):
            if name in node:
                validator(node[name])
    for name in DOCUMENT["components"]["schemas"]:
        component(name)


def test_every_reference_leads_somewhere() -> None:
    for node in nodes(DOCUMENT):
        refs = [node["$ref"]] if "$ref" in node else []
        for ref in [*refs, *node.get("discriminator", {}).get("mapping", {}).values()]:
            at: Any = DOCUMENT
            for step in ref.removeprefix("#/").split("/"):
                at = at[step]


def test_operations_have_names_of_their_own_and_links_lead_to_them() -> None:
    names = [operation["operationId"] for _, operation in operations()]
    assert len(set(names)) == len(names)
    links = [link for node in nodes(DOCUMENT["paths"]) for link in node.get("links", {}).values()]
    assert links
    assert {link["operationId"] for link in links} <= set(names)


def test_paths_declare_what_they_hold() -> None:
    for path, operation in operations():
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")


def test_what_is_asked_and_answered_has_no_other_members() -> None:
    """But what a record's body holds, and this document."""
    open_ones = [
        node
        for node in nodes(DOCUMENT)
        if node.get("type") == "object" and "additionalProperties" not in node
    ]
    contains = DOCUMENT["components"]["schemas"]["Start"]["properties"]["messages"]["contains"]
    body = DOCUMENT["components"]["schemas"]["Record"]["properties"]["body"]
    assert [node for node in open_ones if node not in (contains, body, {"type": "object"})] == []


def test_examples_are_valid() -> None:
    found = 0
    for node in nodes(DOCUMENT):
        for shown in node.get("examples", ()):
            found += 1
            validator({k: v for k, v in node.items() if k != "examples"}).validate(shown)
    assert found > 10
    for shown in DOCUMENT["components"]["schemas"]["Start"]["examples"]:
        native.decode_start(json.dumps(shown).encode())
    for schema in EVENTS.values():
        for shown in schema["examples"]:
            check_event(shown)


def test_every_kind_of_problem_is_told_of() -> None:
    ours = [kind for kind in subclasses(SluiceError) if kind.__module__ == errors.__name__]
    kinds = {type(problem) for problem in PROBLEMS}
    assert {kind.slug for kind in kinds} == {kind.slug for kind in ours}
    for kind in kinds:
        properties = DOCUMENT["components"]["schemas"][kind.__name__]["properties"]
        assert properties["type"]["const"] == errors.TYPE_PREFIX + kind.slug
        assert properties["status"]["const"] == kind.status
        assert any(
            kind.__name__ in name.split("-or-") for name in DOCUMENT["components"]["responses"]
        )


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)
def test_a_problem_is_as_its_schema_says(problem: SluiceError) -> None:
    component(type(problem).__name__).validate(problem.problem())
    component("Failure").validate(problem.brief())


def test_a_response_tells_of_the_problems_of_its_status() -> None:
    for name, response in DOCUMENT["components"]["responses"].items():
        kinds = [getattr(errors, kind) for kind in name.split("-or-")]
        assert len({kind.status for kind in kinds}) == 1
        judge = validator(response["content"]["application/problem+json"]["schema"])
        for problem in PROBLEMS:
            assert judge.is_valid(problem.problem()) is (type(problem) in kinds)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_an_event_is_as_its_schema_says(record: Record) -> None:
    (event,) = events(native.EventEncoder(STREAM).encode([record]))
    check_event(event)


def test_every_event_is_told_of() -> None:
    encoder = native.EventEncoder(STREAM)
    told = events(encoder.encode(RECORDS) + encoder.reconnect(5))
    check_event(told[-1])
    assert {event["event"] for event in told} == set(EVENTS)


def test_what_shows_nothing_is_no_event() -> None:
    silent = [Record(1, kind, 1, 0, "w") for kind in (Kind.HEARTBEAT, Kind.CANCEL, "unheard-of")]
    assert native.EventEncoder(STREAM).encode(silent) == b""


def odd_values() -> Iterator[Any]:
    """What a client may send by mistake, and what is just within a bound or just beyond it."""
    yield from (None, True, False, 0.0, 1.0, 0.5, -1, "", "x", "\x00", [], {}, {"x": 1}, STREAM)
    yield from ([0], [0, 0], [0, 5000], [0, 5001], [0, 0.5], [0, 0, 0], ["0", "1"])
    for role in ("user", "system", "root"):
        yield role
        yield [{"role": role, "content": "x"}]
        yield {"role": role, "content": "x"}
    yield from ("throttle", "natural", {"boundary": "none"}, {"x": "y"}, {"": "y"})
    bounds = {
        bound
        for node in nodes(REQUESTS)
        for name, bound in node.items()
        if name.startswith(("min", "max")) and isinstance(bound, int)
    }
    for bound in bounds:
        for size in (bound - 1, bound, bound + 1):
            yield size
            if 0 <= size < 10_000:
                yield "x" * size
                yield {"x" * size: "y"}
                yield {"x": "y" * size}
                yield {f"x{i}": "y" for i in range(size)}
                yield [{"role": "user", "content": "x"}] * size


def changed(whole: Any, value: Any) -> Iterator[Any]:
    """All that `whole` becomes when one thing in it is replaced by `value`, or is added to it."""
    yield value
    if isinstance(whole, dict):
        yield whole | {"x": value}
        for name, part in whole.items():
            yield {k: v for k, v in whole.items() if k != name}
            yield from (whole | {name: each} for each in changed(part, value))
    if isinstance(whole, list):
        for at, part in enumerate(whole):
            yield from ([*whole[:at], each, *whole[at + 1 :]] for each in changed(part, value))


def takes(body: Any) -> bool:
    try:
        native.decode_start(json.dumps(body).encode())
    except InvalidRequest:
        return False
    return True


def test_a_start_is_what_the_decoder_takes() -> None:
    start, seen = component("Start"), Counter[bool]()
    _, whole = DOCUMENT["components"]["schemas"]["Start"]["examples"]
    # No schema can say that an interval must not fall, so this one can only grow.
    pacing = whole["pacing"] | {"flush_interval_ms": [0, FLUSH_INTERVAL_MS_MAX]}
    for value in odd_values():
        for body in changed(whole | {"pacing": pacing, "parent": STREAM}, value):
            seen[taken := takes(body)] += 1
            assert start.is_valid(body) is taken, str(body)[:500]
    assert seen[True] > 500
    assert seen[False] > 5000


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii"), max_size=260))
@example('"')
@example('""')
@example('"a')
@example('a"')
@example('" "')
@example(" ")
@example("a" * native.IDEMPOTENCY_KEY_CHARS_MAX)
@example("a" * (native.IDEMPOTENCY_KEY_CHARS_MAX + 1))
@example('"' + "a" * native.IDEMPOTENCY_KEY_CHARS_MAX + '"')
@example('"' + "a" * (native.IDEMPOTENCY_KEY_CHARS_MAX + 1) + '"')
@example('"' + "a" * native.IDEMPOTENCY_KEY_CHARS_MAX)
def test_an_idempotency_key_is_what_the_decoder_takes(key: str) -> None:
    key = key.strip()  # as every server does with a header
    start = next(each for each in OPERATIONS if each.id == "startStream")
    (schema,) = (p["schema"] for p in start.parameters if p["name"] == "Idempotency-Key")
    try:
        native.decode_idempotency({"idempotency-key": key}, b"")
    except InvalidRequest:
        assert not validator(schema).is_valid(key)
    else:
        assert validator(schema).is_valid(key)


@settings(deadline=None)
@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=31, max_size=33))
@example(STREAM)
@example(STREAM[:-1] + "w")
@example(STREAM + "0")
def test_a_stream_id_is_what_the_log_takes(stream: str) -> None:
    assert validator(STREAM_ID).is_valid(stream) is is_stream_id(stream)
