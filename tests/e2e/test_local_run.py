"""`sluice dev` and `sluice ask` as real processes."""

import asyncio
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from local import dynoxide
from tests.e2e.local_run import (
    HEADERS,
    ROOT,
    SLUICE,
    LocalRun,
    cutting_proxy,
    needs_dynoxide,
    runs,
)
from tests.e2e.readers import in_one_go

pytestmark = pytest.mark.e2e

LONG = "demo?tokens=5000"
#: An answer that takes a few seconds, and what its client says who has lost it for a while.
WHILE = "demo?tokens=300"
LOST = b"The connection was lost; trying again.\n"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[LocalRun]:
    """A run whose data are in a file."""
    with LocalRun("--db", str(tmp_path / "dev.db")) as run:
        yield run


def sluice(*arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [SLUICE, *arguments], capture_output=True, timeout=60, check=False, env=env or None
    )


def sluice_ask(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [SLUICE, "ask", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What a buffer has read ahead, communicate() would lose.
        bufsize=0,
    )


def commands(run: LocalRun) -> list[str]:
    """What the ready text suggests to type."""
    return re.findall(r"^  (\S.*)$", run.out(), re.MULTILINE)


def test_what_is_printed_can_be_typed(run: LocalRun) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    start, resume, ask = commands(run)
    assert [start[:4], resume[:4]] == ["curl", "curl"]

    def shell(command: str) -> str:
        done = subprocess.run(
            shlex.split(command), cwd=ROOT, capture_output=True, check=True, timeout=30
        )
        return done.stdout.decode()

    with ThreadPoolExecutor() as pool:
        streamed, asked = pool.map(shell, (start, ask))
    found = re.search(r'"id":"([0-9a-v]{32})"', streamed)
    assert found
    assert asked == run.text(found[1])
    rest = shell(resume.replace("ID", found[1]))
    assert rest.startswith("retry: 1000\nid: 8\n")
    assert streamed.endswith(rest.removeprefix("retry: 1000\n"))


def test_both_apps_answer_at_one_address(run: LocalRun) -> None:
    stream = run.begin("demo?tokens=10&rate=0")
    events = run.client.get(f"/v1/streams/{stream}/events")
    assert events.text.count("event: closed") == 1
    assert run.client.get(f"/v1/streams/{stream}").json()["status"] == "completed"
    assert run.client.get("/healthz").json()["status"] == "ok"
    assert run.client.get("/v1/nowhere").status_code == 404
    told = run.out().splitlines()
    assert any(re.fullmatch(rf"GET /v1/streams/{stream}/events 200 \d+ ms", t) for t in told)
    assert any(re.fullmatch(r"GET /v1/nowhere 404 \d+ ms", line) for line in told)
    # Others use this run too: what goes wrong for them may be told, as a line of JSON.
    assert '"level":"INFO"' not in run.out()


def test_ask_writes_exactly_the_answer(run: LocalRun) -> None:
    done = sluice("ask", "Grüße 🌊", "--url", run.url, "--model", "demo?rate=0")
    newest = run.newest()
    assert done.returncode == 0
    assert done.stdout.decode() == run.text(newest["id"])
    assert "Grüße 🌊" in done.stdout.decode()
    assert done.stderr == b""


def test_ask_survives_cuts_at_any_byte(run: LocalRun) -> None:
    # Cuts before the first byte, within the headers, then within events.
    dice = random.Random(7)
    limits = [0, 100, *(dice.randint(250, 2500) for _ in range(30))]
    with cutting_proxy(run.port, iter(limits)) as url:
        done = sluice("ask", "x", "--url", url, "--model", "demo?tokens=400&rate=200")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == run.text(run.newest()["id"])
    assert b"The connection was lost; trying again." in done.stderr


def test_ask_can_be_interrupted(run: LocalRun) -> None:
    asking = sluice_ask("x", "--url", run.url, "--model", LONG)
    assert asking.stdout
    assert asking.stdout.read(1)
    asking.send_signal(signal.SIGINT)
    _, err = asking.communicate(timeout=10)
    stream = run.newest()["id"]
    assert asking.returncode == 130
    assert err.startswith(f"Paused. It goes on with: sluice resume {stream} --after ".encode())
    assert run.client.get(f"/v1/streams/{stream}").json()["status"] == "paused"
    assert sluice("cancel", stream, "--url", run.url).returncode == 0


def test_ask_tells_of_a_failure_in_one_line(run: LocalRun) -> None:
    for arguments, said in (
        (["--key", "wrong"], "The key is not known here."),
        (["--model", "nonsense"], "There is no model 'nonsense' here. Names begin with `demo`."),
        (["--model", "demo?fail_after=0"], "The demo model failed, as it was asked to."),
        (["--model", "demo?fail_after=20"], "The demo model failed, as it was asked to."),
    ):
        done = sluice("ask", "x", "--url", run.url, *arguments)
        assert (done.returncode, done.stderr.decode()) == (1, f"sluice: {said}\n")


def test_ask_into_a_pipe_that_closes(run: LocalRun) -> None:
    command = f"{SLUICE} ask x --url {run.url} --model '{LONG}&rate=2000' | head -c 100"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=20, check=False)
    assert len(done.stdout) == 100
    assert done.stderr == b""


