"""A whole call without sound card, socket or model: sender, network, receiver and playout on one simulated
clock.

The "decoder" looks frames up in a made-up voice by the number that their codes spell, so what is played
can be compared with what was said, frame by frame, and hours pass in minutes.
"""

from __future__ import annotations

import heapq
from array import array
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streaming_encodec.errors import StreamError
from streaming_encodec.types import Floats, IntArray
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.ladder import Kind, PlayoutInstruction
from streaming_encodec.voice.network import Delivery, Network, NetworkModel
from streaming_encodec.voice.playout import PcmPlayout
from streaming_encodec.voice.receiver import Receiver, ReceiverSettings
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

_DIGITS = 2  # codebooks that spell a frame's number to the base of 1024, modulo 2**20


def made_up_voice(stream_format: StreamFormat, seconds: float = 20.0, seed: int = 0) -> Floats:
    """Something that stretches like speech: buzzing syllables of gliding pitch, pauses, a little room noise.

    float32 ``[n]``, a whole number of frames, to be played round and round.
    """
    rng = np.random.default_rng(seed)
    rate, frame = stream_format.sample_rate, stream_format.frame_samples
    length = int(seconds * rate) // frame * frame
    time = np.arange(length) / rate
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.4 * time) + 10 * np.sin(2 * np.pi * 1.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    harmonics = min(20, int(rate / 2 / 160))
    voice = np.sum([np.sin(n * phase) / n for n in range(1, harmonics + 1)], axis=0)
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * time) + 0.3, 0, 1) * (np.sin(2 * np.pi * 0.23 * time) > -0.6)
    sound = 0.15 * voice * syllables + 10 ** (-60 / 20) * rng.standard_normal(length)
    made: Floats = np.asarray(sound, dtype=np.float32)
    return made


@dataclass(frozen=True, slots=True)
class CallSettings:
    """One simulated call. Frames per packet and redundancy as in a `Packet`; the sound card asks by
    ``block_samples``.

    Codebooks are at least 2, since the first two spell the frame's number.
    """

    network: NetworkModel
    seconds: float = 60.0
    seed: int = 0
    frames_per_packet: int = 3
    num_codebooks: int = 8
    redundant_codebooks: int = 0
    redundant_frames: int = 0
    block_samples: int = 320
    delay: DelaySettings = field(default_factory=DelaySettings)

    def __post_init__(self) -> None:
        if self.num_codebooks < _DIGITS or (self.redundant_frames and self.redundant_codebooks < _DIGITS):
            raise StreamError(f"a simulated call needs {_DIGITS} codebooks to spell frame numbers")


@dataclass(slots=True)
class CallResult:
    """What happened. Arrays have one entry per frame made, in order of playing.

    time_s: when it is heard. frame: which frame of the sender's, -1 for one made up (or silence).
    delay_ms: from the moment the frame's last sample was spoken until its first sample is heard.
    target_ms: the delay aimed at.
    """

    statistics: ReceiverStatistics
    time_s: npt.NDArray[np.float64]
    frame: npt.NDArray[np.int64]
    delay_ms: npt.NDArray[np.float64]
    target_ms: npt.NDArray[np.float64]
    stalls: list[tuple[float, float]]
    packets_sent: int
    payload_kbps: float
    base_ms: float
    sound: Floats

    @property
    def concealed_share(self) -> float:
        """Made-up frames among all from the first one played on."""
        return self.statistics.concealed_share

    def recoveries_s(self, tolerance_ms: float = 14.0, calm_s: float = 0.25) -> list[float]:
        """For each stall, the time from its end to the first ``calm_s`` in which no frame is made up and
        delay is within the tolerance of its target. A stall that runs into the next one or the end counts
        until there."""
        overdue = self.delay_ms > self.base_ms + self.target_ms + tolerance_ms
        bad_times = self.time_s[(self.frame < 0) | overdue]
        found = []
        for _, end in self.stalls:
            if not self.time_s[0] < end < self.time_s[-1]:
                continue
            calm = end
            for bad in bad_times[np.searchsorted(bad_times, end) :]:
                if bad - calm > calm_s:
                    break
                calm = float(bad)
            found.append(calm - end)
        return found


def spell_number(number: int, num_codebooks: int) -> IntArray:
    """Codes ``[K, 1]`` whose first two spell ``number``, modulo 2**20."""
    digits = [(number >> 10 * i) & 1023 for i in range(_DIGITS)]
    return np.array(digits + [0] * (num_codebooks - _DIGITS), dtype=np.int64)[:, None]


def spelled_number(codes: IntArray) -> int:
    """The number that codes ``[K, 1]`` spell, modulo 2**20."""
    return sum(int(codes[i, 0]) << 10 * i for i in range(_DIGITS))


class SimulatedNetwork(Protocol):
    """What a simulated call asks of its network; see `voice.network.Network`."""

    stalls_passed: list[tuple[float, float]]

    def sender_time(self, seconds: float) -> float:
        """True time at which a sender's clock shows ``seconds``."""
        ...

    def send(self, data: bytes, time_s: float) -> list[Delivery]:
        """Hand a packet over, not before earlier ones. Returns its arrivals."""
        ...


