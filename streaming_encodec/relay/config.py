"""How a relay is set up, and what it refuses to be set up as."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.text_files import decode_text

DEFAULT_PORT = 8765
SUBPROTOCOL = "streaming-encodec.v1"
"""Offered in the handshake, so that an end of another version is told so before anything else."""


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """Settings of one relay.

    host, port: where to listen; port 0 takes a free one. token_key: without one anybody may enter any room.
    tls: a server context, see `server_tls`. origins: web pages that may connect, such as
    `https://app.example`; programs send no origin and always may. rooms: the rooms that exist; None lets them
    come to be by use. insecure: allow strangers from other machines without tokens and TLS.
    public_metrics: answer `/metrics` to other machines too. drain_s: how long calls go on after SIGTERM.

    Raises ConfigError for a bind that would be open to the world.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token_key: TokenKey | None = None
    tls: ssl.SSLContext | None = None
    origins: tuple[str, ...] = ()
    rooms: frozenset[str] | None = None
    insecure: bool = False
    public_metrics: bool = False
    drain_s: float = 3.0
    limits: RelayLimits = field(default_factory=RelayLimits)

    def __post_init__(self) -> None:
        missing = [name for name, there in (("a token_key", self.token_key), ("tls", self.tls)) if there is None]
        if missing and not self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host or 'every address'} can be reached from other machines: that needs "
                f"{' and '.join(missing)}, or insecure=True if something in front of the relay sees to it",
                setting="insecure",
            )


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach a host of this name."""
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


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's TLS context, 1.2 or newer. Raises ConfigError where the files will not do."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # which costs the server more work than the client
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS certificate {certificate} with key {key}: {error}", setting="tls") from error
    return context


def client_tls(authority: Path) -> ssl.SSLContext:
    """A client's TLS context that trusts the certificates in this PEM file besides those of the system.

    Raises ConfigError for a file that has none.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cadata=decode_text(authority.read_bytes()))
    except OSError as error:  # an ssl.SSLError is one too
        why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"certificate {authority}: cannot be read: {why}") from error
    except (ValueError, TypeError) as error:  # no text, or no ASCII
        raise ConfigError(f"certificate {authority}: cannot be read: it is no PEM file") from error
    return context
