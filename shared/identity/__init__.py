"""Identity: who asks, and what that allows.

keys      API keys: random, kept as hashes
tokens    JSON Web Tokens of an issuer that a tenant trusts
tickets   for one stream, in a URL
"""

from dataclasses import dataclass

#: Scopes: to start, steer and erase streams; to follow, look at and export them; to see every
#: user's, erase or export a user's, and read the audit.
STREAM, READ, ADMIN = "stream", "read", "admin"
SCOPES = frozenset({STREAM, READ, ADMIN})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request, and by what.

    `user` is an identity within the tenant: where there is one it sees its own streams only, unless
    it has the scope `admin`. `credential` names what was shown, for records (`key:3f9a1c2e`), and
    is never a secret. `expires_at` is in s since 1970. A ticket is good for one `stream`.
    """

    tenant: str
    user: str | None = None
    scopes: frozenset[str] = SCOPES
    credential: str = ""
    expires_at: int | None = None
    stream: str | None = None
