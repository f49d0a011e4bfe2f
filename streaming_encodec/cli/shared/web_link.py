"""Links to a relay's web page, for people: as text, and as a QR code on a terminal."""

from __future__ import annotations

import io
import socket
import sys
from urllib.parse import urlsplit

import typer

from streaming_encodec.transport.addresses import is_loopback
from streaming_encodec.wire.room_path import room_path

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_EVERY_ADDRESS = ("", "0.0.0.0", "::")


def page_link(url: str, room: str | None = None, token: str | None = None) -> str:
    """The page of the relay at a URL (of the page or of the relay), for one room, with a token in the fragment.

    A browser does not send the fragment, so no server writes the token into its log. Raises BadParameter for what is
    no address.
    """
    try:
        parts = urlsplit(url)
        scheme, host = _SCHEMES.get(parts.scheme), parts.netloc
        known = scheme is not None and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise typer.BadParameter(f"{url!r} is no address of a page: write https://HOST or https://HOST:PORT")
    path = "/" if room is None else room_path(room)
    return f"{scheme}://{host}{parts.path.rstrip('/')}{path}" + (f"#token={token}" if token else "")


def own_link(host: str, port: int, *, tls: bool) -> str:
    """The page of a relay that listens on this machine."""
    if host in _EVERY_ADDRESS:
        host = own_address()
    host = "localhost" if is_loopback(host) else f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{host}:{port}/"


def own_address() -> str:
    """This machine's address in its network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # an address for documentation: only the way to it is looked up
            return str(sock.getsockname()[0])
        except OSError:
            return "localhost"


def show_link(link: str) -> None:
    """Print a link on stdout, on a terminal with its QR code."""
    print(link)
    if sys.stdout.isatty():
        print(qr_code(link), end="")
    sys.stdout.flush()


def qr_code(link: str) -> str:
    """A QR code of block characters, two modules in each; dark on light whatever the terminal's colours are."""
    import segno

    lines = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(lines, compact=True)
    return lines.getvalue()