def test_a_port_that_is_taken(run: LocalRun) -> None:
    done = sluice("dev", "--port", str(run.port), "--ephemeral")
    said = f"sluice: port {run.port} is taken; choose another with --port\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)


def test_a_database_that_does_not_answer() -> None:
    nobody = "http://127.0.0.1:9"
    done = sluice("dev", "--port", "0", SLUICE_DYNAMODB_ENDPOINT=nobody, PATH="/usr/bin:/bin")
    assert done.returncode == 1
    said = f"sluice: no DynamoDB answers at {nobody} (EndpointConnectionError)\n"
    assert done.stderr.decode() == said


def test_an_endpoint_of_ones_own(tmp_path: Path) -> None:
    needs_dynoxide()
    with (
        dynoxide.dynoxide(tmp_path / "other.db") as endpoint,
        LocalRun(env={"SLUICE_DYNAMODB_ENDPOINT": endpoint}) as run,
    ):
        assert run.children() == []
        assert f"The data is in the database at {endpoint}." in run.out()
        stream = run.begin("demo?tokens=10&rate=0")
        assert run.client.get(f"/v1/streams/{stream}/events").status_code == 200
        assert run.stop() == 0
        # The tables are there now; a second run takes them as they are.
        run.start()
        assert run.newest()["id"] == stream


def test_after_ctrl_c_the_next_run_goes_on(kept: LocalRun) -> None:
    done = kept.begin("demo?tokens=10&rate=0")
    before = kept.client.get(f"/v1/streams/{done}/events").text
    asking = sluice_ask("x", "--url", kept.url, "--model", WHILE)
    launched = kept.begin(WHILE, "x")
    assert asking.stdout
    seen = asking.stdout.read(40)
    started = kept.children()
    assert len(started) == 1
    began = time.monotonic()
    assert kept.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 10
    assert not any(runs(pid) for pid in started)
    assert kept.err() == ""
    assert "2 answers go on with the next run." in kept.out()

    kept.start()
    # Who was attached comes again by itself, and has missed nothing.
    out, err = asking.communicate(timeout=60)
    assert (asking.returncode, err) == (0, LOST)
    expected = asyncio.run(in_one_go(WHILE, "x"))
    assert (seen + out).decode() == expected
    assert kept.client.get(f"/v1/streams/{done}/events").text == before
    held = next(s for s in kept.client.get("/v1/streams").json()["streams"] if s["id"] != launched)
    # The first producer of what was launched has said that it is one, too.
    for stream, epochs in ((held["id"], 1), (launched, 2)):
        events = kept.client.get(f"/v1/streams/{stream}/events").text
        assert [events.count(f"event: {name}") for name in ("epoch", "closed")] == [epochs, 1]
        assert '"status":"completed"' in events
        assert kept.text(stream) == expected
    assert kept.stop(signal.SIGTERM) == 0


def test_a_second_run_on_one_file_is_refused(kept: LocalRun, tmp_path: Path) -> None:
    db = str(tmp_path / "dev.db")
    done = sluice("dev", "--port", "0", "--db", db)
    said = f"sluice: {db} is in use by another run; stop that, or take another file by --db\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)


def test_a_key_for_another_tenant(kept: LocalRun, tmp_path: Path) -> None:
    db = str(tmp_path / "dev.db")
    ours = kept.begin("demo?tokens=1")
    # While the server runs, and while it does not.
    added = [sluice("key", "add", "acme", "--db", db)]
    assert kept.stop() == 0
    added.append(sluice("key", "add", "acme", "--db", db))
    taken = sluice("key", "add", "other", "--db", db, "--key", added[0].stdout.decode().strip())
    assert taken.stderr == b"sluice: this key is another tenant's already\n"
    kept.start()
    for done in added:
        key = done.stdout.decode().strip()
        assert key.startswith("sk_")
        headers = {"Authorization": f"Bearer {key}"}
        assert kept.client.get("/v1/streams", headers=headers).json()["streams"] == []
        assert kept.client.get(f"/v1/streams/{ours}", headers=headers).status_code == 404


def test_a_killed_server_costs_nothing_but_time(kept: LocalRun) -> None:
    asking = sluice_ask("x", "--url", kept.url, "--model", WHILE)
    assert asking.stdout
    seen = asking.stdout.read(40)
    stream = kept.newest()["id"]
    [database] = kept.children()
    kept.kill()
    give_up = time.monotonic() + 5
    while runs(database):
        assert time.monotonic() < give_up, "dynoxide outlived its parent"
        time.sleep(0.02)
    kept.start()
    # The stream is silent for as long as its producer may still live, then another goes on.
    out, err = asking.communicate(timeout=90)
    assert (asking.returncode, err) == (0, LOST)
    assert (seen + out).decode() == kept.text(stream) == asyncio.run(in_one_go(WHILE, "x"))
    events = httpx.get(f"{kept.url}/v1/streams/{stream}/events", headers=HEADERS).text
    assert [events.count(f"event: {name}") for name in ("epoch", "closed")] == [1, 1]
