"""`sluice ask`, `follow`, `resume`: an answer in the terminal, to its end."""

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from sluice_client import (
    Answer,
    Closed,
    Epoch,
    Event,
    Paused,
    Polling,
    Reconnecting,
    SluiceError,
    Streaming,
)

from local.errors import Failed
from local.service import connected
from local.views import view

INTERRUPTED = 130

Note = Callable[[str], None]


def ask(options: Namespace) -> int:
    try:
        prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
        prompt.encode()
    except UnicodeError as error:
        raise Failed("the prompt is not text in UTF-8") from error
    if not prompt:
        raise Failed("the prompt is empty")
    limit: Any = {"max_tokens": options.max_tokens} if options.max_tokens else {}
    with connected(options) as client:
        return _Showing(client.stream(options.model, prompt, **limit), options, steers=True).run()


def follow(options: Namespace) -> int:
    with connected(options) as client:
        answer = client.follow(options.id, after=options.after)
        return _Showing(answer, options, steers=False).run()


def resume(options: Namespace) -> int:
    with connected(options) as client:
        answer = client.follow(options.id, after=options.after)
        answer.resume()
        return _Showing(answer, options, steers=True).run()


class _Showing:
    """An answer that is shown. Who `steers` it pauses it by Ctrl-C; others only stop looking."""

    def __init__(self, answer: Answer, options: Namespace, *, steers: bool) -> None:
        self._answer = answer
        self._steers = steers
        self._parting = ""
        self._where = "".join(
            f" {name} {value}"
            for name, value in (("--url", options.url), ("--api-url", options.api_url))
            if value
        )
        self._view = view(json=options.json, plain=options.plain)
        self._note: Note = _silent if options.quiet else self._view.note

    def run(self) -> int:
        """Show it to its end. Returns the exit code; raises `Failed`, `SluiceError`."""
        with self._view:
            whole = self._shown()
        if not whole:
            self._note(self._parting)  # below what is shown, which it ends
            return INTERRUPTED
        if self._answer.status == "cancelled":
            raise Failed("the answer was cancelled")
        return 0

    def _shown(self) -> bool:
        """Whether it was shown to its end, over interruptions."""
        while True:
            try:
                self._show()
            except KeyboardInterrupt:
                if not self._goes_on():
                    return False
            else:
                return True

    def _show(self) -> None:
        for event in self._answer.events():
            try:
                self._view.show(event)
            except BrokenPipeError:
                self._leave()
                raise
            except OSError as error:
                self._leave()
                raise Failed(f"the answer cannot be written: {error.strerror}") from error
            self._tell(event)

    def _leave(self) -> None:
        """Nobody wants the rest of what was asked here."""
        self._answer.close()
        if self._steers:
            self._answer.cancel()

    def _goes_on(self) -> bool:
        """What becomes of an answer that was interrupted; whether it is shown further."""
        self._answer.close()
        if not self._steers:
            self._parting = f"It goes on. The rest of it: {self._again('follow')}"
            return False
        try:
            return self._pause()
        except KeyboardInterrupt:
            self._cancel()
        except SluiceError as error:
            self._parting = f"It could not be paused and goes on: {self._again('follow')} ({error})"
        return False

    def _pause(self) -> bool:
        standing = self._answer.pause()
        if standing.status != "paused":
            return True  # it was over: the rest of it is shown
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            self._parting = f"Paused. It goes on with: {self._again('resume')}"
            return False
        with self._view.waiting("Paused. Enter goes on, Ctrl-C again cancels."):
            if not sys.stdin.readline():
                self._parting = f"It stays paused. It goes on with: {self._again('resume')}"
                return False
        self._answer.resume()
        return True

    def _cancel(self) -> None:
        try:
            self._answer.cancel()
        except SluiceError as error:
            self._parting = f"It could not be cancelled: sluice cancel {self._answer.id} ({error})"
        else:
            self._parting = "Cancelled."

    def _again(self, command: str) -> str:
        return f"sluice {command} {self._answer.id} --after {self._answer.after}{self._where}"

    def _tell(self, event: Event) -> None:
        match event:
            case Reconnecting(attempt=1, why=why):
                self._note(f"{why[:1].upper()}{why[1:]}; trying again.")
            case Polling(why=why):
                self._note(f"{why[:1].upper()}{why[1:]}: polling instead.")
            case Streaming():
                self._note("Streaming again.")
            case Paused(reason=reason) if self._answer.status == "paused":  # and not long ago
                why = f" ({reason})" if reason else ""
                self._note(f"The answer is paused{why}; it goes on when resumed.")
            case Epoch(continuation="prompt"):
                self._note("Another producer goes on; some words may come again.")
            case Closed(finish_reason="length"):
                self._note("The answer ends at its limit of tokens.")
            case Closed(finish_reason="quota"):
                self._note("The answer ends where the budget did.")


def _silent(_: str) -> None:
    pass
