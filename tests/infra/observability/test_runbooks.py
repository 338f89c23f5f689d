"""Each alarm has its page, which says when it is on; and what a page points to is there."""

import re
import shlex
from pathlib import Path

import pytest

from infra.observability.queries import QUERIES
from local import cli
from shared.metrics import LINES
from tests.infra.conftest import ROOT, Template, of_type
from tests.infra.observability.template import alarms, titles

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))


def test_each_alarm_has_its_page_and_each_page_its_alarm(template: Template) -> None:
    assert set(alarms(template)) == {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_when_its_alarm_is_on(template: Template, page: Path) -> None:
    described = alarms(template)[page.stem]["AlarmDescription"]
    when, _, where = described.partition(" See ")
    assert where == f"docs/runbooks/{page.name}"
    title, _, said = page.read_text().splitlines()[:3]
    assert title == f"# {page.stem}"
    assert said == f"> {when}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_to_look_at_first_and_how_one_knows_that_it_is_over(page: Path) -> None:
    text = page.read_text()
    assert "**Look first** at" in text
    assert "\n**Over** " in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_graphs_and_questions_of_a_page_are_there(template: Template, page: Path) -> None:
    known = (*titles(template), *QUERIES)
    named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", page.read_text())
    assert named
    for name in named:
        assert any(one.startswith(" ".join(name.split())) for one in known), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_are_sluice_s(page: Path) -> None:
    parser = cli._parser()
    for command in re.findall(r"`sluice ([^`]+)`", " ".join(page.read_text().split())):
        parser.parse_args(shlex.split(command))


def test_questions_ask_for_metrics_that_are_told() -> None:
    known = {metric.name for line in LINES for metric in line.metrics}
    lines = {line.name for line in LINES}
    for query in QUERIES.values():
        assert set(re.findall(r"\b([A-Z]\w+)\.0", query)) <= known
        assert set(re.findall(r'line = "(\w+)"', query)) <= lines


def test_they_are_asked_of_all_functions(template: Template) -> None:
    groups = {
        function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
        for function in of_type(template, "AWS::Lambda::Function").values()
        if function["Properties"]["Handler"].startswith("functions.")
    }
    saved = of_type(template, "AWS::Logs::QueryDefinition").values()
    assert {one["Properties"]["Name"] for one in saved} == {f"Sluice/{name}" for name in QUERIES}
    for one in saved:
        assert {group["Ref"] for group in one["Properties"]["LogGroupNames"]} == groups


def test_tenants_are_ranked_without_a_metric_for_each(template: Template) -> None:
    [rule] = of_type(template, "AWS::CloudWatch::InsightRule").values()
    body = rule["Properties"]["RuleBody"]["Fn::Join"][1]
    assert '"Keys":["$.tenant"]' in body[-1]
    assert '{"Match":"$.line","In":["answer"]}' in body[-1]
