"""`GET /metrics` of the local run."""

import re
from math import inf
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse

from local.metrics import Figures, with_metrics
from local.server import only_here
from shared.metrics import ANSWER, LINES, PRODUCTION
from shared.settings import Settings
from tests.functions.conftest import client


@pytest.fixture
def figures() -> Figures:
    figures = Figures()
    metrics = figures.metrics(Settings())
    for _ in range(2):
        metrics.tell(ANSWER, {"AnswersCompleted": 1, "OutputTokens": 40}, model="demo?tokens=40")
    metrics.tell(PRODUCTION, {"TimeToFirstToken": 300.0, "TokensPerSecond": 50}, tenant="acme")
    return figures


def test_it_is_what_prometheus_reads(figures: Figures) -> None:
    text = figures.text().decode()
    found = {each.name: each for each in text_string_to_metric_families(text)}
    assert len(found) >= sum(len(line.metrics) for line in LINES)
    (tokens,) = (s for s in found["sluice_output_tokens"].samples if s.name.endswith("_total"))
    assert tokens.value == 80
    assert tokens.labels == {"function": "local", "model": "demo", "variant": "none"}
    buckets = found["sluice_time_to_first_token_seconds"].samples
    ttft = {sample.labels.get("le"): sample.value for sample in buckets}
    assert (ttft["0.25"], ttft["0.5"]) == (0, 1)
    assert "acme" not in text


async def test_it_needs_no_key_and_everything_else_goes_on(figures: Figures) -> None:
    async with client(with_metrics(PlainTextResponse("else"), figures), "") as asking:
        answer = await asking.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "sluice_answers_completed_total" in answer.text
        assert (await asking.get("/other")).text == "else"
        told = await asking.get("/metrics", headers={"accept": "application/json"})
        assert told.json() == figures.document()


def test_a_page_is_told_all_of_a_figure_together(figures: Figures) -> None:
    metrics = figures.metrics(Settings())
    metrics.tell(ANSWER, {"AnswersCompleted": 1}, model="unknown")
    metrics.tell(PRODUCTION, {"TimeToFirstToken": 240.0, "TokensPerSecond": 9000}, model="demo")
    told = figures.document()
    assert told["AnswersCompleted"] == 3
    assert set(told) == {"AnswersCompleted", "OutputTokens", "TimeToFirstToken", "TokensPerSecond"}

    def buckets(name: str) -> dict[float, float]:
        bounds, counts = told[name]["bounds"], told[name]["counts"]
        return {bound: n for bound, n in zip([*bounds, inf], counts, strict=True) if n}

    assert buckets("TimeToFirstToken") == {250: 1, 500: 1}
    assert buckets("TokensPerSecond") == {50: 1, inf: 1}


def test_the_page_shows_metrics_that_there_are() -> None:
    shown = re.findall(r'\["[^"]+", "(\w+)", ', Path("web/src/local-run.ts").read_text())
    assert "TakenOver" in shown
    assert set(shown) <= {metric.name for line in LINES for metric in line.metrics}


async def test_no_page_of_another_name_reads_it(figures: Figures) -> None:
    app = only_here(with_metrics(PlainTextResponse("else"), figures))
    async with client(app, "") as asking:
        assert (await asking.get("/metrics", headers={"host": "evil.example"})).status_code == 403
