"""A page with nothing but the Markdown view, behind the strictest policy that it works under."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Dialog, Page, Route

ROOT = Path(__file__).parents[3]
ORIGIN = "https://page.test"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
HTML = (
    '<!doctype html><html lang="en"><title>Markdown</title><meta name="viewport" '
    'content="width=device-width"><link rel="stylesheet" href="/markdown.css">'
    '<main></main><script src="/markdown.js"></script></html>'
)


def bundle(directory: Path) -> bytes:
    """The view and its driver as one minified script."""
    made = directory / "markdown.js"
    entry = Path(__file__).parent / "markdown.ts"
    esbuild = ROOT / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--minify", "--log-level=warning", f"--outfile={made}"]
    subprocess.run([esbuild, entry, *options], check=True, timeout=60)
    return made.read_bytes()


class Watched:
    """The page, and what it did that an answer must never make it do."""

    def __init__(self, page: Page, script: bytes) -> None:
        self.page = page
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        css = (ROOT / "web" / "src" / "markdown" / "markdown.css").read_text()
        dark = ":root { color-scheme: light dark; } body { background: light-dark(#fff, #15181d); }"
        self._files: dict[str, tuple[str, str | bytes]] = {
            "/": ("text/html", HTML),
            "/markdown.js": ("text/javascript", script),
            "/markdown.css": ("text/css", dark + css),
        }
        page.route("**/*", self._serve)
        page.on("dialog", self._dismiss)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text))
        self.open()

    def open(self) -> None:
        self.page.goto(ORIGIN)
        self.requests.clear()

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _serve(self, route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        self.requests.append(route.request.url)
        if path not in self._files:
            route.fulfill(status=404)
            return
        kind, body = self._files[path]
        route.fulfill(
            body=body,
            headers={"Content-Type": f"{kind}; charset=utf-8", "Content-Security-Policy": POLICY},
        )

    def until(self, condition: str) -> None:
        """Waits for this to be true; the policy does not let Playwright itself do so."""
        end = time.monotonic() + 30
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(50)

    def offences(self) -> list[str]:
        """Everything noticed that must not be."""
        violations: list[str] = self.page.evaluate("page.violations")
        ran: list[str] = self.page.evaluate(
            "Object.keys(window).filter((n) => n.startsWith('xss'))"
        )
        return [*self.requests, *self.dialogs, *self.errors, *violations, *ran]


@contextmanager
def watched(chromium: Browser, directory: Path) -> Iterator[Watched]:
    """A tab with the page in it."""
    page = chromium.new_page()
    try:
        yield Watched(page, bundle(directory))
    finally:
        page.close()
