"""How a failure is described, to Lambda and in the log.

The text of an exception may hold what a client sent, so once requests run only its type and the
places in the code are told. Before the first request, at init, the text is told as well.
"""

import json
import sys
import time
import traceback
from typing import Any


def places(error: BaseException) -> list[str]:
    """Where it was raised, outermost first: `file:line function`, without any value."""
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]


def error_type(error: BaseException) -> str:
    """A name that is safe in an HTTP header."""
    return type(error).__name__.encode("ascii", "backslashreplace").decode()


def described(error: BaseException, kind: str | None = None) -> dict[str, Any]:
    """The error object of the Runtime API, text included: for failures outside of any request."""
    return {
        "errorType": kind or error_type(error),
        "errorMessage": str(error),
        "stackTrace": places(error),
    }


def log(level: str, message: str, **fields: Any) -> None:
    """Write one JSON line to stderr, with the keys that Lambda's JSON logs filter by."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"timestamp": now, "level": level, "message": message, **fields}
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()


def log_failure(what: str, error: BaseException, **fields: Any) -> None:
    """Write one line about an exception: its type, those behind it, and where it was raised."""
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < 5:
        causes.append(error_type(cause))
        cause = cause.__cause__ or cause.__context__
    log(
        "ERROR",
        what,
        **fields,
        error_type=error_type(error),
        caused_by=causes,
        traceback=places(error),
    )
