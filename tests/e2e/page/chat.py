"""The page as its reader uses it."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.e2e.local_run import LocalRun

#: Longer than anything here takes on a machine that has other things to do, a takeover too.
WAIT_MS = 60_000
QUICK = "demo?tokens=40&rate=0"
#: Some six seconds, so that things can happen to it.
STEADY = "demo?tokens=150&rate=25"
#: Long enough for a producer to die, be missed, and be replaced.
SLOW = "demo?tokens=150&rate=10"


class Chat:
    """One tab."""

    def __init__(self, page: Page, run: LocalRun) -> None:
        self.page = page
        self._run = run
        page.set_default_timeout(WAIT_MS)

    def open(self, stream: str = "") -> None:
        self.page.goto(f"/#/s/{stream}" if stream else "/")
        expect(self.page.locator("#model option").first).to_be_attached()

    def ask(self, question: str, model: str = QUICK) -> None:
        """Write a question and send it by Enter."""
        self.page.evaluate(
            """model => {
              const select = document.getElementById("model");
              select.add(new Option(model, model));
              select.value = model;
            }""",
            model,
        )
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    @property
    def turns(self) -> Locator:
        return self.page.locator(".turn")

    @property
    def answer(self) -> Locator:
        """The last answer's text."""
        return self.page.locator(".answer-text").last

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def comes_to(self, state: str) -> None:
        """Wait until the state line begins so."""
        told = self.page.locator("#state .state-text")
        expect(told).to_have_text(re.compile(f"^{state}"), timeout=WAIT_MS)

    def says_something(self, words: int = 12) -> str:
        """Wait for so many words of the last answer; returns its text."""
        self.page.wait_for_function(
            """words => {
              const text = [...document.querySelectorAll(".answer-text")].at(-1)?.textContent ?? "";
              return text.split(/\\s+/).length > words;
            }""",
            arg=words,
        )
        return self.answer.inner_text()

    @property
    def stream(self) -> str:
        """The stream that the address names, once it does."""
        self.page.wait_for_url(re.compile("#/s/[0-9a-v]{32}"))
        return self.page.url.rpartition("/")[2]

    def copied(self) -> str:
        """The last answer, as its button copies it."""
        self.button("Copy the answer").last.click()
        # The clipboard is written in the background; the button tells when it was.
        expect(self.page.locator(".turn-foot .icon-check")).to_be_visible(timeout=WAIT_MS)
        self.page.fill("#question", "")
        self.page.press("#question", "Control+V")
        pasted = self.page.input_value("#question")
        self.page.fill("#question", "")
        return pasted

    def is_whole(self) -> None:
        """The page has what the log has, each piece once."""
        assert self.copied() == self._run.text(self.stream)
