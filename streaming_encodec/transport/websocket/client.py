"""A client's end of WebSocket connections, and its way to a relay: TLS with the system's certificates, proxies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.transport.failures import in_words, status_error, system_error
from streaming_encodec.transport.limits import MAX_MESSAGE_BYTES, WRITE_LIMIT_BYTES
from streaming_encodec.transport.proxies import Proxy, proxy_for
from streaming_encodec.transport.websocket.connection import MaskedFrames, WebSocketConnection
from streaming_encodec.transport.websocket.opening import Address, find_addresses, open_socket
from streaming_encodec.wire.room_path import room_of_url

OPEN_S = 5.0
"""A connection and its handshake take no longer, each attempt."""
_LOOK_UP_S = 1.0
"""For so long the name of a relay that was reached before is looked up again: a dead line answers nothing."""
_PROBE_S = 2.0
_QUEUE_FRAMES = 30
"""Frames that wait for a slow network: 0.4 s."""
_NO_TLS_REASONS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", ""})
"""What OpenSSL's versions make of an answer that is no TLS."""


class WebSocketClient(WebSocketConnection, ClientConnection):
    """A `transport.base.Connection` to a relay; made by `WebSocketDialer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, frames=MaskedFrames(), queue_frames=_QUEUE_FRAMES, **kwargs)
        self.relay_address: str | None = None


class WebSocketDialer:
    """A `transport.base.Dialer`.

    Args:
        url: `ws://host:port` or `wss://host`, and the room's path if the relay is to know it before the hello.
        tls: for `wss://`; None trusts the certificates that the system trusts (or those of `SSL_CERT_FILE`).

    Raises:
        ConfigError: the address is none, or TLS settings were given for one without TLS.
    """

    room: str | None
    """The one that the URL names; None for a URL that names none."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        try:
            self._uri = parse_uri(url)
            self.room = room_of_url(self._uri.path)
        except (InvalidURI, ValueError) as error:  # a port, a host's name or a room that cannot be is the latter
            raise _no_address(url, error) from error
        if tls is not None and not self._uri.secure:
            raise ConfigError(
                f"{url} has no TLS, so a certificate says nothing there: write wss://, or leave it out", setting="tls"
            )
        self._tls = tls
        self._addresses: list[Address] = []
        self._are_good = False  # the addresses answered the last time

    async def connect(self, token: str | None = None) -> WebSocketClient:
        """Open a connection. Raises CallError with the reason; ConfigError for a host's name that cannot be."""
        proxy = proxy_for(self._uri)
        options: dict[str, Any] = {}
        if self._uri.secure:
            if self._tls is None:  # read once: a bundle of certificates takes 20 ms
                self._tls = ssl.create_default_context()
            options["ssl"] = self._tls
        try:
            if proxy is None:
                options["sock"] = await self._open_socket()
            connection = await connect(
                self.url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
                user_agent_header=None,
                proxy=None if proxy is None else proxy.address,
                open_timeout=OPEN_S,
                ping_interval=None,  # see `client.heartbeat`
                close_timeout=1.0,
                max_size=MAX_MESSAGE_BYTES,
                write_limit=WRITE_LIMIT_BYTES,
                create_connection=WebSocketClient,
                **options,
            )
        except ImportError as error:
            raise CallError(
                f"{self.url} is reached through {proxy}, and SOCKS needs one more package: "
                "pip install 'python-socks[asyncio]'; or name the relay's host in no_proxy",
                CallErrorReason.PROXY,
            ) from error
        except (OSError, TimeoutError, InvalidHandshake, ValueError) as error:
            raise explain(self.url, error, proxy) from error
        assert isinstance(connection, WebSocketClient)  # made by create_connection
        if proxy is None:
            connection.relay_address = str(connection.remote_address[0])
        return connection

    async def _open_socket(self) -> socket.socket:
        """A connected socket; at a second time to the addresses that were good the first time."""
        async with asyncio.timeout(OPEN_S):
            if not self._are_good:
                try:
                    async with asyncio.timeout(_LOOK_UP_S if self._addresses else None):
                        self._addresses = await find_addresses(self._uri.host, self._uri.port)
                except (OSError, TimeoutError):
                    if not self._addresses:
                        raise
            self._are_good = False
            sock = await open_socket(self._addresses)
            self._are_good = True
            return sock

    async def diagnose(self, error: CallError) -> CallError:
        """Look at the other end once more where one of the two may speak TLS and the other not."""
        cause = error.__cause__
        if error.reason is CallErrorReason.PROXY or cause is None or proxy_for(self._uri) is not None:
            return error
        if self._uri.secure and _is_no_tls(cause) and await self._answers_plainly():
            why = f"{self.url}: no TLS is spoken there: write {self._with_scheme('ws')}"
        elif not self._uri.secure and _may_be_tls(cause) and await self._answers_tls():
            why = f"{self.url}: TLS is spoken there: write {self._with_scheme('wss')}"
        else:
            return error
        return CallError(why, CallErrorReason.NOT_A_RELAY)

    def _with_scheme(self, scheme: str) -> str:
        return f"{scheme}://{self.url.partition('://')[2]}"

    async def _answers_tls(self) -> bool:
        """Whether the other end answers a TLS greeting; whose certificate it has does not matter here."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return await self._probe(context) is not None

    async def _answers_plainly(self) -> bool:
        """Whether the other end answers HTTP without TLS."""
        return (await self._probe(None) or b"").startswith(b"HTTP/")

    async def _probe(self, tls: ssl.SSLContext | None) -> bytes | None:
        """The first bytes of an answer to a request; None where there is no connection."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PROBE_S):
                reader, writer = await asyncio.open_connection(self._uri.host, self._uri.port, ssl=tls)
                try:
                    if tls is not None:
                        return b""
                    writer.write(f"GET / HTTP/1.1\r\nHost: {self._uri.host}\r\n\r\n".encode())
                    return await reader.read(16)
                finally:
                    writer.transport.abort()
        return None


