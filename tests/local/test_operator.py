"""The operator's command line as processes, on a real database: the file of a local run."""

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.dynoxide import dynoxide
from shared.audit import Chain
from shared.audit.trail import Audit
from shared.log import Log
from shared.records import Item, StreamKey
from shared.schema import AUDIT
from shared.schema import STREAMS as TABLE
from shared.table import DynamoDB, Query, Update
from tests.e2e.dynoxide import store as store_at
from tests.e2e.local_run import SLUICE, LocalRun
from tests.local.conftest import began, work

pytestmark = pytest.mark.e2e

STREAMS = 25


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "dev.db"


def sluice(db: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SLUICE, *arguments, "--db", str(db)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def done(db: Path, *arguments: str) -> str:
    said = sluice(db, *arguments)
    assert said.returncode == 0, said.stderr
    return said.stdout


@contextmanager
def opened(db: Path) -> Iterator[DynamoDB]:
    """The store on a file, for whoever looks at it directly."""
    with dynoxide(db) as endpoint, store_at(endpoint) as store:
        yield store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StreamKey]]:
    """A database with a tenant that has many streams, and a key."""
    db = tmp_path_factory.mktemp("made") / "dev.db"
    done(db, "tenant", "add", "acme", "limits.tokens_per_day=1000000")
    done(db, "key", "add", "acme")
    with opened(db) as store:
        return db, [work(store, began("acme", closed=number > 0)) for number in range(STREAMS)]


@pytest.fixture
def streams(made: tuple[Path, list[StreamKey]], db: Path) -> list[StreamKey]:
    """Of the tenant, in a copy that is the test's own."""
    shutil.copytree(made[0].parent, db.parent, dirs_exist_ok=True)
    return made[1]


def test_what_there_is_to_see(db: Path, streams: list[StreamKey]) -> None:
    [tenant] = json.loads(done(db, "tenant", "list", "--json"))["tenants"]
    assert (tenant["tenant"], tenant["keys"], tenant["streams_now"]) == ("acme", 1, 1)
    used = json.loads(done(db, "usage", "acme", "--json"))
    assert max(used["tokens"].values()) > 0
    assert done(db, "audit", "show", "acme", "--limit", "3").count("\n") == 4
    entries = 2 + 1 + 2 * (STREAMS - 1)
    whole = f"{entries} entries in {STREAMS + 1} chains: whole\n"
    assert done(db, "audit", "verify", "acme") == whole
    file = db.with_name("acme.jsonl")
    done(db, "audit", "export", "acme", "--output", str(file))
    assert done(db, "audit", "verify", "--file", str(file)) == whole


def test_what_was_done_to_the_audit(db: Path, streams: list[StreamKey]) -> None:
    chain = Chain.of(streams[5])
    with opened(db) as store:
        place: Item = {"pk": chain.pk, "n": 1}
        asyncio.run(store.write(Update(AUDIT, place, {"outcome": "stop"})))
    said = sluice(db, "audit", "verify", "acme", "--json")
    assert said.returncode == 1
    [fault] = json.loads(said.stdout)["faults"]
    assert (fault["chain"], fault["n"], fault["wrong"]) == (chain.name, 1, "changed")


def test_a_remove_that_is_killed_goes_on(db: Path, streams: list[StreamKey]) -> None:
    lock = db.with_name("dev.db.lock")
    lock.write_text("")
    removing = subprocess.Popen(
        [SLUICE, "tenant", "remove", "acme", "--yes", "--db", str(db)], stderr=subprocess.DEVNULL
    )
    try:
        while not (endpoint := lock.read_text()):
            assert removing.poll() is None
            time.sleep(0.01)
        removing.send_signal(signal.SIGSTOP)
        with store_at(endpoint) as store:
            while (left := _left(store)) == STREAMS:
                # A moment at a time, or it may be done before anyone looks.
                removing.send_signal(signal.SIGCONT)
                time.sleep(0.02)
                removing.send_signal(signal.SIGSTOP)
    finally:
        removing.kill()
        removing.wait()
    assert left > 0
    assert "acme" in done(db, "tenant", "list")
    gone = done(db, "tenant", "remove", "acme", "--yes")
    assert gone.startswith("The tenant acme is gone, with ")
    assert done(db, "tenant", "list").startswith("There is no tenant yet")
    with opened(db) as store:
        for key in streams:
            found = asyncio.run(store.query(Query(TABLE, key.pk, 100)))
            assert all("text" not in item and "body" not in item for item in found.items)
        entries, _ = asyncio.run(Audit(store).read(Chain("acme", "tenant")))
    assert entries[-1].event == "tenant-removed"
    assert done(db, "audit", "verify", "acme").endswith("whole\n")


def _left(store: DynamoDB) -> int:
    """How many streams of the tenant its list still shows."""
    found, _ = asyncio.run(Log(store).summaries("acme", before=None, limit=100))
    return len(found)


def test_while_the_local_run_serves(db: Path) -> None:
    with LocalRun("--db", str(db)) as run:
        stream = run.begin("demo?tokens=20&rate=0")
        run.client.get(f"/v1/streams/{stream}/events")
        key = done(db, "key", "add", "acme", "--scope", "read").strip()
        as_acme = {"Authorization": f"Bearer {key}"}
        assert run.client.get("/v1/streams", headers=as_acme).json()["streams"] == []
        done(db, "tenant", "set", "acme", "limits.streams_at_once=1")
        assert json.loads(done(db, "usage", "acme", "--json"))["limits"][0]["limit"] == 1
        shown = json.loads(done(db, "audit", "show", "demo", "--stream", stream, "--json"))
        assert {"started", "closed"} <= {entry["event"] for entry in shown["entries"]}
        assert done(db, "audit", "verify", "demo").endswith("whole\n")
