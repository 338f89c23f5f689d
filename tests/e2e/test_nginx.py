"""What becomes of a stream behind a proxy that buffers, and behind one that can be told not to."""

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.local_run import HEADERS, LocalRun
from tests.e2e.nginx import buffering_proxy

pytestmark = pytest.mark.e2e

MODEL = "demo?tokens=240&rate=40"
ENCODINGS = ("identity", "gzip")


class Reading:
    """A client that follows a stream in a thread of its own."""

    def __init__(self, url: str, stream: str, encoding: str) -> None:
        self.seen = ""
        self._url = f"{url}/v1/streams/{stream}/events"
        self._headers = {**HEADERS, "Accept-Encoding": encoding}
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        with httpx.stream("GET", self._url, headers=self._headers, timeout=30) as reply:
            for text in reply.iter_text():
                self.seen += text


def wait_until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_that_buffers_holds_a_stream_back_to_its_end(run: LocalRun, encoding: str) -> None:
    with buffering_proxy(run.url) as url:
        stream = run.begin(MODEL)
        client = Reading(url, stream, encoding)
        wait_until(lambda: len(run.text(stream)) > 100)
        seen_early = client.seen
        status = run.client.get(f"/v1/streams/{stream}").json()["status"]
        client.thread.join(30)
    assert (status, seen_early) == ("open", "")
    assert client.seen.count("event: closed") == 1


def test_polls_pass_where_streams_do_not(run: LocalRun) -> None:
    with buffering_proxy(run.url) as url:
        stream = run.begin(MODEL)
        chunks = f"{url}/v1/streams/{stream}/chunks?wait=20&after="
        page = httpx.get(f"{chunks}-1", headers=HEADERS, timeout=30).json()
        page = httpx.get(f"{chunks}{page['next']}", headers=HEADERS, timeout=30).json()
    assert page["chunks"]
    assert page["status"] == "open"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_that_obeys_passes_each_event_on(run: LocalRun, encoding: str) -> None:
    with buffering_proxy(run.url, obeys=True) as url:
        stream = run.begin(MODEL)
        client = Reading(url, stream, encoding)
        wait_until(lambda: client.seen.count("event: chunk") > 3)
        status = run.client.get(f"/v1/streams/{stream}").json()["status"]
        client.thread.join(30)
    assert status == "open"
    assert client.seen.count("event: closed") == 1
