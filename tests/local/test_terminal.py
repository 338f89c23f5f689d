"""Tables, notes and progress, on a terminal and elsewhere."""

import signal
import sys
import time

import pytest

from local.terminal import (
    Progress,
    bar,
    counted,
    heard,
    note,
    plain,
    show_json,
    show_table,
    uninterrupted,
)
from tests.clock import Clock

ESCAPE = "\x1b"


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both outputs are a terminal's; for the test itself, as each phase has outputs of its own."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)


def test_columns_are_in_line_and_numbers_on_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "tokens"), [("a", 1_234_567), ("long one", None), ("水門", 0)])
    assert capsys.readouterr().out.splitlines() == [
        "name         tokens",
        "a         1,234,567",
        "long one          –",
        "水門              0",
    ]


def test_a_table_without_rows_has_its_titles(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "tokens"), [])
    assert capsys.readouterr().out == "name  tokens\n"


@pytest.mark.parametrize(
    ("columns", "first", "second"),
    [
        (17, "a  a long one  12", "b  水門の水     3"),
        (14, "a  a long…  12", "b  水門の…   3"),
        (13, "a  a lon…  12", "b  水門…    3"),
        (2, "a  a l…  12", "b  水…    3"),
    ],
)
def test_where_the_terminal_is_too_narrow_one_column_gives_way(
    columns: int,
    first: str,
    second: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [("a", "a long one", 12), ("b", "水門の水", 3)]
    show_table(("x", "name", "n"), rows, gives_way="name")
    assert capsys.readouterr().out.splitlines()[1:] == [first, second]


def test_elsewhere_no_column_gives_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "2")
    show_table(("name",), [("a long one",)], gives_way="name")
    assert "a long one" in capsys.readouterr().out


def test_no_cell_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("user",), [(f"{ESCAPE}[2Jann\n\u202eevil\ud800",)])
    [_, shown] = capsys.readouterr().out.splitlines()
    assert shown == r"\x1b[2Jann\n\u202eevil\ud800"
    assert plain("grüße 水") == "grüße 水"


def test_styles_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch)
    show_table(("name",), [("a",)])
    note("beside")
    said = capsys.readouterr()
    assert said.out == "\x1b[1mname\x1b[0m\na\n"
    assert said.err == "\x1b[2mbeside\x1b[0m\n"


def test_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    show_table(("name",), [("a",)])
    note("beside")
    assert ESCAPE not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 100, "░░░░░░░░░░   0%"),
        (1, 10_000, "█░░░░░░░░░   0%"),
        (61, 100, "██████░░░░  61%"),
        (100, 100, "██████████ 100%"),
        (150, 100, "██████████ 100%"),
        (0, 0, "██████████ 100%"),
    ],
)
def test_a_bar(part: int, whole: int, shown: str) -> None:
    assert bar(part, whole) == shown


def test_json_is_one_document_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"name": "Grüße"})
    assert capsys.readouterr().out == '{\n  "name": "Grüße"\n}\n'


def test_counted() -> None:
    assert counted(1, "key") == "1 key"
    assert counted(1200, "entry", "entries") == "1,200 entries"


def test_progress_on_a_terminal_is_one_line_that_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "12")
    clock = Clock()
    with Progress(clock=clock) as progress:
        progress("one")
        progress("too soon")
        clock.now += 1
        progress("far too long to show")
    assert capsys.readouterr().err == (
        "\r\x1b[2K\x1b[2mone\x1b[0m\r\x1b[2K\x1b[2mfar too lon\x1b[0m\r\x1b[2K"
    )


def test_progress_elsewhere_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress(clock=clock) as progress:
        for number in range(12):
            progress(f"at {number}")
            clock.now += 1
    assert capsys.readouterr().err == "at 5\nat 10\n"


def test_what_is_not_to_be_interrupted_is_done_whole() -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupts(done, times=1)
    assert done == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        interrupts(done, times=2)  # who means it is heard
    assert done == [1, 2, 1]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def interrupts(done: list[int], *, times: int) -> None:
    with uninterrupted():
        done.append(1)
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        done.append(2)


class Interrupted:
    """Ctrl-C comes while it is removed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_python_drops_comes_again() -> None:
    with pytest.raises(KeyboardInterrupt), heard():
        removes()


def removes() -> None:
    Interrupted()
    time.sleep(30)


class Careless:
    def __del__(self) -> None:
        raise ValueError


def test_what_else_python_drops_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with heard():
        Careless()
    assert len(told) == 1
