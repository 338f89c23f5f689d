"""How an answer is shown: as it is, as lines of JSON, or as Markdown in a terminal."""

import json as json_
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Self

from sluice_client import Chunk, Event

from local.errors import Failed
from local.terminal import harmless, note


class View(ABC):
    """`with` it, and show it every event."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def show(self, event: Event) -> None:
        """Raises OSError where it cannot be written."""

    def note(self, text: str) -> None:
        """Say something beside the answer."""
        note(text)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Say what is waited for, while it is."""
        self.note(text)
        yield


def view(*, json: bool, plain: bool) -> View:
    """The way that was asked for, else the one that is right for standard output."""
    if sys.stdout is None:
        raise Failed("there is nowhere to write the answer to")
    terminal = sys.stdout.isatty()
    if json:
        return Lines()
    # https://no-color.org
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    if plain or dumb or not terminal:
        return Text(terminal=terminal)
    from local.markdown import Live

    return Live()


class Text(View):
    """The answer's text, and nothing else. Only what could steer a `terminal` is taken out."""

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._within_line = False

    def __exit__(self, *_: object) -> None:
        self._end_line()

    def show(self, event: Event) -> None:
        if isinstance(event, Chunk):
            text = harmless(event.text) if self._terminal else event.text
            sys.stdout.buffer.write(text.encode("utf-8", "replace"))
            sys.stdout.buffer.flush()
            self._within_line = not event.text.endswith("\n")

    def note(self, text: str) -> None:
        self._end_line()
        super().note(text)

    def _end_line(self) -> None:
        """What comes next stands on a line of its own. That is not part of the answer."""
        if self._terminal and self._within_line:
            print(file=sys.stderr)
            self._within_line = False


class Lines(View):
    """Each event, the client's own notices too, as one line of JSON."""

    def show(self, event: Event) -> None:
        told = {"type": type(event).__name__.lower(), **asdict(event)}
        line = json_.dumps(told, ensure_ascii=False, separators=(",", ":"))
        sys.stdout.buffer.write(f"{line}\n".encode("utf-8", "replace"))
        sys.stdout.buffer.flush()
