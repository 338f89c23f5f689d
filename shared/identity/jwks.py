"""The public keys of an issuer (RFC 7517): fetched over HTTPS, checked, and kept for a while.

PyJWT makes the keys; its own client for them would not do: it reads a response of any size for any
time, asks a server that fails again with each request, and forgets the keys that it had.
"""

import asyncio
import importlib
import json
import math
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from shared.errors import Unauthenticated, Unavailable
from shared.logger import logger

if TYPE_CHECKING:  # imported with the first keys: it costs 90 to 140 ms
    from jwt import PyJWK

FETCH_S = 3.0
FETCH_BYTES_MAX = 64 * 1024
URL_CHARS_MAX = 2048
KEYS_MAX = 64
KID_CHARS_MAX = 256
RSA_BITS = range(2048, 8192 + 1)
#: How many issuers' keys are kept.
ISSUERS_MAX = 100
#: For how long keys are used before they are fetched again, and where that fails.
FRESH_S = 10 * 60.0
STALE_S = 24 * 3600.0
#: How often an unknown key may lead to a fetch: it may be new, or made up.
UNKNOWN_S = 30.0
#: For how long a server that failed is left alone.
RETRY_S = 10

#: By a key's type and curve: the only algorithm that it is for, and what is read of it. Whatever
#: else stands in it (a private part, a certificate) is not.
_ALGORITHMS: Mapping[tuple[str, str | None], tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        ("RSA", None): ("RS256", ("n", "e")),
        ("EC", "P-256"): ("ES256", ("x", "y")),
        ("OKP", "Ed25519"): ("EdDSA", ("x",)),
    }
)

#: Gives the body at an address. Raises `Unavailable`.
Fetch = Callable[[str], Awaitable[bytes]]


async def fetch(url: str, *, loopback: bool = False) -> bytes:
    """The body at `url`, of at most 64 KiB, within 3 s, without a redirect, from a public address.

    `loopback` takes http://localhost too, and private addresses. Never in a function: there the
    Runtime API listens, and a GET would take somebody's request away. Raises `Unavailable`.
    """
    from urllib3.exceptions import HTTPError

    try:
        request = _Request(check_url(url, loopback=loopback), public=not loopback)
        try:
            async with asyncio.timeout(FETCH_S):
                return await asyncio.to_thread(request.run)
        finally:
            request.abandon()
    except (OSError, HTTPException, HTTPError, ValueError) as error:
        raise _unavailable() from error


def check_url(url: str, *, loopback: bool = False) -> SplitResult:
    """The parts of an HTTPS address, or with `loopback` of an HTTP one of this machine.

    Raises `ValueError`.
    """
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not (parts.scheme == "https" or (loopback and local)) or not parts.hostname:
        raise ValueError("not https://host")
    if parts.username is not None or parts.password is not None or "#" in url:
        raise ValueError("not a plain address")
    if len(url) > URL_CHARS_MAX or not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("not an address")
    if parts.port == 0:  # asking for it refuses what is no port at all
        raise ValueError("no port")
    return parts


