"""What is to come of a whole text, worked out slowly by `re`: the definition in `scanner.py`.

It shares the shapes' patterns and checks with the redactor, and nothing else.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from shared.redaction import Mode, PolicyViolation, Redactor, Rules
from shared.redaction.checks import Check, whole
from shared.redaction.detectors import DETECTORS
from shared.redaction.plain import plain
from shared.redaction.rules import MATCH_MAX


@dataclass(frozen=True)
class _Shape:
    name: str
    mode: Mode
    pattern: str
    check: Check = whole
    tail: str | None = None


@dataclass(frozen=True)
class _Value:
    begin: int
    end: int
    rank: tuple[bool, int, int]
    shape: _Shape


def redacted(text: str, rules: Rules) -> tuple[str, Counter[str], str | None]:
    """The text, how often each rule replaced something, and the rule that closed it.

    The text must be normal already. Tags of mode hash are left out: `[email:]`.
    """
    out, counts, done, at = "", Counter[str](), 0, 0
    values: list[_Value] = []
    seen = plain(text)
    while at < len(text):
        values += _values(seen, at, _shapes(rules))
        here = sorted((v for v in values if v.begin == at), key=lambda v: v.rank)
        if here:
            leads = at >= done
            out += text[done:at]
            done = max(done, at)
            for value in here:
                if value.shape.mode is Mode.CLOSE:
                    counts[value.shape.name] += 1
                    return out, counts, value.shape.name
            first = here[0]
            if leads:
                out += _stand_in(first.shape)
                counts[first.shape.name] += 1
            done = max(done, *(v.end for v in here))
            if first.shape.tail is not None:
                matched = re.compile(first.shape.tail).match(seen, first.end)
                assert matched
                done = max(done, *(v.end for v in values if v.begin < matched.end()))
                at = matched.end()
                done = max(done, at)
                values = [v for v in values if v.begin >= at]
                continue
        at += 1
    return out + text[done:], counts, None


def outcome(parts: Iterable[str], rules: Rules) -> tuple[str, Counter[str], str | None]:
    """What the redactor lets through of a text in these parts, told as `redacted` tells it."""
    redactor, out, closed = Redactor(rules, secret=b"secret"), "", None
    try:
        for part in parts:
            out += redactor.feed(part)
        out += redactor.finish()
    except PolicyViolation as violation:
        out, closed = out + violation.text, violation.rule
    return re.sub(r"\[(\w+):[0-9a-f]{8}\]", r"[\1:]", out), Counter(redactor.counts), closed


def _stand_in(shape: _Shape) -> str:
    return {Mode.MASK: f"[{shape.name}]", Mode.HASH: f"[{shape.name}:]"}.get(shape.mode, "")


def _shapes(rules: Rules) -> tuple[_Shape, ...]:
    return (
        *(
            _Shape(d.name, rules.detectors[d.name], d.shape, d.check, d.tail)
            for d in DETECTORS
            if d.name in rules.detectors
        ),
        *(_Shape(p.name, p.mode, p.pattern) for p in rules.patterns),
        # Words of ASCII letters in texts without combining marks: the rest has its own tests.
        *(_Shape(w.name, w.mode, _whole(w.word)) for w in rules.words),
    )


def _whole(word: str) -> str:
    return (
        r"(?i:(?<![0-9A-Za-z\u00c0-\u024f])"
        + word.replace(" ", r"\s{1,4}")
        + r"(?![0-9A-Za-z\u00c0-\u024f]))"
    )


def _values(text: str, at: int, shapes: tuple[_Shape, ...]) -> list[_Value]:
    found = []
    for number, shape in enumerate(shapes):
        if not re.compile(shape.pattern).match(text, at):
            continue
        lengths = range(1, min(MATCH_MAX, len(text) - at) + 1)
        if shape.tail is None:
            lengths = lengths[::-1]
        for length in lengths:
            if _fits(shape.pattern, text, at, at + length):
                span = shape.check(text[at : at + length])
                if span:
                    rank = (shape.tail is None, 0 if shape.tail else -(at + span[1]), number)
                    found.append(_Value(at + span[0], at + span[1], rank, shape))
                break
    return found


def _fits(pattern: str, text: str, begin: int, end: int) -> bool:
    return _exact(pattern, len(text) - end).match(text, begin) is not None


@cache
def _exact(pattern: str, rest: int) -> re.Pattern[str]:
    """The pattern, with so many characters between its end and that of the text."""
    flags = "(?i)" if pattern.startswith("(?i)") else ""
    return re.compile(rf"{flags}(?:{pattern.removeprefix('(?i)')})(?=[\s\S]{{{rest}}}\Z)")
