"""A request's ids, in its answer and in every line that is logged meanwhile."""

import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import trace
from shared.logger import logger


class Context:
    """Names the request and its trace, and writes one line about it at its end.

    The request's id is Lambda's own where there is one, so that both logs tell of the same request;
    the trace's is the client's. The line names the endpoint and the stream, and holds nothing of
    the address itself: a query may carry a ticket, and a path names users, and whatever else
    somebody put in.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, trace_id = _request_id(scope), trace.of_request(Headers(scope=scope))
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
            await self._app(scope, receive, named)
        finally:
            state = scope.get("state", {})
            caller, key = state.get("caller"), state.get("key")
            logger.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": state.get("path"),
                    "status": status,
                    "tenant": caller.identity.tenant if caller else None,
                    "stream": key.stream if key else None,
                    "duration_ms": round((time.monotonic() - began) * 1000),
                },
            )


def _request_id(scope: Scope) -> str:
    if "aws.context" in scope:
        return str(scope["aws.context"].aws_request_id)
    lambda_ = scope.get("extensions", {}).get("lambda", {})
    return str(lambda_.get("request_id") or uuid.uuid4())
