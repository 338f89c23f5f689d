"""Rules: what a tenant has redacted, and how; read from the JSON of its settings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from shared import fields
from shared.errors import InvalidRequest

#: The longest match, in characters; so much text may be held, and one character more.
MATCH_MAX = 511
WORDS_MAX = 500
WORD_CHARS_MAX = 64
#: Of all words in each of their spellings: what one machine has room for, beside all else.
SPELLINGS_CHARS_MAX = 64_000
PATTERNS_MAX = 32
PATTERN_CHARS_MAX = 512
#: The longest text that a tenant's pattern may fit, in characters.
PATTERN_WIDTH_MAX = 256
#: What all patterns of a tenant may cost: nodes visited for one character, on the worst text.
PATTERNS_WORK_MAX = 10_000

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Mode(StrEnum):
    """What becomes of a match; `[email]`, `[email:3f9a1c2e]`, nothing, or the stream's end."""

    MASK = "mask"
    HASH = "hash"
    DROP = "drop"
    CLOSE = "close"


_MODES = tuple(Mode)


class PolicyViolation(Exception):
    """The text must end here. `rule` names why; `text` may still be let through."""

    def __init__(self, rule: str, text: str = "") -> None:
        super().__init__(rule)
        self.rule = rule
        self.text = text


@dataclass(frozen=True, slots=True)
class Word:
    """A word or phrase in any case, where it stands as a whole."""

    word: str
    mode: Mode = Mode.MASK
    name: str = "word"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern in the syntax of `patterns.py`, of at most `PATTERN_WIDTH_MAX` characters."""

    pattern: str
    mode: Mode = Mode.MASK
    name: str = "pattern"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a tenant has redacted. `prompts`: also from what goes to the model."""

    detectors: Mapping[str, Mode] = field(default_factory=dict)
    words: tuple[Word, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    prompts: bool = False

    def __hash__(self) -> int:
        return hash((tuple(self.detectors.items()), self.words, self.patterns, self.prompts))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], path: str = "redaction") -> Self:
        """Read and check rules; `path` is where the document stands. Raises `InvalidRequest`.

        {"detectors": {"email": "mask", …}, "words": [{"word", "mode", "name"}, …],
        "patterns": [{"pattern", "mode", "name"}, …], "prompts": false}
        """
        fields.known(document, ("detectors", "words", "patterns", "prompts"), path)
        detectors = fields.mapping(document.get("detectors", {}), f"{path}.detectors")
        names = detected() if detectors else ()
        fields.known(detectors, names, f"{path}.detectors")
        words = fields.items(document.get("words", []), f"{path}.words", least=0, most=WORDS_MAX)
        patterns = fields.items(
            document.get("patterns", []), f"{path}.patterns", least=0, most=PATTERNS_MAX
        )
        rules = cls(
            detectors={
                name: _mode(detectors[name], f"{path}.detectors.{name}")
                for name in names
                if name in detectors
            },
            words=tuple(_word(word, f"{path}.words[{i}]") for i, word in enumerate(words)),
            patterns=tuple(
                _pattern(pattern, f"{path}.patterns[{i}]") for i, pattern in enumerate(patterns)
            ),
            prompts=_flag(document.get("prompts", False), f"{path}.prompts"),
        )
        _check_spellings(rules.words, f"{path}.words")
        _check_work(rules.patterns, f"{path}.patterns")
        return rules

    def to_document(self) -> dict[str, Any]:
        return {
            "detectors": {name: str(mode) for name, mode in self.detectors.items()},
            "words": [
                {"word": word.word, "mode": str(word.mode), "name": word.name}
                for word in self.words
            ],
            "patterns": [
                {"pattern": pattern.pattern, "mode": str(pattern.mode), "name": pattern.name}
                for pattern in self.patterns
            ],
            "prompts": self.prompts,
        }


def detected() -> tuple[str, ...]:
    """What can be detected; imported only where it is asked for."""
    from shared.redaction.detectors import NAMES

    return NAMES


def _word(value: Any, path: str) -> Word:
    given = fields.mapping(value, path)
    fields.known(given, ("word", "mode", "name"), path)
    word = fields.text(given.get("word"), f"{path}.word", most=WORD_CHARS_MAX)
    if not any(char.isalnum() for char in word):
        raise InvalidRequest(f"`{path}.word` must have a letter or a digit.", field=f"{path}.word")
    mode = _mode(given.get("mode", Mode.MASK), f"{path}.mode")
    return Word(" ".join(word.split()), mode, _name(given.get("name", "word"), f"{path}.name"))


def _pattern(value: Any, path: str) -> Pattern:
    from shared.redaction.patterns import PatternError, parse, width

    given = fields.mapping(value, path)
    fields.known(given, ("pattern", "mode", "name"), path)
    pattern = fields.text(given.get("pattern"), f"{path}.pattern", most=PATTERN_CHARS_MAX)
    try:
        least, most = width(parse(pattern))
    except PatternError as error:
        raise InvalidRequest(f"`{path}.pattern` {error}.", field=f"{path}.pattern") from None
    if least < 1 or most > PATTERN_WIDTH_MAX:
        raise InvalidRequest(
            f"`{path}.pattern` must fit 1 to {PATTERN_WIDTH_MAX} characters: "
            "write `{1,20}` in the place of `+`, and `{0,20}` in that of `*`.",
            field=f"{path}.pattern",
            minimum=1,
            maximum=PATTERN_WIDTH_MAX,
        )
    mode = _mode(given.get("mode", Mode.MASK), f"{path}.mode")
    return Pattern(pattern, mode, _name(given.get("name", "pattern"), f"{path}.name"))


def spellings(word: str) -> list[str]:
    """A word in either case and either form of its accents."""
    import unicodedata  # most tenants have no words

    cases = (word, word.upper())
    return sorted({unicodedata.normalize(form, case) for form in ("NFC", "NFD") for case in cases})


def _check_spellings(words: tuple[Word, ...], path: str) -> None:
    if sum(len(spelt) for word in words for spelt in spellings(word.word)) > SPELLINGS_CHARS_MAX:
        raise InvalidRequest(
            f"`{path}` have too many letters in all: one with an accent counts for several.",
            field=path,
        )


def _check_work(patterns: tuple[Pattern, ...], path: str) -> None:
    """Refuse the pattern at which all become too much work together."""
    from shared.redaction.machine import Machine, TooLarge
    from shared.redaction.patterns import parse

    total = 0
    for number, pattern in enumerate(patterns):
        try:
            total += Machine([parse(pattern.pattern)]).work()
        except TooLarge:
            total = PATTERNS_WORK_MAX + 1
        if total > PATTERNS_WORK_MAX:
            field = f"{path}[{number}].pattern"
            raise InvalidRequest(
                f"`{field}` makes the patterns too much work: up to it they take more than "
                f"{PATTERNS_WORK_MAX} steps for one character. Use fewer repetitions in a row.",
                field=field,
                maximum=PATTERNS_WORK_MAX,
            )


def _mode(value: Any, path: str) -> Mode:
    return Mode(fields.one_of(value, path, _MODES))


def _name(value: Any, path: str) -> str:
    name = fields.text(value, path, most=32)
    if not _NAME.fullmatch(name) or name in detected():
        raise InvalidRequest(
            f"`{path}` must be lower-case letters, digits and `_`, and not a detector's name.",
            field=path,
        )
    return name


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"`{path}` must be true or false.", field=path)
    return value
