"""`streaming-encodec serve`: the relay."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.cli.shared.cluster import cluster_bus
from streaming_encodec.cli.shared.console import note
from streaming_encodec.cli.shared.service_log import log_json
from streaming_encodec.cli.shared.web_link import own_address, own_link, show_link
from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.bus.base import Bus
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.descriptors import raise_descriptor_limit
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.relay.web_files import WebFiles
from streaming_encodec.transport.addresses import DEFAULT_PORT, is_loopback
from streaming_encodec.transport.limits import UNANSWERED_CONNECTIONS
from streaming_encodec.transport.logs import event, log_loop_error
from streaming_encodec.transport.tls import server_tls
from streaming_encodec.wire.hello import MAX_SPEAKERS

_LIMITS = RelayLimits()
_WHO = "Admission"
_LIMIT = "Limits"
_CLUSTER = "Cluster"
_OWN_DESCRIPTORS = 64
"""Descriptors of the process besides connections: libraries, the log, listening sockets."""


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = DEFAULT_PORT,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Key file that tokens are signed with (see `token`); without it the relay admits everybody.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.", rich_help_panel=_WHO)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.", rich_help_panel=_WHO)] = None,
    tls_self_signed: Annotated[
        bool,
        typer.Option(
            "--tls-self-signed",
            help="Make a certificate for trying calls in the local network: browsers warn of it once.",
            rich_help_panel=_WHO,
        ),
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of web pages that may connect, such as https://app.example; repeatable. The relay's own page "
            "and programs always may.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    room: Annotated[
        list[str] | None,
        typer.Option(help="Allow this room only; repeatable. Without it, all names are allowed.", rich_help_panel=_WHO),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen to other machines without tokens or TLS, for example behind a proxy that has both.",
            rich_help_panel=_WHO,
        ),
    ] = False,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Serve the web page for calls at /.")] = True,
    datagrams: Annotated[
        bool,
        typer.Option(
            "--datagrams/--no-datagrams", help="Offer voice as datagrams, on the same port number of UDP (QUIC)."
        ),
    ] = True,
    public_metrics: Annotated[
        bool, typer.Option("--public-metrics", help="Answer /metrics to other machines and to proxies too.")
    ] = False,
    drain_s: Annotated[float, typer.Option(min=0.0, help="Seconds that calls may go on after SIGTERM.")] = 3.0,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections in all.", rich_help_panel=_LIMIT)
    ] = _LIMITS.max_connections,
    max_per_address: Annotated[
        int, typer.Option(min=1, help="Connections of one address.", rich_help_panel=_LIMIT)
    ] = _LIMITS.max_connections_per_address,
    max_rooms: Annotated[int, typer.Option(min=1, help="Rooms.", rich_help_panel=_LIMIT)] = _LIMITS.max_rooms,
    max_peers: Annotated[int, typer.Option(min=1, help="Seats in a room.", rich_help_panel=_LIMIT)] = _LIMITS.max_peers,
    max_speakers: Annotated[
        int, typer.Option(min=1, max=MAX_SPEAKERS, help="Speakers in a room.", rich_help_panel=_LIMIT)
    ] = _LIMITS.max_speakers,
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            help="Share rooms with other relays over NATS: nats://HOST:PORT or tls://…, repeatable, or @FILE with one "
            "a line (a URL may hold a password). Needs --node.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    node: Annotated[
        int | None,
        typer.Option(min=0, max=63, help="This relay's number in the cluster, its own.", rich_help_panel=_CLUSTER),
    ] = None,
    cluster_creds: Annotated[
        Path | None, typer.Option(help="Credentials for NATS: a .creds file or an nkey seed.", rich_help_panel=_CLUSTER)
    ] = None,
    cluster_ca: Annotated[
        Path | None,
        typer.Option(help="Certificate, PEM, that the NATS servers are trusted by.", rich_help_panel=_CLUSTER),
    ] = None,
    cluster_cert: Annotated[
        Path | None, typer.Option(help="This relay's own certificate for NATS, PEM.", rich_help_panel=_CLUSTER)
    ] = None,
    cluster_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.", rich_help_panel=_CLUSTER)] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also log the layers of WebSocket and QUIC.")
    ] = False,
) -> None:
    """Run a relay: rooms whose participants hear each other. It passes packets on and needs no model.

    It also serves a web page, with which people join from a browser, and prints the link to it. Logs go to stderr,
    one JSON object a line; /healthz and /metrics answer on the same port. After SIGTERM or Ctrl-C, calls may go on for
    --drain-s; then clients are disconnected, and reconnect when the relay is back.
    """
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    if tls_self_signed and tls_cert is not None:
        raise typer.BadParameter("--tls-self-signed makes a certificate; give none besides")
    log_json(verbose=verbose)
    token_key = None if key is None else TokenKey.load(key)
    config = RelayConfig(
        host=host,
        port=port,
        token_key=token_key,
        tls=_tls(host, tls_cert, tls_key, tls_self_signed),
        origins=tuple(origin or ()),
        rooms=frozenset(room) if room else None,
        insecure=insecure,
        datagrams=datagrams,
        public_metrics=public_metrics,
        drain_s=drain_s,
        web=_web_files(tokens=token_key is not None) if web else None,
        limits=RelayLimits(
            max_connections=max_connections,
            max_connections_per_address=max_per_address,
            max_rooms=max_rooms,
            max_peers=max_peers,
            max_speakers=max_speakers,
        ),
    )
    bus = None
    if cluster or node is not None:
        files = (cluster_creds, cluster_ca, cluster_cert, cluster_key)
        bus = cluster_bus(cluster or (), node, *files, tokens=token_key is not None, limits=config.limits)
    elif cluster_creds or cluster_ca or cluster_cert or cluster_key:
        raise typer.BadParameter("which NATS servers? give --cluster", param_hint="--cluster-creds")
    asyncio.run(_serve(config, tls_self_signed, bus))


async def _serve(config: RelayConfig, tls_self_signed: bool, bus: Bus | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_error)
    _provide_descriptors(config.limits.max_connections)
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows: Ctrl-C ends the program
            break
    async with Relay(config, bus=bus) as relay:
        if sys.stderr.isatty():  # programs read the log
            note(f"listening on {relay.url}; Ctrl-C stops")
        if config.web is not None:
            _show_page(config, relay.port, tls_self_signed)
        await stop.wait()
        stop.clear()
        relay.drain()
        again = asyncio.create_task(stop.wait())
        drained = asyncio.create_task(relay.drained())
        await asyncio.wait({again, drained}, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        drained.cancel()


def _tls(host: str, certificate: Path | None, key: Path | None, make_one: bool) -> ssl.SSLContext | None:
    if make_one:
        from streaming_encodec.transport.self_signed import SelfSigned

        own = ["localhost", "127.0.0.1", "::1", own_address(), socket.gethostname()]
        return SelfSigned.make(time.time(), [*own, *([host] if host not in ("", "0.0.0.0", "::") else [])]).server_tls()
    return None if certificate is None or key is None else server_tls(certificate, key)


def _web_files(*, tokens: bool) -> WebFiles | None:
    try:
        return WebFiles.bundled(tokens=tokens)
    except ConfigError as error:  # calls go on without
        event("no_web", logging.WARNING, reason=str(error))
        return None


def _show_page(config: RelayConfig, port: int, tls_self_signed: bool) -> None:
    """Print the link, and what people must know before they open it."""
    show_link(own_link(config.host, port, tls=config.tls is not None))
    if not sys.stderr.isatty():
        return
    if config.token_key is not None:
        note("each guest needs a link with a token: streaming-encodec token ROOM --key KEY --link ADDRESS")
    if tls_self_signed:
        note("browsers will say that the connection is not private: choose Advanced, then Proceed (once a device)")
    elif config.tls is None and not is_loopback(config.host):
        note("browsers give a page the microphone only over HTTPS: use --tls-self-signed, --tls-cert, or a proxy")


def _provide_descriptors(max_connections: int) -> None:
    """Raise the limit of open descriptors to what the connections need; log a warning if the system refuses."""
    needed = max_connections + UNANSWERED_CONNECTIONS + _OWN_DESCRIPTORS
    allowed = raise_descriptor_limit(needed)
    if allowed is not None and allowed < needed:
        event(
            "few_descriptors",
            logging.WARNING,
            allowed=allowed,
            needed=needed,
            hint=f"raise the limit (ulimit -n {needed}, LimitNOFILE={needed}), or lower --max-connections",
        )
