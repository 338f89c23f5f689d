"""Moments, as people type and read them: `24h`, `2027-01-31`, `2027-01-31T10:30`, in local time."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")
_FORMS = "a span like 90m, 24h, 30d or 4w, or a moment like 2027-01-31 or 2027-01-31T10:30"

#: Gives the wall clock's moment.
Now = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


def past(text: str, *, now: Now = _now) -> int:
    """The moment so long ago, or that very moment, in ms since 1970."""
    return _ms(text, -1, now())


def future(text: str, *, now: Now = _now) -> int | None:
    """The moment so long from now, or that very moment, in ms since 1970; None for `never`."""
    if text == "never":
        return None
    moment = now()
    found = _ms(text, 1, moment)
    if found <= moment.timestamp() * 1000:
        raise ArgumentTypeError(f"{text} is over already")
    return found


def shown(ms: int, *, seconds: bool = False) -> str:
    """A moment in local time, to the minute."""
    local = datetime.fromtimestamp(ms / 1000, UTC).astimezone()
    return local.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def exact(ms: int) -> str:
    """The very moment, as it may be typed."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().isoformat(timespec="milliseconds")


def span(seconds: int) -> str:
    """A time in the one unit that tells enough of it."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _ms(text: str, sign: int, now: datetime) -> int:
    try:
        if span := _SPAN.fullmatch(text):
            moment = now + sign * timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            moment = datetime.fromisoformat(text).astimezone()
        ms = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise ArgumentTypeError(f"{_FORMS} is needed") from None
    if ms < 0:
        raise ArgumentTypeError("a moment since 1970 is needed")
    return ms
