"""The only error tree. What a client may see of an error is decided here.

    SluiceError               500  internal
    ├── InvalidRequest        400  names the field and the bound that it broke
    ├── Unauthenticated       401
    │   └── CredentialEnded        expired, revoked, or its tenant suspended
    ├── Forbidden             403  the key may not do this
    │   └── OriginNotAllowed       the tenant does not let pages of this origin call
    ├── NotFound              404  also for what belongs to another tenant
    ├── MethodNotAllowed      405
    ├── IdempotencyInFlight   409  the first request with this Idempotency-Key still runs
    ├── Abandoned             410  a stream was paused, and nobody let it go on
    ├── TooLarge              413
    ├── PolicyViolated        422  a tenant's rules refuse the text; names the rule
    ├── IdempotencyKeyReused  422  this Idempotency-Key came with another body before
    ├── LimitExceeded         429  names the limit, and says when to ask again
    ├── Unavailable           503  the store, or a part of Sluice, cannot answer now
    │   ├── Busy                   too many want to write the same item
    │   ├── ProducerLost           one producer after the other died
    │   └── OutOfTime              an answer came to the longest time that it may take
    └── ProviderFailed        502  the model's provider failed; says whether a retry makes sense

A message is written for the client who reads it: it never carries a key, a prompt, an upstream's
own words or the text of a Python exception.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

#: Problem types are names, not addresses: they stay the same wherever Sluice is deployed.
TYPE_PREFIX = "urn:sluice:problem:"


class SluiceError(Exception):
    """An error with a stable type, an HTTP status and a message that is safe to show."""

    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"
    status: ClassVar[int] = 500
    retryable: bool = False
    #: Headers that HTTP asks for with every answer of this status.
    always: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = {**self.always, **(headers or {})}
        self.extensions = extensions

    def problem(self) -> dict[str, Any]:
        """RFC 9457 problem details, with an `error` object beside them that OpenAI's SDKs read."""
        return {
            "title": self.title,
            "status": self.status,
            **self.brief(),
            "error": {
                "message": self.detail,
                "type": _OPENAI_TYPES.get(self.status, "server_error"),
                "param": self.extensions.get("field"),
                "code": self.slug.replace("-", "_"),
            },
        }

    def brief(self) -> dict[str, Any]:
        """What a `closed` record keeps of it; `revive` makes the error from that again."""
        return {
            "type": TYPE_PREFIX + self.slug,
            "detail": self.detail,
            "retryable": self.retryable,
            **self.extensions,
        }


_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


class InvalidRequest(SluiceError):
    """The request breaks a rule. `field` is a path like `messages[2].role`, or a query's name."""

    slug = "invalid-request"
    title = "The request is not valid"
    status = 400

    def __init__(self, detail: str, *, field: str | None = None, **extensions: Any) -> None:
        if field is not None:
            extensions["field"] = field
        super().__init__(detail, **extensions)


class Unauthenticated(SluiceError):
    slug = "unauthenticated"
    title = "The request carries no valid key"
    status = 401
    always = MappingProxyType({"WWW-Authenticate": 'Bearer realm="sluice"'})


class CredentialEnded(Unauthenticated):
    """What was shown was good once; `reason` is `expired`, `revoked` or `suspended`."""

    slug = "credential-ended"
    title = "The credential is no longer good"

    def __init__(self, reason: str) -> None:
        super().__init__(_ENDED.get(reason), reason=reason)


_ENDED = {
    "expired": "The credential has expired.",
    "revoked": "The credential was revoked.",
    "suspended": "The tenant is suspended.",
}


class Forbidden(SluiceError):
    slug = "forbidden"
    title = "The credential does not allow this"
    status = 403


class OriginNotAllowed(Forbidden):
    slug = "origin-not-allowed"
    title = "Pages of this origin may not call"


class NotFound(SluiceError):
    slug = "not-found"
    title = "There is no such thing here"
    status = 404


class MethodNotAllowed(SluiceError):
    slug = "method-not-allowed"
    title = "This address does not take that method"
    status = 405


class IdempotencyInFlight(SluiceError):
    slug = "idempotency-in-flight"
    title = "A request with this Idempotency-Key is still running"
    status = 409
    retryable = True


