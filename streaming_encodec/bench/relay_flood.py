"""Clients that send as much as they can, for measuring their effect on the calls of others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.wire.control import serialize_control
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import StreamFormat

_PING = Frame(Opcode.PING, b"").serialize(mask=True)
_PONG = Frame(Opcode.PONG, b"").serialize(mask=True)
_FRAGMENTS = Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
_FRAGMENT = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
_PATIENCE_S = 0.05  # where nothing more is taken for so long, another connection may be better
_MANY = 40_000  # frames of six bytes: 240 kB

FLOODS = {
    "openings": b"",
    "headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * _MANY,
    "pings": _PING * _MANY,
    "pings-seated": _PING * _MANY,
    "pongs-seated": _PONG * _MANY,
    "fragments-seated": _FRAGMENTS + _FRAGMENT * _MANY,
}
"""What is sent over and over; `-seated` after taking a seat, `openings` and `headers` instead of a handshake."""
UDP_FLOODS = ("udp-short", "udp-noise", "udp-initials", "udp-handshakes")
"""To the UDP port: short packets of no session, noise as long as a first packet, first packets, and handshakes without
a key, each begun again after its end or half a second."""
_UDP_PACKETS = 64


@contextlib.contextmanager
def flooded(port: int, kind: str, attackers: int, stream_format: StreamFormat) -> Iterator[Counter[str]]:
    """Flood a relay on this machine from a process of its own, which gives way to all other work (nice 19).

    attackers: connections at a time, or UDP sockets; each is opened again when it is closed. They come from 127.0.0.2.
    The counter is filled when it is over: connections `opened`, or UDP `packets`, and `bytes`.
    """
    counts = Counter[str]()
    context = multiprocessing.get_context("spawn")
    pipe, there = context.Pipe()
    process = context.Process(target=_flood, args=(there, port, kind, attackers, stream_format), daemon=True)
    process.start()
    pipe.recv()
    try:
        yield counts
        pipe.send("stop")
        counts.update(pipe.recv())
    finally:
        process.kill()
        process.join()


def _flood(pipe: Connection, port: int, kind: str, attackers: int, stream_format: StreamFormat) -> None:
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # a real-time priority is the callers'
    os.nice(19)
    counts = Counter[str]()
    for _ in range(attackers):
        if kind in UDP_FLOODS:
            thread = threading.Thread(target=_attack_udp, args=(port, kind, counts), daemon=True)
        else:
            thread = threading.Thread(target=_attack, args=(port, kind, stream_format, counts), daemon=True)
        thread.start()
    while not (counts["opened"] or counts["packets"]):
        time.sleep(0.01)
    pipe.send("begun")
    pipe.recv()
    pipe.send(dict(counts))


def _attack(port: int, kind: str, stream_format: StreamFormat, counts: Counter[str]) -> None:
    """Open a connection, send until it is closed, again and again, but at most 200 times a second."""
    data = FLOODS[kind]
    while True:
        time.sleep(0.005)
        with contextlib.suppress(OSError, EOFError), _connected(port) as sock:
            counts["opened"] += 1
            if kind not in ("openings", "headers"):
                _upgrade(sock, port)
            if kind.endswith("-seated"):
                hello = serialize_control(Hello("flood", "subscribe", stream_format))
                sock.sendall(Frame(Opcode.TEXT, hello.encode()).serialize(mask=True))
                sock.recv(4096)
            sock.settimeout(_PATIENCE_S)
            while data:
                counts["bytes"] += sock.send(data)


def _attack_udp(port: int, kind: str, counts: Counter[str]) -> None:
    """Send to the UDP port as fast as the system takes it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.2" if os.uname().sysname == "Linux" else "127.0.0.1", 0))
        sock.connect(("127.0.0.1", port))
        packets = _udp_packets(kind)
        while kind != "udp-handshakes":
            for data in packets:
                with contextlib.suppress(OSError):
                    counts["bytes"] += sock.send(data)
                    counts["packets"] += 1
        while True:
            _shake_hands(sock, counts)


def _udp_packets(kind: str) -> list[bytes]:
    if kind == "udp-short":
        return [b"\x40" + os.urandom(39) for _ in range(_UDP_PACKETS)]
    if kind == "udp-noise":
        return [b"\xc0" + os.urandom(1199) for _ in range(_UDP_PACKETS)]
    return [_stranger().datagrams_to_send(now=0.0)[0][0] for _ in range(_UDP_PACKETS)]


def _stranger() -> QuicConnection:
    """A client that was offered nothing, about to send its first packet."""
    quic = QuicConnection(
        configuration=QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name="localhost", verify_mode=ssl.CERT_NONE
        )
    )
    quic.connect(("127.0.0.1", 1), now=0.0)
    return quic


def _shake_hands(sock: socket.socket, counts: Counter[str]) -> None:
    """One handshake, as far as the relay goes along; what comes after it is left alone."""
    quic, begin_s = _stranger(), time.monotonic()
    sock.settimeout(_PATIENCE_S)
    while (now_s := time.monotonic() - begin_s) < 10 * _PATIENCE_S:
        for data, _ in quic.datagrams_to_send(now=now_s):
            with contextlib.suppress(OSError):
                counts["bytes"] += sock.send(data)
                counts["packets"] += 1
        with contextlib.suppress(OSError):
            quic.receive_datagram(sock.recv(2048), ("127.0.0.1", 1), now=now_s)
        while (happened := quic.next_event()) is not None:
            if isinstance(happened, HandshakeCompleted | ConnectionTerminated):
                return


@contextlib.contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    # An address of its own, where the system has more than one for itself, as a stranger would have.
    source = ("127.0.0.2", 0) if os.uname().sysname == "Linux" else None
    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=source) as sock:
        yield sock


def _upgrade(sock: socket.socket, port: int) -> None:
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/"), subprotocols=[Subprotocol(SUBPROTOCOL)])
    protocol.send_request(protocol.connect())
    sock.sendall(b"".join(protocol.data_to_send()))
    while not any(isinstance(event, Response) for event in protocol.events_received()):
        data = sock.recv(4096)
        if not data:
            raise EOFError("closed during the handshake")
        protocol.receive_data(data)
