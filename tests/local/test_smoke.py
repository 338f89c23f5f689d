"""`sluice smoke` on a real local run, and on what is no Sluice."""

import asyncio
import json
import subprocess
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local import smoke as command
from local import where
from local.errors import Failed
from local.trials import TRIALS, Site
from local.where import Place
from shared.administration import Administration
from shared.errors import Unavailable
from shared.tenants import Tenants
from tests.e2e.local_run import SLUICE, LocalRun
from tests.model_store import ModelStore

pytestmark = pytest.mark.e2e


def smoke(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SLUICE, "smoke", *options], capture_output=True, text=True, check=False, timeout=300
    )


def test_a_local_run_does_what_it_must(tmp_path: Path) -> None:
    db = tmp_path / "dev.db"
    with LocalRun("--db", str(db)) as run:
        said = smoke(run.url, "--db", str(db), "--json")
        assert said.returncode == 0, said.stdout + said.stderr
        outcomes = {one["trial"]: one["outcome"] for one in json.loads(said.stdout)}
        assert outcomes == dict.fromkeys(TRIALS, "ok")
    tenants = subprocess.run(
        [SLUICE, "tenant", "list", "--db", str(db)], capture_output=True, text=True, check=True
    )
    assert "smoke-" not in tenants.stdout


class Anything(BaseHTTPRequestHandler):
    """Answers everything with a page, as a captive portal does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>Welcome to the hotel</h1>")

    do_POST = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def portal() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Anything) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_is_no_sluice_misses_everything_in_words(portal: str) -> None:
    said = smoke(portal, "--key", "some-key", "--json")
    assert said.returncode == 1
    outcomes = {one["trial"]: one["outcome"] for one in json.loads(said.stdout)}
    assert outcomes.pop("an answer outlives its producer") == "not tried"
    assert outcomes.pop("limits hold") == "not tried"
    assert outcomes.pop("pages may call") == "ok"  # it lets no page read anything
    assert set(outcomes.values()) == {"missed"}
    assert "Traceback" not in said.stderr
    assert "some-key" not in said.stdout + said.stderr


def test_nothing_at_the_address_is_said_so() -> None:
    said = smoke("http://127.0.0.1:9", "--key", "some-key")
    assert said.returncode == 1
    assert "nothing answers at http://127.0.0.1:9" in said.stderr


AWAY = Unavailable("The store does not answer.")


async def fails(*_: object, **__: object) -> None:
    raise AWAY


def test_a_tenant_that_is_half_made_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(ModelStore(), "here", settle_s=0, lag_s=0)
    monkeypatch.setattr(where, "place", lambda *_, **__: nullcontext(place))
    monkeypatch.setattr(Administration, "add_key", fails)
    with pytest.raises(Failed, match="cannot be made: the store does not answer"):
        command.smoke(Namespace(url="http://127.0.0.1:9", api=None, key=None, json=False))
    assert asyncio.run(Tenants(place.store).names()) == []


def test_a_trial_whose_store_fails_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(_: Site) -> str:
        raise AWAY

    site = nullcontext(None)
    monkeypatch.setattr(command, "_site", lambda _: site)
    monkeypatch.setattr(command, "TRIALS", {"it is stored": trial})
    assert command.smoke(Namespace(url="http://127.0.0.1:9", json=True)) == 1
