"""A relay for tests, and a bare client that says exactly what it is told to."""

from __future__ import annotations

import asyncio
import datetime
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.wire.control import ControlMessage, parse_control, serialize_control
from streaming_encodec.wire.hello import Hello, Welcome
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

FORMAT = StreamFormat("0123456789abcdef" * 2)
OTHER = StreamFormat("fedcba9876543210" * 2)
KEY = TokenKey.from_secret(b"k" * 32)


class FakeClock:
    """Time that stands until it is told to go on."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def running(
    *, limits: RelayLimits | None = None, clock: FakeClock | None = None, datagrams: bool = False, **config: Any
) -> AsyncIterator[Relay]:
    """A relay on a free port of this machine. Tests of the WebSocket need no datagram sessions beside it."""
    clocks = {} if clock is None else {"clock": clock, "wall_clock": clock}
    async with Relay(
        RelayConfig(port=0, limits=limits or RelayLimits(), datagrams=datagrams, **config), **clocks
    ) as relay:
        yield relay


@asynccontextmanager
async def guest(relay: Relay, **options: Any) -> AsyncIterator[ClientConnection]:
    """A connection that has not said hello."""
    options.setdefault("subprotocols", [SUBPROTOCOL])
    async with connect(
        options.pop("uri", relay.url), compression=None, proxy=None, close_timeout=1, **options
    ) as socket:
        yield socket


@asynccontextmanager
async def seated(
    relay: Relay, role: str = "both", room: str = "r", connection: dict[str, Any] | None = None, **hello: Any
) -> AsyncIterator[tuple[ClientConnection, Welcome]]:
    """A connection that was welcomed."""
    async with guest(relay, **(connection or {})) as socket:
        yield socket, await enter(socket, role, room, **hello)


async def enter(socket: ClientConnection, role: str = "both", room: str = "r", **hello: Any) -> Welcome:
    """Say hello and be welcomed."""
    await socket.send(serialize_control(Hello(room, role, hello.pop("format", FORMAT), **hello)))
    welcome = await told(socket)
    assert isinstance(welcome, Welcome)
    return welcome


async def told(socket: ClientConnection) -> ControlMessage:
    """The next control message; packets before it are passed over."""
    while True:
        message = await asyncio.wait_for(socket.recv(), 5)
        if isinstance(message, str):
            return parse_control(message)


async def heard(socket: ClientConnection) -> bytes:
    """The next packet; control messages before it are passed over."""
    while True:
        message = await asyncio.wait_for(socket.recv(), 5)
        if isinstance(message, bytes):
            return message


async def closed_with(socket: ClientConnection) -> int:
    """Read until the relay closes the connection; returns the close code it sent."""

    async def read_on() -> None:
        while True:
            await socket.recv()

    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(read_on(), 10)
    assert closed.value.rcvd is not None, "cut off without a close frame"
    return closed.value.rcvd.code


def voice(sequence: int, codebooks: int = 8, frames: int = 1, timestamp: int | None = None, **fields: Any) -> bytes:
    """A packet whose codes depend on its sequence number, and its timestamp too unless that is given."""
    rng = np.random.default_rng(sequence)
    codes = rng.integers(0, 1024, (codebooks, frames))
    timestamp = sequence * frames if timestamp is None else timestamp
    return serialize_packet(Packet(sequence % 65536, timestamp, codes=codes, **fields))


def counted(relay: Relay, name: str) -> int:
    """A counter of the relay's metrics."""
    return relay.metrics.counts[name]


async def fetch(relay: Relay, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type and body of a page of the relay; a header's `_` stands for `-`."""
    request = urllib.request.Request(
        relay.url.replace("ws", "http", 1) + path,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )

    def get() -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read().decode()

    return await asyncio.to_thread(get)


async def until(condition: Any, what: str) -> None:
    """Wait for a condition, at most half a minute: on a machine that does much else, seconds are nothing."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"did not happen within 30 s: {what}")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, None)
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"
