"""Many telephone calls through one bridge on this machine: `bench bridge`.

Relay and bridge run in processes of their own. In each call's room an echo sends the caller's packets back as its own,
so that each call is encoded and decoded all the time, and each caller hears itself. In a conversation the echo is half
a period late, and speaks when the caller is silent.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Self

import numpy as np
import soxr
from websockets.frames import Opcode

from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.bench.bare_client import _Bare
from streaming_encodec.bench.network.programs import command
from streaming_encodec.bench.room_end import RoomEnd, in_turns, speak_and_listen
from streaming_encodec.bench.telephones import Telephone, make_telephone
from streaming_encodec.bench.usage import Usage
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.errors import StreamingEncodecError
from streaming_encodec.evaluation.extras import need
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.types import Pcm
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import StreamFormat

_STARTED_S = 60.0
_ROOM = "bridge"
_WINDOW_S = 60.0
"""Begin and end of a long call are compared over so long."""
_TURN_S, _PERIOD_S = 5.5, 10.0
"""In a conversation each end speaks so long of each period: 45 % of the time alone, 10 % both."""
_LISTEN_S = 60.0
"""The most of a call that its delay is measured over."""
_START_S = 4.0
"""Until the other end of a call is in its room."""
_WARM_S = 6.0
"""Of a call, before each way's delay is measured: what its start left waiting has come down."""
_SETTLE_S = 1.0
"""After the echo came into its room: a jitter buffer has its delay."""


class Echo(_Bare):
    """Says what it hears, packet for packet, `late_s` later."""

    late_s = 0.0

    def arrived(self, opcode: int, payload: bytes) -> None:
        """A frame of the relay."""
        if opcode != Opcode.BINARY:
            super().arrived(opcode, payload)
        elif self.late_s:
            asyncio.get_running_loop().call_later(self.late_s, self.write, Opcode.BINARY, payload)
        else:
            self.write(Opcode.BINARY, payload)

    def write(self, opcode: Opcode, payload: bytes) -> None:
        """One frame, unless the call is over."""
        if not self.transport.is_closing():
            super().write(opcode, payload)

    @classmethod
    async def join(cls, port: int, room: str, stream_format: StreamFormat, *, late_s: float = 0.0) -> Echo:
        """Take a seat."""
        echo = await cls._join(port, Hello(room, "both", stream_format))
        echo.late_s = late_s
        return echo


def measure(
    kind: str,
    calls: int,
    seconds: float,
    options: Sequence[str] = (),
    *,
    clock_ppm: float = 0.0,
    conversation: bool = False,
) -> dict[str, Any]:
    """Delay and cost of so many calls at once.

    options: more of the command `bridge`. clock_ppm: by so many parts per million the telephones' clocks run fast.
    conversation: both ends take turns, where they else speak all the time.

    Raises:
        MissingExtraError: pystoi is missing, for calls of three minutes and more.
    """
    if seconds >= 3 * _WINDOW_S:
        need("pystoi", "STOI")  # known before the call, not after it
    late_s = _PERIOD_S / 2 if conversation else 0.0
    with _Programs(kind, calls, options) as programs:
        usage = Usage(programs.bridge)
        telephones, ready_s = asyncio.run(_call(kind, programs, calls, seconds, clock_ppm, late_s))
        facts = usage.facts()
    delays = sorted(_delay_ms(each, at_s, seconds, late_s) for each, at_s in zip(telephones, ready_s, strict=True))
    sent_s = seconds * calls
    return {
        "kind": kind,
        "calls": calls,
        "seconds": seconds,
        "options": list(options),
        "clock_ppm": clock_ppm,
        "conversation": conversation,
        "load_average": os.getloadavg()[0],
        "loop_delay_ms": {"median": float(np.median(delays)), "max": delays[-1]},
        "heard_share": sum(len(telephone.heard) for telephone in telephones) / 8000 / sent_s,
        "missing_s": sorted(
            each.missing_s(at_s, seconds - _SETTLE_S) for each, at_s in zip(telephones, ready_s, strict=True)
        ),
        "long": _begin_and_end(telephones, seconds, late_s) if seconds >= 3 * _WINDOW_S else None,
        **facts,
    }


