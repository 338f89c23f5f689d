"""What commands write: tables and notes for people, JSON for programs, progress on long work."""

import json
import math
import os
import shutil
import signal
import sys
import termios
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

#: A number stands on the right, with separators; None is a dash.
Cell = str | int | None

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_CLEAR_LINE = "\r\x1b[2K"
_BAR = 10
#: After so many s a dropped Ctrl-C comes again.
AGAIN_S = 0.05


def note(text: str) -> None:
    """A line beside the answer."""
    print(_styled(text, _DIM, sys.stderr), file=sys.stderr, flush=True)


def show_json(value: Any) -> None:
    """The one document of a command."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, gives_way: str = ""
) -> None:
    """Columns in line; in one that holds a number everything stands on the right. The one that
    gives way is shortened where the terminal is too narrow.
    """
    cells = list(rows)
    right = [any(isinstance(row[i], int) for row in cells) for i in range(len(columns))]
    texts = [list(columns), *([_text(cell) for cell in row] for row in cells)]
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    if gives_way and sys.stdout.isatty():
        column = columns.index(gives_way)
        over = sum(widths) + 2 * len(widths) - 2 - shutil.get_terminal_size().columns
        widths[column] = max(widths[column] - max(over, 0), _width(gives_way))
        for row in texts:
            row[column] = _shortened(row[column], widths[column])
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


def _shortened(text: str, width: int) -> str:
    """The text within so many columns."""
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


@contextmanager
def silent_keys() -> Iterator[None]:
    """The terminal shows no keys that are typed meanwhile: they are in the way."""
    if not (sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()):
        yield
        return
    before, silent = termios.tcgetattr(sys.stdin), termios.tcgetattr(sys.stdin)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def forget_keys() -> None:
    """What was typed on the terminal before is no answer to what is asked now."""
    termios.tcflush(sys.stdin, termios.TCIFLUSH)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """The first Ctrl-C comes behind what is done within, so that this is done whole."""
    came = False

    def comes(*_: int | FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = signal.signal(signal.SIGINT, comes)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@contextmanager
def heard() -> Iterator[None]:
    """A Ctrl-C that comes while Python removes an object, which drops what is raised there, comes
    again a moment later.
    """
    before = sys.unraisablehook

    def dropped(what: "sys.UnraisableHookArgs") -> None:
        if what.exc_type is KeyboardInterrupt:
            main = threading.main_thread().ident
            threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT)).start()
        else:
            before(what)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before


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
