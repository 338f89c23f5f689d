"""Real clients that take gzip see each event when it is sent, and not when more have come."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest
import requests

from tests.e2e.local_run import HEADERS, LocalRun
from tests.e2e.nginx import buffering_proxy

pytestmark = pytest.mark.e2e

NODE = Path(__file__).parent / "clients" / "events.mjs"
#: After its first words the model is silent, so that nothing more comes which could push those out.
#: The first heartbeat comes later.
SILENT = "demo?tokens=20&rate=0&silence_after=10&silence=8"
FIRST = "event: chunk"

#: Reads a stream; gives the encoding that the client was told of, and then its text as it comes.
Client = Callable[[str], Iterator[str]]


def with_httpx(url: str) -> Iterator[str]:
    with httpx.stream("GET", url, headers=HEADERS, timeout=30) as reply:
        yield str(reply.headers.get("content-encoding"))
        yield from reply.iter_text()


def with_requests(url: str) -> Iterator[str]:
    with requests.get(url, headers=HEADERS, timeout=30, stream=True) as reply:
        yield str(reply.headers.get("content-encoding"))
        yield from (f"{line!s}\n" for line in reply.iter_lines(1, decode_unicode=True))


def with_curl(url: str) -> Iterator[str]:
    authorization = f"Authorization: {HEADERS['Authorization']}"
    with _program("curl", "-sSNi", "--compressed", "-H", authorization, url) as out:
        headers = dict.fromkeys("")
        while line := out.readline().strip():
            name, _, value = line.partition(b": ")
            headers[name.decode().lower()] = value.decode()
        yield str(headers.get("content-encoding"))
        yield from _as_it_comes(out)


def with_node(url: str) -> Iterator[str]:
    with _program("node", str(NODE), url, "demo") as out:
        yield out.readline().decode().strip()
        yield from _as_it_comes(out)


@contextmanager
def _program(name: str, *arguments: str) -> Iterator[IO[bytes]]:
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    # Without a buffer: it would wait until it is full.
    with subprocess.Popen([name, *arguments], stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout
        try:
            yield process.stdout
        finally:
            process.kill()


def _as_it_comes(out: IO[bytes]) -> Iterator[str]:
    while data := out.read(4096):
        yield data.decode()


CLIENTS = [with_httpx, with_requests, with_curl, with_node]


def check(client: Client, run: LocalRun, url: str) -> None:
    """Have it follow a stream at this address, and see its first chunk before the next one."""
    stream = run.begin(SILENT)
    text = client(f"{url}/v1/streams/{stream}/events")
    assert next(text) == "gzip"
    seen = ""
    while FIRST not in seen:
        seen += next(text)
    status = run.client.get(f"/v1/streams/{stream}").json()["status"]
    seen += "".join(text)
    assert status == "open"
    assert seen.count("event: closed") == 1


@pytest.mark.parametrize("client", CLIENTS)
def test_each_event_is_read_when_it_is_sent(client: Client, run: LocalRun) -> None:
    check(client, run, run.url)


def test_a_proxy_that_would_compress_has_nothing_to_hold_back(run: LocalRun) -> None:
    """It does not obey what we say of buffers, but passes on what it need not touch."""
    with buffering_proxy(run.url, http="1.1") as url:
        check(with_httpx, run, url)
