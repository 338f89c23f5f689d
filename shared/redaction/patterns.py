r"""Patterns: the part of Python's regular expressions that runs in one pass, without backtracking.

    characters   abc  .  \n \t \. \xhh \uhhhh
    classes      [a-z_]  [^,]  \d \w \s \D \W \S
    groups       (ab|cd)  (?:ab)  (?i:ab), and (?i) at the start
    repetition   ?  *  +  {3}  {2,5}  {,5}  {2,}
    edges        \b  (?<![a-z])  (?![a-z]): a word's edge, not after, not before one character

A pattern in this subset means what it means to `re`, but that it always takes the longest text it
can. Everything else is refused: back-references and wide lookaround need backtracking, `^` and `$`
speak of a whole text, which a stream does not have.
"""

import math
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

DEPTH_MAX = 16
REPEAT_MAX = 1000


class PatternError(ValueError):
    """Why a pattern is refused, as the rest of a sentence that begins with its name."""


@dataclass(frozen=True, slots=True)
class Chars:
    """Takes one character: one of `members`, in one of `ranges`, or of one of `kinds`."""

    members: frozenset[str] = frozenset()
    ranges: tuple[tuple[str, str], ...] = ()
    kinds: tuple[Callable[[str], bool], ...] = ()
    negated: bool = False
    fold: bool = False

    def has(self, char: str) -> bool:
        found = self._lists(char)
        if self.fold and not found:
            # Only cases of one character each: a "ß" is one character, its "SS" is not.
            cases = {char.lower(), char.upper(), char.casefold()} - {char}
            found = any(len(case) == 1 and self._lists(case) for case in cases)
        return found is not self.negated

    def _lists(self, char: str) -> bool:
        return (
            char in self.members
            or any(low <= char <= high for low, high in self.ranges)
            or any(kind(char) for kind in self.kinds)
        )


@dataclass(frozen=True, slots=True)
class Apart:
    """Takes nothing: the character before (or after) is not one of these. True at a text's end."""

    chars: Chars
    before: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """Takes nothing: a word begins or ends here."""


