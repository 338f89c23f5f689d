"""An answer's Markdown in a terminal, as it streams.

A block that is finished is printed once and scrolls away as all output does. Only the last one,
which still changes, is drawn anew, and of that no more than fits.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Self

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live as Region
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text
from sluice_client import Chunk, Event

from local.terminal import harmless
from local.views import View

#: Between two drawings, at least: faster than this nobody reads.
DRAW_S = 0.05

_PARSER = MarkdownIt().enable(["strikethrough", "table"])


def blocks(text: str) -> list[str]:
    """The text cut in front of each of its blocks but the first: joined, it is the text."""
    lines = text.split("\n")
    starts = [
        token.map[0]
        for token in _PARSER.parse(text)
        if token.level == 0 and token.map and token.nesting >= 0
    ]
    edges = [0, *starts[1:], len(lines)]
    parts = ["\n".join(lines[start:end]) for start, end in pairwise(edges)]
    return [f"{part}\n" for part in parts[:-1]] + parts[-1:]


def finished(text: str) -> int:
    """How many characters of the text are blocks that nothing to come can change."""
    whole = text[: text.rfind("\n") + 1]  # what a line is may change until its end is there
    return sum(map(len, blocks(whole)[:-1]))


class Live(View):
    """The view."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._open = _Open()
        self._region = Region(
            self._open,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._over = False
        self._drawing = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Self:
        self._region.start()
        self._drawing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._changed.set()
        self._drawing.join()
        self._print(len(self._open.text))
        self._region.stop()

    def show(self, event: Event) -> None:
        if isinstance(event, Chunk):
            self._open.text += harmless(event.text)
            if "\n" in event.text:
                self._print(finished(self._open.text))
            self._changed.set()

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        self._open.footer = text
        self._changed.set()
        try:
            yield
        finally:
            self._open.footer = ""
            self._changed.set()

    def _print(self, count: int) -> None:
        """Print the first characters of what is open; the rest stays open."""
        done = self._open.text[:count]
        with self._lock:
            self._open.text = self._open.text[count:]
            if done.strip():
                first, self._open.first = self._open.first, False
                self._console.print(_Blocks(done, first=first), end="")

    def _draw(self) -> None:
        while self._changed.wait() and not self._over:
            self._changed.clear()
            with self._lock:
                self._region.refresh()
            time.sleep(DRAW_S)


class _Blocks:
    """Blocks with a line between them, and one in front where they are not the `first`."""

    def __init__(self, text: str = "", *, first: bool = True) -> None:
        self.text = text
        self.first = first

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(console, options):
            yield from line
            yield Segment.line()

    def lines(self, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
        lines: list[list[Segment]] = []
        for block in blocks(self.text):
            # A link shows where it leads: a model has chosen its words.
            markdown = Markdown(block, hyperlinks=False, code_theme="ansi_dark")
            shown = _trimmed(map(_unpadded, console.render_lines(markdown, options, pad=False)))
            if shown:
                lines += shown if self.first and not lines else [[], *shown]
        return lines


class _Open(_Blocks):
    """What still changes: the last lines of it that fit, and a line about what is waited for."""

    footer = ""

    def lines(self, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
        lines = super().lines(console, options)
        if self.footer:
            lines += console.render_lines(Text(self.footer, "dim"), options, pad=False)
        return lines[-(console.height - 1) :]


def _unpadded(line: list[Segment]) -> list[Segment]:
    """Without what shows nothing at its end: it would be copied, and wrap in a narrower window."""
    for number in range(len(line) - 1, -1, -1):
        text, style, _ = line[number]
        if style and style.bgcolor:
            return line[: number + 1]
        if text.rstrip(" "):
            return [*line[:number], Segment(text.rstrip(" "), style)]
    return []


def _trimmed(lines: Iterable[list[Segment]]) -> list[list[Segment]]:
    """Without the empty lines around them."""
    every = list(lines)
    full = [n for n, line in enumerate(every) if any(part.text.strip() for part in line)]
    return every[full[0] : full[-1] + 1] if full else []
