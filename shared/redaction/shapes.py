"""Shapes: rules as one machine, made once for all streams of a tenant."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from shared.redaction import checks
from shared.redaction.detectors import DETECTORS, Detector
from shared.redaction.machine import Machine
from shared.redaction.patterns import Alt, Apart, Chars, Node, Repeat, Seq, parse
from shared.redaction.rules import Mode, Rules, spellings

#: The tenants whose machines a process keeps: with as many rules as may be each takes some 20 MB.
MACHINES_KEPT = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """One pattern of a machine, and what becomes of what fits it."""

    name: str
    mode: Mode
    check: checks.Check = checks.whole
    canonical: Callable[[str], str] = str.casefold
    #: Takes what follows the shape, as far as it fits.
    tail: Machine | None = None


@lru_cache(maxsize=MACHINES_KEPT)
def compiled(rules: Rules) -> tuple[Machine, tuple[Shape, ...]]:
    """The machine and its shapes by number, which is their priority."""
    chosen = [detector for detector in DETECTORS if detector.name in rules.detectors]
    nodes = [
        *(parse(detector.shape) for detector in chosen),
        *(parse(pattern.pattern) for pattern in rules.patterns),
        *(whole_word(word.word) for word in rules.words),
    ]
    shapes = (
        *(_shape(detector, rules.detectors[detector.name]) for detector in chosen),
        *(Shape(pattern.name, pattern.mode, canonical=str) for pattern in rules.patterns),
        *(Shape(word.name, word.mode) for word in rules.words),
    )
    return Machine(nodes), shapes


def whole_word(word: str) -> Node:
    """A word or phrase in any case and either form of its accents, with any space in its gaps.

    Where it begins or ends with a letter of a script that puts spaces between words, there it must
    not touch another such letter: "art" is not in "party", but "iPhone" is in "我的iPhone".
    """
    spelt: list[Node] = [Seq(tuple(map(_letter, spelling))) for spelling in spellings(word)]
    first: Node = Apart(_SPACED, before=True) if is_spaced(word[0]) else Seq(())
    last: Node = Apart(_SPACED, before=False) if is_spaced(word[-1]) else Seq(())
    return Seq((first, Alt(tuple(spelt)), last))


def is_spaced(char: str) -> bool:
    """Whether this is part of a word in a script that puts spaces between words."""
    part = char.isalnum() or unicodedata.category(char)[0] == "M"
    return part and not any(low <= char <= high for low, high in _UNSPACED)


#: Thai and Lao, Tibetan, Burmese, Khmer; then kana and Han, and Hangul with its particles.
_UNSPACED = (
    ("\u0e00", "\u0fff"),
    ("\u1000", "\u109f"),
    ("\u1100", "\u11ff"),
    ("\u1780", "\u17ff"),
    ("\u2e80", "\ua4cf"),
    ("\ua960", "\ua97f"),
    ("\uac00", "\ud7ff"),
    ("\uf900", "\ufaff"),
    ("\uff66", "\uffdc"),
    ("\U00020000", "\U0003ffff"),
)
_SPACED = Chars(kinds=(is_spaced,))
_GAP = Repeat(Chars(kinds=(str.isspace,)), 1, 4)


def _letter(char: str) -> Node:
    return _GAP if char == " " else Chars(members=frozenset((char, char.casefold())), fold=True)


def _shape(detector: Detector, mode: Mode) -> Shape:
    tail = _tail(detector.tail) if detector.tail else None
    return Shape(detector.name, mode, detector.check, detector.canonical, tail)


@lru_cache(maxsize=len(DETECTORS))
def _tail(pattern: str) -> Machine:
    return Machine([parse(pattern)])
