"""What a person sees: a program on a terminal of its own, and the lines that it leaves there."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

#: Takes its terminal as the one that sends it signals, then becomes the program.
_OWN = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
_PART = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


class Screen:
    """The little of a terminal that is needed here. `lines` has what has scrolled away, too."""

    def __init__(self, height: int) -> None:
        self.lines = [""]
        self._height = height
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        for part in _PART.finditer(text):
            match part[2]:
                case "A":
                    top = max(len(self.lines) - self._height, 0)
                    self._row = max(self._row - int(part[1] or 1), top)
                case "K":
                    self.lines[self._row] = ""
                case None:
                    self._put(part[0])

    def _put(self, text: str) -> None:
        if text == "\r":
            self._column = 0
        elif text == "\n":
            self._row += 1
            if self._row == len(self.lines):
                self.lines.append("")
        else:
            line = self.lines[self._row].ljust(self._column)
            self._column += len(text)
            self.lines[self._row] = line[: self._column - len(text)] + text + line[self._column :]

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


class Terminal:
    """Runs a program on a terminal; `with` ends it."""

    def __init__(
        self, *command: str, env: Mapping[str, str], width: int = 80, height: int = 24
    ) -> None:
        self.screen = Screen(height)
        self.raw = ""
        self._left = b""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (height, width))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", **env},
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, true: Callable[[], object]) -> None:
        give_up = time.monotonic() + 30
        while not true():
            assert time.monotonic() < give_up, self.screen.text
            self._read()

    def end(self) -> int:
        """Its exit code, once it has ended."""
        while self._read():
            pass
        return self.process.wait(30)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.05)[0]:
            return True
        try:
            data = self._left + os.read(self._master, 65536)
        except OSError:  # Linux says so of a terminal that nobody has open any more
            return False
        # Not within a character, nor within a sequence.
        whole = max(data.rfind(b"\n"), data.rfind(b"\x1b") - 1) + 1 if data else 0
        tail = data[whole:]
        if re.fullmatch(rb"(\x1b\[[0-9;?]*[A-Za-z])?[\x20-\x7e]*", tail):
            whole = len(data)
        text = data[:whole].decode()
        self._left = data[whole:]
        self.raw += text
        self.screen.feed(text)
        return bool(data)


def sluice(*arguments: str, env: Mapping[str, str], size: Sequence[int] = (80, 24)) -> Terminal:
    command = (sys.executable, "-m", "local.cli", *arguments)
    return Terminal(*command, env=env, width=size[0], height=size[1])