@dataclass(frozen=True, slots=True)
class Seq:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Alt:
    options: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`most` None: without end."""

    part: "Node"
    least: int
    most: int | None


Node = Chars | Apart | Edge | Seq | Alt | Repeat


def is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _is_not_word(char: str) -> bool:
    return not is_word(char)


def _is_not_digit(char: str) -> bool:
    return not char.isdecimal()


def _is_not_space(char: str) -> bool:
    return not char.isspace()


_KINDS: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal,
    "D": _is_not_digit,
    "w": is_word,
    "W": _is_not_word,
    "s": str.isspace,
    "S": _is_not_space,
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_HEX = {"x": 2, "u": 4, "U": 8}
_ANY = Chars(members=frozenset("\n"), negated=True)


def parse(pattern: str) -> Node:
    """Read a pattern. Raises `PatternError`."""
    return _Parser(pattern).whole()


def width(node: Node) -> tuple[int, float]:
    """The lengths of the shortest and the longest text that fits, in characters; or infinity."""
    match node:
        case Chars():
            return 1, 1
        case Apart() | Edge():
            return 0, 0
        case Seq(parts):
            widths = [width(part) for part in parts]
            return sum(low for low, _ in widths), sum(high for _, high in widths)
        case Alt(options):
            widths = [width(option) for option in options]
            return min(low for low, _ in widths), max(high for _, high in widths)
        case Repeat(part, least, most):
            low, high = width(part)
            return low * least, high * (math.inf if most is None else most) if high else 0


def begins_in_word(node: Node) -> bool:
    """Whether a text that fits could begin between two ASCII letters or digits; True in doubt."""
    match node:
        case Chars():
            return _any_in_word(node)
        case Apart(chars, before):
            return not before or _any_in_word(replace(chars, negated=not chars.negated))
        case Edge():
            return False
        case Alt(options):
            return any(begins_in_word(option) for option in options)
        case Repeat(part, least):
            return not least or begins_in_word(part)
        case Seq(parts):
            for part in parts:
                if not begins_in_word(part):
                    return False
                if not _passes_by(part):
                    return True
            return True


def _passes_by(node: Node) -> bool:
    """Whether a text may begin after this, though not in it."""
    optional = isinstance(node, Repeat) and not node.least and not begins_in_word(node.part)
    return optional or not width(node)[1]


@lru_cache(maxsize=256)
def _any_in_word(chars: Chars) -> bool:
    return any(chars.has(char) for char in string.ascii_letters + string.digits)


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._fold = False

    def whole(self) -> Node:
        self._fold = self._take("(?i)")
        node = self._alternatives()
        if self._at < len(self._pattern):
            raise PatternError("has a `)` too many")
        return node

    def _alternatives(self) -> Node:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Alt(tuple(options))

    def _sequence(self) -> Node:
        parts = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated())
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def _repeated(self) -> Node:
        part = self._atom()
        bounds = self._bounds()
        if bounds is None:
            return part
        if self._peek() in ("?", "*", "+", "{"):
            raise PatternError("repeats a repetition: lazy and possessive forms are not known here")
        if not width(part)[1]:
            raise PatternError("repeats what takes no character")
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("?", (0, 1)), ("*", (0, None)), ("+", (1, None))):
            if self._take(sign):
                return bounds
        if not self._take("{"):
            return None
        inside, closed, _ = self._pattern[self._at :].partition("}")
        least, comma, most = inside.partition(",")
        if not closed or not _is_count(least or "0") or not _is_count(most or "0") or not inside:
            raise PatternError("has a `{` that begins no repetition: write `\\{` for the character")
        self._at += len(inside) + 1
        low = int(least or "0")
        high = (int(most) if most else None) if comma else low
        if max(low, high or 0) > REPEAT_MAX or (high is not None and high < low):
            raise PatternError(f"repeats out of bounds: allowed are 0 to {REPEAT_MAX}, in order")
        return low, high

    def _atom(self) -> Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            if self._take("b"):
                return Edge()
            return self._one(self._escape())
        if char == ".":
            return _ANY
        if char in ("^", "$"):
            raise PatternError(f"has a `{char}`: a stream has no start or end to speak of")
        if char in ("?", "*", "+", "{"):
            raise PatternError(f"has a `{char}` that repeats nothing")
        return self._one(char)

    def _group(self) -> Node:
        before = self._take("?<!")
        if before or self._take("?!"):
            return self._apart(before=before)
        outer = self._fold
        if self._take("?i:"):
            self._fold = True
        elif not self._take("?:") and self._peek() == "?":
            raise PatternError("has a kind of group that is not known here: use `(?:…)`")
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise PatternError(f"nests its groups deeper than {DEPTH_MAX}")
        node = self._alternatives()
        self._close()
        self._depth -= 1
        self._fold = outer
        return node

    def _apart(self, *, before: bool) -> Node:
        node = self._alternatives()
        self._close()
        if not isinstance(node, Chars):
            raise PatternError("looks around at more than one character")
        return Apart(node, before)

    def _close(self) -> None:
        if not self._take(")"):
            raise PatternError("has a `(` without its `)`")

    def _class(self) -> Chars:
        negated = self._take("^")
        members: set[str] = set()
        ranges: list[tuple[str, str]] = []
        kinds: list[Callable[[str], bool]] = []
        first = True
        while first or not self._take("]"):
            first = False
            low = self._class_char()
            if not isinstance(low, str):
                kinds.append(low)
            elif self._peek() != "-" or self._pattern[self._at + 1 : self._at + 2] in ("]", ""):
                members.add(low)
            else:
                ranges.append((low, self._range_end(low)))
        return Chars(frozenset(members), tuple(ranges), tuple(kinds), negated, self._fold)

    def _range_end(self, low: str) -> str:
        self._next()
        high = self._class_char()
        if not isinstance(high, str) or high < low:
            raise PatternError("has a range in a class that is out of order")
        return high

    def _class_char(self) -> str | Callable[[str], bool]:
        if self._peek() == "":
            raise PatternError("has a `[` without its `]`")
        char = self._next()
        return self._escape() if char == "\\" else char

    def _escape(self) -> str | Callable[[str], bool]:
        char = self._next()
        if char in _KINDS:
            return _KINDS[char]
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char in _HEX:
            return self._code(_HEX[char])
        if char.isascii() and char.isalnum():
            kind = "back-references are" if char.isdigit() else "this escape is"
            raise PatternError(f"has `\\{char}`: {kind} not known here")
        return char

    def _code(self, length: int) -> str:
        digits = self._pattern[self._at : self._at + length]
        if len(digits) < length or not set(digits) <= set(string.hexdigits):
            raise PatternError(f"has an escape without its {length} hexadecimal digits")
        self._at += length
        code = int(digits, 16)
        if code > 0x10FFFF:
            raise PatternError("has an escape beyond Unicode")
        return chr(code)

    def _one(self, what: str | Callable[[str], bool]) -> Chars:
        if isinstance(what, str):
            return Chars(members=frozenset(what), fold=self._fold)
        return Chars(kinds=(what,))

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise PatternError("ends in the middle")
        self._at += 1
        return char

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found


def _is_count(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= 6
