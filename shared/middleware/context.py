"""A request's ids, in its answer and in every line that is logged meanwhile."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import trace
from shared.logger import logger
from shared.spans import UNTOLD, Span, Spans

#: The methods that anybody knows: any other may be a text.
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Context:
    """Names the request and its trace, and writes one line about it at its end.

    The request's id is Lambda's own where there is one, so that both logs tell of the same request;
    the trace's is the client's. The line names the endpoint and the stream, and holds nothing of
    the address itself: a query may carry a ticket, and a path names users, and whatever else
    somebody put in.
    """

    def __init__(self, app: ASGIApp, spans: Spans = UNTOLD) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        request_id, trace_id = _request_id(scope), trace.of_request(asked)
        began = time.monotonic()
        status = 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["request-id"], headers["trace-id"] = request_id, trace_id
            await send(message)

        logger.thread_safe_append_keys(request_id=request_id)
        trace.begin(trace_id)
        try:
            with self._spans.request(trace_id, asked) as span:
                try:
                    await self._app(scope, receive, named)
                finally:
                    about = _about(scope, status)
                    if span:
                        _describe(span, request_id, about)
        finally:
            logger.info(
                "request", extra={**about, "duration_ms": round((time.monotonic() - began) * 1000)}
            )
            # The last thing of all: its client has its answer by now, unless that is buffered.
            await self._spans.flush()


def _about(scope: Scope, status: int) -> dict[str, Any]:
    state = scope.get("state", {})
    caller, key = state.get("caller"), state.get("key")
    return {
        "method": scope["method"],
        "path": state.get("path"),
        "status": status,
        "tenant": caller.identity.tenant if caller else None,
        "stream": key.stream if key else None,
    }


def _describe(span: Span, request_id: str, about: Mapping[str, Any]) -> None:
    """Say of a request's span what its line says, by OpenTelemetry's names where it has any."""
    method = about["method"] if about["method"] in _METHODS else "_OTHER"
    told = {
        "http.request.method": method,
        "http.route": about["path"],
        "http.response.status_code": about["status"] or None,
        "sluice.request_id": request_id,
        "sluice.tenant": about["tenant"],
        "sluice.stream": about["stream"],
    }
    span.name = " ".join(filter(None, ("HTTP" if method == "_OTHER" else method, about["path"])))
    span.attributes |= {name: value for name, value in told.items() if value is not None}
    if about["status"] >= 500:
        span.failed = str(about["status"])


def _request_id(scope: Scope) -> str:
    if "aws.context" in scope:
        return str(scope["aws.context"].aws_request_id)
    lambda_ = scope.get("extensions", {}).get("lambda", {})
    return str(lambda_.get("request_id") or uuid.uuid4())
