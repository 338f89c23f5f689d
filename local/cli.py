"""`sluice`: runs Sluice on this machine, asks it something, and is an operator's command line."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from local import options as kinds
from local.answers import PORT, URL
from local.answers import add as add_answers
from local.commands import add as add_operators
from local.document import Assignment
from local.errors import Failed
from local.options import DB
from local.terminal import plain

READY = """\
Sluice is ready: {url}/ is the page, the key is "demo". Ctrl-C stops it.
{kept}

An answer, streamed:
  curl -N {url}/v1/streams -H 'Authorization: Bearer demo' -d '{body}'

The rest of it, from another connection; ID is the `id` in its first event, 7 the last one seen:
  curl -N '{url}/v1/streams/ID/events?after=7' -H 'Authorization: Bearer demo'

Both in one, from another terminal:
  {sluice} ask 'How does a sluice work?'{where}
"""
BODY = '{"model":"demo","messages":[{"role":"user","content":"How does a sluice work?"}]}'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal of another encoding should not stop a table that has a dash in it.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parsed(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except Failed as failed:
        print(f"sluice: {plain(str(failed))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads any more. Without this Python would complain at its end, as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes a list of words in one piece only; options may stand between ours.
    if rest and (not hasattr(options, "assignments") or any(w.startswith("-") for w in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        for word in rest:
            options.assignments.append(Assignment.parse(word))
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sluice", description=__doc__)
    parser.add_argument("--version", action="version", version=f"sluice {version('sluice')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    dev = commands.add_parser("dev", help="run everything on this machine, behind one port")
    dev.add_argument(
        "--port", type=kinds.port, default=PORT, help=f"default {PORT}; 0: any free one"
    )
    where = dev.add_mutually_exclusive_group()
    where.add_argument(
        "--ephemeral", action="store_true", help="keep nothing: a database in memory"
    )
    where.add_argument("--db", type=kinds.file, default=DB, help="the database's file")
    dev.set_defaults(command=_dev)

    add_answers(commands)
    add_operators(commands)
    return parser


def _dev(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from local import database, server
    from shared.settings import Settings

    settings = Settings.from_env()
    db = None if options.ephemeral else options.db
    own = not settings.dynamodb_endpoint
    if not own and (options.ephemeral or options.db != DB):
        raise Failed("SLUICE_DYNAMODB_ENDPOINT names the database: --db and --ephemeral do not")
    if urlsplit(settings.dynamodb_endpoint).netloc.endswith(".amazonaws.com"):
        raise Failed("this makes a key that everybody knows: not in a DynamoDB on AWS")
    with (
        server.listening(options.port) as listener,
        database.endpoint(settings, db) as endpoint,
    ):
        settings = replace(settings, dynamodb_endpoint=endpoint)
        store = database.connect(settings, own=own)
        port = listener.getsockname()[1]
        if not own:
            kept = f"The data is in the database at {endpoint}."
        else:
            kept = f"The data is kept in {_shown(db)}." if db else "No data is kept."
        server.run(listener, settings, store, lambda: print(_ready(port, kept), flush=True))
    return 0


def _ready(port: int, kept: str) -> str:
    url = f"http://127.0.0.1:{port}"
    return READY.format(
        url=url,
        kept=kept,
        body=BODY,
        sluice=_shown(Path(sys.argv[0])),
        where="" if url == URL else f" --url {url}",
    )


def _shown(path: Path) -> Path:
    """A path as short as it may be typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
