"""The bytes of a real stream, heartbeat included, as existing clients read them."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from tests.e2e.local_run import HEADERS, LocalRun, body, cutting_proxy

pytestmark = pytest.mark.e2e

CLIENTS = Path(__file__).parent / "clients"
#: Silent for long enough that the server sends a heartbeat, also to who comes late.
SILENT = "demo?tokens=5&silence_after=2&silence=20"

Event = dict[str, str]


@pytest.fixture(scope="module")
def silent(run: LocalRun) -> Iterator[dict[str, Any]]:
    """What each client found on one silent stream, all at the same time."""
    url = f"{run.url}/v1/streams/{run.begin(SILENT)}/events"
    clients: dict[str, Callable[[str, str], Any]] = {
        "curl": curl,
        "httpx-sse": httpx_sse,
        "eventsource": node,
        "parser": node,
    }
    with ThreadPoolExecutor() as pool:
        found = {name: pool.submit(client, name, url) for name, client in clients.items()}
        found["curl POST"] = pool.submit(curl, "curl", f"{run.url}/v1/streams", start=True)
        yield {name: result.result for name, result in found.items()}


def curl(_: str, url: str, *, start: bool = False) -> str:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    more = ["-d", json.dumps(body(SILENT))] if start else []
    headers = ["-H", f"Authorization: {HEADERS['Authorization']}"]
    done = subprocess.run(
        ["curl", "-sSN", url, *headers, *more], capture_output=True, check=True, timeout=40
    )
    return done.stdout.decode()


def httpx_sse(_: str, url: str) -> list[Event]:
    with (
        httpx.Client(timeout=40) as client,
        connect_sse(client, "GET", url, headers=dict(HEADERS)) as source,
    ):
        return [{"id": e.id, "event": e.event, "data": e.data} for e in source.iter_sse()]


def node(name: str, url: str) -> Any:
    if not shutil.which("node"):
        pytest.skip("Node is not installed")
    if not (CLIENTS.parents[2] / "node_modules" / "eventsource").is_dir():
        pytest.skip("node_modules is not complete: run scripts/install")
    done = subprocess.run(
        ["node", str(CLIENTS / f"{name}.mjs"), url, "demo"],
        capture_output=True,
        check=True,
        timeout=40,
    )
    assert done.stderr == b""
    return json.loads(done.stdout)


def sound(events: list[Event]) -> str:
    """The text of these events, once it is certain that none is empty, broken or out of order."""
    names = [event["event"] for event in events]
    assert [names[0], names[-1]] == ["opened", "closed"]
    assert set(names[1:-1]) <= {"chunk", "epoch"}
    ids = [int(event["id"]) for event in events]
    assert ids == sorted(set(ids))
    data = [json.loads(event["data"]) for event in events]
    assert all(data)
    return "".join(d["text"] for d, name in zip(data, names, strict=True) if name == "chunk")


@pytest.fixture(scope="module")
def text(run: LocalRun, silent: dict[str, Any]) -> str:
    """Each stream's that is `SILENT`: the model says the same every time."""
    for name in ("curl", "curl POST"):
        silent[name]()
    streams = run.client.get("/v1/streams").json()["streams"]
    [text] = {run.text(stream["id"]) for stream in streams if stream["model"] == SILENT}
    return text


@pytest.mark.usefixtures("silent")  # which takes its time meanwhile
def test_eventsource_resumes_after_cuts(run: LocalRun) -> None:
    stream = run.begin("demo?tokens=150&rate=100")
    with cutting_proxy(run.port, iter([560, 560])) as url:
        found = node("eventsource", f"{url}/v1/streams/{stream}/events")
    assert sound(found["events"]) == run.text(stream)
    assert found["resumedAfter"][0] is None
    assert len(found["resumedAfter"]) == 4
    assert found["resumedAfter"][-1] == found["events"][-1]["id"]
    assert found["stoppedBy"] == 204


@pytest.mark.parametrize("name", ["curl", "curl POST"])
def test_the_bytes(name: str, silent: dict[str, Any]) -> None:
    raw = silent[name]()
    assert raw.count(": hb\n") == 1
    assert raw.startswith("retry: 1000\nid: 0\nevent: opened\n")
    assert raw.count("retry:") == 1
    # A block holds one event, with at most the heartbeat's line in front of it.
    blocks = raw.removeprefix("retry: 1000\n").split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        assert re.fullmatch(r"(: hb\n)?id: \d+\nevent: [a-z]+\ndata: \{.*\}", block)


def test_httpx_sse(silent: dict[str, Any], text: str) -> None:
    assert sound(silent["httpx-sse"]()) == text


def test_eventsource(silent: dict[str, Any], text: str) -> None:
    found = silent["eventsource"]()
    assert sound(found["events"]) == text
    # The stream's end is a lost connection to an EventSource: it comes back, and 204 ends it.
    assert found["resumedAfter"] == [None, found["events"][-1]["id"]]
    assert found["stoppedBy"] == 204


def test_eventsource_parser(silent: dict[str, Any], text: str) -> None:
    found = silent["parser"]()
    assert sound(found["events"]) == text
    assert found["comments"] == ["hb"]
    assert found["retries"] == [1000]
    assert found["errors"] == []
