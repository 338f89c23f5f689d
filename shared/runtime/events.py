"""An invocation's event as an ASGI request.

Mangum's translation is reused: payload format 2.0 (function URLs, HTTP APIs), format 1.0 (REST
APIs) and load balancers.
"""

import json
from typing import Any, cast

from mangum.handlers import ALB, APIGateway, HTTPGateway
from mangum.types import LambdaConfig, LambdaContext

from shared.runtime.client import Invocation

_CONFIG = LambdaConfig(api_gateway_base_path="/", text_mime_types=[], exclude_headers=[])
# A handler only keeps the context, for the key of the scope that is taken out again below.
_CONTEXT = cast("LambdaContext", None)


class NotHttp(Exception):
    """The event comes from something else than HTTP: a test event, a queue, a direct invoke."""


def request(invocation: Invocation) -> tuple[dict[str, Any], bytes]:
    """The scope and the body; raises `NotHttp`, or anything at all on an event that is malformed.

    `scope["extensions"]["lambda"]` is what an app may know of its invocation: `deadline_ms` (Unix
    milliseconds; None when it is unknown or past), `request_id`, `function_arn`, `trace_id`.
    """
    event = _event(invocation.event)
    for handler_type in (ALB, HTTPGateway, APIGateway):
        if handler_type.infer(event, _CONTEXT, _CONFIG):
            break
    else:
        raise NotHttp
    handler = handler_type(event, _CONTEXT, _CONFIG)
    scope = dict(handler.scope)
    del scope["aws.event"], scope["aws.context"]
    # From 2.4 on `send` may raise OSError, so Starlette needs no task that waits for a disconnect.
    scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
    scope["extensions"] = {
        "lambda": {
            "deadline_ms": invocation.deadline_ms,
            "request_id": invocation.request_id,
            "function_arn": invocation.function_arn,
            "trace_id": invocation.trace_id,
        }
    }
    return scope, handler.body


def _event(raw: bytes) -> dict[str, Any]:
    try:
        # A null means what its absence means, but Mangum stumbles over it.
        event = json.loads(raw, object_pairs_hook=_without_nulls)
    except ValueError:
        raise NotHttp from None
    if not isinstance(event, dict) or not isinstance(event.get("requestContext"), dict):
        raise NotHttp
    return event


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if value is not None}
