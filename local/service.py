"""The Sluice that a command asks over HTTP."""

import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from sluice_client import Sluice, SluiceError, Unreachable

from local import options as kinds
from local.answers import URL
from local.errors import Failed


@contextmanager
def connected(options: Namespace) -> Iterator[Sluice]:
    """A client by a command's options, else by the environment. What goes wrong is a `Failed`."""
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
        ) as client:
            yield client
    except Unreachable as error:
        raise Failed(f"nothing answers at {url}") from error
    except (SluiceError, ValueError) as error:
        raise Failed(str(error)) from error


def _address(given: str | None, variable: str) -> str | None:
    told = os.environ.get(variable)
    if given or not told:
        return given
    try:
        return kinds.url(told)
    except ArgumentTypeError as error:
        raise Failed(f"{variable}: {error}") from error