def _delay_ms(telephone: Telephone, from_s: float, seconds: float, late_s: float) -> float:
    """Of a call with an echo `late_s` late, beyond that: over `_LISTEN_S`, or the median of a conversation's turns."""
    begin_s = telephone.begin_s + late_s
    if not late_s:
        return telephone.delay_ms(telephone.said, begin_s, from_s, _LISTEN_S)
    turns = np.arange(_PERIOD_S * math.ceil(from_s / _PERIOD_S), seconds - late_s - _TURN_S - _SETTLE_S, _PERIOD_S)
    if not len(turns):
        return math.nan
    return float(np.median([telephone.delay_ms(telephone.said, begin_s, at_s, _TURN_S) for at_s in turns]))


def measure_ways(kind: str, seconds: float, options: Sequence[str] = ()) -> dict[str, Any]:
    """Delay of each way of one call, mouth to ear: telephone to room, and room to telephone.

    The other end is a client of this package, with its jitter buffer and without a sound card.
    """
    with _Programs(kind, 1, options) as programs:
        telephone, other = asyncio.run(_call_each_way(kind, programs, seconds))
    assert other.ear is not None  # it was in the room
    rate = other.ear.rate
    said = _resampled(telephone.said, 8000, rate)
    # Of the time in which both were there.
    began_s = other.begin_s - telephone.begin_s
    spoken_s = min(len(other.said) / rate, seconds - began_s) - _SETTLE_S
    to_room = other.ear.delays_ms(said, telephone.begin_s, began_s + _WARM_S, began_s + spoken_s)
    said = _resampled(other.said, rate, 8000)
    to_telephone = telephone.delays_ms(said, other.begin_s, _WARM_S, spoken_s)
    ways = {"telephone to room": to_room, "room to telephone": to_telephone}
    return {
        "kind": kind,
        "seconds": seconds,
        "options": list(options),
        "load_average": os.getloadavg()[0],
        "delay_ms": {
            way: {"p50": float(np.percentile(each, 50)), "p95": float(np.percentile(each, 95)), "pieces": len(each)}
            for way, each in ways.items()
        },
        "stock_ms": telephone.median_stock_ms(),
    }


