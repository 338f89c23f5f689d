"""The scanner: finds values in a text that comes in parts, and replaces them.

What is replaced is defined on the whole, normalised text, so it does not depend on how the text
was split:

1. From every position each shape takes the longest text that fits it, of at most `MATCH_MAX`
   characters. Its check says which part of that is its value, or that there is none. A shape with
   a tail is complete at its shortest, and its value goes on through all that fits the tail.
2. What lies in a value is not let through.
3. Values that overlap are replaced as one, by what stands for the one that begins first; of those
   that begin together, the longest (one with a tail is longest), then the first in the order of
   detectors, patterns, words. In the tail of a value no other begins.
4. Where a value begins whose rule says `close`, the text ends, with a `PolicyViolation`.

A position is settled once the machine that began there can take no more. What lies before the
first position that is not settled can be changed by no later text, and is let through; what lies
behind it is held: at most `HELD_MAX` characters, usually the word under way.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from shared.redaction.machine import END, State
from shared.redaction.plain import plain
from shared.redaction.rules import MATCH_MAX, Mode, PolicyViolation, Rules
from shared.redaction.shapes import Shape, compiled

#: The hexadecimal digits of a hash's tag: enough to tell a tenant's values apart.
TAG_DIGITS = 8

_WORD = re.compile(r"[0-9A-Za-z]+")


class _Value(NamedTuple):
    """A value in the text: from `begin` to before `end`; or on through the tail from there."""

    begin: int
    end: int
    number: int


class Scanner:
    """Scans one text. `counts` says how often each rule has replaced something."""

    def __init__(self, rules: Rules, secret: bytes) -> None:
        self.counts: Counter[str] = Counter()
        self._machine, self._shapes = compiled(rules)
        self._secret = secret
        self._out: list[str] = []
        # All places are counted from the start of `_text`, which is the first one not settled.
        self._text = ""
        self._before = END
        #: The state of the machine that began there, and how far it has read.
        self._state: State | None = None
        self._read = 0
        #: Where shapes have ended that began there.
        self._ends: dict[int, int] = {}
        #: Values that are known and begin there or later.
        self._values: list[_Value] = []
        #: Up to where the text was given out or lies in a value.
        self._done = 0
        self._tail: _Tail | None = None

    @property
    def held(self) -> int:
        """How many characters wait for what may follow them."""
        return len(self._text)

    def scan(self, text: str, *, last: bool) -> str:
        """Take a part in; what may be let through now. Raises `PolicyViolation`."""
        self._text += text
        try:
            self._settle(last=last)
        except PolicyViolation as violation:
            raise PolicyViolation(violation.rule, self._given()) from None
        return self._given()

    def _settle(self, *, last: bool) -> None:
        """Go on to the first place that later text can change, and give out what lies before."""
        text, starts, at = self._text, self._machine.starts, 0
        while at < len(text):
            if self._tail:
                at = self._swallow(self._tail, at, last=last)
                if self._tail:
                    break
                continue
            if self._state is None:
                state = starts[text[at - 1] if at else self._before][text[at]]
                if state.nodes:
                    self._state, self._read = state, at + 1
            if self._state is not None:
                if not self._read_on(self._state, at, last=last):
                    break
                self._state = None
                self._check(at)
            at = self._replace(at) if self._values else self._next(at)
        if last and self._tail:
            self._swallow(self._tail, at, last=True)
        self._give(at)
        self._forget(at)

    def _next(self, at: int) -> int:
        """The next place after one where a match may begin."""
        step = None if self._machine.begins_in_word else _WORD.match(self._text, at)
        return step.end() if step else at + 1

    def _read_on(self, state: State, at: int, *, last: bool) -> bool:
        """Let the machine that began at a place read on; False where it could take more."""
        text, start = self._text, self._read
        stop = min(len(text), at + MATCH_MAX + 1)
        for read in range(start, stop):
            state = state[text[read]]
            if state.notable:
                self._note(state, read - at)
                if not state.nodes:
                    return True
        self._state, self._read = state, stop
        if stop < len(text) or stop > at + MATCH_MAX:
            return True
        if last:
            self._note(state[END], stop - at)
        return last

    def _note(self, state: State, length: int) -> None:
        for number in state.ended:
            if self._shapes[number].tail:
                self._ends.setdefault(number, length)
            else:
                self._ends[number] = length

    def _check(self, at: int) -> None:
        """The values among what has the right shape."""
        for number, length in self._ends.items():
            span = self._shapes[number].check(plain(self._text[at : at + length]))
            if span:
                self._values.append(_Value(at + span[0], at + span[1], number))
        self._ends.clear()

    def _replace(self, at: int) -> int:
        """Replace the values that begin at a place; returns where to go on."""
        here = sorted((value for value in self._values if value.begin == at), key=self._rank)
        if not here:
            return at + 1
        self._values = [value for value in self._values if value.begin > at]
        leads = at >= self._done
        self._give(at)
        for shape in (self._shapes[value.number] for value in here):
            if shape.mode is Mode.CLOSE:
                self.counts[shape.name] += 1
                raise PolicyViolation(shape.name)
        first = here[0]
        shape = self._shapes[first.number]
        stand_in = _StandIn(shape, self._secret, self._text[at : first.end])
        self._done = max(self._done, *(value.end for value in here))
        if shape.tail:
            self._tail = _Tail(shape.tail.starts[END], first.end, stand_in, leads)
            return first.end
        if leads:
            self._put(stand_in)
        return at + 1

    def _rank(self, value: _Value) -> tuple[bool, int, int]:
        tail = self._shapes[value.number].tail
        return tail is None, 0 if tail else -value.end, value.number

    def _swallow(self, tail: "_Tail", at: int, *, last: bool) -> int:
        """Take what fits the tail; returns up to where it surely does."""
        text, state, end = self._text, tail.state, at
        for read in range(tail.read, len(text)):
            state = state[text[read]]
            if state.ended:
                end = read
            if not state.nodes:
                break
        else:
            if last and state[END].ended:
                end = len(text)
        tail.stand_in.add(text[at:end])
        tail.state, tail.read = state, len(text)
        self._done = max(self._done, end)
        if last or not state.nodes:
            self._tail = None
            self._values = [value for value in self._values if self._begins_after(value, end)]
            if tail.leads:
                self._put(tail.stand_in)
        return end

    def _begins_after(self, value: _Value, end: int) -> bool:
        """Whether a value begins after a tail; one that begins in it is replaced with it."""
        if value.begin < end:
            self._done = max(self._done, value.end)
        return value.begin >= end

    def _put(self, stand_in: "_StandIn") -> None:
        self.counts[stand_in.name] += 1
        self._out.append(stand_in.text())

    def _give(self, at: int) -> None:
        """Let through what lies before a place, but for values."""
        if at > self._done:
            self._out.append(self._text[self._done : at])
            self._done = at

    def _given(self) -> str:
        out = "".join(self._out)
        self._out.clear()
        return out

    def _forget(self, at: int) -> None:
        """Drop the text before a place, and count from there."""
        if not at:
            return
        self._before = self._text[at - 1]
        self._text = self._text[at:]
        self._read -= at
        self._done -= at
        if self._values:
            self._values = [
                _Value(value.begin - at, value.end - at, value.number) for value in self._values
            ]
        if self._tail:
            self._tail.read -= at


class _StandIn:
    """What stands for one value, which may come in parts."""

    def __init__(self, shape: Shape, secret: bytes, value: str) -> None:
        self.name = shape.name
        self._mode = shape.mode
        if shape.mode is Mode.HASH:
            import hmac

            self._hmac = hmac.new(secret, f"{shape.name}\0".encode(), "sha256")
            self.add(shape.canonical(plain(value)))

    def add(self, part: str) -> None:
        if self._mode is Mode.HASH:
            self._hmac.update(plain(part).encode())

    def text(self) -> str:
        if self._mode is Mode.HASH:
            return f"[{self.name}:{self._hmac.hexdigest()[:TAG_DIGITS]}]"
        return "" if self._mode is Mode.DROP else f"[{self.name}]"


@dataclass(slots=True)
class _Tail:
    """A value that goes on: how far its tail was read, and whether it is replaced by its own."""

    state: State
    read: int
    stand_in: _StandIn
    leads: bool
