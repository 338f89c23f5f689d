"""What an answer of 5,000 tokens costs the page that shows it."""

import pytest

from tests.e2e.page.chat import Chat
from tests.e2e.page.tracing import traced

pytestmark = pytest.mark.e2e

#: Counts what moved without the reader's doing, and what held the page up by the clock.
OBSERVE = """() => {
  window.shifted = 0;
  window.long = [];
  new PerformanceObserver((list) => {
    for (const each of list.getEntries()) window.shifted += each.hadRecentInput ? 0 : each.value;
  }).observe({ type: "layout-shift" });
  new PerformanceObserver((list) => {
    for (const { startTime, duration } of list.getEntries()) {
      window.long.push({ at: startTime, took: Math.round(duration) });
    }
  }).observe({ type: "longtask" });
}"""
#: Its clients hear nothing for 12 s, but that it lives.
SILENT = "demo?tokens=60&rate=0&silence_after=20&silence=12"


def test_five_thousand_tokens(chat: Chat) -> None:
    page = chat.page
    page.set_viewport_size({"width": 1440, "height": 900})  # with the panel of figures
    page.evaluate(OBSERVE)
    with traced(page) as work:
        began = page.evaluate("performance.now()")
        chat.ask("At length", "demo?tokens=5000&rate=1000")
        chat.comes_to("Complete")
    took = (page.evaluate("performance.now()") - began) / 1000
    late = [task["took"] for task in page.evaluate("window.long") if task["at"] > began + 1000]
    shifted = page.evaluate("window.shifted")
    print(f"5,000 tokens in {took:.1f} s: {work}, by the clock {late}, layout shift {shifted:.4f}")
    assert work.longest_task <= 100
    assert shifted < 0.01
    chat.is_whole()


def test_an_answer_that_says_nothing_costs_next_to_nothing(chat: Chat) -> None:
    chat.ask("Be silent", SILENT)
    chat.says_something(5)
    chat.page.wait_for_timeout(1000)
    with traced(chat.page) as work:
        chat.page.wait_for_timeout(5000)
    chat.comes_to("(Live|Nothing new)")
    print(f"5 s of silence: {work}")
    # What moves, moves without the page: the line counts seconds, and that is all.
    assert work.paints < 30
