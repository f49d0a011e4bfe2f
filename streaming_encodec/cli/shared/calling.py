"""Options of the commands that call somebody through a relay."""

from __future__ import annotations

import asyncio
import signal
import ssl
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.interrupt import ending_signals
from streaming_encodec.text_files import decode_text
from streaming_encodec.transport.addresses import DEFAULT_PORT
from streaming_encodec.transport.tls import client_tls

if TYPE_CHECKING:
    from streaming_encodec.client.participant import CallStatistics

DEFAULT_URL = f"ws://127.0.0.1:{DEFAULT_PORT}"

UrlOption = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        "-u",
        help="The relay: ws://host:port or wss://host, with /r/ROOM to name the room there. Repeat it for several "
        "relays that share rooms: when one is gone, the next is used.",
        show_default=DEFAULT_URL,
    ),
]

RoomOption = Annotated[
    str | None, typer.Option("--room", "-r", help="The room.", show_default="the URL's, the token's, or lobby")
]

TokenOption = Annotated[
    str | None,
    typer.Option(help="Token, or @FILE to read it from a file: others can see what a command line says."),
]

NameOption = Annotated[
    str | None, typer.Option("--name", help="What the others see you called, 1 to 32 characters.", show_default=False)
]

CaOption = Annotated[
    Path | None,
    typer.Option(help="Certificate, PEM, that a wss:// relay is trusted by, besides those of the system."),
]


class Transport(StrEnum):
    """The ways that `--transport` knows."""

    AUTO = "auto"
    WEBSOCKET = "websocket"


TransportOption = Annotated[
    Transport,
    typer.Option(
        help="auto sends voice as datagrams where relay and network allow it; websocket never does.",
    ),
]


def read_token(token: str | None) -> str | None:
    """The token itself, out of its file if it was given as `@FILE`, whatever program wrote that."""
    if token is None or not token.startswith("@"):
        return token
    try:
        return decode_text(Path(token[1:]).read_bytes()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{token[1:]}: cannot be read: {error}", param_hint="--token") from error


def urls_of(urls: list[str] | None) -> list[str]:
    """The relays of `--url`, this machine's without it."""
    return urls or [DEFAULT_URL]


def tls_of(authority: Path | None, urls: list[str]) -> ssl.SSLContext | None:
    """The TLS context for `--ca`; None without it. Raises typer.BadParameter for an address that has no TLS."""
    if authority is None:
        return None
    for url in urls:
        if url.partition("://")[0].lower() != "wss":
            raise typer.BadParameter(
                f"{url} has no TLS, so there is no certificate to check: write wss://, or leave --ca out",
                param_hint="--ca",
            )
    return client_tls(authority)


def on_interrupt() -> asyncio.Event:
    """An event that Ctrl-C, SIGTERM or SIGHUP sets; a second Ctrl-C ends the program."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        event.set()
        loop.remove_signal_handler(signal.SIGINT)

    def stop_soon(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        loop.call_soon_threadsafe(event.set)

    for number in ending_signals():
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, stop_soon)
    return event


def link_facts(statistics: CallStatistics) -> dict[str, Any]:
    """What `--json` says of the connection."""
    link = statistics.link
    return {
        "connects": link.connects,
        "resumes": link.resumes,
        "packets_sent": link.packets_sent,
        "bytes_sent": link.bytes_sent,
        "packets_dropped": link.packets_dropped,
        "datagrams_sent": link.datagrams_sent,
        "datagrams_received": link.datagrams_received,
    }


def told_of_ways(datagrams: int, packets: int) -> str:
    """Which way packets went, for people."""
    if not datagrams:
        return "websocket"
    return "datagrams" if datagrams >= packets else f"datagrams {100 * datagrams / packets:.0f} %, else websocket"
