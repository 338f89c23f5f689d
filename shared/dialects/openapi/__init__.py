"""Our own OpenAPI document, served at `/openapi.json`.

    schemas     what goes over the wire
    headers     the headers of answers
    problems    the errors, from the one error tree
    operations  each method of each path

It is the same whichever function is asked, and nothing that a cold start imports.
"""

from functools import cache
from typing import Any

from shared.dialects.openapi import problems
from shared.dialects.openapi.operations import OPERATIONS
from shared.dialects.openapi.schemas import SCHEMAS
from shared.errors import MethodNotAllowed
from shared.records import dump

_ABOUT = """\
Answers of AI models, which stream, resume, and can be polled.

On one machine, and behind one domain, every operation is at one address. The function URLs of AWS
are two: `x-sluice-functions` says which of them serve an operation.

A key, or a token of an issuer that the tenant trusts, needs the scope that an operation names:
`stream` to start and steer streams, `read` to follow and look at them, `admin` to erase users,
export them and read the audit. A ticket is good for reading one stream.

Errors are problem details (RFC 9457). An address that is not here answers `not-found`, a method
that is not here `method-not-allowed`.
"""


@cache
def encoded(version: str) -> bytes:
    """The document in JSON."""
    return dump(document(version)).encode()


def document(version: str) -> dict[str, Any]:
    """The document (OpenAPI 3.1.0) of this version of ours."""
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = operation.to_document()
    groups = {group for each in OPERATIONS for group in each.refusals.values()}
    groups.add((MethodNotAllowed,))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sluice", "version": version, "description": _ABOUT},
        "servers": [{"url": "/", "description": "The host that serves this document."}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS | problems.schemas(),
            "responses": {
                problems.name_of(group): problems.response(group)
                for group in sorted(groups, key=problems.name_of)
            },
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key, or a JSON Web Token.",
                },
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "For one stream.",
                },
            },
        },
    }
