"""`streaming-encodec bridge`: telephones into a room."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.bridges.config import KINDS
from streaming_encodec.cli.shared.calling import (
    CaOption,
    TokenOption,
    UrlOption,
    on_interrupt,
    read_token,
    tls_of,
    urls_of,
)
from streaming_encodec.cli.shared.console import note
from streaming_encodec.cli.shared.options import (
    FRAMES_PER_PACKET,
    MOST_THREADS,
    BandwidthOption,
    FramesPerPacketOption,
    bandwidth_of,
)
from streaming_encodec.cli.shared.service_log import log_json
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

_WHO = "Who may call"
_ROOM = "The room"
_SWITCH_S = 0.0002

Kind = StrEnum("Kind", [(kind.replace("-", "_"), kind) for kind in KINDS])  # type: ignore[misc]  # made of a list


def command(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.")],
    room: Annotated[str, typer.Argument(metavar="ROOM", help="Where callers meet; `x-{call}` gives each its own.")],
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where telephones connect; port 0 takes a free one.")
    ] = "127.0.0.1:9092",
    url: UrlOption = None,
    token: TokenOption = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The relay's key file: makes a token for each call.", rich_help_panel=_ROOM),
    ] = None,
    ca: CaOption = None,
    model: Annotated[str, typer.Option("--model", "-m", help="As everybody in the room.")] = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    frames_per_packet: FramesPerPacketOption = FRAMES_PER_PACKET,
    dtx: Annotated[bool, typer.Option("--dtx", help="Send little while a caller is silent.")] = False,
    secret: Annotated[
        str | None,
        typer.Option(help="Callers connect to /SECRET; @FILE reads it from a file.", rich_help_panel=_WHO),
    ] = None,
    auth_token: Annotated[
        str | None,
        typer.Option(help="Twilio's auth token, or @FILE: requests must bear its signature.", rich_help_panel=_WHO),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="The address that Twilio was told, behind a proxy: wss://host/path.", rich_help_panel=_WHO),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="Only from here, such as 10.0.0.0/8; repeatable.", rich_help_panel=_WHO),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.", rich_help_panel=_WHO)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.", rich_help_panel=_WHO)] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen to other machines without these, for example behind a proxy that checks.",
            rich_help_panel=_WHO,
        ),
    ] = False,
    max_calls: Annotated[int, typer.Option(min=1, max=1000, help="Calls at once.")] = 20,
    threads: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_THREADS, metavar="N", help="That encode and decode. More than one use more than one core."
        ),
    ] = 1,
) -> None:
    """Make telephone calls participants of a room, until Ctrl-C: docs/bridges.md says what to set on the other side.

    Logs go to stderr, one JSON object a line: calls, why they ended, keys that were pressed.
    """
    from streaming_encodec.bridges.admission import Admission, parse_networks
    from streaming_encodec.bridges.bridge import Bridge
    from streaming_encodec.bridges.config import BridgeConfig, BridgeLimits
    from streaming_encodec.cli.shared.loading import load_model
    from streaming_encodec.relay.tokens import TokenKey
    from streaming_encodec.transport.tls import server_tls

    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    host, port = _address(listen)
    admission = Admission(read_token(secret), read_token(auth_token), public_url, parse_networks(allow or ()))
    config = BridgeConfig(
        str(kind),
        room,
        urls_of(url),
        host,
        port,
        admission,
        tls=None if tls_cert is None or tls_key is None else server_tls(tls_cert, tls_key),
        insecure=insecure,
        token=read_token(token),
        token_key=None if key is None else TokenKey.load(key),
        relay_tls=tls_of(ca, urls_of(url)),
        frames_per_packet=frames_per_packet,
        dtx=dtx,
        threads=threads,
        limits=BridgeLimits(max_calls=max_calls),
    )
    loaded = load_model(model)
    if threads > 1:
        # They and the event loop hand over to each other thousands of times a second: not 5 ms each time.
        sys.setswitchinterval(_SWITCH_S)
    log_json(verbose=False)

    async def run() -> None:
        stop = on_interrupt()
        full = replace(config, model=loaded.model, bandwidth=bandwidth_of(loaded, bandwidth))
        async with Bridge(full) as bridge:
            if sys.stderr.isatty():  # programs read the log
                note(f"telephones connect to {bridge.url}; Ctrl-C stops")
            await stop.wait()

    asyncio.run(run())


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise typer.BadParameter("write HOST:PORT, such as 127.0.0.1:9092 or [::]:9092", param_hint="--listen")
    return host.removeprefix("[").removesuffix("]"), int(port)
