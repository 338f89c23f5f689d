"""What whoever removes a stack is told before anything is."""

import io
from typing import Any

import pytest

from infra.destroy import Plan, _ask, main
from tests.infra.conftest import Template, synthesize


def plan(template: Template) -> Plan:
    resources: list[dict[str, Any]] = [
        {
            "ResourceType": found["Type"],
            "LogicalResourceId": name,
            "PhysicalResourceId": f"a {name}",
        }
        for name, found in template["Resources"].items()
    ]
    return Plan.of(resources, template)


def test_tables_stay_and_are_named(template: Template) -> None:
    told = plan(template).told()
    stays, _, goes = told.partition("Goes for good:")
    assert stays.count("  table a ") == 3
    assert "answer" not in goes
    assert "6 log groups, with the functions' logs" in goes
    assert "2 queues, with the invocations that failed" in goes
    assert "1 distribution" in goes


def test_that_answers_go_is_said() -> None:
    told = plan(synthesize(disposable=True)).told()
    assert "Stays, and costs what it holds:\n  nothing\n" in told
    assert "3 tables, with every answer, key and audit entry in them" in told


def test_a_version_goes_with_its_function() -> None:
    stays, _, _ = plan(synthesize(shift="canary")).told().partition("Goes for good:")
    assert "Version" not in stays
    assert stays.count("\n  ") == 3


def test_a_stack_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "the following arguments are required: stack" in capsys.readouterr().err


def test_nothing_is_removed_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SystemExit, match="nobody can be asked here: --yes removes without asking"):
        _ask("Sluice")
