"""One invocation after the other, for as long as the environment lives."""

import asyncio
import os
from contextvars import copy_context
from typing import Any

from shared.runtime import report
from shared.runtime.client import Invocation, RuntimeApi
from shared.runtime.cycle import App, respond
from shared.runtime.events import NotHttp


def run(app: App, api: RuntimeApi) -> None:
    """Serve for ever; raises `RuntimeApiError` or `OSError` when the Runtime API is lost.

    One event loop lives across all invocations, so that an app's connections do, and runs only
    while one is under way.
    """
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(_stray)
        while True:
            _serve(app, api, runner, api.next())


def _serve(app: App, api: RuntimeApi, runner: asyncio.Runner, invocation: Invocation) -> None:
    if invocation.trace_id is None:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    else:
        os.environ["_X_AMZN_TRACE_ID"] = invocation.trace_id
    try:
        # A context of its own: the runner's would carry one request's variables into the next.
        runner.run(respond(app, api, invocation), context=copy_context())
    except NotHttp:
        message = "The event is not an HTTP request"
        report.log("ERROR", message, request_id=invocation.request_id)
        api.invocation_error(invocation, "Runtime.NotHttp", message)


def _stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody awaited; asyncio's own log would print the text of the exception."""
    error = context.get("exception")
    if error is None:
        report.log("ERROR", context["message"])
    else:
        report.log_failure("A task failed, and nobody awaited it", error)
