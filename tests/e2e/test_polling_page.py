"""The snippets of docs/polling.md as they stand there: on a local run that is stopped and started
in the midst of an answer, and on a server where much goes wrong.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.clients import hostile
from tests.e2e.local_run import ROOT, LocalRun

pytestmark = pytest.mark.e2e

POLLING = (ROOT / "docs/polling.md").read_text()
STEPS, SCRIPT = re.findall(r"```sh\n(.*?)```", POLLING, re.DOTALL)
PAGE, EVENT_SOURCE = re.findall(r"```html\n(.*?)```", POLLING, re.DOTALL)
#: An answer that takes seconds.
WHILE = "demo?tokens=300"
#: What may go wrong without an end to it: with the start, and with polls.
START = "lost-reply,status=503;retry-after=1"
POLLS = ("refuse", "cut=60", "fin=20", "truncated-utf8", "status=429", "status=502")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[LocalRun]:
    """A run whose data are in a file."""
    with LocalRun("--db", str(tmp_path / "dev.db")) as run:
        yield run


@pytest.fixture(scope="module")
def enemy() -> Iterator[str]:
    with hostile.serving() as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def here(text: str, url: str, model: str = "demo") -> str:
    """A snippet for another server, and another model."""
    assert "http://127.0.0.1:8787" in text
    return text.replace("http://127.0.0.1:8787", url).replace('model: "demo"', f'model: "{model}"')


def shell(script: str, *arguments: str, key: str = "demo") -> subprocess.Popen[bytes]:
    for tool in ("curl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return subprocess.Popen(
        ["sh", "-c", script, "poll.sh", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "SLUICE_KEY": key},
        start_new_session=True,
        bufsize=0,  # what a buffer has read ahead, communicate() would lose
    )


def restart(run: LocalRun) -> None:
    assert run.stop() == 0
    assert "1 answer goes on with the next run." in run.out()
    run.start()


def until(true: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def told(err: bytes) -> set[str]:
    """Who says something on standard error."""
    return {line.partition(":")[0] for line in err.decode().splitlines()}


def met(at: str, troubles: Sequence[str]) -> Any:
    """What the hostile server tells, once it is certain that all of this has happened."""
    report = httpx.get(f"{at}/_report").json()
    happened = {seen["rule"].partition(";")[0] for seen in report["requests"]}
    assert happened >= {"lost-reply", "status=503", *troubles}
    assert report["streams_begun"] == 1
    return report


def test_the_steps(run: LocalRun) -> None:
    out, err = shell(here(STEPS, run.url)).communicate(timeout=60)
    assert err == b""
    page, _, text = out.decode().partition("\n}\n")
    assert '"closed": ' in page
    # The second poll may find more than the first one did.
    [first, *_] = re.findall(r'"text": "(.*)"', page)
    assert text.startswith(first.replace("\\n", "\n"))
    assert run.text(run.newest()["id"]).startswith(text)


def test_the_script_outlives_the_server(kept: LocalRun) -> None:
    polling = shell(here(SCRIPT, kept.url, WHILE), 'What is a "sluice"? 🌊')
    assert polling.stdout
    seen = polling.stdout.read(10)
    restart(kept)
    rest, err = polling.communicate(timeout=60)
    assert polling.returncode == 0
    assert told(err) <= {"curl"}  # or nothing, where it slept while the server was away
    stream = kept.newest()
    assert stream["status"] == "completed"
    assert (seen + rest).decode() == kept.text(stream["id"])
    assert len(kept.client.get("/v1/streams").json()["streams"]) == 1


def test_the_script_among_enemies(enemy: str) -> None:
    at = f"{enemy}/as=script,{START},{','.join(f'{poll};on=chunks' for poll in POLLS)}"
    polling = shell(here(SCRIPT, at), "?")
    out, err = polling.communicate(timeout=60)
    assert (polling.returncode, told(err)) == (0, {"curl"})
    assert out.decode() == met(at, POLLS)["text"]


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("status=404;on=chunks", "There is no such stream."),
        ("status=401;on=start", "The credential has expired."),
        ("closes=failed", "The model's provider cut its answer off."),
        ("closes=cancelled", "cancelled"),
    ],
)
def test_the_script_says_what_is_wrong(enemy: str, scenario: str, said: str) -> None:
    polling = shell(here(SCRIPT, f"{enemy}/{scenario},as=wrong"), "?")
    _, err = polling.communicate(timeout=60)
    assert (polling.returncode, err.decode()) == (1, f"{said}\n")


def test_the_key_is_in_no_list_of_processes(enemy: str) -> None:
    polling = shell(here(SCRIPT, f"{enemy}/head-only;on=chunks"), "?", key="very-secret")
    try:
        until(lambda: len(httpx.get(f"{enemy}/head-only;on=chunks/_report").json()["requests"]) > 1)
        lists = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
        assert any(b"--retry-all-errors" in each and b"Bearer" not in each for each in lists)
        assert not any(b"very-secret" in each for each in lists)
    finally:
        os.killpg(polling.pid, signal.SIGKILL)  # curl, too
        polling.communicate()


def opened(chromium: Browser, at: str, page: str) -> Page:
    """The page as the server at this address would serve it."""
    tab = chromium.new_page()
    tab.route("**/poll.html", lambda route: route.fulfill(body=page, content_type="text/html"))
    tab.goto(f"{at}/poll.html")
    return tab


def answer(tab: Page) -> str:
    return str(tab.evaluate("document.getElementById('answer').textContent"))


def test_the_page_outlives_the_server(kept: LocalRun, chromium: Browser) -> None:
    tab = opened(chromium, kept.url, here(PAGE, kept.url, WHILE))
    until(lambda: answer(tab))
    restart(kept)
    tab.wait_for_function("document.getElementById('state').textContent === 'completed'")
    stream = kept.newest()
    assert answer(tab) == kept.text(stream["id"])
    tab.close()


def test_the_page_among_enemies(enemy: str, chromium: Browser) -> None:
    polls = (*POLLS, "portal")
    every_other = ",".join(f"{poll};on=chunks,slow=0;on=chunks" for poll in polls)
    at = f"{enemy}/as=page;chunks=60;page=3,{START},{every_other}"
    tab = opened(chromium, enemy, here(PAGE, at))
    tab.wait_for_function("document.getElementById('state').textContent === 'completed'")
    assert answer(tab) == met(at, polls)["text"]
    tab.close()


def test_the_page_says_what_is_wrong(enemy: str, chromium: Browser) -> None:
    for scenario, said in (
        ("status=401;on=start", "refused: The credential has expired."),
        ("closes=failed", "failed: The model's provider cut its answer off."),
    ):
        tab = opened(chromium, enemy, here(PAGE, f"{enemy}/{scenario},as=page"))
        tab.wait_for_function("document.getElementById('state').textContent !== ''")
        assert tab.text_content("#state") == said
        tab.close()


def test_the_page_is_for_old_browsers() -> None:
    for page in (PAGE, EVENT_SOURCE):
        assert re.findall(r"=>|`|\b(?:let|const|class|fetch|Promise|URL)\b", page) == []


def test_an_event_source_with_a_ticket(kept: LocalRun, chromium: Browser) -> None:
    stream = kept.begin(WHILE)
    ticket = kept.client.post(f"/v1/streams/{stream}/ticket").json()["ticket"]
    page = here(EVENT_SOURCE, kept.url).replace("STREAM", stream).replace("TICKET", ticket)
    tab = opened(chromium, kept.url, page)
    until(lambda: answer(tab))
    restart(kept)
    tab.wait_for_function("source.readyState === 2")
    assert answer(tab) == kept.text(stream)
    assert tab.title() == ""
    tab.close()
