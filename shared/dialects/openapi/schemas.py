"""What goes over the wire, as JSON Schema 2020-12: requests, answers and events, by their names.

Bounds are those of the decoders. Objects are closed: decoders refuse fields that they do not know,
and an answer has those named here and no others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.audit import Event
from shared.dialects import native
from shared.identity.tickets import PREFIX, TICKET_CHARS_MAX
from shared.models import Continuation
from shared.pacing import (
    BOUNDARIES,
    FIRST_CHUNKS,
    FLUSH_INTERVAL_MS_MAX,
    WARM_UP_MS_MAX,
    Pacing,
)
from shared.past import QUOTA, REQUESTED
from shared.records import FinishReason, Kind, Status

Schema = dict[str, Any]

#: As in the examples.
EXAMPLE_ID = "06kh2m4d1s00f7o9c1b2k3l4m5n6p7q8"
STREAM_ID: Schema = {
    "type": "string",
    "pattern": "^[0-9a-v]{32}$",
    "description": "The id of a stream.",
    "examples": [EXAMPLE_ID],
}
SEQ: Schema = {"type": "integer", "minimum": 0, "description": "A record's number in its stream."}
#: An offset to go on after.
AFTER: Schema = {"type": "integer", "minimum": -1, "maximum": native.SEQ_MAX}
#: An empty one, as some clients send at first, is none.
LAST_EVENT_ID: Schema = {"type": "string", "pattern": "^(-0*[01]|[0-9]{1,9})?$"}
MS: Schema = {"type": "integer", "minimum": 0, "description": "Milliseconds since 1970."}
SECONDS: Schema = {"type": "integer", "minimum": 0, "description": "Seconds since 1970."}
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
CLOSED_STATUSES = (Status.COMPLETED, Status.CANCELLED, Status.FAILED)
#: Why a credential is no longer good.
REASON: Schema = {"enum": ["expired", "revoked", "suspended"]}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def closed(properties: Mapping[str, Any], optional: Sequence[str] = (), **more: Any) -> Schema:
    """An object of these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
        **more,
    }


def one_of(tag: str, names: Mapping[str, str]) -> Schema:
    """One of the schemas of these names, told apart by the value of their property `tag`."""
    refs = {value: ref(name) for value, name in names.items()}
    mapping = {value: schema["$ref"] for value, schema in refs.items()}
    return {
        "oneOf": list(refs.values()),
        "discriminator": {"propertyName": tag, "mapping": mapping},
    }


# --- What is asked ---

_INTERVAL: Schema = {"type": "integer", "minimum": 0, "maximum": FLUSH_INTERVAL_MS_MAX}
_DEFAULT = Pacing()

