"""The runtime behind a real Runtime API and function URL."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.emulator import Emulator, Function

pytestmark = pytest.mark.e2e

APP = "tests.e2e.emulator.app.create"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    functions = {"one": Function(APP), "two": Function(APP, processes=2)}
    with Emulator(functions) as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[httpx.Client]:
    """A client of the function `one` that makes a connection for each request."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=emulator.url("one"), limits=limits, timeout=20) as client:
        yield client


def arrivals(url: str) -> list[tuple[float, str]]:
    """When each line of a response arrived, and the line."""
    with httpx.stream("GET", url, timeout=20) as response:
        return [(time.time(), line) for line in response.iter_lines()]


def test_chunks_arrive_one_by_one(emulator: Emulator) -> None:
    got = arrivals(emulator.url("one") + "/chunks?count=5&delay=0.2")
    lines = [line.split() for _, line in got[1:]]
    assert [number for number, _ in lines] == ["0", "1", "2", "3", "4"]
    # Each line is here before the next but one is made.
    for (arrived, _), (_, made) in zip(got[1:], lines[2:], strict=False):
        assert arrived < float(made)


@pytest.mark.parametrize("status", [200, 201, 302, 404, 429, 500, 503])
def test_status_and_headers(client: httpx.Client, status: int) -> None:
    response = client.get(f"/status/{status}", headers={"x-sent": "yes"})
    assert response.status_code == status
    assert response.headers["x-seen"] == "yes"
    assert response.text == "body"


def test_no_content(client: httpx.Client) -> None:
    response = client.get("/status/204", headers={"x-sent": "yes"})
    assert response.status_code == 204
    assert response.headers["x-seen"] == "yes"
    assert response.content == b""


def test_head(client: httpx.Client) -> None:
    response = client.head("/status/200", headers={"x-sent": "yes"})
    assert (response.status_code, response.content) == (200, b"")


def test_cookies_pass_both_ways(client: httpx.Client) -> None:
    response = client.get("/cookies", headers={"cookie": "a=1; b=2"})
    assert response.json() == {"a": "1", "b": "2"}
    first, second = response.headers.get_list("set-cookie")
    assert first.startswith("one=1; HttpOnly")
    assert second.startswith("two=2; Path=/v1")


def test_a_binary_response(client: httpx.Client) -> None:
    assert client.get("/binary").content == bytes(range(256)) * 1000


@pytest.mark.parametrize(
    ("kind", "body"),
    [("application/json", '{"ä": 1}'.encode()), ("application/octet-stream", bytes(range(256)))],
)
def test_request_bodies(client: httpx.Client, kind: str, body: bytes) -> None:
    response = client.post("/echo", content=body, headers={"content-type": kind})
    assert response.content == body
    assert response.headers["content-type"] == kind


def test_the_invocation_is_told(client: httpx.Client) -> None:
    told = client.get("/extension", params={"q": "ä b"}).json()
    assert told["request_id"]
    assert told["deadline_ms"] is None  # the emulator's lies in 1970
    assert told["trace_id"] == told["trace_variable"] != ""
    assert told["client"] == ["127.0.0.1", 0]
    assert told["query"] == "q=%C3%A4+b"


def test_an_unknown_path_is_the_apps_404(client: httpx.Client) -> None:
    assert client.get("/nowhere").text == "Not Found"


def test_two_processes_serve_two_streams_at_once(emulator: Emulator) -> None:
    url = emulator.url("two") + "/chunks?count=5&delay=0.2"
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(arrivals, [url, url])
    assert first[0][1] != second[0][1], "one process served both"
    assert first[0][0] < second[-1][0]
    assert second[0][0] < first[-1][0]


def test_a_producer_outlives_its_client_and_its_process_goes_on(
    emulator: Emulator, client: httpx.Client, tmp_path: Path
) -> None:
    path = tmp_path / "happened"
    query = {"path": str(path), "count": "20", "delay": "0.05"}
    with client.stream("GET", "/produce", params=query) as response:
        assert next(response.iter_lines()) == "0"
    # The only process is busy until its producer has ended, so this waits for it.
    assert client.get("/status/200", headers={"x-sent": "yes"}).status_code == 200
    happened = path.read_text().split("\n")
    assert [line for line in happened if line.isdigit()] == [str(n) for n in range(20)]
    assert "client gone" in happened[1:]
    assert happened[-2] == "end"


def test_a_client_that_stays_gets_it_all(client: httpx.Client, tmp_path: Path) -> None:
    query = {"path": str(tmp_path / "happened"), "count": "5", "delay": "0.01"}
    assert client.get("/produce", params=query).text == "0\n1\n2\n3\n4\n"


def test_a_failure_in_the_middle_keeps_what_was_sent(
    emulator: Emulator, client: httpx.Client
) -> None:
    assert client.get("/breaks").text == "some\n"
    assert client.get("/status/200", headers={"x-sent": "yes"}).text == "body"
    log = emulator.log("one")
    assert '"error_type": "ValueError"' in log
    assert "a text that no log may show" not in log


def test_nothing_is_left_behind() -> None:
    with Emulator({"short": Function(APP)}) as emulator:
        url = emulator.url("short")
        assert httpx.get(url + "/nowhere", timeout=20).status_code == 404
        processes = [process for group in emulator.processes.values() for process in group]
        assert [process.poll() for process in processes] == [None, None]
    assert None not in [process.poll() for process in processes]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/nowhere", timeout=20)
