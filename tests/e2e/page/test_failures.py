"""What befalls an answer on its way; its text is whole all the same."""

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.local_run import LocalRun
from tests.e2e.page.chat import SLOW, STEADY, WAIT_MS, Chat
from tests.e2e.page.watch import Watch

pytestmark = pytest.mark.e2e


def test_a_reload_in_mid_answer_goes_on(chat: Chat, run: LocalRun) -> None:
    chat.ask("Reload me", STEADY)
    before = chat.says_something()
    stream = chat.stream
    chat.page.reload()
    assert chat.says_something().startswith(before[:40])
    expect(chat.page.locator(".question")).to_have_text("Reload me")
    chat.comes_to("Complete")
    assert chat.stream == stream == run.newest()["id"]
    chat.is_whole()


def test_a_reload_before_the_first_word_asks_nothing_twice(
    chat: Chat, run: LocalRun, watch: Watch
) -> None:
    watch.allow("409")  # so a client that has lost the id is told it
    chat.ask("Reload me at once", "demo?tokens=40&rate=50&ttft=3000")
    chat.comes_to("(Connecting|Live)")
    chat.page.reload()
    chat.comes_to("Complete")
    asked = [
        each
        for each in run.client.get("/v1/streams").json()["streams"]
        if each["metadata"].get("question") == "Reload me at once"
    ]
    assert [each["id"] for each in asked] == [chat.stream]
    chat.is_whole()


def test_two_tabs_follow_one_answer(chat: Chat, context: BrowserContext, run: LocalRun) -> None:
    chat.ask("For both", STEADY)
    chat.says_something()
    other = Chat(context.new_page(), run)
    other.open(chat.stream)
    expect(other.page.locator(".question")).to_have_text("For both")
    for tab in (chat, other):
        tab.comes_to("Complete")
        tab.page.bring_to_front()
        tab.is_whole()


def test_offline_and_back(chat: Chat, context: BrowserContext, watch: Watch) -> None:
    watch.allow("ERR_INTERNET_DISCONNECTED|ERR_NETWORK_CHANGED|ERR_FAILED")
    chat.ask("Lose the network", STEADY)
    before = chat.says_something()
    context.set_offline(True)
    chat.comes_to("Offline")
    assert chat.answer.inner_text().startswith(before[:40])
    context.set_offline(False)
    chat.comes_to("Complete")
    chat.is_whole()


def test_cutting_the_connection(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 1440, "height": 900})
    chat.ask("Cut me", STEADY)
    chat.says_something()
    chat.button("Cut the connection").click()
    reconnects = chat.page.locator(".figures div", has_text="Reconnects").locator("dd")
    expect(reconnects).to_have_text("1")
    chat.comes_to("Complete")
    chat.is_whole()


def test_forced_polling_and_back(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 1440, "height": 900})
    chat.ask("Poll me", SLOW)
    chat.says_something()
    force = chat.button("Force polling")
    force.click()
    chat.comes_to("Polling")
    transport = chat.page.locator(".figures div", has_text="Transport").locator("dd")
    expect(transport).to_have_text("polling")
    chat.says_something(40)
    force.click()
    chat.comes_to("Live")
    expect(transport).to_have_text("streaming")
    chat.comes_to("Complete")
    chat.is_whole()


def test_a_killed_producer_is_replaced_and_the_seam_is_shown(chat: Chat, watch: Watch) -> None:
    watch.allow("ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_CONNECTION")
    chat.page.set_viewport_size({"width": 1440, "height": 900})
    chat.ask("Kill it", SLOW)
    before = chat.says_something()
    chat.button("Kill the producer").click()
    chat.comes_to("Nothing new for")
    assert chat.answer.inner_text().startswith(before[:40])
    seam = chat.page.locator(".seam")
    expect(seam).to_have_count(1, timeout=WAIT_MS)
    seam.locator("summary").click()
    expect(seam).to_contain_text("was lost here, and number 2 took over")
    chat.comes_to("Complete")
    chat.is_whole()


def test_a_network_that_answers_for_the_server_is_told(page: Page) -> None:
    page.route("**/config.json", lambda route: route.fulfill(body="<!doctype html>Sign in"))
    page.goto("/")
    expect(page.locator("#state")).to_contain_text("Something else than the server answered.")
