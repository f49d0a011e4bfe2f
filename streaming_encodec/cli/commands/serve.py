"""`streaming-encodec serve`: the relay."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.cli.shared.console import note
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.descriptors import raise_descriptor_limit
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.transport.addresses import DEFAULT_PORT
from streaming_encodec.transport.limits import UNANSWERED_CONNECTIONS
from streaming_encodec.transport.logs import JsonFormatter, OncePerMinute, event, log_loop_error
from streaming_encodec.transport.tls import server_tls
from streaming_encodec.wire.hello import MAX_SPEAKERS

_LIMITS = RelayLimits()
_WHO = "Admission"
_LIMIT = "Limits"
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
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of web pages that may connect, such as https://app.example; repeatable. Programs always may.",
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also log the WebSocket layer.")] = False,
) -> None:
    """Run a relay: rooms whose participants hear each other. It passes packets on and needs no model.

    Logs go to stderr, one JSON object a line; /healthz and /metrics answer on the same port. After SIGTERM or
    Ctrl-C, calls may go on for --drain-s; then clients are disconnected, and reconnect when the relay is back.
    """
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    _log_json(verbose)
    config = RelayConfig(
        host=host,
        port=port,
        token_key=None if key is None else TokenKey.load(key),
        tls=None if tls_cert is None or tls_key is None else server_tls(tls_cert, tls_key),
        origins=tuple(origin or ()),
        rooms=frozenset(room) if room else None,
        insecure=insecure,
        public_metrics=public_metrics,
        drain_s=drain_s,
        limits=RelayLimits(
            max_connections=max_connections,
            max_connections_per_address=max_per_address,
            max_rooms=max_rooms,
            max_peers=max_peers,
            max_speakers=max_speakers,
        ),
    )
    asyncio.run(_serve(config))


async def _serve(config: RelayConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_error)
    _provide_descriptors(config.limits.max_connections)
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows: Ctrl-C ends the program
            break
    async with Relay(config) as relay:
        if sys.stderr.isatty():  # programs read the log
            note(f"listening on {relay.url}; Ctrl-C stops")
        await stop.wait()
        stop.clear()
        relay.drain()
        again = asyncio.create_task(stop.wait())
        drained = asyncio.create_task(relay.drained())
        await asyncio.wait({again, drained}, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        drained.cancel()


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


def _log_json(verbose: bool) -> None:
    """Send all logs of this process to stderr as JSON, including those of asyncio and other libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(OncePerMinute())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.getLogger("streaming_encodec.transport").setLevel(logging.INFO)
    # Broken handshakes of strangers are logged only with --verbose.
    logging.getLogger("streaming_encodec.transport.websockets").setLevel(logging.DEBUG if verbose else logging.CRITICAL)
