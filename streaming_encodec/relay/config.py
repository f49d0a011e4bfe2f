"""The settings of a relay, and their checks."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.relay.web_files import WebFiles
from streaming_encodec.transport.addresses import DEFAULT_PORT, is_loopback


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """Settings of one relay.

    host, port: where to listen; port 0 takes a free one. token_key: without one every client may enter any room.
    tls: a server context, see `server_tls`. origins: web pages that may connect, such as
    `https://app.example`, besides the relay's own; programs send no origin and always may. rooms: the allowed rooms;
    None allows all names.
    insecure: admit clients from other machines without tokens and TLS.
    datagrams: offer datagram sessions, at the same port number of UDP (see `docs/transport.md`).
    public_metrics: answer `/metrics` to other machines too. drain_s: how long calls go on after SIGTERM.
    web: the page that is served at `/`; None serves none.

    Raises ConfigError for an address that other machines can reach without tokens and TLS.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token_key: TokenKey | None = None
    tls: ssl.SSLContext | None = None
    origins: tuple[str, ...] = ()
    rooms: frozenset[str] | None = None
    insecure: bool = False
    datagrams: bool = True
    public_metrics: bool = False
    drain_s: float = 3.0
    web: WebFiles | None = None
    limits: RelayLimits = field(default_factory=RelayLimits)

    def __post_init__(self) -> None:
        missing = [name for name, there in (("a token_key", self.token_key), ("tls", self.tls)) if there is None]
        if missing and not self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host or 'every address'} can be reached from other machines: that needs "
                f"{' and '.join(missing)}, or insecure=True if a proxy in front of the relay provides it",
                setting="insecure",
            )
