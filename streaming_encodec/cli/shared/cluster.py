"""The options of `serve` with which a relay joins a cluster."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

import typer

from streaming_encodec.relay.bus.base import Bus
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.text_files import decode_text
from streaming_encodec.transport.tls import client_tls


def cluster_bus(
    cluster: Sequence[str],
    node: int | None,
    credentials: Path | None,
    authority: Path | None,
    certificate: Path | None,
    key: Path | None,
    *,
    tokens: bool,
    limits: RelayLimits,
) -> Bus:
    """The bus that the options name.

    Raises typer.BadParameter for options that don't go together, ConfigError for values that can't be, and
    MissingExtraError without nats-py.
    """
    if not cluster or node is None:
        raise typer.BadParameter(
            "a cluster needs both: the NATS servers, and this relay's --node", param_hint="--cluster"
        )
    if (certificate is None) != (key is None):
        raise typer.BadParameter("--cluster-cert and --cluster-key go together")
    from streaming_encodec.relay.bus.nats import NatsBus
    from streaming_encodec.relay.bus.nats_servers import NatsServers

    urls = tuple(url for each in cluster for url in _urls(each))
    servers = NatsServers(urls, credentials, _tls(authority, certificate, key))
    return NatsBus(servers, node, tokens=tokens, token_ttl_s=limits.max_token_ttl_s)


def _urls(text: str) -> list[str]:
    """The URL, or those of `@FILE`: others can see what a command line says."""
    if not text.startswith("@"):
        return [text]
    try:
        lines = decode_text(Path(text[1:]).read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{text[1:]}: cannot be read: {error}", param_hint="--cluster") from error
    return [line.strip() for line in lines if line.strip()]


def _tls(authority: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if authority is None and certificate is None:
        return None
    context = ssl.create_default_context() if authority is None else client_tls(authority)
    if certificate is not None and key is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise typer.BadParameter(f"{certificate} with {key}: {error}", param_hint="--cluster-cert") from error
    return context
