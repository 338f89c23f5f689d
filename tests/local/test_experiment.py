"""`sluice experiment report`: what it makes of records, and what it says."""

from typing import Any

import pytest

from local.experiment import Result, outcome
from shared.records import Kind, Record


def log(*steps: tuple[int, Kind], status: str = "completed", variant: str | None = "x/a") -> Any:
    """Records at so many ms after the start."""
    opened = Record(0, Kind.OPENED, 1, 1000, "p", body={"variant": variant})
    records = [opened]
    for seq, (at, kind) in enumerate(steps, 1):
        text = "t" if kind is Kind.TEXT else ""
        records.append(Record(seq, kind, 1, 1000 + at, "p", text=text))
    body = {"status": status, "usage": {"output_tokens": 30}}
    records.append(Record(len(records), Kind.CLOSED, 1, 9000, "p", body=body))
    return tuple(records)


TEXT = Kind.TEXT


def test_an_answer_is_measured_by_its_records() -> None:
    found = outcome(log((300, TEXT), (400, TEXT), (900, TEXT), (1800, TEXT)))
    assert found
    assert found.measured == {"first chunk": 300, "tokens/s": 20, "gap p99": 900}


def test_what_lies_over_a_pause_is_no_gap() -> None:
    found = outcome(log((300, TEXT), (400, TEXT), (500, Kind.PAUSE), (9000, TEXT)))
    assert found
    assert found.measured["gap p99"] == 100


def test_who_is_in_no_experiment_or_not_over_does_not_count() -> None:
    assert outcome(log((1, TEXT), variant=None)) is None
    assert outcome(log((1, TEXT))[:-1]) is None


def test_an_answer_without_text_counts_for_the_rates_alone() -> None:
    found = outcome(log(status="cancelled"))
    assert found
    assert found.measured == {}
    result = Result.of("a", [found])
    assert result.figures["cancelled"].at == 1
    assert "first chunk" not in result.figures
    assert result.above(result)["completed"].at == pytest.approx(0)