REQUESTS: dict[str, Schema] = {
    "Message": closed(
        {
            "role": {"type": "string", "enum": list(native.ROLES)},
            "content": TEXT | {"minLength": 1},
        }
    ),
    "Pacing": closed(
        {
            "flush_interval_ms": {
                "description": "The shortest time between two chunks: one number, or from where "
                "to where it grows. 0 is as fast as the writes go.",
                "anyOf": [_INTERVAL, array(_INTERVAL, minItems=2, maxItems=2)],
                "default": list(_DEFAULT.flush_interval_ms),
            },
            "warm_up_ms": {
                "description": "For how long it grows.",
                "type": "integer",
                "minimum": 0,
                "maximum": WARM_UP_MS_MAX,
                "default": _DEFAULT.warm_up_ms,
            },
            "boundary": {
                "description": "What may end a chunk early.",
                "type": "string",
                "enum": list(BOUNDARIES),
                "default": _DEFAULT.boundary,
            },
            "first_chunk": {
                "description": "`sentence` shows nothing before a whole one is there, or 2 s over.",
                "type": "string",
                "enum": list(FIRST_CHUNKS),
                "default": _DEFAULT.first_chunk,
            },
        },
        ("flush_interval_ms", "warm_up_ms", "boundary", "first_chunk"),
    ),
    "Start": closed(
        {
            "model": {
                "description": "`demo`, `openai/…` or `bedrock/…`.",
                "type": "string",
                "minLength": 1,
                "maxLength": native.MODEL_CHARS_MAX,
            },
            "messages": {
                "description": "The conversation; at least one message is the user's.",
                **array(ref("Message"), minItems=1, maxItems=native.MESSAGES_MAX),
                "contains": {"type": "object", "properties": {"role": {"const": "user"}}},
            },
            "max_tokens": {
                "description": "What the answer may have at most; a limit may be less.",
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": native.MAX_TOKENS_MAX,
            },
            "pacing": nullable(ref("Pacing")),
            "backpressure": {
                "description": "`throttle` reads the model no further than 64 records ahead of "
                "the client that holds the connection.",
                "enum": [*native.BACKPRESSURES, None],
                "default": native.BACKPRESSURES[0],
            },
            "metadata": {
                "description": "Strings of yours, which the summary shows.",
                "type": ["object", "null"],
                "maxProperties": native.METADATA_MAX,
                "propertyNames": {"minLength": 1, "maxLength": native.METADATA_NAME_CHARS_MAX},
                "additionalProperties": TEXT | {"maxLength": native.METADATA_CHARS_MAX},
            },
            "parent": {
                **nullable(STREAM_ID),
                "description": "A stream to go on from: its conversation and text come before "
                "`messages`. If it still runs, it is cancelled.",
            },
        },
        ("max_tokens", "pacing", "backpressure", "metadata", "parent"),
        description=f"The body has at most {native.BODY_BYTES_MAX} bytes.",
        examples=[
            {
                "model": "demo",
                "messages": [{"role": "user", "content": "What is a sluice?"}],
            },
            {
                "model": "demo?tokens=5&rate=0",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "What is a sluice?"},
                ],
                "max_tokens": 100,
                "pacing": {"flush_interval_ms": [0, 100], "warm_up_ms": 0, "boundary": "none"},
                "backpressure": "throttle",
                "metadata": {"conversation": "42"},
            },
        ],
    ),
}

# --- What is answered ---

_URLS: Schema = {name: {"type": "string", "format": "uri-reference"} for name in native.urls("")}
_TICKET: Schema = {
    "ticket": {
        "description": "Lets whoever has it follow and poll this one stream.",
        "type": "string",
        "pattern": f"^{PREFIX}",
        "maxLength": TICKET_CHARS_MAX,
    },
    "ticket_expires_at": SECONDS,
}
_ENDED: Schema = {
    "finish_reason": {"type": "string", "enum": list(FinishReason)},
    "usage": nullable(ref("Usage")),
    "error": nullable(ref("Failure")),
}
_STORED: Schema = {
    "status": {"type": "string", "enum": list(Status)},
    "model": TEXT | {"description": "The one that answered; before that, the one asked for."},
    "created_at": MS,
    "closed_at": nullable(MS),
    "finish_reason": {"enum": [*FinishReason, None]},
    "usage": _ENDED["usage"],
    "error": _ENDED["error"],
    "parent": nullable(STREAM_ID),
    "last_seq": nullable(SEQ),
}
_METADATA: Schema = {"type": "object", "additionalProperties": TEXT}
_PAGE: Schema = {
    "chunks": array(ref("Chunk"), maxItems=native.LIMIT_MAX),
    "next": {"description": "The `after` of the next poll.", **AFTER},
    "status": _STORED["status"],
    "closed": {"const": False},
    "poll_after_ms": COUNT | {"description": "When to poll again; 0: there is more already."},
}

