"""Moments, as people type and read them."""

import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from local import moments

NOW = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(*parts: int) -> int:
    """A moment of UTC in ms."""
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1000  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", at(2027, 1, 31, 10, 30)),
        ("24h", at(2027, 1, 30, 12)),
        ("30d", at(2027, 1, 1, 12)),
        ("1w", at(2027, 1, 24, 12)),
        # Local time, an hour or two ahead of UTC.
        ("2027-01-31", at(2027, 1, 30, 23)),
        ("2026-07-01T10:30", at(2026, 7, 1, 8, 30)),
        ("2026-07-01T10:30:00+00:00", at(2026, 7, 1, 10, 30)),
    ],
)
def test_what_is_past(text: str, expected: int) -> None:
    assert moments.past(text, now=lambda: NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1y", "-1h", "24 h", "2027-13-01", "999999w", "1960-01-01", "٣h"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="needed"):
        moments.past(text, now=lambda: NOW)


def test_what_is_to_come() -> None:
    assert moments.future("30d", now=lambda: NOW) == at(2027, 3, 2, 12)
    assert moments.future("2027-02-28", now=lambda: NOW) == at(2027, 2, 27, 23)
    assert moments.future("never", now=lambda: NOW) is None
    for over in ("2027-01-31", "0m"):
        with pytest.raises(ArgumentTypeError, match="is over already"):
            moments.future(over, now=lambda: NOW)


def test_how_moments_are_shown() -> None:
    ms = at(2027, 1, 31, 12) + 1234
    assert moments.shown(ms) == "2027-01-31 13:00"
    assert moments.shown(ms, seconds=True) == "2027-01-31 13:00:01"
    assert moments.past(moments.exact(ms), now=lambda: NOW) == ms


def test_how_long_is_said_roughly() -> None:
    assert [moments.span(seconds) for seconds in (1, 119, 120, 7199, 7200, 172_799, 172_800)] == [
        *("1 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d")
    ]
