"""The proxy of a client's connection, from `https_proxy` and similar variables, as in other programs."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from dataclasses import dataclass

from websockets.exceptions import InvalidProxy
from websockets.proxy import parse_proxy
from websockets.uri import WebSocketURI

from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.transport.addresses import is_loopback

# RFC 6455, 4.1: a SOCKS proxy first, then the one for HTTPS, which tunnels anything, then the one for HTTP.
_SECURE_NAMES = ("wss", "socks", "https", "all")
_PLAIN_NAMES = ("ws", "socks", "https", "http", "all")
_SYSTEM = "the system's settings"
_KINDS = "http, https, socks4, socks4a, socks5 or socks5h"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and where it was found.

    address: `scheme://[user:password@]host:port`. source: the variable's name, or "the system's settings".
    """

    address: str
    source: str

    def __str__(self) -> str:
        return f"the proxy {_without_password(self.address)} (from {self.source})"


def proxy_for(uri: WebSocketURI) -> Proxy | None:
    """The proxy for a relay, None for a direct connection. The relay on this machine never needs one.

    An address without a scheme is an HTTP proxy's, in `socks_proxy` a SOCKS proxy's.

    Raises:
        CallError: the variable's value is no proxy's address.
    """
    if _goes_round(uri.host, uri.port):
        return None
    proxies = urllib.request.getproxies()
    for name in _SECURE_NAMES if uri.secure else _PLAIN_NAMES:
        value = proxies.get(name, "").strip()
        if value:
            return _checked(name, value)
    return None


def _checked(name: str, value: str) -> Proxy:
    variables = (f"{name}_proxy", f"{name}_proxy".upper())
    source = next((variable for variable in variables if os.environ.get(variable, "").strip() == value), _SYSTEM)
    scheme, separator, rest = value.partition("://")
    scheme = scheme.lower() if separator else "http"
    if scheme == "socks" or (name == "socks" and scheme == "http"):
        scheme = "socks5h"  # the proxy resolves names: those of a company's network are known to nobody else
    address = f"{scheme}://{rest if separator else value}"
    try:
        parse_proxy(address)
    except (InvalidProxy, ValueError) as error:
        reason = error.msg if isinstance(error, InvalidProxy) else str(error)
        raise CallError(
            f"{source} is no proxy's address: {_without_password(value)} ({reason}). Write SCHEME://HOST:PORT, where "
            f"SCHEME is {_KINDS}; or name the relay's host in no_proxy",
            CallErrorReason.PROXY,
        ) from error
    return Proxy(address, source)


def _goes_round(host: str, port: int) -> bool:
    """Whether no proxy is asked for this host: this machine, and what `no_proxy` lists (names, addresses, networks)."""
    host = host.rstrip(".").lower()
    if is_loopback(host) or host.endswith(".localhost"):
        return True
    if urllib.request.proxy_bypass(host if ":" in host else f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _networks())


def _networks() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks in `no_proxy`, such as 10.0.0.0/8, which Python's own reading of it passes over."""
    found = []
    for part in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(","):
        if "/" in part:
            try:
                found.append(ipaddress.ip_network(part.strip(), strict=False))
            except ValueError:
                continue
    return found


def _without_password(address: str) -> str:
    return re.sub(r"(^|//)[^/]*@", r"\1…@", address)
