"""JSON Web Tokens (RFC 7519) of an issuer that a tenant trusts; checked as RFC 8725 advises.

PyJWT checks the signature, with a key that is for this one algorithm. Here stands what makes a
token one of ours: who may have issued it, for whom, until when, and what it allows.
"""

import base64
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from shared import fields
from shared.elapsed import elapsed
from shared.errors import InvalidRequest, Unauthenticated
from shared.identity import READ, SCOPES, STREAM, Identity
from shared.identity.jwks import URL_CHARS_MAX, Fetch, Jwks, check_url, fetch

if TYPE_CHECKING:  # imported with the first token
    from jwt import PyJWK

ALGORITHMS = ("RS256", "ES256", "EdDSA")
TOKEN_CHARS_MAX = 8 * 1024
HEADER_CHARS_MAX = 2 * 1024
ISSUER_CHARS_MAX = 512
USER_CHARS_MAX = 128
#: How far the issuer's clock may be ahead of ours. An expiry has no leeway: at the same moment a
#: running stream loses its permission too.
LEEWAY_S = 5
#: The end of the year 9999.
TIME_MAX = 253_402_300_799
#: What a token allows that says nothing of scopes.
DEFAULT_SCOPES = frozenset({STREAM, READ})

#: ID tokens and access tokens (RFC 9068); not, say, the same issuer's logout tokens.
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
#: Our scopes by their names in a token: some issuers put the name of the API before them.
_SCOPES: Mapping[str, str] = MappingProxyType(
    {f"{prefix}{scope}": scope for prefix in ("", "sluice:", "sluice/") for scope in SCOPES}
)
#: The strings of an issuer's document, and how long each may be.
_TEXTS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "issuer": (1, ISSUER_CHARS_MAX),
        "jwks_url": (1, URL_CHARS_MAX),
        "audience": (1, 512),
        "user_claim": (1, 256),
        "scope_claim": (1, 256),
        "tenant_claim": (0, 256),
    }
)
_REQUIRED = frozenset({"issuer", "jwks_url", "audience"})


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens a tenant trusts, and what it reads of them.

    Where tenants share an issuer and an audience, `tenant_claim` names the claim whose value is the
    tenant's name.
    """

    issuer: str
    jwks_url: str
    audience: str
    user_claim: str = "sub"
    scope_claim: str = "scope"
    tenant_claim: str = ""
    algorithms: tuple[str, ...] = ALGORITHMS

    @classmethod
    def from_document(cls, value: Any, path: str = "issuer") -> Self:
        """Check a document that stands at `path`. Raises `InvalidRequest`."""
        document = fields.mapping(value, path)
        fields.known(document, (*_TEXTS, "algorithms"), path)
        known: dict[str, Any] = {
            name: fields.text(document.get(name), f"{path}.{name}", least=least, most=most)
            for name, (least, most) in _TEXTS.items()
            if name in document or name in _REQUIRED
        }
        if not _is_name(known["issuer"]):
            raise InvalidRequest(
                f"`{path}.issuer` must be printable ASCII without spaces.", field=f"{path}.issuer"
            )
        try:
            check_url(known["jwks_url"], loopback=True)
        except ValueError:
            raise InvalidRequest(
                f"`{path}.jwks_url` must be an https:// address.", field=f"{path}.jwks_url"
            ) from None
        if "algorithms" in document:
            place = f"{path}.algorithms"
            listed = fields.items(document["algorithms"], place, least=1, most=len(ALGORITHMS))
            known["algorithms"] = tuple(fields.one_of(a, place, ALGORITHMS) for a in listed)
        return cls(**known)

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "algorithms": list(self.algorithms)}

    @property
    def credential(self) -> str:
        """How a token of this issuer is named in records."""
        return f"jwt:{hashlib.sha256(self.issuer.encode()).hexdigest()[:12]}"

    def takes(self, claims: Mapping[str, Any], tenant: str) -> bool:
        """Whether a token with these claims is for us, and for this tenant."""
        said = claims.get("aud")
        audiences = said if isinstance(said, list) else [said]
        return (
            claims["iss"] == self.issuer
            and self.audience in audiences
            and (not self.tenant_claim or claims.get(self.tenant_claim) == tenant)
        )


class Tokens:
    """Tells whose a token is.

    `issuers` gives the tenants that trust an issuer, each with how it does. `clock` tells
    how much time has passed, `now` is the wall clock, both in s.
    """

    def __init__(
        self,
        issuers: Callable[[str], Awaitable[Mapping[str, Issuer]]],
        *,
        fetch: Fetch = fetch,
        clock: Callable[[], float] = elapsed,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = issuers
        self._jwks = Jwks(fetch, clock)
        self._now = now

    async def identify(self, token: str) -> Identity:
        """Raises `Unauthenticated`, and `Unavailable` where the issuer's keys cannot be had.

        What an error says of claims, it says of a token whose signature is good, except where the
        token leads to no tenant.
        """
        header, claims = _read(token)
        tenant, issuer = await self._trusting(claims)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            raise Unauthenticated("The token is not signed with an algorithm that is taken here.")
        key = await self._jwks.key(issuer.jwks_url, header.get("kid"), algorithm)
        _verify(token, key, algorithm)
        expires_at = _check_times(claims, self._now())
        return Identity(
            tenant=tenant,
            user=_user(claims.get(issuer.user_claim)),
            scopes=_scopes(claims, issuer.scope_claim),
            credential=issuer.credential,
            expires_at=expires_at,
        )

    async def _trusting(self, claims: Mapping[str, Any]) -> tuple[str, Issuer]:
        """The one tenant whose token it is by its claims, before they are known to be true."""
        name = claims.get("iss")
        if not isinstance(name, str) or len(name) > ISSUER_CHARS_MAX or not _is_name(name):
            raise Unauthenticated("The token does not name its issuer.")
        found = await self._issuers(name)
        takers = [(tenant, i) for tenant, i in found.items() if i.takes(claims, tenant)]
        if len(takers) != 1:
            few = "no tenant" if not takers else "more than one tenant"
            raise Unauthenticated(f"The token's issuer and audience lead to {few} here.")
        return takers[0]


def is_token(credential: str) -> bool:
    """Whether it looks like a JSON Web Token."""
    return credential.count(".") == 2


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims of a token, unverified. Its keys and addresses are never used."""
    if len(token) > TOKEN_CHARS_MAX:
        raise Unauthenticated(f"The token is longer than {TOKEN_CHARS_MAX} characters.")
    segments = token.split(".")
    if len(segments) != 3 or len(segments[0]) > HEADER_CHARS_MAX:
        raise _malformed()
    raw, payload, _ = [_decode(segment) for segment in segments]
    header = _object(raw)
    kind, kid = header.get("typ", "JWT"), header.get("kid", "")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated("The token is of a type that is not taken here.")
    if "crit" in header or not isinstance(kid, str):
        raise _malformed()
    return header, _object(payload)


