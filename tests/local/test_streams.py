"""`sluice streams`, `pause` and `cancel` against a local run of the real functions."""

import json
from collections.abc import Iterator

import pytest

from local import cli
from tests.e2e.local_run import LocalRun

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def run() -> Iterator[LocalRun]:
    with LocalRun("--ephemeral") as run:
        yield run


def said(run: LocalRun, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert cli.main([*arguments, "--url", run.url]) == 0
    told = capsys.readouterr()
    return told.out, told.err


def test_the_newest_stand_first(run: LocalRun, capsys: pytest.CaptureFixture[str]) -> None:
    done, paused = run.begin("demo?tokens=10&rate=0"), run.begin("demo?tokens=5000")
    run.client.get(f"/v1/streams/{done}/events")
    assert said(run, capsys, "pause", paused) == (
        "",
        f"Paused. It goes on with: sluice resume {paused}\n",
    )
    out, err = said(run, capsys, "streams", "--limit", "2")
    titles, first, second = (line.split() for line in out.splitlines())
    assert titles == ["id", "status", "model", "age", "tokens"]
    assert first[:3] == [paused, "paused", "demo?tokens=5000"]
    assert first[-1] == "–"
    assert second[:2] == [done, "completed"]
    assert second[-1] == "10"
    assert err == "There may be more: --limit 10.\n"


def test_as_json(run: LocalRun, capsys: pytest.CaptureFixture[str]) -> None:
    stream = run.begin("demo?tokens=10&rate=0")
    found = json.loads(said(run, capsys, "streams", "--json")[0])
    assert found[0]["id"] == stream


def test_cancel(run: LocalRun, capsys: pytest.CaptureFixture[str]) -> None:
    stream = run.begin("demo?tokens=5000")
    assert said(run, capsys, "cancel", stream) == ("", "Cancelled. What it said is kept.\n")
    assert '"status":"cancelled"' in run.client.get(f"/v1/streams/{stream}/events").text
    done = run.begin("demo?tokens=10&rate=0")
    run.client.get(f"/v1/streams/{done}/events")
    for command in ("cancel", "pause"):
        assert said(run, capsys, command, done) == ("", "It was over already: completed.\n")
