"""Errors travel between processes as any exception does."""

import pickle

import pytest
from sluice_client import GaveUp, NotSluice, Refused, SluiceError, StreamFailed, Unreachable

PROBLEM = {"type": "urn:sluice:problem:not-found", "detail": "There is no such stream."}


@pytest.mark.parametrize(
    "error",
    [
        Refused(PROBLEM, 404, 1.5),
        Refused({}, 502),
        StreamFailed(PROBLEM, "error"),
        StreamFailed({}, "error"),
        GaveUp("No sign of life."),
        Unreachable("Nothing answers."),
        NotSluice("Something else answers."),
    ],
)
def test_an_error_can_be_pickled(error: SluiceError) -> None:
    error.text = "until then"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)
