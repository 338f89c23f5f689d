"""The error tree: each error has a stable type, tells no more than it should, can come back."""

import inspect

import pytest

from shared import errors
from shared.errors import ProviderFailed, SluiceError, revive

ALL: list[type[SluiceError]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SluiceError)
]


def make(kind: type[SluiceError]) -> SluiceError:
    if kind is ProviderFailed:
        return ProviderFailed("It broke.", code="cut", retryable=True)
    return kind("It broke.")


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
    assert problem["detail"] == "It broke."
    assert problem["error"]["message"] == "It broke."
    assert set(problem["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "kind", [k for k in ALL if k is ProviderFailed or k.status == 503 or k is SluiceError]
)
def test_what_closes_a_stream_can_be_told_again(kind: type[SluiceError]) -> None:
    error = make(kind)
    assert revive(error.brief()).problem() == error.problem()


def test_an_unknown_error_of_a_later_version_is_an_internal_one() -> None:
    assert revive({"type": "urn:sluice:problem:new", "detail": "x"}).status == 500
    assert revive({}).status == 500
