"""What alarms, graphs and saved questions ask for is what functions really write on AWS."""

import json
import re
from typing import Any

import pytest

from functions.emf import emf
from infra.observability.queries import QUERIES
from shared.metrics import LINES
from shared.settings import Settings
from tests.functions.conftest import begin, running, start_body
from tests.infra.conftest import Template, of_type
from tests.infra.observability.template import alarms, widgets

Named = tuple[str, str, frozenset[str]]
NAMESPACE = "Sluice"
#: What a question is made of, beside fields.
LANGUAGE = {
    *("filter", "fields", "stats", "sort", "limit", "desc", "by", "as"),
    *("sum", "latest", "count_distinct", "pct"),
}


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines for CloudWatch among all that were written to the log."""
    lines = capsys.readouterr().out.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in found if "_aws" in line]


@pytest.fixture
def told(template: Template, capsys: pytest.CaptureFixture[str]) -> set[Named]:
    """Metrics as CloudWatch makes them of lines: namespace, name, dimensions; that of a function
    with its value.
    """
    for function in of_type(template, "AWS::Lambda::Function").values():
        properties = function["Properties"]
        module, _, name = properties["Handler"].partition(".")
        if module != "functions":
            continue
        namespace = properties["Environment"]["Variables"]["SLUICE_METRICS_NAMESPACE"]
        metrics = emf(Settings(metrics_namespace=namespace), name.partition(".")[0])
        for line in LINES:
            metrics.tell(line, {metric.name: 1 for metric in line.metrics}, state="opened")
    return {
        (directive["Namespace"], metric["Name"], frozenset(_named(name, line) for name in by))
        for line in written(capsys)
        for directive in line["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]
        for by in directive["Dimensions"]
    }


def _named(dimension: str, values: dict[str, Any]) -> str:
    return f"{dimension}={values[dimension]}" if dimension == "function" else dimension


def test_each_metric_of_an_alarm_is_told(template: Template, told: set[Named]) -> None:
    asked = [
        query["MetricStat"]["Metric"]
        for alarm in alarms(template).values()
        for query in alarm["Metrics"]
        if "MetricStat" in query
    ]
    own = [metric for metric in asked if not metric["Namespace"].startswith("AWS/")]
    assert own
    for metric in own:
        values = {one["Name"]: one["Value"] for one in metric["Dimensions"]}
        by = frozenset(_named(name, values) for name in values)
        assert (metric["Namespace"], metric["MetricName"], by) in told


def test_what_an_alarm_selects_is_told(template: Template, told: set[Named]) -> None:
    [query] = alarms(template)["breaker-open"]["Metrics"]
    found = re.fullmatch(r'SELECT SUM\("(\w+)"\) FROM SCHEMA\((.+)\) WHERE .+', query["Expression"])
    assert found
    namespace, *by = (name.strip('"') for name in found[2].split(", "))
    assert (namespace, found[1], frozenset(by)) in told


def test_each_metric_of_a_graph_is_told(template: Template, told: set[Named]) -> None:
    whatever = {
        (namespace, name, frozenset(one.partition("=")[0] for one in by))
        for namespace, name, by in told
    }
    drawn = json.dumps(widgets(template)).replace("\\", "")
    searches = re.findall(r"""SEARCH\('\{"([^"]+)",([\w,]+)\} MetricName="(\w+)"'""", drawn)
    assert searches
    for namespace, by, name in searches:
        assert (namespace, name, frozenset(by.split(","))) in whatever
    graphs = [
        metric for one in widgets(template) for metric in one["properties"].get("metrics", [])
    ]
    own = [metric for metric in graphs if metric[0] == NAMESPACE]
    assert own
    for namespace, name, *dimensions, _ in own:
        values = dict(zip(dimensions[::2], dimensions[1::2], strict=True))
        assert (namespace, name, frozenset(_named(one, values) for one in values)) in told


async def test_each_question_asks_for_fields_that_are_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those of one kind of line, where answers end, fail, are cancelled and refused."""
    async with running(metrics=emf(Settings(metrics_namespace=NAMESPACE), "stream")) as sluice:
        await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=40&rate=100"))
        await sluice.stream.post("/v1/streams", json=start_body("demo?tokens=9&fail_after=5"))
        key = (await begin(sluice.services, epoch=0)).key
        await sluice.api.post(f"{key.path}/cancel")
        await sluice.policy(limits={"streams_at_once": 0})
        await sluice.stream.post("/v1/streams", json=start_body())
    lines = written(capsys)
    asked = 0
    for title, query in QUERIES.items():
        if kind := re.search(r'filter line = "(\w+)"', query):
            held = {name for line in lines if line["line"] == kind[1] for name in line}
            assert fields(query) <= held, title
            asked += 1
    assert asked == 4


def fields(query: str) -> set[str]:
    """The fields that a question reads, but for those of CloudWatch itself."""
    quoted = set(re.findall(r"`(\w+)`", query))
    made = set(re.findall(r"\bas (\w+)", query))
    words = re.sub(r"""["`][^"`]*["`]|\.\d+""", " ", query)
    return quoted | (set(re.findall(r"(?<![@\w])[A-Za-z_]\w*", words)) - LANGUAGE - made)