def is_public(address: str) -> bool:
    """Whether an address is one of the Internet, and of no network of ours."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return parsed.is_global


class _Request:
    """One GET, which blocks its thread. A timeout of urllib3 bounds each read, but not all."""

    def __init__(self, url: SplitResult, *, public: bool) -> None:
        from urllib3.connection import HTTPConnection, HTTPSConnection

        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._connection = kind(url.hostname or "", url.port, timeout=FETCH_S)
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._public = public
        self._abandoned = False

    def run(self) -> bytes:
        connection = self._connection
        try:
            connection.connect()
            if self._abandoned:
                raise TimeoutError
            # Whom a name has led to, and not what it was resolved to before: that could change.
            if self._public and not is_public(connection.sock.getpeername()[0]):
                raise ValueError("not a public address")
            headers = {"accept": "application/json", "user-agent": "sluice"}
            connection.request(
                "GET", self._target, headers=headers, preload_content=False, decode_content=False
            )
            response = connection.getresponse()
            if response.status != 200:
                raise HTTPException("not what was asked for")
            body: bytes = response.read(FETCH_BYTES_MAX + 1)
            if len(body) > FETCH_BYTES_MAX:
                raise ValueError("too large")
            return body
        finally:
            connection.close()

    def abandon(self) -> None:
        """End it, wherever it waits. Does not block."""
        self._abandoned = True
        connected = self._connection.sock
        if connected is not None:
            with suppress(OSError):  # it has ended
                connected.shutdown(socket.SHUT_RDWR)


def parse(raw: bytes) -> "tuple[PyJWK, ...]":
    """The keys of a set that are fit for one of our algorithms. Raises `ValueError`.

    Any other key is skipped, as RFC 7517 (5) asks for.
    """
    try:
        document = json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deep") from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or len(members) > KEYS_MAX:
        raise ValueError("not a set of at most 64 keys")
    return tuple(key for member in members if (key := _usable(member)))


def _usable(member: Any) -> "PyJWK | None":
    import jwt

    if not isinstance(member, dict):
        return None
    for (kty, crv), (algorithm, names) in _ALGORITHMS.items():
        if member.get("kty") == kty and member.get("crv") == crv and _meant(member, algorithm):
            public = {
                name: member[name] for name in ("kty", "crv", "kid", *names) if name in member
            }
            try:
                key = jwt.PyJWK(public, algorithm)
            except (jwt.PyJWTError, ValueError):
                return None
            return key if kty != "RSA" or key.key.key_size in RSA_BITS else None
    return None


def _meant(member: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key is for signatures with this algorithm, where it says what it is for."""
    kid = member.get("kid", "")
    operations = member.get("key_ops", ["verify"])
    return (
        isinstance(kid, str)
        and len(kid) <= KID_CHARS_MAX
        and member.get("alg", algorithm) == algorithm
        and member.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


@dataclass(slots=True)
class _Held:
    """What is known of the keys at one address. Times are the clock's."""

    url: str
    keys: "tuple[PyJWK, ...]" = ()
    fetched_at: float = -math.inf
    failed_at: float = -math.inf
    #: When an unknown key last led to a fetch.
    searched_at: float = -math.inf
    fetching: asyncio.Task[None] | None = None

    def find(self, kid: str | None, algorithm: str) -> "PyJWK | None":
        """The one key that fits; a token that names none is taken where there is no choice."""
        fit = [
            key
            for key in self.keys
            if key.algorithm_name == algorithm and kid in (None, key.key_id)
        ]
        return fit[0] if len(fit) == 1 else None


class Jwks:
    """Finds the keys of issuers, by the addresses of their sets.

    `clock` tells how much time has passed, in s.
    """

    def __init__(self, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._held: dict[str, _Held] = {}

    async def key(self, url: str, kid: str | None, algorithm: str) -> "PyJWK":
        """The key that this token is to be verified with.

        Raises `Unauthenticated` where the issuer has none that fits, and `Unavailable` where its
        keys cannot be had and none are kept.
        """
        began = self._clock()
        held = self._hold(url)
        if began - held.fetched_at >= FRESH_S:
            await self._refresh(held)
        if began - held.fetched_at >= STALE_S:
            raise _unavailable()
        key = held.find(kid, algorithm)
        if key is None and self._begins_search(held, began):
            await self._refresh(held)
            key = held.find(kid, algorithm)
        if key is None:
            raise Unauthenticated("The token's key is not one of its issuer's.")
        return key

    def _begins_search(self, held: _Held, began: float) -> bool:
        """Whether to fetch for a key that was not there, which only the first in a while may."""
        if held.fetching:
            return True
        if held.fetched_at >= began or began - held.searched_at < UNKNOWN_S:
            return False
        held.searched_at = began
        return True

    def _hold(self, url: str) -> _Held:
        if url not in self._held:
            if len(self._held) >= ISSUERS_MAX:
                self._held.pop(next(iter(self._held)))
            self._held[url] = _Held(url)
        return self._held[url]

    async def _refresh(self, held: _Held) -> None:
        """Fetch the keys, together with whoever else wants them now."""
        if held.fetching is None:
            if self._clock() - held.failed_at < RETRY_S:
                return
            held.fetching = asyncio.create_task(self._update(held))
        await asyncio.shield(held.fetching)

    async def _update(self, held: _Held) -> None:
        try:
            # The first time, PyJWT is imported while the issuer's answer is under way.
            raw, _ = await asyncio.gather(
                self._fetch(held.url), asyncio.to_thread(importlib.import_module, "jwt")
            )
            held.keys = parse(raw)
            held.fetched_at = self._clock()
        except (Unavailable, ValueError) as error:
            held.failed_at = self._clock()
            host = held.url.partition("://")[2].partition("/")[0]
            extra = {"host": host, "error": type(error.__cause__ or error).__name__}
            logger.warning("an issuer's keys could not be fetched", extra=extra)
        finally:
            held.fetching = None


def _unavailable() -> Unavailable:
    return Unavailable(
        "The keys of the token's issuer cannot be had just now.", retry_after_s=RETRY_S
    )
