"""The commands that ask a Sluice over HTTP, as they are typed."""

from argparse import ArgumentParser
from typing import TYPE_CHECKING

from local import options as kinds
from local.commands import lazily

if TYPE_CHECKING:
    from local.commands import Commands

#: Where a local run is, unless it is told otherwise.
PORT = 8787
URL = f"http://127.0.0.1:{PORT}"


def add(commands: "Commands") -> None:
    """Add `ask`, `follow`, `streams`, `pause`, `resume`, `cancel` to the commands of `sluice`."""
    where, shown = _where(), _shown()
    ask = commands.add_parser(
        "ask",
        help="stream an answer; Ctrl-C pauses it, twice cancels it",
        parents=[where, shown],
    )
    ask.add_argument("prompt", help="what to ask; - reads it from standard input")
    ask.add_argument("--model", default="demo")
    ask.add_argument("--max-tokens", type=kinds.positive, metavar="N")
    ask.set_defaults(command=lazily("ask", "ask"))

    for name, about in (
        ("follow", "show an answer that was begun before; Ctrl-C only stops showing it"),
        ("resume", "let a paused answer go on, and show it; Ctrl-C as with `ask`"),
    ):
        parser = commands.add_parser(name, help=about, parents=[where, shown])
        parser.add_argument("id", help="as `sluice streams` shows it")
        parser.add_argument(
            "--after",
            type=kinds.offset,
            default=-1,
            metavar="N",
            help="only what comes behind this offset",
        )
        parser.set_defaults(command=lazily("ask", name))

    streams = commands.add_parser("streams", help="the newest answers", parents=[where])
    streams.add_argument(
        "--limit", type=kinds.positive, default=20, metavar="N", help="so many (20)"
    )
    streams.add_argument("--json", action="store_true", help="one JSON document")
    streams.set_defaults(command=lazily("streams", "streams"))

    for name, about in (
        ("pause", "have nothing more produced of an answer, until it is resumed"),
        ("cancel", "end an answer; what it said is kept"),
    ):
        parser = commands.add_parser(name, help=about, parents=[where])
        parser.add_argument("id", help="as `sluice streams` shows it")
        parser.set_defaults(command=lazily("streams", name))


def _where() -> ArgumentParser:
    parent = ArgumentParser(add_help=False)
    parent.add_argument("--url", type=kinds.url, help=f"default $SLUICE_URL, else {URL}")
    parent.add_argument(
        "--api-url",
        type=kinds.url,
        metavar="URL",
        help="where the API has an address of its own; default $SLUICE_API_URL",
    )
    parent.add_argument(
        "--key",
        help="default $SLUICE_KEY, which is in no list of processes; else demo, a local run's",
    )
    parent.add_argument(
        "--patience",
        type=kinds.positive,
        default=60,
        metavar="S",
        help="give up when there was no sign of life for so many s (60)",
    )
    return parent


def _shown() -> ArgumentParser:
    parent = ArgumentParser(add_help=False)
    how = parent.add_mutually_exclusive_group()
    how.add_argument("--plain", action="store_true", help="the text as it is, in a terminal too")
    how.add_argument("--json", action="store_true", help="one line of JSON for each event")
    parent.add_argument("--quiet", action="store_true", help="no notes on standard error")
    return parent