ANSWERS: dict[str, Schema] = {
    "Health": closed({"status": {"const": "ok"}, "version": TEXT}),
    "Usage": closed(
        {
            "input_tokens": COUNT,
            "output_tokens": COUNT,
            "estimated": {
                "description": "Whether they were counted by their characters.",
                "type": "boolean",
            },
        }
    ),
    "Summary": closed(
        {"id": STREAM_ID, **_STORED, "metadata": _METADATA, **_URLS},
        description="A stream as it is now.",
    ),
    "Streams": closed(
        {
            "streams": array(ref("Summary"), maxItems=native.LIST_LIMIT_MAX),
            "next_page": nullable(STREAM_ID),
        },
        description="The newest first.",
    ),
    "Accepted": closed({"id": STREAM_ID, "status": _STORED["status"], **_URLS, **_TICKET}),
    "Ticket": closed(_TICKET),
    "Chunk": closed({"seq": SEQ, "text": TEXT, "at": MS}),
    "OpenPage": closed(
        _PAGE | {"reason": {"description": "Why it is paused, where it is.", "type": "string"}},
        optional=["reason"],
        description="There is more, or there will be.",
    ),
    "LastPage": closed(
        _PAGE | {"status": {"enum": list(CLOSED_STATUSES)}, "closed": {"const": True}} | _ENDED,
        description="There is nothing after it.",
    ),
    "Steered": closed(
        {
            "id": STREAM_ID,
            "status": {"enum": [Status.OPEN, Status.PAUSED]},
            "seq": SEQ,
            "expires_at": nullable(SECONDS)
            | {"description": "Of a grant: when its credential expires, in s since 1970."},
        },
        description="How the stream stands behind the record `seq`: the one that was asked for, or "
        "the one that made it needless. A producer hears of it with its next write.",
    ),
    "Erasure": closed(
        {
            "id": TEXT,
            "state": {"enum": ["running", "done"]},
            "stream": nullable(STREAM_ID),
            "user": nullable(TEXT),
            "streams_erased": COUNT,
            "created_at": MS,
            "done_at": nullable(MS),
        },
        description="All streams of `user` that began before `created_at`, or one `stream`.",
    ),
    "Left": closed(
        {
            "policy": TEXT | {"examples": ["tenant-tokens-per-day"]},
            "limit": COUNT,
            "left": COUNT,
            "window_s": nullable(COUNT),
            "reset_s": nullable(COUNT),
        },
        description="How much of one limit is left.",
    ),
    "Quotas": closed(
        {
            "limits": array(ref("Left")),
            "tokens": {
                "description": "The tenant's tokens by day and month, in UTC.",
                "type": "object",
                "propertyNames": {"pattern": r"^\d{4}-\d{2}(-\d{2})?$"},
                "additionalProperties": {"type": "integer"},
            },
        }
    ),
    "Actor": closed({"user": nullable(TEXT), "credential": TEXT, "address": nullable(TEXT)}),
    "Entry": closed(
        {
            "tenant": TEXT,
            "chain": TEXT | {"description": "A stream's id, or the name of another chain."},
            "id": TEXT,
            "at": MS,
            "event": {"enum": [*Event, "unreadable"]},
            "outcome": TEXT,
            "expires_at": SECONDS,
            "n": {"type": "integer", "description": "Its number in its chain."},
            "prev": TEXT | {"description": "The hash of the entry before it."},
            "prev_expires_at": SECONDS,
            "hash": TEXT,
            "actor": ref("Actor"),
            "details": {
                "type": "object",
                "additionalProperties": {"type": ["integer", "string"]},
            },
        },
        description="Who did what, when and with which outcome; never what was said.",
    ),
    "Entries": closed(
        {
            "entries": array(ref("Entry"), maxItems=native.LIMIT_MAX),
            "next_page": nullable(TEXT),
        },
        description="Oldest first. A page may be short, or empty, and still not be the last.",
    ),
    "Record": closed(
        {
            "seq": SEQ,
            "kind": {"enum": list(Kind)},
            "epoch": COUNT,
            "at": MS,
            "text": TEXT,
            "body": {"type": "object", "description": "By its kind."},
        }
    ),
    "StoredSummary": closed(
        {
            "stream": STREAM_ID,
            **_STORED,
            "metadata": nullable(_METADATA),
            "user": nullable(TEXT),
        }
    ),
    "ExportedStream": closed(
        {
            "summary": ref("StoredSummary"),
            "records": array(ref("Record")),
            "audit": array(ref("Entry")),
            "erased": {"const": True, "description": "It was erased while it was exported."},
        },
        ("erased",),
    ),
    "Key": closed(
        {
            "tenant": TEXT,
            "id": TEXT,
            "scopes": TEXT | {"description": "With spaces between them."},
            "label": TEXT,
            "user": TEXT,
            "created_at": SECONDS,
            "valid_until": SECONDS,
            "revoked_at": SECONDS,
        },
        ("valid_until", "revoked_at"),
        description="What is held of a key; never the key.",
    ),
    "Export": closed(
        {
            "exported_at": MS,
            "tenant": TEXT,
            "user": nullable(TEXT),
            "streams": array(ref("ExportedStream")),
            "keys": array(ref("Key")),
            "audit": array(ref("Entry")),
        },
        ("keys", "audit"),
        description="Everything that is held; of a user also the keys, and what the tenant's own "
        "chain of the audit says.",
    ),
}

