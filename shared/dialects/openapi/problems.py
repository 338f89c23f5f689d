"""The problems (RFC 9457) that a request may get for an answer, from the one error tree."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from shared import errors
from shared.dialects.openapi.headers import headers
from shared.dialects.openapi.schemas import COUNT, REASON, STREAM_ID, TEXT, Schema, closed, one_of
from shared.errors import TYPE_PREFIX, SluiceError

Kind = type[SluiceError]

_WHOLE: Schema = {"type": "integer"}
_FIELD: Schema = TEXT | {"description": "A path like `messages[2].role`, or a name in the query."}
_CODES = ("refused", "denied", "throttled", "unavailable", "timeout", "cut", "upstream")
#: The members of each problem beside those that all have, of which some may be missing.
_MEMBERS: Mapping[Kind, tuple[Mapping[str, Schema], tuple[str, ...]]] = {
    errors.InvalidRequest: (
        {"field": _FIELD, "minimum": _WHOLE, "maximum": _WHOLE},
        ("field", "minimum", "maximum"),
    ),
    errors.CredentialEnded: ({"reason": REASON}, ()),
    errors.Forbidden: ({"scope": TEXT, "field": _FIELD}, ("scope", "field")),
    errors.IdempotencyInFlight: ({"stream": STREAM_ID}, ()),
    errors.TooLarge: (
        {"maximum": COUNT, "field": _FIELD, "policy": TEXT},
        ("field", "policy"),
    ),
    errors.PolicyViolated: ({"rule": TEXT, "field": _FIELD}, ()),
    errors.LimitExceeded: ({"policy": TEXT, "limit": COUNT}, ()),
    errors.ProviderFailed: ({"code": {"enum": list(_CODES)}}, ()),
}
#: The headers of each status, and whether they are always there.
_HEADERS: Mapping[int, Mapping[str, bool]] = {
    401: {"WWW-Authenticate": True},
    405: {"Allow": True},
    409: {"Location": True, "Retry-After": True},
    429: {"Retry-After": True, "RateLimit-Policy": True, "RateLimit": True},
    503: {"Retry-After": False},
}
#: All kinds of errors that a client can tell apart, in the order of their definition.
KINDS: tuple[Kind, ...] = tuple(
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SluiceError) and "slug" in vars(kind)
)


def schemas() -> dict[str, Schema]:
    """A schema for each kind, by its name; and `Failure`, which a closed stream keeps of any."""
    members = {name: schema for of, _ in _MEMBERS.values() for name, schema in of.items()}
    failure = closed(
        _brief({"enum": [TYPE_PREFIX + kind.slug for kind in KINDS]}) | members,
        tuple(members),
        description="Why a stream was closed as `failed`.",
    )
    return {kind.__name__: _schema(kind) for kind in KINDS} | {"Failure": failure}


def name_of(group: Iterable[Kind]) -> str:
    """The name of the response that tells of one of these."""
    return "-or-".join(kind.__name__ for kind in group)


def by_status(raised: Iterable[Kind]) -> dict[int, tuple[Kind, ...]]:
    """Errors by their status, in the order of the tree."""
    wanted = set(raised)
    found = sorted((kind for kind in KINDS if kind in wanted), key=lambda kind: kind.status)
    return {status: tuple(group) for status, group in groupby(found, lambda kind: kind.status)}


def response(group: tuple[Kind, ...]) -> Schema:
    """The response that tells of one of these, which have one status."""
    names = {TYPE_PREFIX + kind.slug: kind.__name__ for kind in group}
    return {
        "description": "; or: ".join(f"{kind.title} (`{kind.slug}`)" for kind in group) + ".",
        "headers": headers(_HEADERS.get(group[0].status, {})),
        "content": {"application/problem+json": {"schema": one_of("type", names)}},
    }


def _brief(kind: Schema) -> dict[str, Any]:
    return {"type": kind, "detail": TEXT, "retryable": {"type": "boolean"}}


def _schema(kind: Kind) -> Schema:
    members, optional = _MEMBERS.get(kind, ({}, ()))
    code = kind.slug.replace("-", "_")
    return closed(
        {
            "title": {"const": kind.title},
            "status": {"const": kind.status},
            **_brief({"const": TYPE_PREFIX + kind.slug}),
            **members,
            "error": closed(
                {
                    "message": TEXT,
                    "type": TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {"const": code},
                },
                description="The same for OpenAI's SDKs.",
            ),
        },
        optional,
        description=f"{kind.title}.",
    )
