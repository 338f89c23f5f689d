"""Reading the fields of a request, so that every complaint names the field and the bound."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from shared.errors import InvalidRequest

#: How a value's type is called in an error.
_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a fraction",
    type(None): "null",
}


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. Raises `InvalidRequest`."""
    try:
        value = json.loads(raw, parse_float=_number)
        # What cannot be encoded (half of a surrogate pair) could never be stored or sent on.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The body holds half of a surrogate pair.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {_name(value)}.")
    return value


class _Stored(dict[str, Any]):
    """An object of a document that was checked when it was stored, maybe by a newer version."""


def stored_json(text: str) -> dict[str, Any]:
    """A document of ours from the table. While two versions run it may have names, at any depth,
    that this one does not know: they are passed over.
    """
    document: dict[str, Any] = json.loads(text, object_hook=_Stored)
    return document


def _number(text: str) -> int | float:
    """A number with a point or an exponent: `1.0` and `1e3` are whole, as JSON Schema has it."""
    number = float(text)
    # Beyond, it would be digits without end, which nothing here asks for.
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def known(value: Mapping[str, Any], names: tuple[str, ...], path: str = "") -> None:
    """Refuse fields that nobody would read: a misspelt one must not pass in silence."""
    for name in value:
        if name not in names and not isinstance(value, _Stored):
            field = f"{path}.{name[:100]}" if path else name[:100]
            raise InvalidRequest(
                f"`{field}` is not known here. Known: {', '.join(names)}.", field=field
            )


def mapping(value: Any, field: str) -> dict[str, Any]:
    return value if isinstance(value, dict) else _wrong(value, field, "an object")


def items(value: Any, field: str, *, least: int, most: int) -> list[Any]:
    """A list of `least` to `most` items."""
    if not isinstance(value, list):
        _wrong(value, field, "a list")
    if not least <= len(value) <= most:
        _bound(field, f"has {len(value)} items", least, most)
    return value


def text(value: Any, field: str, *, least: int = 1, most: int) -> str:
    """A string of `least` to `most` characters."""
    if not isinstance(value, str):
        _wrong(value, field, "a string")
    if not least <= len(value) <= most:
        _bound(field, f"has {len(value)} characters", least, most)
    return value


def one_of(value: Any, field: str, choices: tuple[str, ...]) -> str:
    if value not in choices or not isinstance(value, str):
        raise InvalidRequest(f"`{field}` must be one of: {', '.join(choices)}.", field=field)
    return value


def whole(value: Any, field: str, *, least: int, most: int) -> int:
    """A whole number in bounds, which `true` is not."""
    if not isinstance(value, int) or isinstance(value, bool):
        _wrong(value, field, f"a whole number from {least} to {most}")
    if not least <= value <= most:
        _bound(field, f"is {_short(value)}", least, most)
    return value


def query_whole(raw: str, field: str, *, least: int, most: int) -> int:
    """A whole number from a query or a header."""
    digits = raw.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise InvalidRequest(
            f"`{field}` must be a whole number from {least} to {most}.",
            field=field,
            minimum=least,
            maximum=most,
        )
    return whole(int(raw), field, least=least, most=most)


def _wrong(value: Any, field: str, wanted: str) -> NoReturn:
    raise InvalidRequest(f"`{field}` must be {wanted}, not {_name(value)}.", field=field)


def _bound(field: str, what: str, least: int, most: int) -> NoReturn:
    raise InvalidRequest(
        f"`{field}` {what}; allowed are {least} to {most}.",
        field=field,
        minimum=least,
        maximum=most,
    )


def _name(value: Any) -> str:
    return _NAMES[dict if isinstance(value, dict) else type(value)]


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**18 else "out of all bounds"
