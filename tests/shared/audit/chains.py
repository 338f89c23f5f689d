"""Chains for the tests of the audit."""

from collections.abc import Sequence

from hypothesis import strategies as st

from shared.audit import Actor, Chain, Entry, Event, Head
from shared.audit.linking import Details, draft, link
from shared.audit.trail import Audit, Verdict

CHAIN = Chain("tenant", "0" * 32)
ACTOR = Actor("ann", "key:3f9a1c2e", "203.0.113.0/24")
T0_MS = 1_800_000_000_000
#: A moment, in s, when nothing has expired.
NOW = T0_MS / 1000 + 3600

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
VALUES = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS
DETAILS = st.dictionaries(st.sampled_from(["from", "to", "usage.input_tokens"]), VALUES)


def drafted(
    number: int,
    *,
    chain: Chain = CHAIN,
    actor: Actor = ACTOR,
    details: Details | None = None,
    days: int = 400,
) -> Entry:
    """An entry like no other of another number; the clocks of their writers disagree."""
    return draft(
        chain,
        list(Event)[number % len(Event)],
        actor,
        at_ms=T0_MS + number * 7919 % 10_000,
        nonce=f"{number:016x}",
        details=details,
        retention_days=days,
    )


def linked(entries: Sequence[Entry]) -> list[Entry]:
    """The entries as one chain."""
    chained: list[Entry] = []
    for entry in entries:
        chained.append(link(entry, Head.of(chained[-1]) if chained else None))
    return chained


def chain_of(count: int, chain: Chain = CHAIN) -> list[Entry]:
    return linked([drafted(number, chain=chain) for number in range(count)])


async def everything(audit: Audit, chain: Chain) -> list[Entry]:
    """All entries of a chain and of its side chains, which must be as they were written."""
    entries: list[Entry] = []
    for each in await audit.family(chain):
        found, _ = await audit.read(each)
        assert await audit.verify(each) == Verdict(len(found), None)
        entries += found
    return entries


@st.composite
def chains(draw: st.DrawFn, least: int = 1, most: int = 6) -> list[Entry]:
    """Chains whose entries differ in what they say, and in their retention."""
    said = draw(st.lists(st.tuples(DETAILS, st.integers(1, 9)), min_size=least, max_size=most))
    return linked(
        [
            drafted(n, details=details, days=100 * hundreds)
            for n, (details, hundreds) in enumerate(said)
        ]
    )
