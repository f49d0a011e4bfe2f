"""A receiver for hosts that have a jitter buffer of their own: packets come in order or are known to be
lost."""

from __future__ import annotations

from collections import deque

from streaming_encodec.voice.buffer import BufferedFrame, split_packet
from streaming_encodec.voice.receiver import Kind, PlayoutInstruction, Receiver, ReceiverSettings
from streaming_encodec.wire.header import HEADER_BYTES
from streaming_encodec.wire.hello import StreamFormat
from streaming_encodec.wire.packet import Packet, parse_packet
from streaming_encodec.wire.serial import TIMESTAMP_BITS, Unwrapper

_LONGEST_GAP_FRAMES = 25
"""A longer gap is a pause (or a new stream): nobody wants to hear it made up. A leap back by more is a new stream whose
start was lost: an old packet handed over in order does not come so late."""


class InOrderReceiver(Receiver):
    """Plays what was handed over at once. Adds no delay, so it cannot wait for a late packet either.

    Frames missing between two packets are filled from redundancy, else concealed, less what was already made up for
    them. Old packets are dropped, and so is the oldest of more than ``capacity_frames``.
    """

    def __init__(self, stream_format: StreamFormat, settings: ReceiverSettings | None = None) -> None:
        super().__init__(stream_format, settings)
        self._queue: deque[BufferedFrame | None] = deque()  # None: a frame to be made up
        self._unwrap = Unwrapper(TIMESTAMP_BITS)
        self._next: int | None = None  # frame after the last one queued or given up
        self._dry_frames = 0  # frames made up because nothing had come, so not yet known to be lost
        self._made_up = 0  # frames made up since something was last played
        self._quiet: tuple[int, ...] | None = None
        self._ended = True
        self._pauses = True  # after what was handed over last, nothing or noise follows
        self.silent = True
        """Whether the last pull gave silence: before the first packet, and after an end."""

    @property
    def buffered_frames(self) -> int:
        """Frames in waiting."""
        return len(self._queue)

    def receive(self, data: bytes, now: float = 0.0) -> None:
        """Take the next packet. Raises PacketError for bytes that are no packet of this stream."""
        packet = parse_packet(data)
        self.format.check_packet(packet)
        stats = self.statistics
        if packet.start:
            self._next, self._unwrap = None, Unwrapper(TIMESTAMP_BITS)
        begin = self._unwrap(packet.timestamp)
        if self._next is not None and begin < self._next - _LONGEST_GAP_FRAMES:
            self._next = None
        expected = begin if self._next is None else self._next
        if begin < expected:
            stats.packets_discarded += 1
            self._unwrap(expected & 0xFFFFFFFF)
            return
        stats.packets_received += 1
        stats.bytes_received += len(data) - HEADER_BYTES
        stats.header_bytes_received += HEADER_BYTES
        stats.last_packet_received_timestamp = now
        self._fill(packet, begin - expected)
        self._queue.extend(split_packet(packet))
        self._next = begin + packet.num_frames
        self._pauses = packet.end or packet.noise is not None
        while len(self._queue) > self.settings.capacity_frames:
            self._queue.popleft()
            stats.skipped_frames += 1

    def lose(self, frames: int) -> None:
        """The next so many frames will not come: they are made up, and their place in the stream is past."""
        if self._next is not None:
            self._next += frames
        self._queue.extend([None] * frames)

    def pull(self, now: float, queued_seconds: float = 0.0) -> list[PlayoutInstruction]:
        """What to make next: the next frame, or something in its place."""
        self.silent = self._ended and not self._queue
        if self._queue:
            entry = self._queue.popleft()
            if entry is not None:
                return [self._instruct(entry)]
        elif self.silent:
            return [PlayoutInstruction(Kind.SILENCE)]
        elif self._quiet is not None:
            self.statistics.comfort_noise_samples += self.format.frame_samples
            return [PlayoutInstruction(Kind.NOISE, noise=self._quiet)]
        else:
            self._dry_frames += 1
        return [self._make_up()]

    # -- inside ---------------------------------------------------------------------------------------------

    def _fill(self, packet: Packet, gap: int) -> None:
        missing = max(0, gap - self._dry_frames)
        self._dry_frames = 0
        if not 0 < missing <= _LONGEST_GAP_FRAMES or self._pauses:
            return
        self.statistics.packets_lost += 1
        redundancy = packet.redundancy
        saved = 0 if redundancy is None else redundancy.shape[1]
        for back in range(missing, 0, -1):
            if redundancy is not None and back <= saved:
                codes = redundancy[:, saved - back : saved - back + 1]
                self._queue.append(BufferedFrame(codes, redundant=True))
            else:
                self._queue.append(None)

    def _instruct(self, entry: BufferedFrame) -> PlayoutInstruction:
        self._made_up = 0
        self._ended, self._quiet = entry.end, entry.noise
        if entry.codes is None:
            return PlayoutInstruction(Kind.NOISE, noise=entry.noise)
        self.statistics.total_samples_received += self.format.frame_samples
        self.statistics.redundant_frames_used += entry.redundant
        return PlayoutInstruction(
            Kind.DECODE, codes=entry.codes, scale=entry.scale, redundant=entry.redundant, reset=entry.reset
        )

    def _make_up(self) -> PlayoutInstruction:
        stats, samples = self.statistics, self.format.frame_samples
        self._made_up += 1
        stats.concealment_events += self._made_up == 1
        stats.concealed_samples += samples
        stats.total_samples_received += samples
        if self._made_up <= self.settings.repeat_frames:
            gain = self.settings.repeat_decay**self._made_up
            return PlayoutInstruction(Kind.REPEAT, lost_frames=self._made_up, gain=gain, concealed=True)
        stats.silent_concealed_samples += samples
        return PlayoutInstruction(Kind.NOISE, lost_frames=self._made_up, concealed=True)
