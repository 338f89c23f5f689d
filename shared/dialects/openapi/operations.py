"""What can be asked: each method of each path, with its answers and what it may be refused for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared import errors
from shared.dialects import native
from shared.dialects.openapi import problems
from shared.dialects.openapi.headers import EVENT_STREAM, headers
from shared.dialects.openapi.schemas import AFTER, LAST_EVENT_ID, MS, STREAM_ID, TEXT, Schema, ref
from shared.identity import ADMIN, READ, STREAM

_KEY_CHARS = native.IDEMPOTENCY_KEY_CHARS_MAX
#: Between quotes, or plain.
_IDEMPOTENCY_KEY = (
    f'^("[ -~]{{1,{_KEY_CHARS}}}"'
    f"|[!#-~]([ -~]{{0,{_KEY_CHARS - 2}}}[!-~])?"
    f'|"([ -~]{{0,{_KEY_CHARS - 2}}}[!#-~])?)$'
)
#: What any request may be refused for that needs a key.
_GUARDED = (
    *(errors.Unauthenticated, errors.CredentialEnded, errors.Forbidden, errors.OriginNotAllowed),
    *(errors.SluiceError, errors.Unavailable, errors.Busy),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, which needs `scope`; None where anyone may ask.

    `answers` are by their status. `raised` is beside what every request with a key may be refused
    for. `functions` are those that serve it: on AWS each has an address of its own. `ticket` is
    whether a ticket will do. A request is `counted` as a poll where it has no limits of its own.
    """

    id: str
    method: str
    path: str
    scope: str | None
    summary: str
    answers: Mapping[int, Schema]
    raised: tuple[problems.Kind, ...] = ()
    parameters: tuple[Schema, ...] = ()
    body: Schema = field(default_factory=dict)
    functions: tuple[str, ...] = ("api",)
    ticket: bool = False
    counted: bool = True

    @property
    def refusals(self) -> dict[int, tuple[problems.Kind, ...]]:
        """The errors that it may raise, by their status."""
        if self.scope is None:
            return problems.by_status(self.raised)
        counted = (errors.LimitExceeded,) if self.counted else ()
        missing = (errors.NotFound,) if "{stream}" in self.path else ()
        return problems.by_status((*_GUARDED, *counted, *missing, *self.raised))

    def to_document(self) -> Schema:
        refused = {
            status: {"$ref": f"#/components/responses/{problems.name_of(group)}"}
            for status, group in self.refusals.items()
        }
        parameters = [_STREAM, *self.parameters] if "{stream}" in self.path else self.parameters
        document = {
            "operationId": self.id,
            "summary": self.summary,
            "security": self._security(),
            "x-sluice-functions": list(self.functions),
            "parameters": list(parameters),
            "responses": {str(status): a for status, a in {**self.answers, **refused}.items()},
        }
        return document | ({"requestBody": self.body} if self.body else {})

    def _security(self) -> list[Schema]:
        """Any one of these will do; nothing is needed where there is none."""
        shown = ("key", "ticket") if self.ticket else ("key",)
        return [{each: [self.scope]} for each in shown] if self.scope else []


def _parameter(where: str, name: str, about: str, schema: Schema, **more: Any) -> Schema:
    return {"in": where, "name": name, "description": about, "schema": schema, **more}