class TooLarge(SluiceError):
    slug = "too-large"
    title = "The request is too large"
    status = 413


class IdempotencyKeyReused(SluiceError):
    slug = "idempotency-key-reused"
    title = "This Idempotency-Key was used with another request"
    status = 422


class PolicyViolated(SluiceError):
    """The text breaks a rule of the tenant. `rule` names it, and nothing of the text is told."""

    slug = "policy-violated"
    title = "The text is not allowed here"
    status = 422

    def __init__(self, rule: str, *, field: str) -> None:
        super().__init__(f"The rule '{rule}' does not allow this text.", rule=rule, field=field)


class LimitExceeded(SluiceError):
    """A limit is used up. `policy` names it (`tenant-tokens-per-day`), `limit` is its bound.

    `window_s` is 0 for a number at once. `retry_after_s` is when the same request will pass.
    """

    slug = "limit-exceeded"
    title = "A limit is used up"
    status = 429
    retryable = True

    def __init__(
        self,
        policy: str,
        *,
        limit: int,
        window_s: int,
        retry_after_s: int,
        unit: str = "requests",
        detail: str | None = None,
    ) -> None:
        super().__init__(
            detail or f"The limit {policy} of {limit} is used up.",
            headers={
                "Retry-After": str(retry_after_s),
                "RateLimit-Policy": rate_limit_policy(policy, limit, window_s, unit),
                "RateLimit": f'"{policy}";r=0;t={retry_after_s}',
            },
            policy=policy,
            limit=limit,
        )
        self.retry_after_s = retry_after_s

    @property
    def policy(self) -> str:
        return str(self.extensions["policy"])


def rate_limit_policy(policy: str, limit: int, window_s: int, unit: str) -> str:
    """One item of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11, section 3).

    Its `w` must not be 0, and `requests` is what it counts where it does not say. That it may count
    tokens is ours: no unit is registered for them.
    """
    quota_unit = "" if unit == "requests" else f';qu="{unit}"'
    window = f";w={window_s}" if window_s else ""
    return f'"{policy}";q={limit}{quota_unit}{window}'


class Unavailable(SluiceError):
    slug = "unavailable"
    title = "Sluice cannot answer just now"
    status = 503
    retryable = True

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class Busy(Unavailable):
    slug = "busy"
    title = "Too many want the same just now"


class ProducerLost(Unavailable):
    slug = "producer-lost"
    title = "The producers of this stream died; its text so far is kept"


class OutOfTime(Unavailable):
    slug = "out-of-time"
    title = "The answer took longer than it may; its text so far is kept"


class Abandoned(SluiceError):
    slug = "abandoned"
    title = "The stream was paused for too long; its text so far is kept"
    status = 410


class ProviderFailed(SluiceError):
    """A model's provider did not answer, refused, or broke off.

    `code` is one of `refused` (the request), `denied` (our credentials), `throttled`,
    `unavailable`, `timeout`, `cut` (the connection broke mid-answer) and `upstream` (an error that
    the provider sent).
    """

    slug = "provider-failed"
    title = "The model's provider failed"
    status = 502

    def __init__(self, detail: str, *, code: str, retryable: bool) -> None:
        super().__init__(detail, code=code)
        self.retryable = retryable

    @property
    def code(self) -> str:
        return str(self.extensions["code"])


def revive(brief: Mapping[str, Any]) -> SluiceError:
    """The error that a `closed` record tells of, as it was: its kind, and all that it said.

    One that only a later version knows is an internal one here, in its own words.
    """
    said = dict(brief)
    slug = str(said.pop("type", "")).removeprefix(TYPE_PREFIX)
    detail, retryable = said.pop("detail", None), bool(said.pop("retryable", False))
    kind = _kinds(SluiceError).get(slug, SluiceError)
    # Past the initializer of its kind: that finds the words, and these are found already.
    error = kind.__new__(kind)
    SluiceError.__init__(error, detail, **said)
    error.retryable = retryable
    return error


def _kinds(kind: type[SluiceError]) -> dict[str, type[SluiceError]]:
    """A kind and all narrower ones, by their slugs."""
    found: dict[str, type[SluiceError]] = {}
    for narrower in kind.__subclasses__():
        found |= _kinds(narrower)
    return found | {kind.slug: kind}
