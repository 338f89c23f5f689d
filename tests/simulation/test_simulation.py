"""Fixed seeds and fresh ones keep every promise, and every check finds what is planted for it."""

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import search
from tests.simulation.checks import CHECKS, complaints
from tests.simulation.mutants import MUTANTS, first_found
from tests.simulation.run import simulate

# Thousands of runs of what other tests cover: counted, each would take twice as long.
pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).resolve().parents[2]
BLOCK = 50


@pytest.mark.parametrize("first", range(0, 400, BLOCK))
def test_every_promise_is_kept(first: int) -> None:
    for seed in range(first, first + BLOCK):
        _hold(seed)


def test_every_promise_is_kept_by_seeds_never_tried_before() -> None:
    first = secrets.randbelow(2**48)
    print(f"seeds from {first} on")
    for seed in range(first, first + 60):
        _hold(seed)


def _hold(seed: int) -> None:
    if wrong := complaints(simulate(seed)):
        told = "\n".join(wrong)
        pytest.fail(f"{told}\nTo see it all: scripts/simulate --seed {seed}")


def test_a_seed_tells_the_same_history_every_time() -> None:
    for seed in range(10):
        assert str(simulate(seed).history) == str(simulate(seed).history)


def test_a_seed_tells_the_same_history_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "4"]
    told = {
        subprocess.run(
            command, cwd=ROOT, env={"PYTHONHASHSEED": salt}, capture_output=True, check=True
        ).stdout
        for salt in ("1", "2")
    }
    assert told == {f"{simulate(4).history}\n".encode()}


def test_several_processes_find_what_one_finds() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--first", "0", "--seeds", "30"]
    for processes in ("1", "2"):
        run = subprocess.run(
            [*command, "--processes", processes],
            cwd=ROOT,
            capture_output=True,
            check=False,
            text=True,
        )
        assert (run.returncode, run.stderr) == (0, "")
        *_, last = run.stdout.splitlines()
        assert last.startswith("30 seeds from 0 on, ")
        assert last.endswith(", 0 found")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_search_tells_what_it_finds(
    processes: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "_found", _finds_each_seventh)
    assert search.search(1, 20, processes) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["seed 7: wrong", "seed 14: wrong"]
    assert told[-1].endswith(", 2 found")


def _finds_each_seventh(seed: int) -> tuple[int, list[str]]:
    return seed, ["wrong"] if seed % 7 == 0 else []


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    found = first_found(MUTANTS[name], range(1000), lambda seed: complaints(simulate(seed)))
    assert found >= 0, f"no run failed `{MUTANTS[name].found_by}`"


def test_every_check_has_a_bug_to_find() -> None:
    assert {mutant.found_by for mutant in MUTANTS.values()} == set(CHECKS)
