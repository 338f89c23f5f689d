"""What the options of a command may be."""

from argparse import ArgumentTypeError
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
#: The database of a local run.
DB = ROOT / ".sluice" / "dev.db"


def port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise ArgumentTypeError("a port is a number from 0 to 65535")


def file(text: str) -> Path:
    if text and not Path(text).is_dir():
        return Path(text)
    raise ArgumentTypeError("the name of a file is needed")


def positive(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**9:
        return int(text)
    raise ArgumentTypeError("a whole number above 0 is needed")


def offset(text: str) -> int:
    if text == "-1" or (text.isascii() and text.isdigit() and len(text) < 11):
        return int(text)
    raise ArgumentTypeError("an offset is a whole number, or -1 for all")


def url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme in ("http", "https") and parts.hostname:
        return text
    raise ArgumentTypeError("an address like https://example.com is needed")