def simulate_call(
    settings: CallSettings, *, keep_sound: bool = False, network: SimulatedNetwork | None = None
) -> CallResult:
    """Run one call. ``keep_sound``: the result's ``sound`` holds all that was played, ``[C, n]``.

    network: takes the place of the settings' network.
    """
    return _Call(settings, keep_sound, network).run()


class _Call:
    """The event loop of a simulated call: packets leave, packets arrive, the sound card asks."""

    def __init__(self, settings: CallSettings, keep_sound: bool, network: SimulatedNetwork | None) -> None:
        self.settings = settings
        self.format = StreamFormat("0" * 32)
        self.network: SimulatedNetwork = network or Network(settings.network, settings.seed)
        self.receiver = Receiver(self.format, ReceiverSettings(delay=settings.delay))
        self.playout = PcmPlayout(self.receiver, self._decode, observe=self._note, seed=settings.seed)
        voice = made_up_voice(self.format)
        self._voice: Floats = voice.reshape(-1, 1, self.format.frame_samples)
        self._last: Floats = np.zeros((1, self.format.frame_samples), dtype=np.float32)
        self._packets = 0
        self._bytes = 0
        self._keep_sound = keep_sound
        self._sound: list[Floats] = []
        self._times = array("d")
        self._frames = array("q")
        self._targets = array("d")
        self._wrong = 0

    def run(self) -> CallResult:
        settings = self.settings
        step = settings.frames_per_packet * self.format.frame_seconds
        block = settings.block_samples / self.format.sample_rate
        on_the_way: list[tuple[float, int, bytes]] = []
        arrivals = count()
        for i in range(int(settings.seconds / block)):
            now = i * block
            # The sender hands a packet over once the last of its frames is spoken.
            while (leaves := self.network.sender_time((self._packets + 1) * step)) <= now:
                data = self._next_packet()
                for delivery in self.network.send(data, leaves):
                    heapq.heappush(on_the_way, (delivery.time_s, next(arrivals), delivery.data))
            while on_the_way and on_the_way[0][0] <= now:
                time, _, data = heapq.heappop(on_the_way)
                self.receiver.receive(data, time)
            pcm = self.playout.read(settings.block_samples, now)
            if self._keep_sound:
                self._sound.append(pcm)
        return self._result()

    def _next_packet(self) -> bytes:
        settings, per_packet = self.settings, self.settings.frames_per_packet
        first = self._packets * per_packet
        frames = [spell_number(first + i, settings.num_codebooks) for i in range(per_packet)]
        redundancy = None
        if settings.redundant_frames:
            past = range(first - settings.redundant_frames, first)
            codes = [spell_number(max(0, f), settings.redundant_codebooks) for f in past]
            redundancy = np.concatenate(codes, axis=1)
        packet = Packet(
            sequence=self._packets & 0xFFFF,
            timestamp=first & 0xFFFFFFFF,
            codes=np.concatenate(frames, axis=1),
            redundancy=redundancy,
            start=self._packets == 0,
        )
        self._packets += 1
        data = serialize_packet(packet)
        self._bytes += len(data)
        return data

    def _decode(self, codes: IntArray | None) -> Floats:
        if codes is not None:
            frame: Floats = self._voice[spelled_number(codes) % len(self._voice)]
            self._last = frame
        return self._last

    def _note(self, instruction: PlayoutInstruction, heard: float) -> None:
        if not self._times and instruction.kind is not Kind.DECODE:
            return
        self._times.append(heard)
        codes = instruction.codes
        self._frames.append(-1 if codes is None else instruction.frame)
        # Timestamps begin with frame 0, so what the codes spell must be what the receiver thinks it plays.
        self._wrong += codes is not None and spelled_number(codes) != instruction.frame & 0xFFFFF
        self._targets.append(self.receiver.target_ms)

    def _result(self) -> CallResult:
        times, frames = np.array(self._times), np.array(self._frames, dtype=np.int64)
        if self._wrong:
            raise StreamError(f"{self._wrong} frames were played in the place of others")
        spoken = (frames + 1) * self.format.frame_seconds / (1 + self.settings.network.drift_ppm * 1e-6)
        delay = np.where(frames < 0, np.nan, (times - spoken) * 1000)
        empty = np.zeros((1, 0), dtype=np.float32)
        # A packet's first frame waits for its last before it leaves: that wait is no fault of the network's.
        wait = (self.settings.frames_per_packet - 1) * self.format.frame_seconds * 1000
        return CallResult(
            statistics=self.receiver.statistics,
            time_s=times,
            frame=frames,
            delay_ms=delay,
            target_ms=np.array(self._targets),
            stalls=list(self.network.stalls_passed),
            packets_sent=self._packets,
            payload_kbps=self._bytes * 8 / self.settings.seconds / 1000,
            base_ms=self.settings.network.base_ms + wait,
            sound=np.concatenate(self._sound, axis=1) if self._sound else empty,
        )
