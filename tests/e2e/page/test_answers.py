"""What a reader does to an answer: each button, and the keys."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from tests.e2e.local_run import LocalRun
from tests.e2e.page.chat import QUICK, SLOW, STEADY, Chat
from tests.e2e.page.watch import Watch

pytestmark = pytest.mark.e2e

#: Notes when the text of an answer grew, and to which length.
WATCH_GROWTH = """() => {
  window.growth = [];
  new MutationObserver(() => {
    const length = document.querySelector(".answer-text")?.textContent.length ?? 0;
    if (length > (window.growth.at(-1)?.length ?? 0)) {
      window.growth.push({ at: performance.now(), length });
    }
  }).observe(document.getElementById("turns"), {
    subtree: true, childList: true, characterData: true,
  });
}"""


def test_an_answer_is_shown_as_it_comes(chat: Chat) -> None:
    chat.page.evaluate(WATCH_GROWTH)
    chat.ask("What is a sluice?", STEADY)
    chat.comes_to("Complete")
    growth = chat.page.evaluate("window.growth")
    assert len(growth) > 10
    # The answer takes six seconds to be made. Shown at once, all of it would have one time.
    first, half = growth[0], growth[len(growth) // 2]
    assert half["at"] - first["at"] > 500
    assert growth[-1]["at"] - half["at"] > 500
    chat.is_whole()


def test_stop_keeps_what_there_is(chat: Chat, run: LocalRun) -> None:
    chat.ask("Go on and on", SLOW)
    before = chat.says_something()
    chat.button("Stop").click()
    chat.comes_to("Stopped")
    assert chat.answer.inner_text().startswith(before[:40])
    assert run.newest()["status"] == "cancelled"
    chat.is_whole()


def test_pause_and_continue(chat: Chat, run: LocalRun) -> None:
    chat.ask("Wait for me", STEADY)
    chat.says_something()
    chat.button("Pause").click()
    chat.comes_to("Paused")
    assert run.newest()["status"] == "paused"
    status = chat.page.locator(".history-told").first
    expect(status).to_contain_text("paused")
    chat.button("Continue").first.click()
    expect(status).to_contain_text("running")
    chat.comes_to("Complete")
    expect(chat.page.locator(".seam")).to_have_count(1)
    chat.is_whole()


def test_answering_again_keeps_the_answer_before(chat: Chat) -> None:
    chat.ask("Once", QUICK)
    chat.comes_to("Complete")
    first = chat.stream
    chat.button("Answer again").click()
    expect(chat.page.locator(".pager")).to_have_text("‹2 of 2›")
    chat.comes_to("Complete")
    assert chat.stream != first
    expect(chat.turns).to_have_count(1)
    chat.button("The answer before").click()
    expect(chat.page.locator(".pager")).to_have_text("‹1 of 2›")
    assert chat.stream == first


def test_a_message_in_mid_answer_refines_it(chat: Chat, run: LocalRun) -> None:
    chat.ask("Tell me all", SLOW)
    chat.says_something()
    first = chat.stream
    expect(chat.page.locator("#hint")).to_contain_text("Sending refines")
    chat.ask("But briefly", QUICK)
    expect(chat.turns).to_have_count(2)
    chat.comes_to("Complete")
    assert run.client.get(f"/v1/streams/{first}").json()["status"] == "cancelled"
    newest = run.newest()
    assert newest["parent"] == first
    assert newest["id"] == chat.stream
    expect(chat.page.locator(".turn-told").first).to_contain_text("Stopped")


def test_what_failed_midway_is_kept_and_can_be_tried_again(chat: Chat) -> None:
    chat.ask("Fail", "demo?tokens=100&rate=50&fail_after=60")
    chat.comes_to("Failed")
    expect(chat.page.locator("#state")).to_contain_text("The text so far is kept.")
    chat.is_whole()
    chat.page.locator("#state").get_by_role("button", name="Answer again").click()
    expect(chat.page.locator(".pager")).to_have_text("‹2 of 2›")
    chat.comes_to("Failed")


def test_what_is_refused_is_not_awaited(chat: Chat, watch: Watch) -> None:
    watch.allow("400")
    chat.ask("Refuse", "nobody/serves-this")
    chat.comes_to("Refused")
    expect(chat.page.locator("#state")).to_contain_text("There is no model 'nobody/serves-this'")
    expect(chat.page.locator(".cursor")).to_be_hidden()


def test_a_reader_who_scrolled_up_is_left_alone_and_told_of_more(chat: Chat) -> None:
    chat.page.set_viewport_size({"width": 1000, "height": 500})
    chat.ask("At length", "demo?tokens=600&rate=60")
    chat.says_something(150)
    scroller = chat.page.locator("#scroller")
    scroller.hover()
    chat.page.mouse.wheel(0, -300)
    jump = chat.page.locator("#jump")
    expect(jump).to_contain_text("new word")
    place = scroller.evaluate("node => node.scrollTop")
    chat.says_something(400)
    assert abs(scroller.evaluate("node => node.scrollTop") - place) < 2
    jump.click()
    expect(jump).to_be_hidden()
    chat.comes_to("Complete")
    left = "node => node.scrollHeight - node.scrollTop - node.clientHeight"
    assert scroller.evaluate(left) < 5


def test_by_keyboard_alone(chat: Chat) -> None:
    keyboard = chat.page.keyboard
    expect(chat.page.locator("#question")).to_be_focused()
    chat.page.evaluate("document.getElementById('model').selectedIndex = 3")  # slow
    keyboard.type("Line one")
    keyboard.press("Shift+Enter")
    keyboard.type("line two")
    keyboard.press("Enter")
    expect(chat.page.locator(".question")).to_have_text("Line one\nline two")
    chat.says_something()
    keyboard.press("Escape")
    chat.comes_to("Paused")
    chat.page.locator("#scroller").focus()  # out of the question, where keys are letters
    keyboard.press("g")
    chat.comes_to("Live")
    keyboard.press("Escape")
    chat.comes_to("Paused")
    keyboard.press("Escape")
    chat.comes_to("Stopped")
    keyboard.press("?")
    expect(chat.page.get_by_role("dialog")).to_contain_text("Jump to latest")
    keyboard.press("Escape")
    expect(chat.page.get_by_role("dialog")).to_have_count(0)
    keyboard.press("n")
    expect(chat.page.locator("#question")).to_be_focused()
    expect(chat.turns).to_have_count(0)
    seen = set()
    for _ in range(60):  # an entry of the history is one place
        keyboard.press("Tab")
        seen.add(
            chat.page.evaluate("document.activeElement.id || document.activeElement.ariaLabel")
        )
    assert {"new", "model", "scroller", "panel-toggle"} <= seen
    assert not any(str(place).startswith(("Export", "Delete")) for place in seen)


def test_the_history_by_keyboard(chat: Chat) -> None:
    for question in ("Below", "Above"):
        chat.ask(question, QUICK)
        chat.comes_to("Complete")
        expect(chat.page.locator(".history-told").first).to_contain_text("complete")
        chat.button("New conversation").click()
    keyboard = chat.page.keyboard
    chat.button("New conversation").focus()
    keyboard.press("Tab")
    for key, place in (
        ("", "Above"),
        ("ArrowRight", "Export “Above”"),
        ("ArrowRight", "Delete “Above”"),
        ("ArrowRight", "Delete “Above”"),
        ("ArrowDown", "Below"),
        ("ArrowUp", "Above"),
        ("ArrowUp", "Above"),
    ):
        if key:
            keyboard.press(key)
        focused = chat.page.locator("*:focus")
        expect(focused).to_have_accessible_name(re.compile(f"^{place}"))
    keyboard.press("Delete")
    chat.button("Delete").click()
    expect(chat.page.locator("*:focus")).to_have_accessible_name(re.compile("^Below"))
    keyboard.press("Enter")
    expect(chat.page.locator(".question")).to_have_text("Below")


def test_a_key_that_is_held_down_asks_once(chat: Chat) -> None:
    chat.ask("Once more", QUICK)
    chat.comes_to("Complete")
    chat.page.locator("#scroller").focus()
    for _ in range(3):  # the second and the third are repeats
        chat.page.keyboard.down("r")
    chat.page.keyboard.up("r")
    chat.comes_to("Complete")
    expect(chat.page.locator(".pager")).to_have_text("‹2 of 2›")


def test_an_answer_is_copied_where_there_is_no_clipboard(chat: Chat) -> None:
    chat.ask("Copy me", QUICK)
    chat.comes_to("Complete")
    chat.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    chat.is_whole()
    chat.page.evaluate("document.execCommand = () => false")
    chat.page.locator("#scroller").focus()
    chat.page.keyboard.press("c")
    expect(chat.page.locator("#notice")).to_contain_text("does not let this page copy")


def test_what_is_asked_while_another_stream_is_opened_stays(chat: Chat) -> None:
    chat.ask("Opened slowly", QUICK)
    chat.comes_to("Complete")
    stream = chat.stream
    chat.button("New conversation").click()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    chat.page.route(f"**/v1/streams/{stream}", hold)
    chat.page.locator(f"#history a[href='#/s/{stream}']").click()
    chat.ask("Asked meanwhile", QUICK)
    chat.comes_to("Complete")
    with chat.page.expect_response(f"**/v1/streams/{stream}"):
        held[0].continue_()
    chat.page.wait_for_timeout(200)  # for what must not happen
    expect(chat.page.locator(".question")).to_have_text("Asked meanwhile")
    assert chat.stream != stream


def test_history_opens_exports_and_deletes(chat: Chat, run: LocalRun) -> None:
    chat.ask("An answer to be deleted", QUICK)
    chat.comes_to("Complete")
    stream = chat.stream
    chat.button("New conversation").click()
    entry = chat.page.locator(f"#history li:has(a[href='#/s/{stream}'])")
    entry.locator("a").click()
    expect(chat.page.locator(".question")).to_have_text("An answer to be deleted")
    chat.comes_to("Complete")
    chat.is_whole()
    entry.hover()
    with chat.page.expect_download() as download:
        entry.get_by_role("button", name="Export “").click()
    exported = json.loads(download.value.path().read_text())
    assert exported["streams"][0]["summary"]["stream"] == stream
    entry.get_by_role("button", name="Delete “").click()
    chat.button("Keep it").click()
    assert run.client.get(f"/v1/streams/{stream}").status_code == 200
    entry.hover()
    entry.get_by_role("button", name="Delete “").click()
    chat.button("Delete").click()
    expect(entry).to_have_count(0)
    expect(chat.turns).to_have_count(0)
    assert run.client.get(f"/v1/streams/{stream}").status_code == 404


def test_more_of_the_history_comes_once_however_often_it_is_asked_for(
    chat: Chat, run: LocalRun
) -> None:
    chat.ask("List me", QUICK)
    chat.comes_to("Complete")
    first = run.newest()
    last = {**first, "id": "0" * 32, "created_at": 1}

    def pages(route: Route) -> None:
        more = "page=" in route.request.url
        route.fulfill(json={"streams": [last if more else first], "next_page": "x"})

    chat.page.route("**/v1/streams?*", pages)
    chat.page.reload()
    show_more = chat.button("Show more")
    show_more.click(click_count=2)
    entries = chat.page.locator(f"#history a[href='#/s/{last['id']}']")
    expect(entries.first).to_be_visible()
    chat.page.wait_for_load_state("networkidle")
    expect(entries).to_have_count(1)


def test_a_headings_link_leads_to_it(chat: Chat, context: BrowserContext, run: LocalRun) -> None:
    chat.ask("With headings", "demo?tokens=600&rate=0")
    chat.comes_to("Complete")
    expect(chat.answer.locator("h2").first).not_to_be_in_viewport()
    link = chat.answer.locator(".anchor").first
    address = link.evaluate("link => link.href")
    assert address.startswith(f"{run.url}/#/s/{chat.stream}/")
    elsewhere: list[dict[str, Any]] = [
        {"modifiers": ["Control"]},
        {"modifiers": ["Shift"]},
        {"button": "middle"},
    ]
    for how in elsewhere:
        with context.expect_page() as opened:
            link.click(**how)
        other = Chat(opened.value, run)
        expect(other.answer.locator("h2").first).to_be_in_viewport()
        assert other.page.url == address
        other.page.close()
    link.click()
    expect(chat.answer.locator("h2").first).to_be_in_viewport()
    assert chat.page.url == address
    assert len(context.pages) == 1


def test_a_conversation_is_opened_with_what_came_before(chat: Chat) -> None:
    for question in ("First", "Second", "Third"):
        chat.ask(question, QUICK)
        chat.comes_to("Complete")
        expect(chat.page.locator(".question").last).to_have_text(question)
    chat.page.evaluate("sessionStorage.clear()")
    chat.page.reload()
    expect(chat.page.locator(".question")).to_have_text(["First", "Second", "Third"])
    chat.comes_to("Complete")
