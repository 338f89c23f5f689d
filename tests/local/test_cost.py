"""What answers cost: foreseen, and held against what a run really asks of the store."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.counting import Counting
from functions import stream
from functions.emf import emf
from functions.wiring import Services
from local import prices
from local.cost import ASYNC_WRU, LAMBDA_LOG_BYTES, Load, answer_wru, foreseen, logged
from shared.logger import logger
from shared.settings import Settings
from tests.e2e.local_run import SLUICE
from tests.functions.conftest import Sluice, client, running, start_body
from tests.simulation.clock import virtual


def counting(sluice: Sluice) -> tuple[Counting, Services]:
    """The same functions, on a store that counts."""
    store = Counting(sluice.store)
    services = Services.on(
        store,
        Settings(),
        now=sluice.clock.now,
        clock=sluice.clock.monotonic,
        launch=sluice.productions.launch,
    )
    sluice.productions.services = services
    return store, services


@pytest.mark.parametrize(
    ("tokens", "tokens_s"), [(1, 50), (100, 50), (500, 50), (500, 10), (2000, 100), (5000, 1000)]
)
@virtual
async def test_writes_are_foreseen_as_a_run_counts_them(tokens: int, tokens_s: int) -> None:
    async with running() as sluice:
        store, services = counting(sluice)
        model = f"demo?tokens={tokens}&rate={tokens_s}&ttft=800"
        answer = await client(stream.build(services)).post("/v1/streams", json=start_body(model))
    assert "event: closed" in answer.text
    load = Load(answers=1, tokens=tokens, tokens_s=tokens_s)
    assert answer_wru(load) == pytest.approx(store.counts.wru, rel=0.1)


@virtual
async def test_so_are_those_of_an_answer_that_waits_for_its_producer() -> None:
    async with running() as sluice:
        store, services = counting(sluice)
        sluice.services = services
        sluice.__post_init__()
        model = "demo?tokens=100&rate=50&ttft=800"
        await by_polls(sluice, model)
    foreseen_wru = answer_wru(Load(answers=1, tokens=100)) + ASYNC_WRU
    assert foreseen_wru == pytest.approx(store.counts.wru, rel=0.1)


@pytest.mark.parametrize("polled", [False, True])
@virtual
async def test_so_is_what_they_log(polled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the lines that Lambda writes itself, which are as its documentation shows them."""
    with to_standard_output():
        async with running(metrics=emf(Settings(), "stream")) as sluice:
            polls = await (by_polls if polled else attached)(sluice, "demo?tokens=100&rate=50")
            written = capsys.readouterr().out
    load = Load(answers=1, tokens=100, polled=float(polled))
    by_lambda = (polls + (2 if polled else 1)) * LAMBDA_LOG_BYTES
    assert logged(load, polls) - by_lambda == pytest.approx(len(written), rel=0.15)


@contextmanager
def to_standard_output() -> Iterator[None]:
    """The log's lines go where standard output leads now, as on Lambda."""
    handler = logger.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(sys.stdout)
    try:
        yield
    finally:
        if before:
            handler.setStream(before)


async def attached(sluice: Sluice, model: str) -> int:
    answer = await sluice.stream.post("/v1/streams", json=start_body(model))
    assert "event: closed" in answer.text
    return 0


async def by_polls(sluice: Sluice, model: str) -> int:
    """Have it produced and poll it to its end; the number of polls."""
    path, after, closed, polls = f"/v1/streams/{await sluice.launched(model)}/chunks", -1, False, 0
    while not closed:
        page = (await sluice.api.get(path, params={"after": after, "wait": 5})).json()
        after, closed, polls = page["next"], page["closed"], polls + 1
    await sluice.productions.tasks[0]
    return polls


def test_the_bill_grows_with_what_is_asked() -> None:
    def usd(**more: float) -> float:
        load = Load(**{"answers": 1_000_000, **more})  # type: ignore[arg-type]
        return sum(line.usd for line in foreseen(load))

    base = usd()
    assert usd(answers=2_000_000) == pytest.approx(2 * base, rel=0.01)
    for more in (
        {"tokens": 600},
        {"memory_mb": 512},
        {"polled": 0.5},
        {"followers": 1},
        {"first_token_s": 2},
        {"retention_days": 60},
    ):
        assert usd(**more) > base, more
    assert usd(edge=False) < base


def test_a_thousand_answers_cost_what_the_readme_says() -> None:
    """README: 0.08 USD for 1,000 answers of 500 tokens at 50 tokens/s, 256 MB, without an edge."""
    load = Load(answers=1_000_000, edge=False)
    of_answers = [
        line for line in foreseen(load) if line.what.startswith(("Lambda: a", "DynamoDB: w"))
    ]
    assert sum(line.usd for line in of_answers) / 1000 == pytest.approx(0.08, abs=0.01)


def sluice_cost(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SLUICE, "cost", *options], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_shows_a_bill() -> None:
    said = sluice_cost("--answers", "1000", "--tokens", "500", "--memory", "512")
    assert said.returncode == 0, said.stderr
    assert "1,000 answers, each 500 tokens" in said.stdout
    assert "DynamoDB: writes" in said.stdout
    assert "for 1,000 answers, and 37.18 whatever is asked" in said.stderr
    bill = json.loads(sluice_cost("--answers", "1000", "--json").stdout)
    assert bill["usd"] == pytest.approx(sum(line["usd"] for line in bill["lines"]))
    assert bill["prices"] == prices.AS_OF


@pytest.mark.parametrize(
    "options",
    [
        ("--answers", "0"),
        ("--tokens", "200001"),
        ("--rate", "0"),
        ("--rate", "-1"),
        ("--polled", "1.1"),
        ("--memory", "20000"),
        ("--followers", "many"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...]) -> None:
    said = sluice_cost(*options)
    assert said.returncode == 2
    assert options[0] in said.stderr
