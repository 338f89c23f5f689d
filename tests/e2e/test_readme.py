"""Every command and program of the README, run as it stands there against a local run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.local_run import LocalRun

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


CURLS = [
    command
    for block in blocks("sh")
    for command in re.split(r"\n(?=curl)|\n\n", block)
    if command.startswith("curl")
]


@pytest.fixture(scope="module")
def run() -> Iterator[LocalRun]:
    with LocalRun("--ephemeral") as run:
        yield run


def here(text: str, run: LocalRun, stream: str = "") -> str:
    """The README's text for this run, and for a stream of it."""
    return text.replace("http://127.0.0.1:8787", run.url).replace("STREAM", stream)


def test_there_are_commands_to_try() -> None:
    assert len(CURLS) >= 4
    assert len(blocks("python")) == len(blocks("js")) == 1


@pytest.mark.parametrize("command", CURLS)
def test_a_curl_command(run: LocalRun, command: str) -> None:
    stream = run.begin("demo?tokens=100&rate=200", "hi")
    run.client.get(f"/v1/streams/{stream}/events")  # to its end, so that every offset is there
    done = subprocess.run(
        ["bash", "-c", here(command, run, stream)],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    expected = (
        '"closed":' if "/chunks" in command else "202" if "-i" in command else "event: closed"
    )
    assert expected in done.stdout


def test_the_python_program(run: LocalRun) -> None:
    (program,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", here(program, run)],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "You asked: `Hello`" in done.stdout


def test_the_javascript_program(run: LocalRun) -> None:
    if shutil.which("node") is None or not (ROOT / "node_modules/eventsource").exists():
        pytest.skip("Node or its package eventsource is missing: run scripts/install")
    (program,) = blocks("js")
    stream = run.begin("demo?tokens=50&rate=100", "hi")
    source = f"const stream = {json.dumps(stream)};\n{here(program, run)}"
    # The program's own connection keeps it awake; between two of them nothing does.
    source += "\nsetTimeout(() => {}, 3000);"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", source],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == run.text(stream)


def test_the_command_line(run: LocalRun) -> None:
    (command,) = re.findall(r'^\.venv/bin/sluice ask "(.*)"$', README, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "local.cli", "ask", command, "--url", run.url],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert f"`{command}`" in done.stdout


OPERATED = [
    line
    for block in blocks("sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("sluice ") or "/sluice key" in line
]


def test_the_operator_s_commands(tmp_path: Path) -> None:
    """In their order, on a database of their own in the place of a stack's."""
    assert len(OPERATED) >= 6
    sluice = f'"{sys.executable}" -m local.cli'
    for line in OPERATED:
        # Each part of a line with `&&` is a command of its own; a file needs no database.
        parts = [part.strip() for part in line.replace(" --stack Sluice", "").split("&&")]
        script = " && ".join(
            re.sub(r"^(\.venv/bin/)?sluice", lambda _: sluice, part).partition("#")[0]
            + ("" if "--file" in part else f' --db "{tmp_path / "readme.db"}"')
            for part in parts
        )
        script = script.replace("acme.jsonl", str(tmp_path / "acme.jsonl"))
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (script, done.stderr)
