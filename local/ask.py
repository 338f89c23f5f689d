"""`sluice ask`, `follow`, `resume`: an answer in the terminal, to its end."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from sluice_client import (
    Answer,
    Chunk,
    Closed,
    Epoch,
    Event,
    Paused,
    Polling,
    Reconnecting,
    Sluice,
    SluiceError,
    Streaming,
)

from local.errors import Failed
from local.service import connected, tells_retry
from local.terminal import forget_keys, heard, silent_keys, uninterrupted
from local.views import view

INTERRUPTED = 130
#: After so long somebody who waits wants to know what for.
SLOW_S = 1.0

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
    return _Showing(options, steers=True).run(
        lambda client: client.stream(options.model, prompt, **limit)
    )


def follow(options: Namespace) -> int:
    return _Showing(options, steers=False).run(
        lambda client: client.follow(options.id, after=options.after)
    )


def resume(options: Namespace) -> int:
    def resumed(client: Sluice) -> Answer:
        answer = client.follow(options.id, after=options.after)
        answer.resume()
        return answer

    return _Showing(options, steers=True).run(resumed)


class _Showing:
    """An answer that is shown. Who `steers` it pauses it by Ctrl-C; others only stop looking."""

    def __init__(self, options: Namespace, *, steers: bool) -> None:
        self._options = options
        self._steers = steers
        self._parting = ""
        #: So many characters.
        self._written = 0
        self._where = "".join(
            f" {name} {value}"
            for name, value in (("--url", options.url), ("--api-url", options.api_url))
            if value
        )
        self._view = view(json=options.json, plain=options.plain)
        self._note: Note = _silent if options.quiet else self._view.note

    def run(self, begin: Callable[[Sluice], Answer]) -> int:
        """Show it to its end. Returns the exit code; raises `Failed`."""
        with connected(self._options, self._note) as client:
            self._answer = begin(client)
            with heard(), silent_keys(), self._view:
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
            self._write(event)
            self._tell(event)

    def _write(self, event: Event) -> None:
        try:
            with uninterrupted():
                self._view.show(event)
                self._written += len(event.text) if isinstance(event, Chunk) else 0
        except BrokenPipeError:
            self._leave()
            raise
        except OSError as error:
            self._leave()
            raise Failed(f"the answer cannot be written: {error.strerror}") from error

    def _catch_up(self) -> None:
        """Write what was handed out when the interruption came, and is not again."""
        if left := self._answer.text[self._written :]:
            self._write(Chunk(self._answer.after, left))

    def _leave(self) -> None:
        """Nobody wants the rest of what was asked here."""
        self._answer.close()
        if self._steers:
            self._answer.cancel()

    def _goes_on(self) -> bool:
        """What becomes of an answer that was interrupted; whether it is shown further."""
        self._answer.close()
        self._catch_up()
        if not self._steers:
            paused = self._answer.status == "paused"
            how = "It is paused" if paused else "It goes on"
            self._parting = f"{how}. The rest of it: {self._again('follow')}"
            return False
        try:
            return self._pause()
        except KeyboardInterrupt:
            self._cancel()
        except SluiceError as error:
            self._parting = f"It could not be paused and goes on: {self._again('follow')} ({error})"
        return False

    def _pause(self) -> bool:
        with self._patiently("Pausing. Ctrl-C again cancels."):
            standing = self._answer.pause()
        if standing.status != "paused":
            return True  # it was over: the rest of it is shown
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            self._parting = f"Paused. It goes on with: {self._again('resume')}"
            return False
        forget_keys()
        with self._view.waiting("Paused. Enter goes on, Ctrl-C again cancels."):
            if not sys.stdin.readline():
                self._parting = f"It stays paused. It goes on with: {self._again('resume')}"
                return False
        self._answer.resume()
        return True

    def _cancel(self) -> None:
        end = f"sluice cancel {self._answer.id}{self._where}"
        try:
            with self._patiently("Cancelling. Ctrl-C again leaves it to itself."):
                self._answer.cancel()
        except KeyboardInterrupt:
            self._parting = f"Nobody knows whether it was cancelled: {end}"
        except SluiceError as error:
            self._parting = f"It could not be cancelled: {end} ({error})"
        else:
            self._parting = "Cancelled."

    @contextmanager
    def _patiently(self, text: str) -> Iterator[None]:
        """Say what is being done, where it takes longer than it should."""
        slow = Timer(SLOW_S, self._note, (text,))
        slow.start()
        try:
            yield
        finally:
            slow.cancel()

    def _again(self, command: str) -> str:
        return f"sluice {command} {self._answer.id} --after {self._answer.after}{self._where}"

    def _tell(self, event: Event) -> None:
        match event:
            case Reconnecting():
                tells_retry(event, self._note)
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