# --- What a stream says ---


def _event(name: str, about: str, data: Schema, example: str, *, seq: str = "1") -> Schema:
    """One Server-Sent Event; with no `seq` its id is that of the one before."""
    shown = {"event": name, "data": example}
    return closed(
        {
            "event": {"const": name},
            "id": {"type": "string", "pattern": "^[0-9]+$", "description": "The record's seq."},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": data,
            },
            "retry": {"type": "integer", "description": "Milliseconds."},
        },
        ("retry",) if seq else ("id", "retry"),
        description=about,
        examples=[shown | {"id": seq} if seq else shown],
    )


_CLOSED: Schema = closed(
    {
        "status": {"enum": list(CLOSED_STATUSES)},
        **_ENDED,
        "model": TEXT | {"description": "Which model answered, where it was another."},
    },
    ("model",),
)

#: By the name of the event.
EVENTS: dict[str, Schema] = {
    "opened": _event(
        "opened",
        "The stream has begun.",
        closed({"id": STREAM_ID, "model": TEXT, "at": MS}),
        f'{{"id":"{EXAMPLE_ID}","model":"demo","at":1795357413968}}',
        seq="0",
    ),
    "chunk": _event(
        "chunk",
        "The next text: that of all chunks is the answer.",
        closed({"text": TEXT | {"minLength": 1}}),
        '{"text":"## "}',
    ),
    "epoch": _event(
        "epoch",
        "Another producer than the one that answered the start; where there was text before, "
        "`continuation` says how it goes on.",
        closed(
            {
                "epoch": {"type": "integer", "minimum": 1},
                "continuation": {"enum": list(Continuation)},
            },
            optional=("continuation",),
        ),
        '{"epoch":2,"continuation":"prefill"}',
    ),
    "expiring": _event(
        "expiring",
        "What the stream was started with expires soon: grant it another credential.",
        closed({"expires_at": SECONDS}),
        '{"expires_at":1795357443}',
    ),
    "paused": _event(
        "paused",
        "Nothing more comes until a resume; or a grant, where a credential has ended. `quota`: its "
        "budget has.",
        closed({"reason": {"enum": [*REASON["enum"], REQUESTED, QUOTA]}}),
        '{"reason":"expired"}',
    ),
    "granted": _event(
        "granted",
        "The stream goes on.",
        closed({"expires_at": nullable(SECONDS)}),
        '{"expires_at":null}',
    ),
    "reconnect": _event(
        "reconnect",
        "This connection ends and the stream goes on: come back after `after`, in `retry` ms.",
        closed({"after": AFTER}),
        '{"after":17}',
        seq="",
    ),
    "closed": _event(
        "closed",
        "The end: nothing comes after it.",
        _CLOSED,
        '{"status":"completed","finish_reason":"stop","usage":{"input_tokens":4,'
        '"output_tokens":210,"estimated":false},"error":null}',
    ),
}


def event_name(event: str) -> str:
    """What the schema of an event is called."""
    return f"{event.capitalize()}Event"


SCHEMAS: dict[str, Schema] = {
    **REQUESTS,
    **ANSWERS,
    **{event_name(event): schema for event, schema in EVENTS.items()},
    "StreamEvent": one_of("event", {event: event_name(event) for event in EVENTS}),
}
