"""What a browser saw that no page of ours may do, collected while a test has its context."""

import re

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Request, WebError


class Watch:
    """Collects errors of the console and of scripts, dialogs, and requests to elsewhere."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self._origin = f"{origin}/"
        self._seen: list[str] = []
        self._allowed: list[str] = []
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("dialog", self._dialog)
        context.on("request", self._request)
        context.on("requestfailed", self._failed)

    def allow(self, pattern: str) -> None:
        """Do not mind what this matches: a test that cuts the connection has the browser say so."""
        self._allowed.append(pattern)

    @property
    def found(self) -> list[str]:
        return [s for s in self._seen if not any(re.search(a, s) for a in self._allowed)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._seen.append(f"console: {message.text} ({message.location['url']})")

    def _error(self, error: WebError) -> None:
        self._seen.append(f"script: {error.error}")

    def _dialog(self, dialog: Dialog) -> None:
        self._seen.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._origin, "data:", "blob:")):
            self._seen.append(_elsewhere(request))

    def _failed(self, request: Request) -> None:
        # It never left the browser.
        if request.failure == "csp" and _elsewhere(request) in self._seen:
            self._seen.remove(_elsewhere(request))


def _elsewhere(request: Request) -> str:
    return f"request: {request.method} {request.url}"
