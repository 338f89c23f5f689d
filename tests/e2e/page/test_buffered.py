"""The page behind a real nginx that holds streams back to their end."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.local_run import LocalRun, free_port
from tests.e2e.nginx import buffering_proxy
from tests.e2e.page.chat import Chat
from tests.e2e.page.watch import Watch

pytestmark = pytest.mark.e2e

#: It lasts a minute: until streams come through again, some of them are tried in vain.
LONG = "demo?tokens=600&rate=10"
#: The client waits 4 s for the first bytes; what is above 5 is left to a machine that is busy.
POLLS_WITHIN_S = 20


@pytest.fixture
def port() -> int:
    """Where the page is, whichever nginx serves it."""
    return free_port()


@pytest.fixture
def behind(chromium: Browser, run: LocalRun, port: int) -> Iterator[Chat]:
    """A tab for the page at that port, which notes how its transport changes."""
    url = f"http://127.0.0.1:{port}"
    with chromium.new_context(base_url=url, viewport={"width": 1440, "height": 900}) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        watch = Watch(context, url)
        watch.allow("409")  # so a client whose start was held back is told the id of its stream
        watch.allow("ERR_CONNECTION|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE")  # between two nginx
        yield Chat(context.new_page(), run)
        assert watch.found == []


def test_it_polls_what_is_held_back_and_streams_again_when_it_can(
    behind: Chat, run: LocalRun, port: int
) -> None:
    state = behind.page.locator("#state")
    transport = behind.page.locator(".figures div", has_text="Transport").locator("dd")
    with buffering_proxy(run.url, port=port):
        behind.open()
        behind.ask("Who holds me back?", LONG)
        asked = time.monotonic()
        behind.comes_to("Polling")
        took = time.monotonic() - asked
        print(f"polling {took:.1f} s after the question, and its stream held back")
        assert took < POLLS_WITHIN_S
        expect(state).to_contain_text("Something on the way holds the stream back")
        behind.says_something(30)
        expect(transport).to_have_text("polling")
    with buffering_proxy(run.url, port=port, obeys=True):
        behind.comes_to("Live")
        print(f"streaming again {time.monotonic() - asked:.1f} s after the question")
        words = len(behind.answer.inner_text().split())
        behind.says_something(words + 10)
        expect(transport).to_have_text("streaming")
        behind.button("Stop").click()
        behind.comes_to("Stopped")
        behind.is_whole()
    asked_for = [each["metadata"].get("question") for each in _streams(run)]
    assert asked_for.count("Who holds me back?") == 1


def _streams(run: LocalRun) -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = run.client.get("/v1/streams").json()["streams"]
    return found
