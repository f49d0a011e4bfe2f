"""`streaming-encodec token`: makes a token that admits to a room."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.cli.shared.console import note
from streaming_encodec.cli.shared.web_link import page_link, show_link
from streaming_encodec.relay.tokens import TokenKey, new_key_file

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def command(
    room: Annotated[str | None, typer.Argument(help="The room it opens.")] = None,
    key: Annotated[Path | None, typer.Option(help="The key file of `serve --key` (or its private half).")] = None,
    new_key: Annotated[Path | None, typer.Option(help="First make a new key file.", metavar="FILE")] = None,
    publish: Annotated[bool, typer.Option("--publish/--no-publish", help="May speak.")] = True,
    subscribe: Annotated[bool, typer.Option("--subscribe/--no-subscribe", help="May listen.")] = True,
    ttl: Annotated[str, typer.Option(help="Validity: 90s, 15m, 8h or 1d; at most a day.")] = "1h",
    token_id: Annotated[
        str | None, typer.Option("--id", help="Its id (jti); a relay accepts each id once.", show_default="random")
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(
            help="Print a link to the relay's web page instead, with the token in it; on a terminal also as a QR code. "
            "ADDRESS is the page's, such as https://call.example.",
            metavar="ADDRESS",
        ),
    ] = None,
) -> None:
    """Print a token that admits one participant to a room once."""
    if new_key is not None:
        new_key_file(new_key)
        note(f"{new_key} holds a new key: keep it secret, and give it to `serve --key`")
        key = key or new_key
        if room is None:
            return
    if room is None:
        raise typer.BadParameter("which room?", param_hint="ROOM")
    if key is None:
        raise typer.BadParameter("give the relay's key file, or make one with --new-key", param_hint="--key")
    token = TokenKey.load(key).sign(
        room,
        now_s=time.time(),
        publish=publish,
        subscribe=subscribe,
        ttl_s=_seconds(ttl),
        token_id=token_id,
    )
    if link is None:
        print(token)
    else:
        show_link(page_link(link, room, token))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _UNITS["d"]:
        raise typer.BadParameter("write 90s, 15m, 8h or 1d; a day is the most", param_hint="--ttl")
    return seconds
