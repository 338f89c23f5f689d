"""Scenarios: what a test wants to go wrong, as the first part of a path.

    scenario = rule *("," rule)        rule = word *(";" word)        word = name ["=" value]

A request takes the first rule that is `on` its route and has `times` left; with none left all is
well. So `cut=137,status=503;times=2` cuts the first response after 137 bytes, refuses the next two
requests, and then serves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Each names some routes for `on`; several are joined by `+`. Where a rule names none: `stream`.
ROUTES: Mapping[str, frozenset[str]] = {
    **{name: frozenset({name}) for name in ("start", "events", "chunks", "summary")},
    **{name: frozenset({name}) for name in ("cancel", "pause", "resume", "grant")},
    "stream": frozenset({"start", "events"}),
    "any": frozenset(
        {"start", "events", "chunks", "summary", "cancel", "pause", "resume", "grant"}
    ),
}

#: What the log is like. These stand in any rule, and hold for the whole scenario.
SETTINGS: Mapping[str, str] = {
    "as": "a label: scenarios that differ in it share nothing",
    "chunks": "how many there are",
    "pace": "ms from one record to the next, instead of all at once",
    "page": "records in a page at most, whatever is asked for",
    "big-event": "one chunk more, of so many characters",
    "closes": "completed, cancelled or failed",
    "expiring": "an `expiring` event is among the first",
    "expires": "after so many chunks its credential ends, and it waits for a grant",
}

SCOPE: Mapping[str, str] = {
    "on": "which routes",
    "times": "for how many requests: 1, or `all`",
    "skip": "how many requests pass before",
}

FAULTS: Mapping[str, str] = {
    # What becomes of the request and of the response's head.
    "refuse": "the connection is reset before anything is carried out",
    "lost-reply": "the request is carried out, and the connection reset instead of a reply",
    "status": "this status, with Sluice's problem where it has one, else a gateway's page",
    "retry-after": "this header",
    "portal": "a page of HTML that wants a log-in",
    "type": "another content type: `html`, `json`, `text`, or `none`",
    "gzip-garbage": "the body claims to be compressed, and is not",
    "head-only": "no byte of the body, and no end",
    "empty": "an end in good order, without any byte of the body",
    # How the bytes of a body travel.
    "cut": "the connection is reset after so many bytes of the body",
    "fin": "the connection is closed there, within the response",
    "end": "the response ends there, in good order",
    "truncated-utf8": "the connection is reset within the body's first character of several bytes",
    "stall": "so many seconds of silence",
    "at": "the byte that the silence comes after, instead of the head",
    "slow": "byte by byte, so many ms apart",
    "buffer": "a proxy holds all of the response back, the head too, until it ends",
    # What an event stream or a page holds.
    "duplicate": "so many records are sent again that were seen",
    "twice": "every record is sent twice",
    "reconnect": "after so many events the client is told to connect again",
    "no-end": "a heartbeat each so many ms, for ever, instead of the end",
    "comment-flood": "so many comment lines in front of each event",
    "unknown-event": "events that no client knows, with an id and without",
    "future-fields": "fields that no client knows",
    "bom": "a byte order mark",
    "crlf": "lines end with CR LF",
    "cr": "lines end with CR",
}

WORDS = {**SETTINGS, **SCOPE, **FAULTS}


@dataclass
class Rule:
    """Some faults, and the requests that they are for. `left` counts down."""

    text: str
    faults: Mapping[str, str]
    on: frozenset[str]
    skip: int = 0
    left: float = 1

    def takes(self, route: str) -> bool:
        """Whether this request is one of the rule's; counts it."""
        if route not in self.on or self.left <= 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.left -= 1
        return True

    def __contains__(self, fault: str) -> bool:
        return fault in self.faults

    def number(self, name: str, default: int = 0) -> int:
        """The value of a word; `default` where the rule lacks it, or gives no value."""
        return int(self.faults.get(name) or default)

    def seconds(self, name: str) -> float:
        return float(self.faults.get(name) or 0)


CLEAN = Rule("", {}, frozenset())


@dataclass
class Scenario:
    settings: dict[str, str] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)

    def rule(self, route: str) -> Rule:
        return next((rule for rule in self.rules if rule.takes(route)), CLEAN)

    def number(self, name: str, default: int = 0) -> int:
        return int(self.settings.get(name) or default)


def parse(text: str) -> Scenario:
    """Raises `ValueError`, which names the word: a typo must not make a test pass."""
    scenario = Scenario()
    for part in text.split(","):
        words = dict(_word(word) for word in part.split(";"))
        scenario.settings |= {n: v for n, v in words.items() if n in SETTINGS}
        faults = {n: v for n, v in words.items() if n in FAULTS}
        if faults:
            scenario.rules.append(_rule(part, words, faults))
    return scenario


def _word(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name not in WORDS:
        raise ValueError(f"hostile: {name!r} is none of {', '.join(WORDS)}")
    return name, value


def _rule(text: str, words: Mapping[str, str], faults: Mapping[str, str]) -> Rule:
    on = words.get("on", "stream").split("+")
    if unknown := [name for name in on if name not in ROUTES]:
        raise ValueError(f"hostile: {unknown[0]!r} is none of {', '.join(ROUTES)}")
    times = words.get("times", "1")
    return Rule(
        text,
        faults,
        frozenset().union(*(ROUTES[name] for name in on)),
        skip=int(words.get("skip", "0")),
        left=math.inf if times == "all" else int(times),
    )
