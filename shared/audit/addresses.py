"""Addresses of clients, as far as a tenant wants them kept."""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

Addresses = Literal["full", "truncated", "none"]


def shown_address(address: str | None, setting: Addresses) -> str | None:
    """An address as it may be kept: its network of /24 (IPv4) or /48 (IPv6) where truncated.

    What is no address is not kept at all: a header that anyone may set could hold anything.
    """
    if address is None or setting == "none":
        return None
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    if setting == "full":
        return str(parsed)
    return str(ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))
