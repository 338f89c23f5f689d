"""What the records of a stream tell of its producers so far, for whoever goes on or ends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

from shared.models import Continuation, Usage, tokens_of
from shared.records import Kind, Record

#: Why a stream became vacant: its producer died, its invocation came to its end, its process was
#: told to stop.
LOST, DEADLINE, SHUTDOWN = "lost", "deadline", "shutdown"
#: Why a stream is paused whose credential is still good: by hand, or for want of tokens.
REQUESTED, QUOTA = "requested", "quota"


@dataclass(frozen=True, slots=True)
class Past:
    """A stream from its `opened` record on.

    `usage` is what producers that are gone have used, as far as their records show. `begun_by` is
    the model that has answered so far, where it was not the one that was asked for. `credential` is
    the body of the record that last gave one. `holds` are what the stream has taken of its quotas,
    and `allowance` how many tokens it may have in all; None where they are not limited.
    """

    opened: Record
    said: str
    usage: Usage
    begun_by: str | None
    credential: Mapping[str, Any]
    holds: tuple[Mapping[str, Any], ...]
    allowance: int | None
    cancelled: bool
    #: How often its producer died, and how often it was handed over.
    takeovers: int
    handovers: int
    #: For how many vacancies in a row, up to now, nobody has come.
    unfilled: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> Self:
        """The past that all records of a stream so far tell."""
        opened = records[0]
        grants = [opened, *(record for record in records if record.kind == Kind.GRANT)]
        allowances = [each.body["allowance"] for each in grants if "allowance" in each.body]
        return cls(
            opened=opened,
            said="".join(record.text for record in records),
            usage=_usage(records),
            begun_by=_begun_by(records),
            credential=grants[-1].body,
            holds=tuple(each.body["held"] for each in grants if "held" in each.body),
            allowance=None if None in allowances else sum(allowances),
            cancelled=any(record.kind == Kind.CANCEL for record in records),
            **_vacancies(records),
        )

    def with_grant(self, grant: Record) -> Self:
        """The same with a grant behind it: what that has taken is to be settled, too."""
        held = (grant.body["held"],) if "held" in grant.body else ()
        return replace(self, credential=grant.body, holds=self.holds + held)


def _begun_by(records: Sequence[Record]) -> str | None:
    """The stand-in that has spoken last, where one has: the first chunk of an epoch tells."""
    begun_by, first = None, True
    for record in records:
        if record.kind == Kind.EPOCH:
            first = True
        elif record.kind == Kind.TEXT and first:
            begun_by, first = record.body.get("model"), False
    return begun_by


def _vacancies(records: Sequence[Record]) -> dict[str, int]:
    """How a stream lost its producers. That none has come for a vacancy is no producer's death."""
    takeovers = handovers = unfilled = 0
    for before, record in pairwise(records):
        if record.kind == Kind.EPOCH:
            unfilled = 0
        elif record.kind == Kind.VACANT:
            lost = record.body["reason"] == LOST
            handovers += not lost
            takeovers += lost and not before.vacant
            unfilled += lost and before.vacant
    return {"takeovers": takeovers, "handovers": handovers, "unfilled": unfilled}


def _usage(records: Sequence[Record]) -> Usage:
    """Tokens by their characters. Each producer was sent the conversation, and may have had to send
    the answer so far, or to hear it again; and who waited for a grant may have heard more.
    """
    conversation = sum(len(m["content"]) for m in records[0].body["messages"])
    asked = heard = said = 0
    for record in records:
        if record.kind == Kind.EPOCH or (record.kind == Kind.OPENED and record.epoch > 0):
            asked += conversation
            match record.body.get("continuation"):
                case Continuation.PREFILL | Continuation.PROMPT:
                    asked += said
                case Continuation.REPLAY:
                    heard += said
        heard += record.body.get("unsent_chars", 0)
        said += len(record.text)
    said += heard
    return Usage(tokens_of(asked), tokens_of(said), estimated=bool(asked or said))
