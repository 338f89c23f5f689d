"""What the page tells of the local run that it comes from."""

import pytest
from playwright.sync_api import Locator, expect

from tests.e2e.page.chat import QUICK, SLOW, WAIT_MS, Chat
from tests.e2e.page.watch import Watch

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _wide(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 1440, "height": 1200})


def figure(chat: Chat, label: str) -> Locator:
    """What stands at a label, once it is there."""
    rows = chat.page.locator(".local-run dl > div")
    return rows.filter(has=chat.page.get_by_text(label, exact=True)).locator("dd")


def shown(chat: Chat, label: str) -> int:
    found = figure(chat, label)
    expect(found).to_be_visible()
    return int(found.inner_text().replace(",", ""))


def test_a_killed_producer_is_counted(chat: Chat, watch: Watch) -> None:
    watch.allow("ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_CONNECTION")
    chat.page.get_by_text("This local run").click()
    taken_over, complete = shown(chat, "Taken over"), shown(chat, "Complete")
    chat.ask("Kill it", SLOW)
    chat.says_something()
    chat.button("Kill the producer").click()
    chat.comes_to("Complete")
    expect(figure(chat, "Taken over")).to_have_text(str(taken_over + 1), timeout=WAIT_MS)
    assert shown(chat, "Complete") > complete  # what others have left may have ended, too
    expect(figure(chat, "First token")).to_contain_text("≈")


def test_nobody_is_asked_while_it_is_closed(chat: Chat) -> None:
    asked: list[str] = []
    chat.page.on("request", lambda request: asked.append(request.url))
    chat.ask("Quietly", QUICK)
    chat.comes_to("Complete")
    chat.page.get_by_text("This local run").click()
    expect(figure(chat, "Complete")).to_be_visible()
    assert [url.endswith("/metrics") for url in asked].count(True) == 1


def test_only_a_local_run_tells(chat: Chat) -> None:
    elsewhere = {"local": False, "key": "demo", "models": ["demo"]}
    chat.page.route("**/config.json", lambda route: route.fulfill(json=elsewhere))
    chat.page.reload()
    expect(chat.page.get_by_text("Try the failures")).to_be_visible()
    expect(chat.page.get_by_text("This local run")).to_have_count(0)
