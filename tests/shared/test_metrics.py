"""What metrics are made of, and that nothing which goes wrong with them reaches who measures."""

import re

import pytest

from shared.metrics import ANSWER, LINES, NONE, OTHER, PRODUCTION, SWEEP, Metrics
from tests.told import Told

#: What CloudWatch allows of a line.
DIMENSIONS_MAX = 30
METRICS_MAX = 100


def test_no_two_figures_have_one_name() -> None:
    names = [metric.name for line in LINES for metric in line.metrics]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) for name in names)


def test_each_line_is_one_that_cloudwatch_takes() -> None:
    for line in LINES:
        assert 0 < len(line.metrics) <= METRICS_MAX
        assert 0 < len(line.dimensions) <= DIMENSIONS_MAX
        assert not {metric.name for metric in line.metrics} & set(line.dimensions)


def test_no_dimension_is_a_tenant() -> None:
    known = {"function", "model", "variant", "problem", "limit", "detector", "state"}
    assert {name for line in LINES for name in line.dimensions} == known


def test_what_is_told_has_its_dimensions_and_properties() -> None:
    told = Told()
    told.metrics().tell(ANSWER, {"AnswersFailed": 1}, model="demo?tokens=4", tenant="acme", x=None)
    (said,) = told.said
    assert said.dimensions == {"function": "test", "model": "demo", "variant": NONE}
    assert said.properties == {"tenant": "acme"}


@pytest.mark.parametrize("model", ["openai/whatever", "demo/x", "x?demo", ""])
def test_a_model_that_nobody_named_is_none_of_its_own(model: str) -> None:
    told = Told()
    told.metrics().tell(ANSWER, {"AnswersFailed": 1}, model=model)
    assert told.said[0].dimensions["model"] == OTHER


def test_a_count_of_nothing_is_not_told_but_a_time_is() -> None:
    told = Told()
    told.metrics().tell(SWEEP, {"SweepLookedAt": 0})
    told.metrics().tell(PRODUCTION, {"GapP50": 0.0})
    assert [said.figures for said in told.said] == [{"GapP50": 0.0}]


def test_what_goes_wrong_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise OSError("canary")

    Metrics(fail).tell(SWEEP, {"SweepLookedAt": 1})
    assert [line.__dict__["error"] for line in caplog.records] == ["OSError"]
    assert "canary" not in caplog.text
