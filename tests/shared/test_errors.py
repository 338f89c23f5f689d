"""The error tree: each error has a stable type, tells no more than it should, can come back."""

import inspect

import pytest

from shared import errors
from shared.errors import (
    CredentialEnded,
    InvalidRequest,
    LimitExceeded,
    PolicyViolated,
    ProviderFailed,
    SluiceError,
    rate_limit_policy,
    revive,
)

ALL: list[type[SluiceError]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SluiceError)
]


#: Those that say it in words of their own.
MADE: dict[type[SluiceError], SluiceError] = {
    ProviderFailed: ProviderFailed("It broke.", code="cut", retryable=True),
    CredentialEnded: CredentialEnded("revoked"),
    PolicyViolated: PolicyViolated("words", field="messages"),
    LimitExceeded: LimitExceeded("p", limit=3, window_s=60, retry_after_s=7),
}
SAID = {
    CredentialEnded: "The credential was revoked.",
    PolicyViolated: "The rule 'words' does not allow this text.",
    LimitExceeded: "The limit p of 3 is used up.",
}


def make(kind: type[SluiceError]) -> SluiceError:
    return MADE.get(kind) or kind("It broke.")


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = errors.__doc__ or ""
    for kind in ALL:
        assert kind.__name__ in drawn


def test_types_are_unique() -> None:
    assert len({kind.slug for kind in ALL}) == len(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_a_problem_has_what_rfc_9457_and_openai_clients_look_for(kind: type[SluiceError]) -> None:
    problem = make(kind).problem()
    assert problem["type"] == f"urn:sluice:problem:{kind.slug}"
    assert problem["status"] == kind.status
    assert problem["title"]
    assert problem["detail"] == SAID.get(kind, "It broke.")
    assert problem["error"]["message"] == problem["detail"]
    assert set(problem["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("kind", ALL)
def test_what_closes_a_stream_can_be_told_again(kind: type[SluiceError]) -> None:
    error = make(kind)
    again = revive(error.brief())
    assert type(again) is kind
    assert (again.problem(), str(again)) == (error.problem(), str(error))
    # What HTTP asks for with every such answer; not when to come again, which was true then.
    assert again.headers == kind.always
    assert ("WWW-Authenticate" in again.headers) is (kind.status == 401)


def test_what_a_failure_tells_beside_its_words_comes_back() -> None:
    failed = revive(ProviderFailed("It broke.", code="cut", retryable=True).brief())
    assert isinstance(failed, ProviderFailed)
    assert (failed.code, failed.retryable) == ("cut", True)
    wrong = revive(InvalidRequest("No.", field="model", maximum=3).brief())
    assert wrong.extensions == {"field": "model", "maximum": 3}
    assert wrong.problem()["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("expired", "The credential has expired."),
        ("revoked", "The credential was revoked."),
        ("suspended", "The tenant is suspended."),
        ("of-a-later-version", "The credential is no longer good"),
    ],
)
def test_a_credential_that_has_ended_says_why(reason: str, said: str) -> None:
    problem = CredentialEnded(reason).problem()
    assert (problem["reason"], problem["detail"], problem["status"]) == (reason, said, 401)
    assert CredentialEnded(reason).headers["WWW-Authenticate"].startswith("Bearer")


def test_a_limit_tells_its_policy_and_when_to_ask_again() -> None:
    error = LimitExceeded(
        "user-tokens-per-day", limit=9, window_s=86400, retry_after_s=30, unit="tokens"
    )
    assert error.headers == {
        "Retry-After": "30",
        "RateLimit-Policy": '"user-tokens-per-day";q=9;qu="tokens";w=86400',
        "RateLimit": '"user-tokens-per-day";r=0;t=30',
    }
    problem = error.problem()
    assert (problem["policy"], problem["limit"]) == ("user-tokens-per-day", 9)
    assert problem["retryable"] is True


def test_a_number_at_once_has_no_window() -> None:
    assert rate_limit_policy("p", 3, 0, "concurrent-requests") == (
        '"p";q=3;qu="concurrent-requests"'
    )
    assert rate_limit_policy("p", 3, 60, "requests") == '"p";q=3;w=60'


def test_an_unknown_error_of_a_later_version_is_an_internal_one() -> None:
    assert revive({"type": "urn:sluice:problem:new", "detail": "x"}).status == 500
    assert revive({}).status == 500
