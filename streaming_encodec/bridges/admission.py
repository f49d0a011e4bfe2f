"""Who may call: a provider's signature, a secret in the path, a list of addresses. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from streaming_encodec.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MIN_SECRET_CHARACTERS = 16
SIGNATURE_HEADER = "X-Twilio-Signature"


@dataclass(frozen=True, slots=True)
class Admission:
    """Every condition that is set must hold.

    secret: the path is `/secret`. auth_token: Twilio's, requests bear its signature of the address. public_url: that
    address as Twilio knows it, `wss://host/path`, where a proxy stands in front. networks: the callers' addresses.

    Raises ConfigError for a secret that can be guessed, or an address of no WebSocket.
    """

    secret: str | None = field(default=None, repr=False)
    auth_token: str | None = field(default=None, repr=False)
    public_url: str | None = None
    networks: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        if self.secret is not None and not (
            len(self.secret) >= MIN_SECRET_CHARACTERS
            and self.secret.isascii()
            and self.secret.replace("-", "").isalnum()
        ):
            raise ConfigError(
                f"the path's secret has at least {MIN_SECRET_CHARACTERS} letters, digits and hyphens", setting="secret"
            )
        if self.auth_token is not None and not self.auth_token:
            raise ConfigError("the auth token is empty", setting="auth_token")
        if self.public_url is not None and urlsplit(self.public_url).scheme not in ("ws", "wss"):
            raise ConfigError(
                f"the public address is wss://host/path, as the provider is told, not {self.public_url}",
                setting="public_url",
            )

    @property
    def is_open(self) -> bool:
        """Whether everybody may call."""
        return self.secret is None and self.auth_token is None and not self.networks

    @property
    def needs_tls(self) -> bool:
        """Whether what admits could be read on the way, and used again."""
        return self.secret is not None or self.auth_token is not None

    def allows_address(self, address: str) -> bool:
        """Whether a connection from here may be answered."""
        if not self.networks:
            return True
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any((mapped or ip) in network for network in self.networks)

    def allows_request(self, host: str, target: str, signature: str | None) -> bool:
        """Whether a WebSocket handshake may go on. host, target: of the request; signature: its header, or None."""
        path = target.partition("?")[0]
        if self.secret is not None and not hmac.compare_digest(path.strip("/").encode(), self.secret.encode()):
            return False
        if self.auth_token is None:
            return True
        # Twilio signs the address that it was told, some of its products with the port, some without.
        url = self.public_url or f"wss://{host}{target}"
        parts = urlsplit(url)
        bare = f"{parts.scheme}://{parts.hostname}"
        rest = url[len(f"{parts.scheme}://{parts.netloc}") :]
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        given = (signature or "").encode()
        fits = [
            hmac.compare_digest(twilio_signature(self.auth_token, text).encode(), given)
            for text in (url, f"{bare}{rest}", f"{bare}:{port}{rest}")
        ]
        return any(fits)


def twilio_signature(auth_token: str, url: str) -> str:
    """What Twilio writes into `X-Twilio-Signature` of a WebSocket handshake: HMAC-SHA1 of the address, in base64."""
    return base64.b64encode(hmac.new(auth_token.encode(), url.encode(), hashlib.sha1).digest()).decode("ascii")


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks such as `192.0.2.7` and `10.0.0.0/8`. Raises ConfigError for anything else."""
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise ConfigError(f"no address and no network: {error}", setting="allow") from error
