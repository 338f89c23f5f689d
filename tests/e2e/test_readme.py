"""Every command and program of the README, run as it stands there against a local run."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
#: Those for a stream that still runs, in their order.
STEERING = [command for command in CURLS if "/pause" in command or "/resume" in command]
Said = dict[str, Callable[[], Any]]

(QUESTION,) = re.findall(r'^\.venv/bin/sluice ask "(.*)"$', README, re.MULTILINE)


@pytest.fixture(scope="module")
def said(run: LocalRun) -> Iterator[Said]:
    """What each of them prints, all at the same time: an answer takes seconds."""
    with ThreadPoolExecutor() as pool:
        yield {
            **{c: pool.submit(curl, run, c).result for c in CURLS if c not in STEERING},
            "steering": pool.submit(steering, run).result,
            "python": pool.submit(python, run).result,
            "javascript": pool.submit(javascript, run).result,
            "command line": pool.submit(command_line, run).result,
        }


def here(text: str, run: LocalRun, stream: str = "") -> str:
    """The README's text for this run, and for a stream of it."""
    return text.replace("http://127.0.0.1:8787", run.url).replace("STREAM", stream)


def printed(*command: str, **more: Any) -> str:
    """What a command prints that goes well."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=60, **more
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def curl(run: LocalRun, command: str) -> str:
    stream = run.begin("demo?tokens=100&rate=200", "hi")
    run.client.get(f"/v1/streams/{stream}/events")  # to its end, so that every offset is there
    return printed("bash", "-c", here(command, run, stream))


def steering(run: LocalRun) -> list[str]:
    """What they print of one stream, and that to its end."""
    stream = run.begin("demo?tokens=160&rate=20", "hi")
    while not run.text(stream):
        time.sleep(0.05)
    told = [printed("bash", "-c", here(command, run, stream)) for command in STEERING]
    return [*told, run.client.get(f"/v1/streams/{stream}/events").text]


def python(run: LocalRun) -> str:
    (program,) = blocks("python")
    return printed(sys.executable, "-c", here(program, run))


def javascript(run: LocalRun) -> str:
    """In Node, which has all that the client needs of a browser."""
    if shutil.which("npm") is None or not (ROOT / "node_modules/typescript").exists():
        pytest.skip("Node or its packages are missing: run scripts/install")
    path = {"PATH": os.environ["PATH"]}
    printed("npm", "run", "--silent", "types", env=path)  # which also builds the client
    (program,) = blocks("js")
    return printed("node", "--input-type=module", "-e", here(program, run), env=path)


def command_line(run: LocalRun) -> str:
    return printed(sys.executable, "-m", "local.cli", "ask", QUESTION, "--url", run.url)


def test_there_are_commands_to_try() -> None:
    assert len(CURLS) >= 4
    assert len(blocks("python")) == len(blocks("js")) == 1


@pytest.mark.parametrize("command", [command for command in CURLS if command not in STEERING])
def test_a_curl_command(said: Said, command: str) -> None:
    expected = (
        '"closed":' if "/chunks" in command else "202" if "-i" in command else "event: closed"
    )
    assert expected in said[command]()


def test_a_stream_is_paused_and_resumed(said: Said) -> None:
    paused, resumed, events = said["steering"]()
    shown = json.loads(next(block for block in blocks("json") if '"paused"' in block))
    assert json.loads(paused) == shown | {name: json.loads(paused)[name] for name in ("id", "seq")}
    assert json.loads(resumed)["status"] == "open"
    names = re.findall("^event: (.*)$", events, re.MULTILINE)
    # An epoch as well, but where the producer hears of the resume together with the pause.
    steered = [name for name in names if name in ("paused", "granted", "closed")]
    assert steered == ["paused", "granted", "closed"]
    assert '"status":"completed"' in events


def test_the_python_program(said: Said) -> None:
    assert "You asked: `Hello`" in said["python"]()


def test_the_javascript_program(said: Said) -> None:
    assert "You asked: `Hello`" in said["javascript"]()


def test_the_command_line(said: Said) -> None:
    assert f"`{QUESTION}`" in said["command line"]()


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
        printed("bash", "-c", script)
