"""The pictures of the page in docs/: python -m tests.e2e.page.pictures"""

import shutil
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from tests.e2e.local_run import ROOT, LocalRun
from tests.e2e.page.chat import Chat

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def picture(browser: Browser, run: LocalRun, scheme: Literal["light", "dark"]) -> None:
    with browser.new_context(
        base_url=run.url, viewport={"width": 1200, "height": 740}, color_scheme=scheme
    ) as context:
        chat = Chat(context.new_page(), run)
        chat.open()
        chat.ask("How does an answer get here, word by word?", "demo")
        chat.says_something(120)
        chat.page.screenshot(path=ROOT / "docs" / f"page-{scheme}.png")


def main() -> None:
    with LocalRun("--ephemeral") as run, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for question in ("What is a sluice?", "Why does a cancel race with the producer?"):
            run.client.post(
                "/v1/streams",
                json={
                    "model": "demo?tokens=40&rate=0",
                    "messages": [{"role": "user", "content": question}],
                    "metadata": {"question": question},
                },
            )
        for scheme in SCHEMES:
            picture(browser, run, scheme)
        browser.close()


if __name__ == "__main__":
    main()
