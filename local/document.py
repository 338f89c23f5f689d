"""A tenant's document, changed by assignments: `limits.streams_at_once=10`, `models+=demo`."""

import difflib
import json
import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.errors import Failed

_ASSIGNMENT = re.compile(r"([^=+\-\s][^=\s]*?)([+-]?=)(.*)", re.DOTALL)
#: Objects whose names are not settings of ours: each of theirs may come and go.
_FREE = frozenset({"fallbacks", "redaction.detectors"})


@dataclass(frozen=True, slots=True)
class Assignment:
    """`sign` is `=`, or for lists `+=` or `-=`; `name` is dotted; `text` is the value as typed."""

    name: str
    sign: str
    text: str

    @classmethod
    def parse(cls, text: str) -> "Assignment":
        if match := _ASSIGNMENT.fullmatch(text):
            return cls(*match.groups())
        raise ArgumentTypeError(f"{text!r} is not like NAME=VALUE, NAME+=VALUE or NAME-=VALUE")


def assign(document: dict[str, Any], assignments: Iterable[Assignment]) -> None:
    """Make the changes in place. Raises `Failed` for a name that no document has.

    A value is JSON where it parses, else text. What is a list may be given by commas, and `none` is
    no value. Whether a value may be is for the document's own check to say.
    """
    for given in assignments:
        parent, node, name = _place(document, given.name)
        if parent == "fallbacks" or isinstance(node.get(name), list):
            node[name] = _list(given, node.get(name) or [])
        elif given.sign != "=":
            raise Failed(f"{given.name} is no list: say {given.name}={given.text}")
        else:
            node[name] = _value(given.text, None if parent in _FREE else node.get(name))
        if parent in _FREE and not node[name]:
            del node[name]
        if given.name in _FREE and node[name] is None:
            node[name] = {}


def flat(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its dotted name."""
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two documents, by its dotted name: before and after."""
    before, after = (dict(flat(document)) for document in (old, new))
    pairs = {name: (before.get(name), after.get(name)) for name in after | before}
    # An object without members is as good as none.
    return {
        name: pair
        for name, pair in pairs.items()
        if pair[0] != pair[1] and any(map(_is_some, pair))
    }


def _is_some(value: Any) -> bool:
    return value is not None and value != {}


def shown(value: Any) -> str:
    """A value of a document, for people."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(element, str) for element in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def _place(document: dict[str, Any], name: str) -> tuple[str, dict[str, Any], str]:
    """The object that holds a dotted name, its own dotted name, and what is left of the name."""
    node, rest = document, name
    while (head := rest.partition(".")[0]) != rest and isinstance(node.get(head), dict):
        node, rest = node[head], rest[len(head) + 1 :]
    parent = name[: -len(rest) - 1]
    known = _names(document)
    if name not in known and (parent != "fallbacks" or not rest):
        raise Failed(f"there is no setting {name}{_nearest(name, known)}")
    return parent, node, rest


def _names(document: Mapping[str, Any]) -> list[str]:
    """All dotted names that can be set, those of objects included."""
    from shared.redaction.detectors import NAMES

    names = [f"redaction.detectors.{name}" for name in NAMES]
    for name, _ in flat(document):
        parts = name.split(".") if not name.startswith("fallbacks.") else ["fallbacks"]
        names += (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return list(dict.fromkeys(names))


def _nearest(name: str, known: Iterable[str]) -> str:
    # Who leaves the beginning out means the setting of that name all the same.
    last = name.rpartition(".")[2]
    by_last = {full.rpartition(".")[2]: full for full in reversed(list(known))}
    near = difflib.get_close_matches(name, list(known), 1)
    near += [by_last[match] for match in difflib.get_close_matches(last, list(by_last), 1)]
    return f"; did you mean {near[0]}?" if near else ""


def _value(text: str, now: Any) -> Any:
    # `none` is also one of the words that `addresses` may be.
    if text == "none" and not isinstance(now, str):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _list(given: Assignment, now: list[Any]) -> list[Any]:
    elements = _elements(given)
    if given.sign == "=":
        return elements
    if given.sign == "+=":
        return now + [element for element in elements if element not in now]
    for element in elements:
        if not any(_is(held, element) for held in now):
            raise Failed(f"{given.name} has no {shown(element)}; it is: {shown(now)}")
    left = [held for held in now if not any(_is(held, element) for element in elements)]
    if not left and given.name.endswith("limits.models"):
        # To take away the last model that is allowed would allow all.
        raise Failed(
            f"no {given.name} would mean all models; if you want that, say {given.name}=none"
        )
    return left


def _elements(given: Assignment) -> list[Any]:
    from shared.origins import parse_origin

    value = _value(given.text, None)
    if value is None:
        return []
    if isinstance(value, list | dict):
        return value if isinstance(value, list) else [value]
    texts = [text for part in given.text.split(",") if (text := part.strip())]
    return [parse_origin(text) for text in texts] if given.name == "origins" else texts


def _is(held: Any, named: Any) -> bool:
    """Whether an element is what was named: an object also by its first member."""
    if isinstance(held, dict) and isinstance(named, str):
        return bool(next(iter(held.values())) == named)
    return bool(held == named)