def _decode(segment: str) -> bytes:
    """Base64url as RFC 7515 writes it, and in no other spelling of the same bytes.

    Python takes spare bits, padding and foreign characters, and PyJWT takes padding.
    """
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise _malformed() from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != segment:
        raise _malformed()
    return raw


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(value, dict):
        raise _malformed()
    return value


def _verify(token: str, key: "PyJWK", algorithm: str) -> None:
    import jwt

    try:
        jwt.PyJWS().decode(token, key, algorithms=[algorithm])
    except jwt.PyJWTError:
        raise Unauthenticated("The token's signature is not good.") from None


def _check_times(claims: Mapping[str, Any], now: float) -> int:
    """When the token expires, in s since 1970."""
    for name in ("nbf", "iat"):
        if name in claims and _time(claims, name) > now + LEEWAY_S:
            raise Unauthenticated(f"The token is not valid yet, by its `{name}`.")
    expires_at = _time(claims, "exp")
    if expires_at <= now:
        raise Unauthenticated("The token has expired.")
    return expires_at


def _time(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TIME_MAX:
        raise Unauthenticated(f"The token's `{name}` must be a time, in seconds since 1970.")
    return int(value)


def _user(value: Any) -> str:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= USER_CHARS_MAX
        or not value.isprintable()
    ):
        raise Unauthenticated(
            f"The token must name its user by 1 to {USER_CHARS_MAX} printable characters."
        )
    return value


def _scopes(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Those of a token's scopes that are ours: a list, or a string with spaces (RFC 8693, 4.2)."""
    if name not in claims:
        return DEFAULT_SCOPES
    value = claims[name]
    said = value.split(" ") if isinstance(value, str) else value
    if not isinstance(said, list):
        raise Unauthenticated("The token's scopes must be a string or a list.")
    return frozenset(
        _SCOPES[scope] for scope in said if isinstance(scope, str) and scope in _SCOPES
    )


def _is_name(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text and text != ""


def _malformed() -> Unauthenticated:
    return Unauthenticated("The token is not a signed JSON Web Token.")
