"""The packetiser: frames of codes in, packets out. Every packet of speech that this package sends is made here.

It groups frames, adds the coarse codebooks of past frames (redundancy), sends a noise packet now and then while
nobody speaks (DTX), and takes new settings at packet borders. Packet sizes depend on the settings alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from streaming_encodec.errors import StreamError
from streaming_encodec.types import IntArray
from streaming_encodec.voice.pace import LATE_S
from streaming_encodec.wire.header import MAX_FRAMES, MAX_REDUNDANT_CODEBOOKS, MAX_REDUNDANT_FRAMES, NO_NOISE
from streaming_encodec.wire.packet import Packet, StreamFormat, packet_size, serialize_packet


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """What a packet holds.

    num_codebooks: sent of each frame; fewer if the encoder gives fewer.
    frames_per_packet: 1..6. Three (40 ms) cost less than half the wire bitrate of one.
    redundant_codebooks, redundant_frames: the coarse codebooks of so many past frames go along.
    noise_every_frames: period of noise packets during silence, which show that the connection stands.
    """

    num_codebooks: int = 8
    frames_per_packet: int = 3
    redundant_codebooks: int = 0
    redundant_frames: int = 0
    noise_every_frames: int = 30

    def __post_init__(self) -> None:
        if self.num_codebooks < 1 or not 1 <= self.frames_per_packet <= MAX_FRAMES or self.noise_every_frames < 1:
            raise StreamError(f"a packet has at least one codebook and 1..{MAX_FRAMES} frames")
        if not (
            0 <= self.redundant_codebooks <= MAX_REDUNDANT_CODEBOOKS
            and 0 <= self.redundant_frames <= MAX_REDUNDANT_FRAMES
        ):
            raise StreamError(
                f"redundancy is at most {MAX_REDUNDANT_CODEBOOKS} codebooks of {MAX_REDUNDANT_FRAMES} frames"
            )

    @property
    def has_redundancy(self) -> bool:
        """Whether packets carry redundancy."""
        return bool(self.redundant_codebooks and self.redundant_frames)

    def wire_kbps(self, stream_format: StreamFormat, overhead_bytes: int = 0) -> float:
        """Bitrate of the packets, with ``overhead_bytes`` each for lower layers (about 80: WebSocket, TLS, TCP/IP)."""
        size = overhead_bytes + packet_size(
            self.frames_per_packet,
            self.num_codebooks,
            bits_per_code=stream_format.bits_per_code,
            redundant_codebooks=self.redundant_codebooks if self.has_redundancy else 0,
            redundant_frames=self.redundant_frames if self.has_redundancy else 0,
        )
        return size * 8 / (self.frames_per_packet * stream_format.frame_seconds) / 1000


class Sender:
    """Makes one stream's packets.

    first_sequence, first_timestamp: random in a real call, so that receivers tell a new stream from the old one.
    """

    def __init__(
        self,
        stream_format: StreamFormat,
        settings: SenderSettings | None = None,
        *,
        first_sequence: int = 0,
        first_timestamp: int = 0,
    ) -> None:
        self.format = stream_format
        self.settings = settings or SenderSettings()
        self._sequence = first_sequence
        self._timestamp = first_timestamp  # of the first frame in `_waiting`, or of the next one
        self._waiting: list[IntArray] = []  # each [K, 1]
        self._past: deque[IntArray] = deque(maxlen=MAX_REDUNDANT_FRAMES)
        self._start = True
        self._silent_frames: int | None = None
        self._resting_frames = 0  # just before the next one, that have no codes

    def configure(self, settings: SenderSettings) -> None:
        """Use new settings from the next packet on, for the frames that wait too."""
        self.settings = settings

    def restart(self) -> None:
        """The encoder was reset: the next packet says so. Frames that wait are dropped; numbers go on."""
        self._timestamp += len(self._waiting)
        self._waiting.clear()
        self._past.clear()
        self._start, self._resting_frames = True, 0

    def push(self, codes: IntArray, *, noise: tuple[int, ...] | None = None) -> list[bytes]:
        """Take frames of codes ``[K, F]``. Returns the packets that are complete.

        noise: levels from `NoiseMeter` while nobody speaks. The frames are then counted and not sent.
        """
        if codes.ndim != 2 or not 1 <= codes.shape[0] <= self.format.max_codebooks:
            raise StreamError(f"codes are [1..{self.format.max_codebooks} codebooks, frames]")
        packets: list[bytes] = []
        for i in range(codes.shape[1]):
            frame = codes[:, i : i + 1]  # [K, 1]
            packets += self._speak(frame) if noise is None else self._be_silent(frame, noise)
        return packets

    @property
    def noise_is_due(self) -> bool:
        """Whether the next silent frame makes a noise packet, and so its levels matter."""
        return self._silent_frames is None or self._silent_frames % self.settings.noise_every_frames == 0

    def rest(self, noise: tuple[int, ...]) -> list[bytes]:
        """A frame of silence that was not encoded."""
        packets = self._be_silent(None, noise)
        self._resting_frames += 1
        return packets

    def recall(self, codes: IntArray) -> None:
        """Codes ``[K, n]`` of the last frames that rested, made after all. None of them: nothing happens.

        Redundancy may reach further back. There a frame is repeated: if it is ever heard, then as the room's noise.
        """
        if not self._resting_frames:
            return
        unknown = self._resting_frames - codes.shape[1]
        self._past.extend([codes[:, :1]] * min(unknown, MAX_REDUNDANT_FRAMES))
        self._past.extend(np.hsplit(codes, codes.shape[1]))
        self._resting_frames = 0

    def send_waiting(self, *, end: bool = False) -> list[bytes]:
        """Send the frames that wait, though they fill no packet. end: the last of these packets bears the end flag."""
        packets: list[bytes] = []
        while self._waiting:
            count = min(len(self._waiting), self.settings.frames_per_packet)
            frames, self._waiting = self._waiting[:count], self._waiting[count:]
            kept = min(self.settings.num_codebooks, min(f.shape[0] for f in frames))
            codes = np.concatenate([f[:kept] for f in frames], axis=1)  # [K, F]
            packets.append(self._packet(codes=codes, end=end and not self._waiting))
            self._timestamp += count
            self._past.extend(frames)
        return packets

    def skip(self, frames: int) -> list[bytes]:
        """Leave out so many frames: what follows lies later. Returns the packets of the frames that waited."""
        packets = self.send_waiting()
        self._timestamp += frames
        self._past.clear()  # redundancy means the frames just before a packet, and these are no more
        return packets

    def end(self, noise: tuple[int, ...]) -> list[bytes]:
        """Nothing follows: send the frames that wait, then a noise packet with the end flag."""
        packets = self.send_waiting()
        packets.append(self._packet(noise=noise, end=True))
        # That packet is played at its timestamp: speech with the same one would come too late.
        self._timestamp += 1
        self._past.clear()
        return packets

    def finish(self, codes: IntArray) -> list[bytes]:
        """Send the last frames ``[K, F]``. The last packet has the end flag: a noise packet where no frame waits."""
        self._waiting += np.hsplit(codes, codes.shape[1]) if codes.shape[1] else []
        if self._waiting or self._start:
            return self.send_waiting(end=True)
        return self.end(NO_NOISE)

    def _speak(self, frame: IntArray) -> list[bytes]:
        self._silent_frames = None
        self._waiting.append(frame)
        return self.send_waiting() if len(self._waiting) >= self.settings.frames_per_packet else []

    def _be_silent(self, frame: IntArray | None, noise: tuple[int, ...]) -> list[bytes]:
        packets: list[bytes] = []
        if self._silent_frames is None:
            packets += self.send_waiting()
            self._silent_frames = 0
        if self.noise_is_due:
            packets.append(self._packet(noise=noise))
        self._silent_frames += 1
        if frame is not None:
            self._past.append(frame)
        self._timestamp += 1
        return packets

    def _packet(
        self, *, codes: IntArray | None = None, noise: tuple[int, ...] | None = None, end: bool = False
    ) -> bytes:
        packet = Packet(
            sequence=self._sequence & 0xFFFF,
            timestamp=self._timestamp & 0xFFFFFFFF,
            codes=codes,
            noise=noise,
            redundancy=self._redundancy(),
            start=self._start,
            end=end,
            bits_per_code=self.format.bits_per_code,
        )
        self._sequence += 1
        self._start = False
        return serialize_packet(packet)

    def _redundancy(self) -> IntArray | None:
        """The coarse codebooks ``[R, P]`` of the P frames before; zeros before the stream began, never played. In a
        silence there are none.

        R is what all of these frames have: a code that is not there would be heard as another one.
        """
        settings = self.settings
        if not settings.has_redundancy or self._resting_frames:
            return None
        past = list(self._past)[-settings.redundant_frames :]
        codebooks = min(settings.redundant_codebooks, *(frame.shape[0] for frame in past), MAX_REDUNDANT_CODEBOOKS)
        missing = np.zeros((codebooks, settings.redundant_frames - len(past)), dtype=np.int64)
        return np.concatenate([missing, *(frame[:codebooks] for frame in past)], axis=1)


class StallMeter:
    """Notices when the caller, who hands sound over as it is spoken, paused without ending the stream."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._end_s: float | None = None

    def gap_s(self, samples: int, now_s: float) -> float:
        """Seconds that are missing before these samples, which end now; 0 unless they are more than `LATE_S`."""
        length_s = samples / self._rate
        end_s, self._end_s = self._end_s, now_s
        if end_s is None:
            return 0.0
        # What was handed over faster than it can have been spoken ends later than it came.
        self._end_s = max(now_s, end_s + length_s)
        gap_s = now_s - length_s - end_s
        return gap_s if gap_s > LATE_S else 0.0

    def restart(self) -> None:
        """Forget what was handed over before."""
        self._end_s = None