def _whole(least: int, most: int, default: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


def _answer(about: str, schema: Schema, names: Mapping[str, bool] | None = None) -> Schema:
    """An answer of JSON. `names` are its headers, with whether each is always there."""
    return {
        "description": about,
        "headers": headers(names or {}),
        "content": {"application/json": {"schema": schema}},
    }


def _events(about: str, names: Mapping[str, bool], links: Schema) -> Schema:
    return {
        "description": f"{about} The schema is that of each event. In silence a comment line "
        f"comes every {native.SILENCE_S_MAX:.0f} s.",
        "headers": headers({**EVENT_STREAM, **names}),
        "content": {"text/event-stream": {"schema": ref("StreamEvent")}},
        "links": links,
    }


def _nothing(about: str) -> Schema:
    return {"description": about, "headers": headers({})}


def _link(operation: str, **parameters: str) -> Schema:
    return {"operationId": operation, "parameters": parameters}


def _links(stream: str) -> Schema:
    """Where to go on with a stream, whose id is in this part of the answer."""
    names = ("followStream", "pollStream", "getStream", "cancelStream", "eraseStream")
    return {name: _link(name, stream=stream) for name in names}


_STREAM = _parameter("path", "stream", "The stream's id.", STREAM_ID, required=True)
_USER = _parameter(
    "path",
    "user",
    "A user of the tenant.",
    TEXT | {"minLength": 1, "maxLength": native.USER_CHARS_MAX},
    required=True,
)
_AFTER = _parameter("query", "after", "The offset to go on after.", AFTER | {"default": -1})
_STARTED = {"Location": True, "RateLimit-Policy": False, "RateLimit": False}
_ERASING = _answer(
    "What is left is erased in the background.",
    ref("Erasure"),
    {"Location": True, "Retry-After": True},
) | {"links": {"getErasure": _link("getErasure", erasure="$response.body#/id")}}

_START = Operation(
    "startStream",
    "POST",
    "/v1/streams",
    STREAM,
    "Start a stream, and follow it or, with `Prefer: respond-async`, poll it.",
    {
        200: _events("The answer.", _STARTED, _links("$response.header.Stream-Id")),
        202: _answer(
            "Begun; it is produced in the background.",
            ref("Accepted"),
            {**_STARTED, "Stream-Id": True, "Preference-Applied": True},
        )
        | {"links": _links("$response.body#/id")},
    },
    raised=(
        *(errors.InvalidRequest, errors.NotFound, errors.IdempotencyInFlight, errors.TooLarge),
        *(errors.PolicyViolated, errors.IdempotencyKeyReused, errors.LimitExceeded),
        *(errors.ProviderFailed, errors.ProducerLost, errors.OutOfTime, errors.Abandoned),
    ),
    parameters=(
        _parameter(
            "header",
            "Prefer",
            "`respond-async`: answer at once. The api function answers nothing else.",
            TEXT | {"examples": ["respond-async"]},
        ),
        _parameter(
            "header",
            "Idempotency-Key",
            "The same key with the same body again gives the first answer again.",
            TEXT | {"pattern": _IDEMPOTENCY_KEY, "examples": ["5f0c7a52"]},
        ),
    ),
    body={"required": True, "content": {"application/json": {"schema": ref("Start")}}},
    functions=("stream", "api"),
    counted=False,
)

_READING = (
    Operation(
        "listStreams",
        "GET",
        "/v1/streams",
        READ,
        "List streams: the tenant's, or the user's whose key it is.",
        {200: _answer("A page.", ref("Streams"))},
        functions=("stream", "api"),
        raised=(errors.InvalidRequest,),
        parameters=(
            _parameter("query", "page", "The `next_page` of the page before.", STREAM_ID),
            _parameter(
                "query",
                "limit",
                "How many at most.",
                _whole(1, native.LIST_LIMIT_MAX, native.LIST_LIMIT_DEFAULT),
            ),
        ),
    ),
    Operation(
        "getStream",
        "GET",
        "/v1/streams/{stream}",
        READ,
        "Look at a stream.",
        {200: _answer("Its summary.", ref("Summary"))},
        ticket=True,
    ),
    Operation(
        "followStream",
        "GET",
        "/v1/streams/{stream}/events",
        READ,
        "Follow a stream from any offset to its end, while it runs and afterwards.",
        {
            200: _events("Everything after the offset.", {}, {}),
            204: _nothing("There is nothing after the offset, and never will be."),
        },
        raised=(errors.InvalidRequest,),
        parameters=(
            _AFTER,
            _parameter(
                "header", "Last-Event-ID", "As `after`, which it goes before.", LAST_EVENT_ID
            ),
        ),
        functions=("stream",),
        ticket=True,
        counted=False,
    ),
    Operation(
        "pollStream",
        "GET",
        "/v1/streams/{stream}/chunks",
        READ,
        "Poll a stream, where following is impossible.",
        {
            200: _answer(
                "A page of chunks.",
                {"oneOf": [ref("OpenPage"), ref("LastPage")]},
                {"Stream-Id": True, "Retry-After": False},
            )
        },
        raised=(errors.InvalidRequest,),
        parameters=(
            _AFTER,
            _parameter(
                "query",
                "limit",
                "How many chunks at most; a limit may be less.",
                _whole(1, native.LIMIT_MAX, native.LIMIT_DEFAULT),
            ),
            _parameter(
                "query",
                "wait",
                "For how many seconds to wait where there is nothing yet.",
                _whole(0, native.WAIT_S_MAX, 0),
            ),
        ),
        ticket=True,
    ),
    Operation(
        "exportStream",
        "GET",
        "/v1/streams/{stream}/export",
        READ,
        "Export everything that is held about a stream.",
        {200: _answer("One document.", ref("Export"), {"Content-Disposition": True})},
        functions=("stream",),
    ),
    Operation(
        "makeTicket",
        "POST",
        "/v1/streams/{stream}/ticket",
        READ,
        "Make a ticket, which lets whoever has it follow and poll a stream.",
        {201: _answer("A new one.", ref("Ticket"))},
        ticket=True,
    ),
)

#: For a stream that is over its summary, and 202 where a cancel came before.
_STEERED = {
    200: _answer("How it stands now.", {"oneOf": [ref("Steered"), ref("Summary")]}),
    202: _answer("It is being cancelled.", ref("Steered")),
}

_STEERING = (
    Operation(
        "cancelStream",
        "POST",
        "/v1/streams/{stream}/cancel",
        STREAM,
        "Cancel a stream. Its text so far is kept.",
        {
            200: _answer("It is over.", ref("Summary")),
            202: _answer("Asked for.", ref("Steered")),
        },
    ),
    Operation(
        "pauseStream",
        "POST",
        "/v1/streams/{stream}/pause",
        STREAM,
        "Have nothing more produced until a resume, and keep what there is.",
        _STEERED,
    ),
    Operation(
        "resumeStream",
        "POST",
        "/v1/streams/{stream}/resume",
        STREAM,
        "Let a paused stream go on from its text, by the credential of this request and by what is "
        "left of its limits.",
        _STEERED,
        raised=(errors.TooLarge,),
    ),
    Operation(
        "grantStream",
        "POST",
        "/v1/streams/{stream}/grant",
        STREAM,
        "Let a stream go on by the credential of this request, unless only a resume does.",
        _STEERED,
    ),
    Operation(
        "eraseStream",
        "DELETE",
        "/v1/streams/{stream}",
        STREAM,
        "Erase a stream. That it was there stays in the audit.",
        {204: _nothing("Nothing is left of it."), 202: _ERASING},
    ),
)

_GOVERNING = (
    Operation(
        "eraseUser",
        "DELETE",
        "/v1/users/{user}/streams",
        ADMIN,
        "Erase all streams that a user has begun until now.",
        {202: _ERASING},
        raised=(errors.InvalidRequest,),
        parameters=(_USER,),
    ),
    Operation(
        "exportUser",
        "GET",
        "/v1/users/{user}/export",
        ADMIN,
        "Export everything that is held about a user.",
        {200: _answer("One document.", ref("Export"), {"Content-Disposition": True})},
        raised=(errors.InvalidRequest,),
        parameters=(_USER,),
        functions=("stream",),
    ),
    Operation(
        "getErasure",
        "GET",
        "/v1/erasures/{erasure}",
        READ,
        "Look how far an erasure is.",
        {200: _answer("Its state.", ref("Erasure"))},
        raised=(errors.NotFound,),
        parameters=(_parameter("path", "erasure", "Its id.", TEXT, required=True),),
    ),
    Operation(
        "getUsage",
        "GET",
        "/v1/usage",
        READ,
        "What is left of each limit, and the tokens by day and month.",
        {200: _answer("As it is now.", ref("Quotas"))},
    ),
    Operation(
        "getAudit",
        "GET",
        "/v1/audit",
        ADMIN,
        "The tenant's audit by time, or that of one stream.",
        {200: _answer("A page.", ref("Entries"))},
        raised=(errors.InvalidRequest,),
        parameters=(
            _parameter("query", "stream", "Only what happened to this stream.", STREAM_ID),
            *(
                _parameter("query", name, about, MS | {"maximum": native.MS_MAX})
                for name, about in (
                    ("start", "From this moment, in ms; a day ago where no stream is named."),
                    ("end", "Until before this moment, in ms."),
                )
            ),
            _parameter("query", "page", "The `next_page` of the page before.", TEXT),
            _parameter(
                "query",
                "limit",
                "How many at most.",
                _whole(1, native.LIMIT_MAX, native.LIST_LIMIT_MAX),
            ),
        ),
    ),
)

_SERVICE = (
    Operation(
        "getHealth",
        "GET",
        "/healthz",
        None,
        "Whether it is alive, and which version.",
        {200: _answer("Alive.", ref("Health"))},
        functions=("stream", "api"),
    ),
    Operation(
        "getOpenApi",
        "GET",
        "/openapi.json",
        None,
        "This document.",
        {200: _answer("OpenAPI 3.1.", {"type": "object"})},
        functions=("stream", "api"),
    ),
)

OPERATIONS = (_START, *_READING, *_STEERING, *_GOVERNING, *_SERVICE)
