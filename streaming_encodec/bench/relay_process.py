"""A relay in a process of its own, for the runs of `bench relay`."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay

AMPLE = RelayLimits(max_connections=5000, max_connections_per_address=5000, max_rooms=1000, max_peers=5000)


Cluster = tuple[tuple[str, ...], int]
"""URLs of NATS servers, and a relay's number."""


def _relay_process(pipe: Connection, port: int, limits: RelayLimits, cluster: Cluster | None, datagrams: bool) -> None:
    logging.disable()  # connections that a flood has cut off
    bus = None
    if cluster is not None:
        from streaming_encodec.relay.bus.nats import NatsBus
        from streaming_encodec.relay.bus.nats_servers import NatsServers

        bus = NatsBus(NatsServers(cluster[0]), cluster[1])

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        loop.add_reader(pipe.fileno(), asked.set)
        async with Relay(RelayConfig(port=port, limits=limits, datagrams=datagrams), bus=bus) as relay:
            pipe.send(relay.port)
            while True:
                await asked.wait()
                asked.clear()
                if not pipe.poll():
                    continue  # woken twice for one question
                pipe.recv()
                pipe.send(_resources())

    asyncio.run(serve())


def _resources() -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_kb": pages * resource.getpagesize() // 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
    }


class RelayProcess:
    """A relay in a process of its own that can be asked for its resources."""

    def __init__(
        self, port: int = 0, limits: RelayLimits = AMPLE, cluster: Cluster | None = None, *, datagrams: bool = False
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(
            target=_relay_process, args=(there, port, limits, cluster, datagrams), daemon=True
        )
        self._process.start()
        self.port: int = self._pipe.recv()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid or 0

    def resources(self) -> dict[str, float]:
        """CPU seconds, resident memory, open descriptors, tasks."""
        self._pipe.send("resources")
        answer: dict[str, float] = self._pipe.recv()
        return answer

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join()


@contextmanager
def relay_process(limits: RelayLimits = AMPLE, *, datagrams: bool = False) -> Iterator[RelayProcess]:
    """Run a relay in a process of its own."""
    relay = RelayProcess(limits=limits, datagrams=datagrams)
    try:
        yield relay
    finally:
        relay.kill()
