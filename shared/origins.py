"""Origins: where a page comes from, in the one spelling that browsers send (RFC 6454)."""

import re
from ipaddress import IPv4Address, IPv6Address

from shared import fields
from shared.errors import InvalidRequest

#: A scheme, a host of 253 characters and a port.
ORIGIN_CHARS_MAX = 267

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:]+\]|[^\s/?#@:\[\]\\%]+)(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
#: A host whose last label is a number is an IPv4 address (URL standard, "ends in a number").
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


def parse_origin(text: str, field: str = "origins") -> str:
    """An origin, written as browsers send it: `https://app.example.com`, `http://localhost:5173`.

    Scheme and host in small letters, a host of other letters by IDNA (UTS #46, not transitional),
    no default port (HTML standard, "serialization of an origin"). Raises `InvalidRequest`.
    """
    match = _ORIGIN.fullmatch(fields.text(text, field, most=ORIGIN_CHARS_MAX))
    try:
        if match is None:
            raise ValueError
        scheme = match["scheme"].lower()
        port = int(match["port"] or _DEFAULT_PORTS[scheme])
        if not 1 <= port <= 65535:
            raise ValueError
        origin = f"{scheme}://{_host(match['host'])}"
    except ValueError:
        raise InvalidRequest(
            f"`{field}` must be an origin like https://app.example.com or http://localhost:5173: "
            "http or https, one host in full (no *), a port where it needs one, and nothing after.",
            field=field,
        ) from None
    return origin if port == _DEFAULT_PORTS[scheme] else f"{origin}:{port}"


def _host(text: str) -> str:
    """A host as browsers write it (URL standard, "host parser"). Raises `ValueError`."""
    if text.startswith("["):
        address = IPv6Address(text[1:-1])
        if address.ipv4_mapped:
            raise ValueError  # Versions of Python write these in different ways.
        return f"[{address.compressed}]"
    if not text.isascii():
        import idna

        text = idna.encode(text, uts46=True).decode()
    host = text.lower()
    if _NUMERIC.fullmatch(host):
        return str(IPv4Address(host))
    if not _DOMAIN.fullmatch(host):
        raise ValueError
    return host
