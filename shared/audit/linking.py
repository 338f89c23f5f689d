"""How an entry comes to stand in its chain. No I/O.

draft → link behind the head → writes, in a transaction with what is audited
             ↑                    │
             └──────── again ─────┘ a conflict tells the new head
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from shared.audit import Actor, Chain, Entry, Event, Head, head_of, position
from shared.errors import Unavailable
from shared.records import DAY_S, Item
from shared.schema import AUDIT, TENANTS
from shared.table import Put, Update

RETENTION_DAYS = 400
#: A head outlives its last entry, so that a chain never begins again among its old entries.
HEAD_EXTRA_S = 30 * DAY_S
#: Bounds of what an entry says: it should fit in one write unit, of 1 KB.
TEXT_CHARS_MAX = 200
DETAILS_MAX = 24

_CHAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DETAIL = re.compile(r"[a-z][a-z0-9_.]{0,63}")

#: Numbers and short strings, by plain names.
Details = Mapping[str, str | int | bool | None]


def draft(
    chain: Chain,
    event: Event,
    actor: Actor,
    *,
    at_ms: int,
    nonce: str,
    outcome: str = "ok",
    details: Details | None = None,
    retention_days: int = RETENTION_DAYS,
) -> Entry:
    """An entry that stands first in its chain; `link` puts it behind others.

    `nonce` is 16 characters that are never given twice. Raises `ValueError` for what is no entry:
    a detail that is nested, fractional or long cannot be meant, and could be content.
    """
    texts = (actor.user or "", actor.credential, actor.address or "", outcome)
    if not (_CHAIN.fullmatch(chain.tenant) and _CHAIN.fullmatch(chain.name)):
        raise ValueError("a chain and a tenant have short plain names")
    if any(len(text) > TEXT_CHARS_MAX for text in texts):
        raise ValueError(f"an entry's texts have {TEXT_CHARS_MAX} characters at most")
    details = dict(details or {})
    if len(details) > DETAILS_MAX or not all(map(_is_detail, details, details.values())):
        raise ValueError("details are a few numbers and short strings")
    return _sealed(
        Entry(
            chain=chain,
            id=f"{position(at_ms)}#{nonce}",
            at=at_ms,
            event=event.value,
            outcome=str(outcome),
            actor=actor,
            details=details,
            expires_at=at_ms // 1000 + retention_days * DAY_S,
        )
    )


def link(entry: Entry, head: Head | None) -> Entry:
    """The entry behind this head, or as the first of its chain where there is none."""
    if head is None:
        return _sealed(replace(entry, n=0, prev="", prev_expires_at=0))
    return _sealed(
        replace(
            entry,
            n=head.n + 1,
            prev=head.hash,
            prev_expires_at=head.expires_at,
            expires_at=max(entry.expires_at, head.expires_at),
        )
    )


def retention_days(head: Head | None) -> int:
    """For how long a chain keeps its next entry: as long as its last one."""
    return (head.expires_at - head.at // 1000) // DAY_S if head else RETENTION_DAYS


def aside(entry: Entry, side: int) -> Entry:
    """The entry as the first of one of the 256 side chains of its chain."""
    return link(replace(entry, chain=side_of(entry.chain, f"{side:02x}")), None)


def side_of(chain: Chain, side: str) -> Chain:
    return Chain(chain.tenant, f"{chain.name}-{side}")


def writes(entry: Entry) -> tuple[Put, Put | Update]:
    """What writes an entry: it, and its chain's head. One transaction holds both."""
    head = Head.of(entry)
    change: Item = {
        "n": head.n,
        "hash": head.hash,
        "at": head.at,
        "entry_expires_at": head.expires_at,
        "expires_at": head.expires_at + HEAD_EXTRA_S,
    }
    put = Put(AUDIT, entry.to_item())
    if entry.n == 0:
        return put, Put(TENANTS, entry.chain.head_key | change)
    return put, Update(TENANTS, entry.chain.head_key, change, where={"hash": entry.prev})


def again(entry: Entry, slot: Item | None, head: Item | None) -> Entry | None:
    """What to offer after a conflict whose holders for `writes(entry)` were these.

    None where the entry was written, and only the reply was lost; the same entry where nothing of
    it stood in the way. A slot is never written twice, so an earlier try that is still under way
    can do no harm once another entry holds its slot. Raises `Unavailable` for a chain whose head
    is gone while its entries are not.
    """
    if slot and slot.get("id") == entry.id:
        return None
    if head is not None:
        return link(entry, head_of(head))
    if slot:
        raise Unavailable("The audit cannot be written: the end of a chain is missing.")
    return entry


def _sealed(entry: Entry) -> Entry:
    return replace(entry, hash=entry.digest())


def _is_detail(name: str, value: object) -> bool:
    if isinstance(value, str):
        value_is_short = len(value) <= TEXT_CHARS_MAX
    else:
        value_is_short = value is None or isinstance(value, int)
    return value_is_short and _DETAIL.fullmatch(name) is not None
