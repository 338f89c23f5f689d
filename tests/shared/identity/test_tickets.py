"""Tickets: for one stream and one purpose, for a while, and only as they were issued."""

import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import Signer

from shared.errors import Unauthenticated
from shared.identity import READ, Identity
from shared.identity.tickets import PREFIX, SECRET_BYTES, TICKET_CHARS_MAX, issue, tenant_of, verify
from tests.shared.identity.issuer import base64url, encode

NOW = 1_800_000_000
SECRET = bytes(range(SECRET_BYTES))
STREAM = "06h3s0a1c8000000000000000000000g"
ADA = Identity("acme", "ada", credential="key:3f9a1c2e")
REFUSAL = "The ticket is not good for this, or no longer."


def ticket_of(identity: Identity = ADA, stream: str = STREAM, secret: bytes = SECRET) -> str:
    return issue(secret, identity, stream, purpose="read", expires_at=NOW + 60)


TICKET = ticket_of()


def refused(ticket: str, secret: bytes = SECRET, now: float = NOW, purpose: Any = "read") -> None:
    """A ticket is refused, with the words that every refused ticket is refused with."""
    with pytest.raises(Unauthenticated) as refusal:
        verify(ticket, secret, purpose=purpose, now=now)
    assert refusal.value.detail == REFUSAL
    assert refusal.value.__cause__ is None


def test_a_ticket_is_for_one_stream_and_reads_it_only() -> None:
    assert tenant_of(TICKET) == "acme"
    assert verify(TICKET, SECRET, purpose="read", now=NOW) == Identity(
        "acme",
        "ada",
        scopes=frozenset({READ}),
        credential="key:3f9a1c2e",
        expires_at=NOW + 60,
        stream=STREAM,
    )


USERS = st.none() | st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=128)
TENANTS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@settings(deadline=None)
@given(TENANTS, USERS, st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_a_ticket_says_what_it_was_issued_for(tenant: str, user: str | None, secret: bytes) -> None:
    identity = Identity(tenant, user, credential="jwt:0123456789ab")
    ticket = ticket_of(identity, secret=secret)
    assert len(ticket) <= TICKET_CHARS_MAX
    assert re.fullmatch(r"tk_[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}", ticket)
    assert tenant_of(ticket) == tenant
    found = verify(ticket, secret, purpose="read", now=NOW)
    assert found == replace(identity, scopes=frozenset({READ}), expires_at=NOW + 60, stream=STREAM)


def test_a_ticket_is_short_enough_for_any_address() -> None:
    longest = Identity("t" * 63, "u" * 128, credential="jwt:0123456789ab")
    assert len(ticket_of(longest)) <= 512
    assert len(ticket_of(replace(longest, user="👩" * 128))) <= TICKET_CHARS_MAX


def test_what_does_not_fit_is_not_issued() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ticket_of(replace(ADA, credential="x" * TICKET_CHARS_MAX))


def test_any_changed_bit_is_refused() -> None:
    raw = TICKET.encode()
    for place in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            refused(changed.decode("latin-1"))


def test_any_part_of_a_ticket_is_refused() -> None:
    for end in range(len(TICKET)):
        refused(TICKET[:end])
        refused(TICKET[end + 1 :])


@settings(deadline=None)
@given(st.integers(0, len(TICKET)), st.integers(0, 20), st.text(max_size=20))
def test_any_other_change_is_refused(place: int, removed: int, inserted: str) -> None:
    changed = TICKET[:place] + inserted + TICKET[place + removed :]
    if changed != TICKET:
        refused(changed)


@pytest.mark.parametrize(
    "spelling",
    [
        f"{TICKET}=",
        f"{TICKET}!!",
        f"{TICKET}\n",
        f"{TICKET}.",
        f" {TICKET}",
        TICKET.replace(".", "=."),
        TICKET.replace(".", ".."),
        TICKET.removeprefix(PREFIX),
        PREFIX + TICKET,
        TICKET.upper(),
    ],
)
def test_a_ticket_has_one_spelling(spelling: str) -> None:
    refused(spelling)


def test_parts_of_two_tickets_make_none() -> None:
    payload, signature = TICKET.split(".")
    for other in (
        ticket_of(replace(ADA, tenant="beta")),
        ticket_of(replace(ADA, user=None)),
        ticket_of(replace(ADA, credential="key:00000000")),
        ticket_of(stream=STREAM[::-1]),
        ticket_of(secret=SECRET[::-1]),
    ):
        other_payload, other_signature = other.split(".")
        refused(f"{payload}.{other_signature}")
        if other_payload != payload:
            refused(f"{other_payload}.{signature}")


def test_each_tenant_has_its_own_secret() -> None:
    other = SECRET[::-1]
    refused(TICKET, other)
    refused(ticket_of(replace(ADA, tenant="beta"), secret=other))


def test_a_ticket_is_for_one_purpose() -> None:
    refused(TICKET, purpose="cancel")
    other: Any = "cancel"
    refused(issue(SECRET, ADA, STREAM, purpose=other, expires_at=NOW + 60))


def test_a_ticket_ends() -> None:
    assert verify(TICKET, SECRET, purpose="read", now=NOW + 59.9).stream == STREAM
    refused(TICKET, now=NOW + 60)


@pytest.mark.parametrize(("until", "ends_at"), [(NOW + 10, NOW + 10), (NOW + 99, NOW + 60)])
def test_a_ticket_ends_with_what_it_was_issued_for(until: int, ends_at: int) -> None:
    ticket = ticket_of(replace(ADA, expires_at=until))
    assert verify(ticket, SECRET, purpose="read", now=NOW).expires_at == ends_at


@pytest.mark.parametrize("secret", [b"", b"short", SECRET + b"x"])
def test_a_secret_has_its_length(secret: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ticket_of(secret=secret)
    with pytest.raises(ValueError, match="32 bytes"):
        verify(TICKET, secret, purpose="read", now=NOW)


FIELDS = ["acme", STREAM, "read", "ada", "key:3f9a1c2e", NOW + 60]
ODD: list[Any] = [
    None,
    5,
    {},
    [],
    FIELDS[:5],
    [*FIELDS, "more"],
    ["", *FIELDS[1:]],
    ["ü", *FIELDS[1:]],
    ["\ud800", *FIELDS[1:]],
    [5, *FIELDS[1:]],
    [*FIELDS[:3], 5, *FIELDS[4:]],
    [*FIELDS[:5], "1800000060"],
    [*FIELDS[:5], 1.8e9],
    [*FIELDS[:3], "u" * TICKET_CHARS_MAX, *FIELDS[4:]],
]


def signed(payload: str) -> str:
    text = f"{PREFIX}{payload}"
    signer = Signer(SECRET, "sluice.ticket", key_derivation="hmac", digest_method=hashlib.sha256)
    return f"{text}.{signer.get_signature(text).decode()}"


def test_a_ticket_is_what_it_is_described_as() -> None:
    assert signed(encode(FIELDS)) == TICKET


@pytest.mark.parametrize(
    "payload",
    [
        *(base64url(raw) for raw in (b"", b"[", b"[" * 700, b"\xff")),
        "A",
        *map(encode, ODD),
    ],
)
def test_what_is_no_ticket_has_no_tenant(payload: str) -> None:
    """Not even with a good signature, as another version may have made it."""
    ticket = signed(payload)
    with pytest.raises(Unauthenticated) as refusal:
        tenant_of(ticket)
    assert refusal.value.detail == REFUSAL
    refused(ticket)


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    for ticket in (text, PREFIX + text):
        with pytest.raises(Unauthenticated):
            tenant_of(ticket)
        refused(ticket)
