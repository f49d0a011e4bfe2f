"""Certificates that are made for a test, and a relay in a thread for commands that have the main one."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from streaming_encodec.client.network_thread import NetworkThread
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.tls import server_tls

_DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority of its own, and the certificates that it issues. `file` is what trusts it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = Ed25519PrivateKey.generate()
        self._name = _name("authority")
        self._serial = 1
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.file = folder / "authority.pem"
        self.file.write_bytes(made.sign(self._key, None).public_bytes(Encoding.PEM))

    def issue(self, *hosts: str, valid_days: tuple[int, int] = (-1, 1)) -> ssl.SSLContext:
        """A server's context with a certificate for these hosts."""
        key = Ed25519PrivateKey.generate()
        names = [_general_name(host) for host in hosts]
        made = self._builder(_name("relay"), key, valid_days)
        made = made.add_extension(x509.SubjectAlternativeName(names), False)
        certificate, private = self._folder / f"{self._serial}.pem", self._folder / f"{self._serial}.key"
        certificate.write_bytes(made.sign(self._key, None).public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return server_tls(certificate, private)

    def _builder(
        self, subject: x509.Name, key: Ed25519PrivateKey, valid_days: tuple[int, int] = (-1, 1)
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        self._serial += 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(now + valid_days[0] * _DAY)
            .not_valid_after(now + valid_days[1] * _DAY)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@contextmanager
def relay_in_thread(**config: Any) -> Iterator[Relay]:
    """A relay on a free port whose event loop has a thread of its own."""
    loop = NetworkThread()

    async def begin() -> Relay:
        return await Relay(RelayConfig(port=0, **config)).__aenter__()

    relay = loop.run(begin())
    try:
        yield relay
    finally:
        loop.run(relay.__aexit__(None, None, None))
        loop.close()


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition outside an event loop, at most two minutes: processes start slowly on a busy machine."""
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s, f"did not happen within two minutes: {what}"
        threading.Event().wait(0.02)


@contextmanager
def plain_server(answer: bytes) -> Iterator[int]:
    """A TCP server that answers whatever comes with these bytes and closes. Yields its port."""
    loop = NetworkThread()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    server = loop.run(begin())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.loop.call_soon_threadsafe(server.close)
        loop.close()
