"""The redactor: one stream's text on its way from the model to the log.

    delta → normalised → scanned → shown to the validators → let through

Normalisation is for all; what is scanned for is in the tenant's rules.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from shared.redaction import normal
from shared.redaction.rules import MATCH_MAX, PolicyViolation, Rules

#: The most text that is held back, in characters: a match and what may not follow it.
HELD_MAX = MATCH_MAX + 1 + normal.HELD_MAX


class Validator(Protocol):
    """A hook that sees the redacted text as it is let through, and may stop the stream.

    The pieces it is given have no meaning of their own: they begin and end anywhere. To stop
    before its piece it raises `PolicyViolation(rule)`, which may carry the start of the piece.
    """

    def __call__(self, text: str, /) -> None: ...


class Redactor:
    """Redacts one stream. `secret` is the tenant's, for mode `hash`.

    Whatever is raised, nothing is let through after it.
    """

    def __init__(
        self, rules: Rules, *, secret: bytes, validators: Sequence[Validator] = ()
    ) -> None:
        self._normaliser = normal.Normaliser()
        self._scanner = None
        if rules.detectors or rules.words or rules.patterns:
            # A cold start for tenants without rules does without it.
            from shared.redaction.scanner import Scanner

            self._scanner = Scanner(rules, secret)
        self._validators = validators
        self._ended = False

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each rule has replaced something so far, or closed the stream; no content.

        A value still under way is not counted: nothing stands for it yet in what was let through.
        """
        return dict(self._scanner.counts) if self._scanner else {}

    @property
    def held(self) -> int:
        """How many characters wait for what may follow them: at most `HELD_MAX`."""
        return self._normaliser.held + (self._scanner.held if self._scanner else 0)

    def go_on(self, said: str) -> None:
        """Go on behind what another has let through. Raises `PolicyViolation`.

        Its rules are done with that, and held back what they were not; validators may keep state.
        """
        for validator in self._validators:
            validator(said)

    def feed(self, delta: str) -> str:
        """What may be let through now. Raises `PolicyViolation`."""
        if self._ended:
            raise ValueError("this text has ended")
        return self._let_through(self._normaliser.feed(delta), last=False)

    def finish(self) -> str:
        """The rest, at the end of the text; nothing after it. Raises `PolicyViolation`."""
        return "" if self._ended else self._let_through(self._normaliser.finish(), last=True)

    def _let_through(self, text: str, *, last: bool) -> str:
        self._ended = True  # unless all goes well: who raises has let through the last
        violation = None
        if self._scanner:
            try:
                text = self._scanner.scan(text, last=last)
            except PolicyViolation as raised:
                text, violation = raised.text, raised
        for validator in self._validators if text else ():
            validator(text)
        if violation:
            raise violation
        self._ended = last
        return text


def redact(text: str, rules: Rules, *, secret: bytes) -> tuple[str, Mapping[str, int]]:
    """A whole text at once, and how often each rule replaced something.

    Raises `PolicyViolation`, with the text before the match.
    """
    redactor = Redactor(rules, secret=secret)
    out = redactor.feed(text)
    return out + redactor.finish(), redactor.counts
