"""How much one relay carries: `bench relay`.

Starts a relay in a process of its own, and speakers and listeners in this one. Listeners are bare sockets
that read frame heads and nothing else, so that what is measured is the relay. Latency is from the moment
before a packet is written to the moment after it was read; both ends share one clock, and this process's own
delays count against the relay.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_encodec.bench.bare_client import BareListener, BareSpeaker, churn_once
from streaming_encodec.bench.datagram_listener import DatagramListener, join_all
from streaming_encodec.bench.relay_flood import FLOODS, UDP_FLOODS, flooded
from streaming_encodec.bench.relay_process import AMPLE, RelayProcess, relay_process
from streaming_encodec.bench.tables import Table
from streaming_encodec.client.link import Link
from streaming_encodec.relay.descriptors import raise_descriptor_limit
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

FORMAT = StreamFormat("0123456789abcdef" * 2)
_DESCRIPTORS = 16_384


@dataclass(frozen=True, slots=True)
class RelayPlan:
    """How much of everything; what a run does not have is of no effect on it.

    Attributes:
        speakers: None is 1, or 10 in `many-rooms` and `one-room`.
        listeners: of each speaker's room; None is 200, 20 in these two, or 60 in `datagrams`.
        seconds: of speech, of each flood, or of all rounds of churn together.
        connections: of a round of churn.
        attackers: connections at a time in a flood.
        rounds: of `resume`.
    """

    speakers: int | None = None
    listeners: int | None = None
    frames_per_packet: int = 1
    seconds: float = 10.0
    connections: int = 500
    attackers: int = 8
    rounds: int = 10


async def fan_out(
    relay: RelayProcess,
    *,
    speakers: int,
    listeners_each: int,
    one_room: bool,
    stalled: int,
    seconds: float,
    frames_per_packet: int,
    ways: tuple[str, ...] = ("websocket",),
    meanwhile: AbstractContextManager[Counter[str]] | None = None,
) -> dict[str, Any]:
    """Speakers, evenly spread over time, and listeners; `stalled` more listeners read nothing at all.

    ways: of listeners, in turn: "websocket", "datagrams". meanwhile: what happens while they speak; what it counts is
    added to the figures.

    Returns:
        Figures of the run, and of each way; latencies in milliseconds.
    """
    rooms = ["load"] * speakers if one_room else [f"load {i}" for i in range(speakers)]
    ears: list[BareListener] = []
    way_of = [ways[i % len(ways)] for i in range(listeners_each)]
    for room in sorted(set(rooms)):
        ears += await join_all(relay.port, room, FORMAT, way_of)
    stuck = [await BareListener.join(relay.port, rooms[0], FORMAT, stalled=True) for _ in range(stalled)]
    mouths = [await BareSpeaker.join(relay.port, room, FORMAT) for room in rooms]
    meanwhile = meanwhile or nullcontext(Counter())
    attack = await asyncio.to_thread(meanwhile.__enter__)
    await asyncio.sleep(0.5)
    for ear in ears:
        ear.latencies.clear()
    before = relay.resources()
    period_s = frames_per_packet / 75
    count = round(seconds / period_s)
    begin_s, busy_s = time.perf_counter(), time.process_time()
    await asyncio.gather(
        *(
            talk(mouth, begin_s + period_s * i / speakers, period_s, count, frames_per_packet)
            for i, mouth in enumerate(mouths)
        )
    )
    took_s, busy_s = time.perf_counter() - begin_s, time.process_time() - busy_s
    after = relay.resources()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(meanwhile.__exit__, None, None, None)
    for one in (*mouths, *ears, *stuck):
        one.close()
    latencies = _latencies_ms(ears)
    p50_ms, p99_ms, p999_ms = np.percentile(latencies, (50, 99, 99.9))
    return {
        "speakers": speakers,
        "listeners": len(ears),
        "stalled": stalled,
        "frames_per_packet": frames_per_packet,
        "seconds": took_s,
        "packets_out": len(latencies),
        "packets_out_per_s": len(latencies) / took_s,
        "missing": count * speakers * listeners_each - len(latencies),
        "p50_ms": float(p50_ms),
        "p99_ms": float(p99_ms),
        "p999_ms": float(p999_ms),
        "max_ms": float(latencies[-1]),
        "relay_cpu_share": (after["cpu_s"] - before["cpu_s"]) / took_s,
        "generator_cpu_share": busy_s / took_s,
        "relay_rss_before_kb": int(before["rss_kb"]),
        "relay_rss_after_kb": int(after["rss_kb"]),
        "ways": {way: _way_figures(way, ears, count * (speakers if one_room else 1)) for way in dict.fromkeys(way_of)},
        **attack,
    }


def _latencies_ms(ears: list[BareListener]) -> npt.NDArray[np.float64]:
    return np.sort(np.concatenate([np.asarray(ear.latencies) for ear in ears])) * 1000


def _way_figures(way: str, all_ears: list[BareListener], sent_each: int) -> dict[str, Any]:
    """Figures of the listeners of one way. sent_each: packets that each should hear."""
    ears = [ear for ear in all_ears if isinstance(ear, DatagramListener) == (way == "datagrams")]
    latencies = _latencies_ms(ears)
    p50_ms, p99_ms = np.percentile(latencies, (50, 99))
    came = sum(ear.datagrams for ear in ears if isinstance(ear, DatagramListener))
    return {
        "listeners": len(ears),
        "missing": sent_each * len(ears) - len(latencies),
        "p50_ms": float(p50_ms),
        "p99_ms": float(p99_ms),
        "datagram_share": came / max(1, len(latencies)),
    }


async def talk(mouth: BareSpeaker, begin_s: float, period_s: float, count: int, frames: int) -> None:
    """Say so many packets, one each period."""
    codes = np.random.default_rng(0).integers(0, 1024, (8, frames))
    for number in range(count):
        await asyncio.sleep(max(0.0, begin_s + number * period_s - time.perf_counter()))
        packet = Packet(number & 0xFFFF, number * frames, codes=codes)
        mouth.send(serialize_packet(packet))


async def flood(relay: RelayProcess, *, attackers: int, seconds: float) -> list[dict[str, Any]]:
    """Two speakers and 30 listeners: their figures by themselves, under each flood, and by themselves again."""

    async def calls() -> dict[str, Any]:
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
        results.append({"flood": kind, **result, **attack})
        await asyncio.sleep(2.0)  # what is left of the connections ends
    return results


async def udp_flood(relay: RelayProcess, *, attackers: int, seconds: float) -> list[dict[str, Any]]:
    """Two speakers and 30 listeners, half of them over datagrams, whose port is flooded."""
    results: list[dict[str, Any]] = []
    for kind in ("none", *UDP_FLOODS, "none"):
        result = await fan_out(
            relay,
            speakers=2,
            listeners_each=15,
            one_room=False,
            stalled=0,
            seconds=seconds,
            frames_per_packet=1,
            ways=("websocket", "datagrams"),
            meanwhile=None if kind == "none" else flooded(relay.port, kind, attackers, FORMAT),
        )
        results.append({"flood": kind, **result})
        await asyncio.sleep(2.0)  # what is left of the connections ends
    return results


async def churn(relay: RelayProcess, *, connections: int, seconds: float) -> list[dict[str, Any]]:
    """Rounds of connections that join, speak a little, and leave, half of them without a goodbye.

    Returns:
        The relay's resources after each round, of which there are three at least.
    """
    rounds: list[dict[str, Any]] = []
    begin_s = time.perf_counter()
    while time.perf_counter() - begin_s < seconds or len(rounds) < 3:
        for at in range(0, connections, 50):
            await asyncio.gather(
                *(churn_once(relay.port, f"churn {i % 20}", FORMAT, clean=i % 2 == 0) for i in range(at, at + 50))
            )
        await asyncio.sleep(0.2)
        rounds.append({name: int(value) for name, value in relay.resources().items() if name != "cpu_s"})
    return rounds


async def resume(rounds: int) -> list[dict[str, Any]]:
    """Kill the relay under a speaker and a listener, start it again: seconds until both are back, in each round."""
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
    return [{"back_s": wait_s} for wait_s in back_s]


def measure_relay(run: str, plan: RelayPlan) -> list[dict[str, Any]]:
    """Start a relay and measure it.

    Args:
        run: `one-to-many`, `many-rooms`, `one-room`, `stalled`, `datagrams`, `churn`, `resume`, `flood` or `udp-flood`,
            see `bench relay --help`.
    """
    raise_descriptor_limit(_DESCRIPTORS)
    if run == "resume":
        return asyncio.run(resume(plan.rounds))
    # A flood meets the limits of `serve` as it comes; 32 connections of one address are the callers'.
    limits = RelayLimits() if run in ("flood", "udp-flood") else AMPLE
    with relay_process(limits, datagrams=run in ("datagrams", "udp-flood")) as relay:
        if run == "flood":
            return asyncio.run(flood(relay, attackers=plan.attackers, seconds=plan.seconds))
        if run == "udp-flood":
            return asyncio.run(udp_flood(relay, attackers=plan.attackers, seconds=plan.seconds))
        if run == "churn":
            return asyncio.run(churn(relay, connections=plan.connections, seconds=plan.seconds))
        many = run in ("many-rooms", "one-room")
        return [
            asyncio.run(
                fan_out(
                    relay,
                    speakers=plan.speakers or (10 if many else 1),
                    listeners_each=plan.listeners or (20 if many else 60 if run == "datagrams" else 200),
                    one_room=run != "many-rooms",
                    stalled=stalled,
                    seconds=plan.seconds,
                    frames_per_packet=plan.frames_per_packet,
                    ways=(way,),
                )
            )
            for way in (("websocket", "datagrams") if run == "datagrams" else ("websocket",))
            for stalled in ((0, 1) if run == "stalled" else (0,))
        ]


def relay_table(run: str, rows: list[dict[str, Any]]) -> Table:
    """A row of figures for each run, flood or round."""
    if run == "churn":
        lines = [
            [str(i), f"{r['rss_kb'] / 1000:.1f}", str(r["descriptors"]), str(r["tasks"])] for i, r in enumerate(rows)
        ]
        return Table("the relay after each round", ["round", "memory MB", "descriptors", "tasks"], lines)
    if run == "resume":
        waits = [row["back_s"] for row in rows]
        lines = [[str(number), f"{wait:.2f}"] for number, wait in enumerate(waits)]
        lines += [["median", f"{statistics.median(waits):.2f}"], ["most", f"{max(waits):.2f}"]]
        return Table("from the relay's return to its clients'", ["round", "seconds"], lines)
    if run == "udp-flood":
        return _udp_flood_table(rows)
    if run == "datagrams":
        rows = [{**row, "way": way} for row in rows for way in row["ways"]]
    label = {"flood": "flood", "stalled": "stalled", "datagrams": "way"}.get(run, "run")
    lines = [
        [
            str(row.get(label, run)),
            f"{row['packets_out_per_s']:.0f}",
            *(f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms")),
            str(row["missing"]),
            f"{row['relay_cpu_share']:.0%}",
            f"{row['relay_rss_after_kb'] / 1000:.0f}",
        ]
        for row in rows
    ]
    title = f"packets out of the relay; speakers: {rows[0]['speakers']}, listeners: {rows[0]['listeners']}"
    return Table(title, [label, "a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "lost", "core", "MB"], lines)


def _udp_flood_table(rows: list[dict[str, Any]]) -> Table:
    lines = [
        [
            row["flood"],
            f"{row.get('packets', 0) / row['seconds']:.0f}",
            way,
            f"{of_way['p50_ms']:.1f}",
            f"{of_way['p99_ms']:.1f}",
            str(of_way["missing"]),
            f"{row['relay_cpu_share']:.0%}",
        ]
        for row in rows
        for way, of_way in row["ways"].items()
    ]
    title = f"calls while the UDP port is flooded; speakers: {rows[0]['speakers']}, listeners: {rows[0]['listeners']}"
    return Table(title, ["flood", "packets a second", "heard over", "p50 ms", "p99 ms", "lost", "core"], lines)
