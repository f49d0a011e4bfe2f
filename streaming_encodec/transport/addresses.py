"""Addresses of relays and of their clients."""

from __future__ import annotations

import ipaddress

DEFAULT_PORT = 8765
SUBPROTOCOL = "streaming-encodec.v1"
"""Offered in the handshake, so that a different version is detected first."""


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a host of this name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_group(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, which one customer has."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