def explain(url: str, error: Exception, proxy: Proxy | None = None) -> CallError | ConfigError:
    """What an error of the WebSocket library or the system means. proxy: the one that the connection goes through."""
    through = "" if proxy is None else f"; the connection goes through {proxy}"
    if isinstance(error, ssl.SSLError):
        return system_error(url, error, through)
    if isinstance(error, InvalidStatus):
        return status_error(url, error.response.status_code, through)
    if proxy is not None and isinstance(error, OSError | TimeoutError | ProxyError):
        return CallError(
            f"no way to {url} through {proxy}: {_proxy_failure(error)}. "
            "Set that variable to a proxy that works, or name the relay's host in no_proxy",
            CallErrorReason.PROXY,
        )
    if isinstance(error, OSError | TimeoutError):
        return system_error(url, error)
    # A port or a host's name that cannot be is a ValueError; so is a bad certificate, which is an OSError too.
    if isinstance(error, InvalidURI | ValueError):
        return _no_address(url, error)
    if isinstance(error, InvalidMessage):
        why = f"{url} is no relay: what answers there is no HTTP{through}"
        return CallError(why, CallErrorReason.UNREACHABLE)
    return CallError(f"no connection to {url}: {error}", CallErrorReason.UNREACHABLE)


def _no_address(url: str, error: InvalidURI | ValueError) -> ConfigError:
    why = error.msg if isinstance(error, InvalidURI) else str(error)
    return ConfigError(f"{url} is no WebSocket address ({why}): write ws://host:port or wss://host", setting="url")


def _proxy_failure(error: Exception) -> str:
    if isinstance(error, InvalidProxyStatus):
        status = error.response.status_code
        if status == 407:
            return "it wants a name and a password (HTTP 407), written SCHEME://NAME:PASSWORD@HOST:PORT"
        return f"it does not let this through (HTTP {status})"
    if isinstance(error, InvalidProxyMessage):
        return "what answers there is no HTTP proxy"
    if isinstance(error, ProxyError) and error.__cause__ is not None:
        return str(error.__cause__)
    return in_words(error)


def _is_no_tls(error: BaseException) -> bool:
    """Whether the other end of a TLS handshake may speak none."""
    if isinstance(error, ssl.SSLError):
        return not isinstance(error, ssl.SSLCertVerificationError) and (error.reason or "") in _NO_TLS_REASONS
    return isinstance(error, ConnectionResetError | ConnectionAbortedError)


def _may_be_tls(error: BaseException) -> bool:
    """Whether an end that waits for TLS may answer a plain request like this: not at all, nonsense, or HTTP 400."""
    if isinstance(error, InvalidStatus):
        return error.response.status_code == 400
    return isinstance(error, InvalidMessage | ConnectionResetError | ConnectionAbortedError | TimeoutError)
