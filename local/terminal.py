"""What commands write: tables and notes for people, JSON for programs, progress on long work."""

import json
import math
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

#: A number stands on the right, with separators; None is a dash.
Cell = str | int | None

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_CLEAR_LINE = "\r\x1b[2K"
_BAR = 10


def note(text: str) -> None:
    """A line beside the answer."""
    print(_styled(text, _DIM, sys.stderr), file=sys.stderr, flush=True)


def show_json(value: Any) -> None:
    """The one document of a command."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Columns in line; in one that holds a number everything stands on the right."""
    cells = list(rows)
    right = [any(isinstance(row[i], int) for row in cells) for i in range(len(columns))]
    texts = [list(columns), *([_text(cell) for cell in row] for row in cells)]
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    for number, row in enumerate(texts):
        parts = [
            f"{' ' * (width - _width(text))}{text}"
            if rights
            else f"{text}{' ' * (width - _width(text))}"
            for text, width, rights in zip(row, widths, right, strict=True)
        ]
        line = "  ".join(parts).rstrip()
        print(line if number else _styled(line, _BOLD, sys.stdout))


def bar(part: int, whole: int) -> str:
    """How much of something is used, as a picture and a number; a little is never nothing."""
    share = min(max(part / whole, 0.0), 1.0) if whole else 1.0
    filled = max(round(share * _BAR), 1 if share else 0)
    return f"{'█' * filled}{'░' * (_BAR - filled)} {share:4.0%}"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 key`, `2 keys`; `many` where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def plain(text: str) -> str:
    """The text without what could steer a terminal: names and labels may come from anyone."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def harmless(text: str) -> str:
    """A text of several lines without what could steer a terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    return plain(cell) if isinstance(cell, str) else f"{cell:,}"


def _width(text: str) -> int:
    """How many columns of a terminal the text takes (UAX #11)."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _styled(text: str, style: str, stream: TextIO) -> str:
    # https://no-color.org
    wanted = stream.isatty() and not os.environ.get("NO_COLOR")
    return f"{style}{text}{_PLAIN}" if wanted else text


class Progress:
    """Says how far long work is: on a terminal in one line that goes, else in a line now and then.

    `clock` is monotonic, in s.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._terminal = sys.stderr.isatty()
        self._every_s = 0.1 if self._terminal else 5.0
        # Elsewhere what is done within that time needs no progress.
        self._said_at = -math.inf if self._terminal else clock()

    def __call__(self, text: str) -> None:
        if self._clock() - self._said_at < self._every_s:
            return
        self._said_at = self._clock()
        if self._terminal:
            shown = text[: shutil.get_terminal_size().columns - 1]
            print(_CLEAR_LINE + _styled(shown, _DIM, sys.stderr), end="", file=sys.stderr)
            sys.stderr.flush()
        else:
            note(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)
