"""Markdown as it streams: which blocks are finished, and what is on the screen in the end."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.markdown import Markdown

from local.markdown import blocks, finished
from tests.local.screen import Terminal

ROOT = Path(__file__).parents[2]
CODE = "\n".join(f"line {n} of the code" for n in range(60))
ANSWER = f"""# Water 🌊

A *paragraph* with **words** that go on over
more than one line of its source, and `code` in it.

- one
- two

  with a paragraph of its own
- three

```python
{CODE}
```

| a | b |
|---|---|
| 水門 | 2 |

> quoted

1. first
2. second

---

The [end](https://example.com/somewhere)."""


def test_the_blocks_are_the_text() -> None:
    found = blocks(ANSWER)
    assert "".join(found) == ANSWER
    assert [block.split()[0] for block in found] == [
        *("#", "A", "-", "```python", "|", ">", "1.", "---", "The"),
    ]


def test_what_is_finished_stays_so_whatever_comes() -> None:
    for count in range(len(ANSWER)):
        done = ANSWER[: finished(ANSWER[:count])]
        assert "".join(blocks(ANSWER)[: len(blocks(done))] if done else []) == done


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("", ""),
        ("a paragraph\n\n", ""),
        ("a paragraph\n\nthe nex", ""),
        ("a paragraph\n\nthe next\n", "a paragraph\n\n"),
        # It may become a word with a hash, which goes on the paragraph.
        ("a paragraph\n#", ""),
        ("a paragraph\n# A title\n", "a paragraph\n"),
        ("```\ncode\n\n# no title\n", ""),
        ("- one\n\n  more\n", ""),
        ("\u2028 a\u0085b\n\nc\n", "\u2028 a\u0085b\n\n"),
    ],
)
def test_finished(text: str, done: str) -> None:
    assert text[: finished(text)] == done


#: Shows the text of a file on the terminal, in pieces of so many characters.
SHOWS = """
import sys, time
from pathlib import Path
from sluice_client import Chunk
from local.markdown import Live
from local.terminal import silent_keys

text, size = Path(sys.argv[1]).read_text(), int(sys.argv[2])
with silent_keys(), Live() as view:
    for start in range(0, len(text), size):
        view.show(Chunk(start, text[start : start + size]))
        if start % 50 == 0:
            time.sleep(0.06)
"""


@pytest.mark.parametrize("size", [3, 40, 10_000])
def test_all_of_it_is_there_in_the_end_and_once(tmp_path: Path, size: int) -> None:
    (tmp_path / "answer.md").write_text(ANSWER)
    command = (sys.executable, "-c", SHOWS, str(tmp_path / "answer.md"), str(size))
    with Terminal(*command, env={"PYTHONPATH": str(ROOT)}, width=70, height=20) as terminal:
        assert terminal.end() == 0, terminal.screen.text
        shown = terminal.screen.text
        lines = terminal.raw.split("\r\n")
    assert words(shown) == words(whole(ANSWER))
    assert "\n\n\n" not in shown
    # Nothing that shows nothing: it would be copied, and wrap in a window that gets narrower.
    assert [line for line in lines if line.endswith(" ")] == []


def test_of_a_block_that_is_higher_than_the_screen_the_newest_is_seen(tmp_path: Path) -> None:
    (tmp_path / "answer.md").write_text(f"```\n{CODE}\n")
    waits = f"{SHOWS}    sys.stdin.readline()\n"
    command = (sys.executable, "-c", waits, str(tmp_path / "answer.md"), "40")
    with Terminal(*command, env={"PYTHONPATH": str(ROOT)}, height=20) as terminal:
        terminal.until(lambda: "line 59 of the code" in terminal.screen.text)
        assert len(terminal.screen.lines) <= 20
        terminal.type("\r")
        assert terminal.end() == 0
        assert words(terminal.screen.text) == words(CODE)


def whole(text: str) -> str:
    """What there is to read of a text when it is printed in one piece."""
    out = io.StringIO()
    Console(file=out, width=70).print(Markdown(text, hyperlinks=False))
    return out.getvalue()


def words(text: str) -> list[str]:
    return text.split()


def test_what_could_steer_the_terminal_does_not(tmp_path: Path) -> None:
    (tmp_path / "answer.md").write_text("an \x1b]0;evil\x07 answer \x9b2J\n\n[x](http://a.test)\n")
    command = (sys.executable, "-c", SHOWS, str(tmp_path / "answer.md"), "5")
    with Terminal(*command, env={"PYTHONPATH": str(ROOT)}) as terminal:
        assert terminal.end() == 0
    assert "\x1b]" not in terminal.raw
    assert "\x9b" not in terminal.raw
    assert "x (http://a.test)" in terminal.screen.text
