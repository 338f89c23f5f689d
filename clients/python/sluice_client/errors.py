"""What can go wrong: one tree. Every error of an answer carries the text that came before it."""

from collections.abc import Mapping
from typing import Any

_TYPE_PREFIX = "urn:sluice:problem:"


class SluiceError(Exception):
    """Any failure. `text` is what an answer had said until then; empty where there was none."""

    text: str = ""


class _Told(SluiceError):
    """A failure in the server's own words: problem details (RFC 9457) in `problem`."""

    def __init__(self, problem: Mapping[str, Any], fallback: str) -> None:
        self.problem = problem
        #: What kind it is, as `limit-exceeded`; the README of Sluice lists them.
        self.type = str(problem.get("type") or "").removeprefix(_TYPE_PREFIX)
        #: Whether the same may pass later.
        self.retryable = problem.get("retryable") is True
        super().__init__(str(problem.get("detail") or problem.get("title") or fallback))


class Refused(_Told):
    """The server does not do what it was asked. The same will be refused again, unless `retryable`:
    then after `retry_after` seconds, where it says.
    """

    def __init__(
        self, problem: Mapping[str, Any], status: int, retry_after: float | None = None
    ) -> None:
        super().__init__(problem, f"The server answered {status}, and gave no reason.")
        self.status = status
        self.retry_after = retry_after


class StreamFailed(_Told):
    """The stream was closed as `failed`. Its text so far is kept, here and on the server; another
    start with the stream as `parent` goes on from it.
    """

    def __init__(self, problem: Mapping[str, Any], finish_reason: str) -> None:
        super().__init__(problem, "The stream failed, and gave no reason.")
        self.finish_reason = finish_reason


class GaveUp(SluiceError):
    """No sign of life within the budget (`retry_s`). The stream goes on by itself: iterate the same
    answer again to go on with it. The last failure is the `__cause__`.
    """


class Unreachable(GaveUp):
    """Nothing has ever answered at this address: look whether it is right."""


class NotSluice(SluiceError):
    """Something answers, and it is not Sluice: a wrong address, or a proxy that speaks for it."""
