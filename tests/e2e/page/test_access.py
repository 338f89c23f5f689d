"""Who may not see, not hear, or not use a mouse: the page is for them, too."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.local_run import ROOT, LocalRun
from tests.e2e.page.chat import QUICK, SLOW, Chat

pytestmark = pytest.mark.e2e

AXE = Path(ROOT, "node_modules/axe-core/axe.min.js").read_text()
DESKTOP, PHONE = (1440, 900), (390, 844)


def violations(page: Page) -> list[str]:
    """What axe finds, with where it is."""
    # What fades in has no colour of its own yet; what has gone meanwhile has been aborted.
    page.evaluate(
        "Promise.all(document.getAnimations().map(a => a.effect.getTiming().iterations"
        " === Infinity ? 0 : a.finished.catch(() => {})))"
    )
    page.evaluate(AXE)  # by the debugger, which no policy of the page holds back
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    size: tuple[int, int], scheme: str, chromium: Browser, run: LocalRun
) -> None:
    width, height = size
    with chromium.new_context(
        base_url=run.url,
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    ) as context:
        chat = Chat(context.new_page(), run)
        page = chat.page
        chat.open()
        assert violations(page) == []
        chat.ask("With everything: code, a table, headings", "demo?rate=0")
        chat.comes_to("Complete")
        assert violations(page) == []
        chat.ask("Fail", "demo?tokens=100&rate=0&fail_after=20")
        chat.comes_to("Failed")
        assert violations(page) == []
        chat.ask("Slowly", SLOW)
        chat.says_something()
        chat.button("Pause").click()
        chat.comes_to("Paused")
        assert violations(page) == []
        chat.button("Stop").click()
        chat.comes_to("Stopped")
        if size == PHONE:
            page.get_by_role("button", name="What is happening").click()
        page.get_by_text("This local run").click()
        expect(page.locator(".local-run dl").first).to_be_visible()
        assert violations(page) == []
        if size == PHONE:
            page.keyboard.press("Escape")
            page.get_by_role("button", name="Open the history").click()
            assert violations(page) == []
            page.keyboard.press("Escape")
        page.locator("#scroller").focus()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations(page) == []


def test_only_the_beginning_and_the_end_of_an_answer_are_announced(chat: Chat) -> None:
    chat.page.evaluate(
        """() => {
          const region = document.getElementById("announcer");
          window.said = [];
          new MutationObserver(() => window.said.push(region.textContent))
            .observe(region, { childList: true, characterData: true, subtree: true });
        }"""
    )
    chat.ask("Say little", "demo?tokens=80&rate=40")
    chat.comes_to("Complete")
    chat.page.wait_for_function("() => window.said.length > 1")
    said = chat.page.evaluate("window.said")
    assert said[0] == "Answer started"
    assert said[-1].startswith("Answer complete, ")
    assert len(said) == 2
    assert chat.page.locator("#turns [aria-live], #turns [role=log]").count() == 0


def test_the_theme_is_kept_and_is_there_from_the_first_paint(chat: Chat) -> None:
    chat.button("Colours: system").click()
    chat.button("Colours: light").click()
    expect(chat.page.locator("html")).to_have_attribute("data-theme", "dark")
    chat.page.reload(wait_until="commit")
    expect(chat.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_text_from_right_to_left_is_laid_out_so(chat: Chat) -> None:
    chat.ask("مرحبا، ما هو السد؟", QUICK)
    chat.comes_to("Complete")
    question = chat.page.locator(".question")
    assert question.evaluate("node => getComputedStyle(node).direction") == "rtl"


def test_at_twice_the_size_everything_can_be_reached(chat: Chat) -> None:
    page = chat.page
    page.set_viewport_size({"width": 720, "height": 450})
    chat.open()
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_in_viewport()
    chat.ask("x" * 300, "demo?tokens=200&rate=0")
    chat.comes_to("Complete")
    for element in (chat.answer.locator(":scope > *").last, page.locator("#question")):
        expect(element).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == 720
    assert page.locator("#scroller").evaluate("node => node.scrollWidth - node.clientWidth") == 0
    assert violations(page) == []


def test_nothing_moves_for_who_wants_it_so(chromium: Browser, run: LocalRun) -> None:
    with chromium.new_context(base_url=run.url, reduced_motion="reduce") as context:
        chat = Chat(context.new_page(), run)
        chat.open()
        chat.ask("Be calm", SLOW)
        chat.says_something()
        assert chat.page.evaluate("document.getAnimations().length") == 0
