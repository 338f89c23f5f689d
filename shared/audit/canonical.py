"""Canonical JSON: one text for one value, so that its hash is everywhere the same (RFC 8785).

Of RFC 8785 only what entries need: objects, lists, strings, whole numbers below 2^53, booleans and
null. Fractions are refused, because their one text is the hardest part of that standard.
"""

import json
from collections.abc import Mapping
from typing import Any

#: The largest whole number that every reader of JSON keeps exactly (RFC 7493, section 2.2).
WHOLE_MAX = 2**53 - 1


def canonical(value: Any) -> bytes:
    """The canonical text, in UTF-8. Raises `ValueError` for what has none here."""
    return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":")).encode()


def _ordered(value: Any) -> Any:
    """The same value with the members of its objects in the order of RFC 8785, section 3.2.3."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) <= WHOLE_MAX:
        return value
    if isinstance(value, list):
        return [_ordered(element) for element in value]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _ordered(value[name]) for name in sorted(value, key=_utf16)}
    raise ValueError(f"{type(value).__name__} has no canonical JSON here")


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be")
