"""Tickets: signed permissions to follow one stream, for a while, by its address alone.

An EventSource sends no header, so a ticket rides in a query (`?ticket=`), and may be handed to
another device. It is signed with a secret of its tenant, by itsdangerous: HMAC with SHA-256.

    tk_<base64url of [tenant, stream, purpose, user, credential, expires_at]>.<signature>

Every refusal reads the same. A ticket belongs into no log.
"""

import base64
import hashlib
import hmac
import json
from typing import Literal

from shared.errors import Unauthenticated
from shared.identity import READ, Identity
from shared.records import dump

PREFIX = "tk_"
SECRET_BYTES = 32
#: With a user of 128 characters of four bytes each; with one of letters it is 410 at most.
TICKET_CHARS_MAX = 1024

Purpose = Literal["read"]


def issue(
    secret: bytes, identity: Identity, stream: str, *, purpose: Purpose, expires_at: int
) -> str:
    """A ticket that lets anyone who has it do this with this stream, as `identity`.

    It ends at `expires_at`, in s since 1970, or before that with what `identity` was shown by:
    the ticket carries its name, for whoever verifies it to look at again.
    """
    if identity.expires_at is not None:
        expires_at = min(expires_at, identity.expires_at)
    payload = [identity.tenant, stream, purpose, identity.user, identity.credential, expires_at]
    encoded = base64.urlsafe_b64encode(dump(payload).encode()).rstrip(b"=").decode()
    signed = f"{PREFIX}{encoded}"
    ticket = f"{signed}.{_signature(secret, signed)}"
    if len(ticket) > TICKET_CHARS_MAX:
        raise ValueError("an identity does not fit into a ticket")
    return ticket


def tenant_of(ticket: str) -> str:
    """The tenant that a ticket says it is of, to find the secret; it may be a lie.

    Raises `Unauthenticated`.
    """
    return _payload(ticket)[0]


def verify(ticket: str, secret: bytes, *, purpose: Purpose, now: float) -> Identity:
    """Whose ticket it is, and for which stream. Raises `Unauthenticated`."""
    tenant, stream, granted, user, credential, expires_at = _payload(ticket)
    signed, _, signature = ticket.rpartition(".")
    # The text of the signature is compared: several texts mean the same bytes.
    if not hmac.compare_digest(signature, _signature(secret, signed)):
        raise _refused()
    if granted != purpose or expires_at <= now:
        raise _refused()
    return Identity(
        tenant=tenant,
        user=user,
        scopes=frozenset({READ}),
        credential=credential,
        expires_at=expires_at,
        stream=stream,
    )


def _signature(secret: bytes, signed: str) -> str:
    from itsdangerous import Signer  # 7 to 11 ms, and most processes never see a ticket

    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    signer = Signer(
        secret, salt=b"sluice.ticket", key_derivation="hmac", digest_method=hashlib.sha256
    )
    return signer.get_signature(signed).decode()


def _payload(ticket: str) -> tuple[str, str, str, str | None, str, int]:
    """What a ticket says, unverified."""
    if len(ticket) > TICKET_CHARS_MAX or not ticket.isascii() or not ticket.startswith(PREFIX):
        raise _refused()
    encoded = ticket.removeprefix(PREFIX).partition(".")[0]
    try:
        payload = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        raise _refused() from None
    match payload:
        case [str(tenant), str(stream), str(purpose), str() | None as user, str(by), int(until)]:
            if tenant and tenant.isascii():  # else it would not even do as a key of the table
                return tenant, stream, purpose, user, by, until
    raise _refused()


def _refused() -> Unauthenticated:
    return Unauthenticated("The ticket is not good for this, or no longer.")
