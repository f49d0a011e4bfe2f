"""A client's way to a relay: TLS with the system's certificates or a given one, and proxies; and what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from streaming_encodec.client.explain import explain, is_no_tls
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.transport.limits import MAX_MESSAGE_BYTES, WRITE_LIMIT_BYTES
from streaming_encodec.transport.proxies import Proxy, proxy_for
from streaming_encodec.transport.websocket.client import SeatConnection

OPEN_S = 5.0
"""A connection and its handshake take no longer, each attempt."""
_PROBE_S = 2.0

DIAL_ERRORS = (OSError, TimeoutError, InvalidHandshake, ValueError)
"""What `RelayAddress.connect` raises besides CallError; `RelayAddress.explain` says what it means."""


class RelayAddress:
    """Where a relay is and how it is reached.

    Args:
        url: `ws://host:port` or `wss://host`.
        tls: for `wss://`; None trusts the certificates that the system trusts (or those of `SSL_CERT_FILE`).

    Raises:
        ConfigError: the address is none, or TLS settings were given for one without TLS.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        try:
            self._uri = parse_uri(url)
        except (InvalidURI, ValueError) as error:  # a port or a host's name that cannot be is the latter
            raise explain(url, error) from error
        if tls is not None and not self._uri.secure:
            raise ConfigError(
                f"{url} has no TLS, so a certificate says nothing there: write wss://, or leave it out", setting="tls"
            )
        self._tls = tls
        self._proxy: Proxy | None = None

    async def connect(self, token: str | None = None) -> SeatConnection:
        """Open a WebSocket connection. Raises one of `DIAL_ERRORS`, or CallError for a proxy that cannot be used."""
        proxy = self._proxy = proxy_for(self._uri)
        options: dict[str, Any] = {}
        if self._uri.secure:
            if self._tls is None:  # read once: a bundle of certificates takes 20 ms
                self._tls = ssl.create_default_context()
            options["ssl"] = self._tls
        try:
            connection = await connect(
                self.url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
                user_agent_header=None,
                proxy=None if proxy is None else proxy.address,
                open_timeout=OPEN_S,
                ping_interval=5.0,
                ping_timeout=10.0,
                close_timeout=1.0,
                max_size=MAX_MESSAGE_BYTES,
                write_limit=WRITE_LIMIT_BYTES,
                create_connection=SeatConnection,
                **options,
            )
        except ImportError as error:
            raise CallError(
                f"{self.url} is reached through {proxy}, and SOCKS needs one more package: "
                "pip install 'python-socks[asyncio]'; or name the relay's host in no_proxy",
                CallErrorReason.PROXY,
            ) from error
        assert isinstance(connection, SeatConnection)  # made by create_connection
        return connection

    async def explain(self, error: Exception) -> CallError | ConfigError:
        """What a failed `connect` means to the user. Looks at the other end once more where TLS may be the cause."""
        if self._proxy is None:
            if self._uri.secure and is_no_tls(error) and await self._answers_plainly():
                why = f"{self.url}: no TLS is spoken there: write {self._with_scheme('ws')}"
                return CallError(why, CallErrorReason.NOT_A_RELAY)
            if not self._uri.secure and _may_be_tls(error) and await self._answers_tls():
                why = f"{self.url}: TLS is spoken there: write {self._with_scheme('wss')}"
                return CallError(why, CallErrorReason.NOT_A_RELAY)
        return explain(self.url, error, self._proxy)

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


def _may_be_tls(error: Exception) -> bool:
    """Whether an end that waits for TLS may answer a plain request like this: not at all, nonsense, or HTTP 400."""
    if isinstance(error, InvalidStatus):
        return error.response.status_code == 400
    return isinstance(error, InvalidMessage | ConnectionResetError | ConnectionAbortedError | TimeoutError)
