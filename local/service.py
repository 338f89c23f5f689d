"""The Sluice that a command asks over HTTP."""

import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sluice_client import Reconnecting, Sluice, SluiceError, Unreachable

from local import options as kinds
from local.answers import URL
from local.errors import Failed
from local.terminal import note as note_


@contextmanager
def connected(options: Namespace, note: Callable[[str], None] = note_) -> Iterator[Sluice]:
    """A client by a command's options, else by the environment. What goes wrong is a `Failed`; what
    has to be tried again is noted.
    """
    url = _address(options.url, "SLUICE_URL") or URL
    key = options.key or os.environ.get("SLUICE_KEY") or "demo"
    if not (key.isascii() and key.isprintable()):
        raise Failed("a key has printable ASCII characters only")
    try:
        with Sluice(
            url,
            key=key,
            api_url=_address(options.api_url, "SLUICE_API_URL"),
            retry_s=options.patience,
            notify=lambda event: tells_retry(event, note),
        ) as client:
            yield client
    except Unreachable as error:
        raise Failed(f"nothing answers at {url} ({error.__cause__})") from error
    except (SluiceError, ValueError) as error:
        raise Failed(str(error)) from error


def tells_retry(event: Reconnecting, note: Callable[[str], None]) -> None:
    """Note the first of several tries."""
    if event.attempt == 1:
        note(f"{event.why[:1].upper()}{event.why[1:]}; trying again.")


def _address(given: str | None, variable: str) -> str | None:
    told = os.environ.get(variable)
    if given or not told:
        return given
    try:
        return kinds.url(told)
    except ArgumentTypeError as error:
        raise Failed(f"{variable}: {error}") from error
