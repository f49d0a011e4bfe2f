"""How much one relay carries: `python -m streaming_encodec.bench.relay_load`.

Starts a relay in a process of its own, and speakers and listeners in this one. Listeners are bare sockets
that read frame heads and nothing else, so that what is measured is the relay. Latency is from the moment
before a packet is written to the moment after it was read; both ends share one clock, and this process's own
delays count against the relay.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from streaming_encodec.bench.bare_client import BareListener, BareSpeaker, churn_once
from streaming_encodec.bench.relay_flood import FLOODS, flooded
from streaming_encodec.client.link import Link
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.descriptors import raise_descriptor_limit
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.websocket.dial import WebSocketDialer
from streaming_encodec.wire.hello import Hello, StreamFormat
from streaming_encodec.wire.packet import Packet, serialize_packet

FORMAT = StreamFormat("0123456789abcdef" * 2)
_DESCRIPTORS = 16_384
_FLOOD_FIGURES = ("packets_out", "missing", "p50_ms", "p99_ms", "p999_ms", "max_ms", "relay_cpu_share")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Figures of one run; latencies in milliseconds."""

    speakers: int
    listeners: int
    stalled: int
    frames_per_packet: int
    seconds: float
    packets_out: int
    packets_out_per_s: float
    missing: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    relay_cpu_share: float
    relay_rss_before_kb: int
    relay_rss_after_kb: int


@dataclass(frozen=True, slots=True)
class ChurnResult:
    """The relay's resources after each round of connections that came and went."""

    connections_per_round: int
    seconds: float
    rounds: int
    rss_kb: list[int]
    descriptors: list[int]
    tasks: list[int]


# -- the relay's process ------------------------------------------------------------------------------------


_AMPLE = RelayLimits(max_connections=5000, max_connections_per_address=5000, max_rooms=1000, max_peers=5000)


def _relay_process(pipe: Connection, port: int, limits: RelayLimits) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        loop.add_reader(pipe.fileno(), asked.set)
        async with Relay(RelayConfig(port=port, limits=limits)) as relay:
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

    def __init__(self, port: int = 0, limits: RelayLimits = _AMPLE) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_relay_process, args=(there, port, limits), daemon=True)
        self._process.start()
        self.port: int = self._pipe.recv()

    def resources(self) -> dict[str, float]:
        """CPU seconds, resident memory, open descriptors, tasks."""
        self._pipe.send("resources")
        answer: dict[str, float] = self._pipe.recv()
        return answer

    def kill(self) -> None:
        """End it without a goodbye."""
        self._process.kill()
        self._process.join()


@contextmanager
def relay_process(limits: RelayLimits = _AMPLE) -> Iterator[RelayProcess]:
    """Run a relay in a process of its own."""
    relay = RelayProcess(limits=limits)
    try:
        yield relay
    finally:
        relay.kill()


# -- the runs -----------------------------------------------------------------------------------------------


async def fan_out(
    relay: RelayProcess,
    *,
    speakers: int,
    listeners_each: int,
    one_room: bool,
    stalled: int,
    seconds: float,
    frames_per_packet: int,
) -> LoadResult:
    """Speakers, evenly spread over time, and listeners; `stalled` more listeners read nothing at all."""
    rooms = ["load"] * speakers if one_room else [f"load {i}" for i in range(speakers)]
    ears: list[BareListener] = []
    for room in sorted(set(rooms)):
        for _ in range(listeners_each):
            ears.append(await BareListener.join(relay.port, room, FORMAT))
    stuck = [await BareListener.join(relay.port, rooms[0], FORMAT, stalled=True) for _ in range(stalled)]
    mouths = [await BareSpeaker.join(relay.port, room, FORMAT) for room in rooms]
    await asyncio.sleep(0.5)
    for ear in ears:
        ear.latencies.clear()
    before = relay.resources()
    period_s = frames_per_packet / 75
    count = round(seconds / period_s)
    begin_s = time.perf_counter()
    await asyncio.gather(
        *(
            _talk(mouth, begin_s + period_s * i / speakers, period_s, count, frames_per_packet)
            for i, mouth in enumerate(mouths)
        )
    )
    took_s = time.perf_counter() - begin_s
    after = relay.resources()
    await asyncio.sleep(0.3)
    latencies = np.sort(np.concatenate([np.asarray(ear.latencies) for ear in ears])) * 1000
    expected = count * speakers * listeners_each
    for one in (*mouths, *ears, *stuck):
        one.close()
    return LoadResult(
        speakers=speakers,
        listeners=len(ears),
        stalled=stalled,
        frames_per_packet=frames_per_packet,
        seconds=took_s,
        packets_out=len(latencies),
        packets_out_per_s=len(latencies) / took_s,
        missing=expected - len(latencies),
        p50_ms=float(np.percentile(latencies, 50)),
        p99_ms=float(np.percentile(latencies, 99)),
        p999_ms=float(np.percentile(latencies, 99.9)),
        max_ms=float(latencies[-1]),
        relay_cpu_share=(after["cpu_s"] - before["cpu_s"]) / took_s,
        relay_rss_before_kb=int(before["rss_kb"]),
        relay_rss_after_kb=int(after["rss_kb"]),
    )