class _Programs:
    """A relay and a bridge to it, each in a process of its own."""

    def __init__(self, kind: str, calls: int, options: Sequence[str]) -> None:
        self.relay_port = _free_port()
        self._relay = _start(
            "serve", "--port", self.relay_port, "--max-rooms", calls + 1, "--max-per-address", 4 * calls + 8
        )
        self._arguments = (
            *("bridge", kind, f"{_ROOM}-{{call}}", "--listen", "127.0.0.1:0", "--url", self.url),
            *("--max-calls", calls, *options),
        )
        self._bridge: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Of the relay."""
        return f"ws://127.0.0.1:{self.relay_port}"

    @property
    def bridge(self) -> subprocess.Popen[str]:
        """While it runs."""
        assert self._bridge is not None
        return self._bridge

    def __enter__(self) -> Self:
        try:
            _await_port(self._relay, self.relay_port)
            self._bridge = _start(*self._arguments)
            self.port = int(next(told["port"] for told in _log(self._bridge) if told["event"] == "bridge_listening"))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in (self._bridge, self._relay):
            if process is not None:
                process.terminate()
                process.wait(20)


def _begin_and_end(telephones: Sequence[Telephone], seconds: float, late_s: float) -> dict[str, Any]:
    """Delay, STOI and sound that waits at the telephone, in the second minute and in the last one; and for how long
    one lacked sound in between."""
    windows = {"begin": _WINDOW_S, "end": seconds - _WINDOW_S - 1}
    stocks = {name: [each.stock_ms(at, at + _WINDOW_S) for each in telephones] for name, at in windows.items()}
    return {
        "loop_delay_ms": {
            name: float(
                np.median(
                    [each.delay_ms(each.said, each.begin_s + late_s, at, _WINDOW_S) for each in telephones],
                )
            )
            for name, at in windows.items()
        },
        "stoi": {
            name: float(np.median([each.stoi(each.said, each.begin_s + late_s, at, _WINDOW_S) for each in telephones]))
            for name, at in windows.items()
        },
        "missing_s": max(each.missing_s(_WINDOW_S, seconds - 1) for each in telephones),
        "stock_ms": {
            name: [min(least for least, _ in every), max(most for _, most in every)] for name, every in stocks.items()
        },
    }


async def _call(
    kind: str, programs: _Programs, calls: int, seconds: float, clock_ppm: float, late_s: float
) -> tuple[list[Telephone], list[float]]:
    """The telephones after their calls, and since when, from the begin of each call, there was an echo."""
    said = speech(seconds)
    if late_s:
        said = in_turns(said, 8000, _TURN_S, _PERIOD_S)
    room = stream_format(DEFAULT_MODEL)
    rate = 1 + 1e-6 * clock_ppm
    telephones = [make_telephone(kind, said, lambda: rate * time.monotonic()) for _ in range(calls)]
    rooms = asyncio.create_task(asyncio.to_thread(_rooms, programs.bridge, calls))
    calling = []
    for telephone in telephones:
        calling.append(asyncio.create_task(telephone.call(_address(kind, programs))))
        await asyncio.sleep(0.173)  # callers do not come all at once, nor in step
    echoes = [await Echo.join(programs.relay_port, name, room, late_s=late_s) for name in await rooms]
    now_s = rate * time.monotonic()
    ends = _Ends(programs.bridge, seconds)
    await asyncio.gather(*calling)
    for echo in echoes:
        echo.close()
    ends.check()
    return telephones, [max(0.0, now_s - telephone.begin_s) + _SETTLE_S for telephone in telephones]


async def _call_each_way(kind: str, programs: _Programs, seconds: float) -> tuple[Telephone, RoomEnd]:
    telephone = make_telephone(kind, speech(seconds))
    rate = stream_format(DEFAULT_MODEL).sample_rate
    rooms = asyncio.create_task(asyncio.to_thread(_rooms, programs.bridge, 1))
    calling = asyncio.create_task(telephone.call(_address(kind, programs)))
    (room,) = await rooms
    ends = _Ends(programs.bridge, seconds)
    # Both ends say the same, each at another time; the one in the room is done first.
    said = np.roll(_resampled(speech(seconds - _START_S), 8000, rate), round(rate * seconds / 2))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = asyncio.get_running_loop().run_in_executor(
            pool, speak_and_listen, programs.url, room, DEFAULT_MODEL, said
        )
        await calling
        other = await there
    ends.check()
    return telephone, other


def _address(kind: str, programs: _Programs) -> str:
    return f"{'tcp' if kind == 'audiosocket' else 'ws'}://127.0.0.1:{programs.port}"


class _Ends:
    """Reads on in a bridge's log, so that it does not fill up, and notes which call ended before its time."""

    def __init__(self, bridge: subprocess.Popen[str], seconds: float) -> None:
        self._bridge, self._seconds = bridge, seconds
        self._early: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for told in _log(self._bridge):
                if told["event"] == "phone_ended" and told["seconds"] < self._seconds - 1:
                    self._early.append(f"a call ended after {told['seconds']:g} s: {told['reason']}")
        except (StreamingEncodecError, ValueError):
            self._early.append("the bridge ended")  # as it does, too, when all is over

    def check(self) -> None:
        """Raise StreamingEncodecError if one did."""
        if self._early:
            raise StreamingEncodecError(f"{self._early[0]} (of {self._seconds:g} s)")


def speech(seconds: float) -> Pcm:
    """The bundled clip at 8 kHz, again and again, without what a telephone does not carry."""
    with AudioReader(bundled_clip(), 8000, channels=1) as reader:
        clip = np.concatenate([block[0] for block in reader])
    return np.resize(clip, round(8000 * seconds)).astype(np.float32)


def _resampled(sound: Pcm, rate: int, wanted_rate: int) -> Pcm:
    return np.asarray(soxr.resample(sound, rate, wanted_rate), np.float32)


def _rooms(bridge: subprocess.Popen[str], calls: int) -> list[str]:
    """The rooms of its calls, out of its log."""
    rooms: list[str] = []
    for told in _log(bridge):
        if told["event"] == "phone_call":
            rooms.append(told["room"])
        if told["event"] in ("phone_ended", "phone_refused"):
            raise StreamingEncodecError(
                f"only {len(rooms)} of {calls} calls came into their rooms, then one ended: {told['reason']}"
            )
        if len(rooms) == calls:
            break
    return rooms


def _log(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Its events, as they come. Raises StreamingEncodecError where it has ended."""
    assert process.stderr is not None
    line = ""
    for line in process.stderr:
        if line.startswith("{"):
            yield json.loads(line)
    raise StreamingEncodecError(f"a program ended: {line.strip()}")


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _await_port(process: subprocess.Popen[str], port: int) -> None:
    deadline_s = time.monotonic() + _STARTED_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            said = process.stderr.read() if process.stderr else ""
            raise StreamingEncodecError(f"a program ended before it listened: {said.strip()[-300:]}")
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise StreamingEncodecError(f"nothing listened on port {port} within {_STARTED_S:g} s")
