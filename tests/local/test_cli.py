"""The command line: what it takes, and one line for what it does not."""

import argparse
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from local import cli, commands, server
from local.errors import Failed

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> int:
    """The exit code, as the shell sees it."""
    try:
        return cli.main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert all(
        f"    {command} " in said
        for command in (
            *("dev", "ask", "follow", "streams", "pause", "resume", "cancel"),
            *("tenant", "key", "usage", "audit"),
        )
    )


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the commands that do something."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for group in groups:
        for below in group.choices.values():
            yield from leaves(below)
    if not groups:
        yield parser


def test_every_command_leads_to_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    class Module:
        def __init__(self, name: str) -> None:
            self.real = importlib.import_module(name)

        def __getattr__(self, name: str) -> Any:
            assert callable(getattr(self.real, name))
            called.append(f"{self.real.__name__}.{name}")
            return lambda _: 0

    monkeypatch.setattr(commands, "import_module", Module)
    parsers = list(leaves(cli._parser()))
    for parser in parsers:
        command = parser.get_default("command")
        if command is not cli._dev:
            command(argparse.Namespace())
    assert len(called) == len(set(called)) == len(parsers) - 1 == 22


def test_every_command_says_where_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for parser in leaves(cli._parser()):
        help_ = parser.format_help()
        if parser.get_default("command") is not cli._dev:
            assert "--stack NAME" in help_ or "--url URL" in help_, parser.prog
        assert "None" not in help_


def test_an_answer_does_not_wait_for_what_only_operators_need() -> None:
    code = "import local.cli, local.ask, sys; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    for heavy in ("boto3", "botocore", "starlette", "uvicorn", "asyncio.base_events"):
        assert heavy not in loaded, heavy


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert re.fullmatch(r"sluice \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["key"], "COMMAND"),
        (["audit"], "COMMAND"),
        (["dev", "--port", "65536"], "a port is a number from 0 to 65535"),
        (["dev", "--port", "-1"], "--port"),
        (["dev", "--ephemeral", "--db", "x"], "not allowed with"),
        (["dev", "--db", ""], "the name of a file is needed"),
        (["dev", "--db", "/"], "the name of a file is needed"),
        (["ask"], "prompt"),
        (["ask", "x", "--max-tokens", "0"], "a whole number above 0 is needed"),
        (["ask", "x", "--patience", "soon"], "a whole number above 0 is needed"),
        (["ask", "x", "--url", "127.0.0.1:8787"], "an address like https://example.com is needed"),
        (["key", "add", "x", "--db", "x", "--stack", "y"], "not allowed with"),
    ],
)
def test_misuse_is_code_2(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["key", "add", "Acme Inc"], "a tenant's name has 1 to 63 of a-z"),
        (["key", "add", "acme", "--key", "short"], "a key has 16 to 200 printable ASCII"),
        (["key", "add", "acme", "--key", "one two three four"], "and no space"),
        (["key", "add", "acme", "--profile", "work"], "go with --stack"),
        (["ask", "x", "--key", "schlüssel"], "a key has printable ASCII characters only"),
    ],
)
def test_what_no_parser_finds_is_code_1_and_one_line(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("sluice: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with server.listening(0) as listener:
        port = listener.getsockname()[1]
        assert run("dev", "--port", str(port)) == 1
    said = capsys.readouterr().err
    assert said == f"sluice: port {port} is taken; choose another with --port\n"


def test_no_key_that_everybody_knows_on_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_DYNAMODB_ENDPOINT", "https://dynamodb.eu-west-1.amazonaws.com")
    assert run("dev", "--port", "0") == 1
    assert "everybody knows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code"), [(Failed("no"), 1), (KeyboardInterrupt(), 130)], ids=["failed", "ctrl-c"]
)
def test_a_command_that_does_not_end_well(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(_: Any) -> int:
        raise raised

    monkeypatch.setattr(cli, "_dev", command)
    assert run("dev") == code


def test_the_body_of_the_printed_command_is_valid() -> None:
    assert json.loads(cli.BODY)["model"] == "demo"
    assert "'" not in cli.BODY


def test_a_database_is_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_DYNAMODB_ENDPOINT", "http://127.0.0.1:9")
    assert run("dev", "--ephemeral") == 1
    assert "SLUICE_DYNAMODB_ENDPOINT names the database" in capsys.readouterr().err


@pytest.mark.parametrize(("prompt", "said"), [("\udcff", "UTF-8"), ("", "empty")])
def test_what_is_no_prompt_is_told_before_it_is_sent(
    prompt: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ask", prompt) == 1
    assert said in capsys.readouterr().err
