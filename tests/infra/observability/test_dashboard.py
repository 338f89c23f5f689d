"""The dashboard: in which order it reads, and that it shows what is told."""

import json
import re

import pytest

from infra.observability.figures import Figures
from shared.metrics import LINES
from tests.infra.conftest import Template, synthesize
from tests.infra.observability.template import alarms, titles, widgets

DIMENSIONS = {
    metric.name: {frozenset(by) for by in line.by} for line in LINES for metric in line.metrics
}
# What others tell as well: a median beside a percentile, a time beside what it consists of.
NOT_SHOWN = {"AnswerTime", "ConnectionTime", "GapP50"}


def shown(template: Template) -> list[tuple[str, frozenset[str]]]:
    """Sluice's own metrics in all graphs, each with its dimensions."""
    found = []
    for widget in widgets(template):
        found += [
            # Name and value of each dimension follow one another.
            (metric[1], frozenset(metric[2:-1:2]))
            for metric in widget["properties"].get("metrics", [])
            if metric[0] == "Sluice"
        ]
        for by, name in re.findall(
            r'\{"Sluice",([\w,]+)\} MetricName="(\w+)"', json.dumps(widget).replace("\\", "")
        ):
            found.append((name, frozenset(by.split(","))))
    return found


def test_every_metric_is_one_that_is_told_with_its_dimensions(template: Template) -> None:
    for name, by in shown(template):
        assert by in DIMENSIONS[name], (name, by)


def test_every_metric_that_is_told_is_shown(template: Template) -> None:
    assert {name for name, _ in shown(template)} == DIMENSIONS.keys() - NOT_SHOWN


@pytest.mark.parametrize(
    ("name", "by", "said"),
    [
        ("TimeToFirstWord", {"function": "stream"}, "has no TimeToFirstWord"),
        ("Refusals", {"tenant": "acme"}, "Refusals is not told by tenant"),
        ("AnswersFailed", {"model": "demo"}, "not told by model"),
    ],
)
def test_what_nothing_tells_cannot_be_shown(name: str, by: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Figures("Sluice").one(name, "Sum", **by)
    with pytest.raises(ValueError, match=said):
        Figures("Sluice").each(name, "Sum", *by)


def test_it_reads_top_down(template: Template) -> None:
    said = [w["properties"]["markdown"] for w in widgets(template) if w["type"] == "text"]
    assert [text.splitlines()[0].removeprefix("## ") for text in said] == [
        "Alarms",
        "What users feel",
        "What is refused",
        "What would have been lost",
        "The functions",
        "The tables",
        "Behind the scenes",
        "The edge",
        "What drives the bill",
    ]
    for text in said:
        assert len(text.splitlines()) == 2, "a title, and one line that says what it means"
    places = [(widget["y"], widget["x"]) for widget in widgets(template)]
    assert places == sorted(places)
    assert all(widget["x"] + widget["width"] <= 24 for widget in widgets(template))


def test_all_alarms_stand_on_top(template: Template) -> None:
    [status] = [one for one in widgets(template) if one["type"] == "alarm"]
    assert len(status["properties"]["alarms"]) == len(alarms(template))


def test_the_edge_is_shown_where_there_is_one(template: Template, bare: Template) -> None:
    latency = "An origin's time to its first byte, ms"
    [widget] = [one for one in widgets(template) if one["properties"].get("title") == latency]
    assert {metric[0] for metric in widget["properties"]["metrics"]} == {"AWS/CloudFront"}
    # CloudFront tells its figures there, wherever the stack is.
    assert '"us-east-1"' in json.dumps(widget)
    assert latency not in titles(bare)


def test_a_bound_of_a_function_s_own_is_drawn() -> None:
    bounded = synthesize(observability="dashboard", produceConcurrency=7)
    [graph] = [
        one["properties"]
        for one in widgets(bounded)
        if one["properties"].get("title") == "Running at once, and what bounds it"
    ]
    assert graph["annotations"]["horizontal"] == [
        {"label": "reserved for Produce", "value": 7, "yAxis": "left"}
    ]


def test_two_regions_have_two_dashboards(template: Template) -> None:
    """A dashboard's name is the account's: two regions would take it from each other."""
    assert {"Ref": "AWS::Region"} in json.loads(
        json.dumps(template["Outputs"]["DashboardName"]["Value"])
    )["Fn::Join"][1]
