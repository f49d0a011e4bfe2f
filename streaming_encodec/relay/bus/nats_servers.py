"""Where the NATS servers of a cluster are, and how a relay shows who it is."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from streaming_encodec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NatsServers:
    """Where the NATS servers of a cluster are, and how a relay shows who it is.

    Args:
        urls: `nats://host:port` of each, or `tls://…`, with `user:password@` or `token@` where they want that.
        credentials: a `.creds` file (JWT and seed), or the seed of an nkey.
        tls: a client context, for a private authority or a certificate of the relay's own; the system's otherwise.
            With it, or with `tls://`, nothing is sent without TLS.

    Raises ConfigError for what is no such URL.
    """

    urls: tuple[str, ...]
    credentials: Path | None = None
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if not self.urls:
            raise ConfigError("a cluster needs the URL of at least one NATS server", setting="cluster")
        for url in self.urls:
            try:
                parts = urlsplit(url)
                good = parts.scheme in ("nats", "tls") and parts.hostname and parts.path in ("", "/")
                good = bool(good) and (parts.port is None or parts.port > 0) and not parts.query
            except ValueError:
                good = False
            if not good:
                raise ConfigError(
                    f"{public(url)} is no NATS server's URL: write nats://HOST:PORT or tls://HOST:PORT",
                    setting="cluster",
                )
        self.login()

    def login(self) -> dict[str, str]:
        """The credentials as nats-py takes them. Raises ConfigError for a file that holds none."""
        if self.credentials is None:
            return {}
        try:
            text = self.credentials.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"NATS credentials {self.credentials}: {why}", setting="credentials") from error
        if "BEGIN NATS USER JWT" in text and "BEGIN USER NKEY SEED" in text:
            return {"user_credentials": str(self.credentials)}
        if re.fullmatch(r"SU[A-Z2-7]{56}", text.strip()):
            return {"nkeys_seed": str(self.credentials)}
        raise ConfigError(
            f"NATS credentials {self.credentials}: neither a .creds file nor the seed of a user's nkey",
            setting="credentials",
        )


def public(url: str) -> str:
    """The URL without name and password, for messages and logs."""
    scheme, there, rest = url.partition("://")
    return f"{scheme}{there}{rest.rpartition('@')[2]}"
