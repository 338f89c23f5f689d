"""What can go wrong: one tree. Every error of an answer carries the text that came before it."""

from collections.abc import Mapping
from typing import Any

_TYPE_PREFIX = "urn:sluice:problem:"


class SluiceError(Exception):
    """Any failure. `text` is what an answer had said until then; empty where there was none."""

    text: str = ""


class _Told(SluiceError):
    """A failure in the server's own words: problem details (RFC 9457) in `problem`."""

    _fallback = ""

    def __init__(self, problem: Mapping[str, Any], *more: object) -> None:
        super().__init__(problem, *more)  # as they were given: a pickle is made of them
        self.problem = problem
        #: What kind it is, as `limit-exceeded`; the README of Sluice lists them.
        self.type = str(problem.get("type") or "").removeprefix(_TYPE_PREFIX)
        #: Whether the same may pass later.
        self.retryable = problem.get("retryable") is True

    def __str__(self) -> str:
        told = self.problem.get("detail") or self.problem.get("title")
        return str(told or self._fallback)


class Refused(_Told):
    """The server does not do what it was asked. The same will be refused again, unless `retryable`:
    then after `retry_after` seconds, where it says.
    """

    def __init__(
        self, problem: Mapping[str, Any], status: int, retry_after: float | None = None
    ) -> None:
        super().__init__(problem, status, retry_after)
        self.status = status
        self.retry_after = retry_after
        self._fallback = f"The server answered {status}, and gave no reason."


class StreamFailed(_Told):
    """The stream was closed as `failed`. Its text so far is kept, here and on the server; another
    start with the stream as `parent` goes on from it.
    """

    def __init__(self, problem: Mapping[str, Any], finish_reason: str) -> None:
        super().__init__(problem, finish_reason)
        self.finish_reason = finish_reason
        self._fallback = "The stream failed, and gave no reason."


class GaveUp(SluiceError):
    """No sign of life within the budget (`retry_s`). The stream goes on by itself: iterate the same
    answer again to go on with it. The last failure is the `__cause__`.
    """


class Unreachable(GaveUp):
    """Nothing has ever answered at this address: look whether it is right."""


class NotSluice(SluiceError):
    """Something answers, and it is not Sluice: a wrong address, or a proxy that speaks for it."""
