"""The process that carries all lines: packets out of one TUN device, through an `ImpairedLine`, into another.

Its parent writes a JSON line (see `Forwarder`) to its standard input, reads `ready`, writes the moment of the first
word as a line, closes the pipe at the end and reads the counts. So it ends with its parent, however that ends.
"""

from __future__ import annotations

import gc
import heapq
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from streaming_encodec.bench.network.conditions import Condition, Where
from streaming_encodec.bench.network.impair import ImpairedLine, Impairment
from streaming_encodec.bench.network.realtime import FORWARDER_PRIORITY, StallWatch, prefer
from streaming_encodec.bench.network.topology import LISTENER, RELAY, SPEAKER, Topology, inside, open_tun
from streaming_encodec.errors import StreamingEncodecError

_LONGEST_PACKET = 2048  # the devices' own limit is 1500
_AT_ONCE = 64
_MOST_ON_THE_WAY = 20_000
"""Packets: a bound for what a flood through a line without a rate could pile up here."""
_NOT_YET_S = 1e6
_UDP = 17
_WITH_PORTS = (6, _UDP)  # TCP and UDP begin with both ports


class Forwarder:
    """The forwarder's process, seen from its parent."""

    def __init__(
        self, topology: Topology, condition: Condition, where: Where, seed: int, port: int, speech_s: float
    ) -> None:
        """port: the relay's; packets that are not from or to it are carried, and counted apart. speech_s: for so long
        the machine is watched."""
        spec = {
            "namespaces": {place: topology.name(place) for place in (SPEAKER, RELAY, LISTENER)},
            "lines": {
                person: asdict(condition.impairment if where in (person, Where.BOTH) else Impairment())
                for person in (SPEAKER, LISTENER)
            },
            "seed": seed,
            "port": port,
            "speech_s": speech_s,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is the parent's
        )
        self._tell(json.dumps(spec))
        if self._read() != "ready":
            raise StreamingEncodecError(f"the lines cannot be made: {self._last_words()}")

    def begin(self, at_s: float) -> None:
        """The first word was said at `at_s`, of the monotonic clock: from now on lines are bad."""
        self._tell(repr(at_s))

    def end(self) -> dict[str, Any]:
        """End it; what each line carried, see `LineCounts`."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            counts: dict[str, Any] = json.loads(self._read())
        except ValueError:
            raise StreamingEncodecError(f"the lines failed: {self._last_words()}") from None
        return counts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes its pipes and waits for it
            self._process.kill()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None:
            raise StreamingEncodecError("the forwarder has no standard input")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        return "" if self._process.stdout is None else self._process.stdout.readline().strip()

    def _last_words(self) -> str:
        self._process.kill()
        said = "" if self._process.stderr is None else self._process.stderr.read()
        return (said.strip().splitlines() or ["it ended without a word"])[-1]


@dataclass(slots=True)
class _Direction:
    """From one device into another. voice_bytes: of those counted, from or to the relay's port."""

    name: str
    target: int
    line: ImpairedLine
    voice_bytes: int = 0


class _Carrier:
    def __init__(self, spec: dict[str, Any]) -> None:
        self._port: int = spec["port"]
        self._speech_s: float = spec["speech_s"]
        self._ways: dict[int, _Direction] = {}
        names = spec["namespaces"]
        for number, (person, fields) in enumerate(spec["lines"].items()):
            impairment = Impairment(**fields)
            with inside(names[person]):
                near = open_tun(RELAY)
            with inside(names[RELAY]):
                far = open_tun(person)
            seed = 100 * spec["seed"] + 2 * number
            self._ways[near] = _Direction(f"{person}_up", far, ImpairedLine(impairment, seed))
            self._ways[far] = _Direction(f"{person}_down", near, ImpairedLine(impairment, seed + 1))
        self._begin_s = time.monotonic() + _NOT_YET_S
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._entered = 0
        self._not_carried = 0
        self._latest_ms = 0.0

    def run(self, watch: StallWatch) -> None:
        """Carry until standard input is closed; the watch is over the call."""
        commands = sys.stdin.fileno()
        while True:
            self._deliver()
            wait_s = None
            if self._on_the_way:
                wait_s = max(0.0, self._on_the_way[0][0] - time.monotonic())
            for found in select.select([commands, *self._ways], [], [], wait_s)[0]:
                if found != commands:
                    self._take(found)
                elif line := sys.stdin.readline():
                    self._begin_s = float(line)
                    watch.start(self._speech_s)
                else:
                    return

    def facts(self) -> dict[str, Any]:
        """What the parent is told at the end."""
        lines = {way.name: asdict(way.line.counts) | {"voice_bytes": way.voice_bytes} for way in self._ways.values()}
        return {"lines": lines, "latest_ms": self._latest_ms, "not_carried": self._not_carried}

    def _take(self, source: int) -> None:
        way = self._ways[source]
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(source, _LONGEST_PACKET)
            except OSError:  # no more for now
                return
            if packet[0] >> 4 != 4:
                continue  # IPv6 looking for neighbours
            if packet[9] == _UDP and way.line.impairment.no_udp:
                continue
            now_s = time.monotonic()
            at_s = now_s - self._begin_s
            if at_s >= 0 and self._port in _ports(packet):
                way.voice_bytes += len(packet)
            leaves_s = way.line.leaves_s(len(packet), at_s)
            if leaves_s is None:
                continue
            if len(self._on_the_way) >= _MOST_ON_THE_WAY:
                self._not_carried += 1
                continue
            self._entered += 1
            heapq.heappush(self._on_the_way, (now_s + leaves_s - at_s, self._entered, way.target, packet))

    def _deliver(self) -> None:
        now_s = time.monotonic()
        while self._on_the_way and self._on_the_way[0][0] <= now_s:
            due_s, _, target, packet = heapq.heappop(self._on_the_way)
            self._latest_ms = max(self._latest_ms, 1000 * (now_s - due_s))
            try:
                os.write(target, packet)
            except OSError:  # the device has no address yet
                self._not_carried += 1


def _ports(packet: bytes) -> tuple[int, ...]:
    """The ports of an IPv4 packet; none where it is neither TCP nor UDP."""
    begin = 4 * (packet[0] & 15)
    if packet[9] not in _WITH_PORTS or len(packet) < begin + 4:
        return ()
    return int.from_bytes(packet[begin : begin + 2]), int.from_bytes(packet[begin + 2 : begin + 4])


def main() -> None:
    """Carry until the parent closes the pipe."""
    carrier = _Carrier(json.loads(sys.stdin.readline()))
    gc.disable()  # nothing here makes circles, and a collection would hold packets up
    realtime = prefer(FORWARDER_PRIORITY)
    print("ready", flush=True)
    watch = StallWatch()
    carrier.run(watch)
    facts = {"realtime": realtime, "machine_stall_ms": watch.longest_ms, **carrier.facts()}
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