async def _talk(mouth: BareSpeaker, begin_s: float, period_s: float, count: int, frames: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1024, (8, frames))
    for number in range(count):
        await asyncio.sleep(max(0.0, begin_s + number * period_s - time.perf_counter()))
        packet = Packet(number & 0xFFFF, number * frames, codes=codes)
        mouth.send(serialize_packet(packet))


async def flood(relay: RelayProcess, *, attackers: int, seconds: float) -> list[dict[str, Any]]:
    """Two speakers and 30 listeners: their latencies by themselves, under each flood, and by themselves again."""

    async def calls() -> LoadResult:
        return await fan_out(
            relay, speakers=2, listeners_each=15, one_room=False, stalled=0, seconds=seconds, frames_per_packet=1
        )

    results: list[dict[str, Any]] = []
    for kind in ("none", *FLOODS, "none"):
        if kind == "none":
            attack, result = Counter[str](), await calls()
        else:
            with flooded(relay.port, kind, attackers, FORMAT) as attack:
                result = await calls()
        figures = {name: round(value, 2) for name, value in asdict(result).items() if name in _FLOOD_FIGURES}
        results.append({"flood": kind, **figures, **attack})
        await asyncio.sleep(2.0)  # what is left of the connections ends
    return results


async def churn(relay: RelayProcess, *, connections: int, seconds: float) -> ChurnResult:
    """Rounds of connections that join, speak a little, and leave, half of them without a goodbye."""
    results: list[dict[str, float]] = []
    begin_s = time.perf_counter()
    while time.perf_counter() - begin_s < seconds or len(results) < 3:
        for at in range(0, connections, 50):
            await asyncio.gather(
                *(churn_once(relay.port, f"churn {i % 20}", FORMAT, clean=i % 2 == 0) for i in range(at, at + 50))
            )
        await asyncio.sleep(0.2)
        results.append(relay.resources())
    return ChurnResult(
        connections_per_round=connections,
        seconds=time.perf_counter() - begin_s,
        rounds=len(results),
        rss_kb=[int(r["rss_kb"]) for r in results],
        descriptors=[int(r["descriptors"]) for r in results],
        tasks=[int(r["tasks"]) for r in results],
    )


async def resume(rounds: int) -> dict[str, Any]:
    """Kill the relay under a speaker and a listener, start it again: seconds until both are back."""
    relay = RelayProcess()
    links = [
        Link(
            WebSocketDialer(f"ws://127.0.0.1:{relay.port}"),
            Hello("load", role, FORMAT),
            None,
            on_packet=lambda data: None,
            on_control=lambda message: None,
        )
        for role in ("publish", "subscribe")
    ]
    for link in links:
        await link.open()
    back_s: list[float] = []
    for number in range(rounds):
        relay.kill()
        # Down for another time in each round, so that it comes back at another place of the clients' pauses.
        await asyncio.sleep(0.5 + 0.3 * number)
        relay = await asyncio.to_thread(RelayProcess, relay.port)
        begin_s = time.perf_counter()
        while not all(link.connected for link in links):
            await asyncio.sleep(0.001)
        back_s.append(time.perf_counter() - begin_s)
    for link in links:
        await link.close()
    relay.kill()
    return {"rounds": rounds, "median_s": statistics.median(back_s), "max_s": max(back_s), "back_s": back_s}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Measure a relay on this machine.")
    parser.add_argument("run", choices=("one-to-many", "many-rooms", "one-room", "stalled", "churn", "resume", "flood"))
    parser.add_argument("--listeners", type=int, default=200, help="of one-to-many and stalled")
    parser.add_argument("--speakers", type=int, default=10, help="of many-rooms and one-room")
    parser.add_argument("--each", type=int, default=20, help="listeners of each of these")
    parser.add_argument("--frames", type=int, default=1, help="frames in a packet")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=500, help="of a round of churn")
    parser.add_argument("--attackers", type=int, default=8, help="of flood: connections at a time")
    parser.add_argument("--rounds", type=int, default=10, help="of resume")
    options = parser.parse_args()
    raise_descriptor_limit(_DESCRIPTORS)
    if options.run == "resume":
        print(json.dumps(asyncio.run(resume(options.rounds)), indent=2))
        return
    # The limits of `serve` as it comes; 32 connections of one address are the callers'.
    with relay_process(RelayLimits() if options.run == "flood" else _AMPLE) as relay:
        result = asyncio.run(_run(relay, options))
    print(json.dumps(result, indent=2))


async def _run(relay: RelayProcess, options: argparse.Namespace) -> Any:
    common = {"seconds": options.seconds, "frames_per_packet": options.frames}
    if options.run == "flood":
        return await flood(relay, attackers=options.attackers, seconds=options.seconds)
    if options.run == "churn":
        return asdict(await churn(relay, connections=options.connections, seconds=options.seconds))
    if options.run in ("one-to-many", "stalled"):
        results = [
            await fan_out(relay, speakers=1, listeners_each=options.listeners, one_room=True, stalled=stalled, **common)
            for stalled in ((0, 1) if options.run == "stalled" else (0,))
        ]
        return [asdict(result) for result in results]
    one_room = options.run == "one-room"
    result = await fan_out(
        relay,
        speakers=options.speakers,
        listeners_each=options.each,
        one_room=one_room,
        stalled=0,
        **common,
    )
    return asdict(result)


if __name__ == "__main__":
    main()
