"""`sluice`: runs Sluice on this machine, asks it something, gives out keys."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from local.errors import Failed

ROOT = Path(__file__).resolve().parent.parent
DB = ROOT / ".sluice" / "dev.db"
PORT = 8787
URL = f"http://127.0.0.1:{PORT}"

READY = """\
Sluice is ready at {url} with the key "demo". Ctrl-C stops it.
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
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except Failed as failed:
        print(f"sluice: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads any more. Without this Python would complain at its end, as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sluice", description=__doc__)
    parser.add_argument("--version", action="version", version=f"sluice {version('sluice')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    dev = commands.add_parser("dev", help="run everything on this machine, behind one port")
    dev.add_argument("--port", type=_port, default=PORT, help=f"default {PORT}; 0: any free one")
    where = dev.add_mutually_exclusive_group()
    where.add_argument(
        "--ephemeral", action="store_true", help="keep nothing: a database in memory"
    )
    where.add_argument("--db", type=_file, default=DB, help="the database's file")
    dev.set_defaults(command=_dev)

    ask = commands.add_parser("ask", help="stream an answer, over lost connections if need be")
    ask.add_argument("prompt", help="what to ask; - reads it from standard input")
    ask.add_argument("--model", default="demo")
    ask.add_argument("--url", type=_url, default=URL, help=f"default {URL}")
    ask.add_argument("--key", default="demo", help="default demo, the key of a local run")
    ask.add_argument("--max-tokens", type=_positive, metavar="N")
    ask.add_argument(
        "--patience", type=_positive, default=60, metavar="S", help="give up after so many s (60)"
    )
    ask.add_argument("--quiet", action="store_true", help="no notes on standard error")
    ask.set_defaults(command=_ask)

    key = commands.add_parser("key", help="give out keys").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add = key.add_parser("add", help="make a key for a tenant and print it, this once")
    add.add_argument("tenant")
    add.add_argument("--key", help="this one instead of a random one")
    where = add.add_mutually_exclusive_group()
    where.add_argument("--db", type=_file, default=DB, help="the database's file of a local run")
    where.add_argument("--stack", help="a deployed stack instead")
    add.add_argument("--profile", help="AWS profile, with --stack")
    add.add_argument("--region", help="AWS region, with --stack")
    add.set_defaults(command=_key_add)
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


def _ask(options: argparse.Namespace) -> int:
    import httpx

    from local import ask

    try:
        prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
        prompt.encode()
    except UnicodeError as error:
        raise Failed("the prompt is not text in UTF-8") from error
    if not prompt:
        raise Failed("the prompt is empty")
    if sys.stdout is None:
        raise Failed("there is nowhere to write the answer to")
    body = {"model": options.model, "messages": [{"role": "user", "content": prompt}]}
    if options.max_tokens:
        body["max_tokens"] = options.max_tokens
    if not (options.key.isascii() and options.key.isprintable()):
        raise Failed("a key has printable ASCII characters only")
    note = _silent if options.quiet else _note
    with httpx.Client(
        base_url=options.url,
        headers={"Authorization": f"Bearer {options.key}"},
        timeout=ask.TIMEOUT,
    ) as client:
        answer = ask.Answer(client, body, note=note, patience_s=options.patience)
        try:
            return ask.ask(answer, sys.stdout.buffer, note)
        finally:
            if sys.stdout.isatty():
                # Not part of the answer, but the next prompt should stand on a line of its own.
                print(file=sys.stderr)


def _note(text: str) -> None:
    dim, plain = ("\x1b[2m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{dim}{text}{plain}", file=sys.stderr, flush=True)


def _silent(_: str) -> None:
    pass


def _key_add(options: argparse.Namespace) -> int:
    from local import keys
    from shared.settings import Settings

    key = options.key or keys.new_key()
    keys.check(options.tenant, key)
    if options.stack:
        keys.add_to_stack(
            options.tenant, key, options.stack, profile=options.profile, region=options.region
        )
    elif options.profile or options.region:
        raise Failed("--profile and --region go with --stack")
    else:
        keys.add_locally(options.tenant, key, Settings.from_env(), options.db)
    print(f"A key of the tenant {options.tenant}; it is not shown again:", file=sys.stderr)
    print(key)
    return 0


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")


def _file(text: str) -> Path:
    if text and not Path(text).is_dir():
        return Path(text)
    raise argparse.ArgumentTypeError("the name of a file is needed")


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**9:
        return int(text)
    raise argparse.ArgumentTypeError("a whole number above 0 is needed")


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme in ("http", "https") and parts.hostname:
        return text
    raise argparse.ArgumentTypeError("an address like https://example.com is needed")


if __name__ == "__main__":
    sys.exit(main())
