"""The receiver for hosts with a jitter buffer of their own: packets come in order, or are known to be lost."""

from __future__ import annotations

from collections import deque

from streaming_encodec.voice.buffer import BufferedFrame, split_packet
from streaming_encodec.voice.ladder import ConcealmentLadder, PlayoutInstruction
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.header import TIMESTAMP_BITS, Unwrapper
from streaming_encodec.wire.packet import Packet, StreamFormat, parse_packet

_LONGEST_GAP_FRAMES = 25
"""A longer gap is a pause or a new stream, and is not made up. A leap back by more is a new stream whose start was
lost: a host that orders packets does not hand over one so late."""


class InOrderReceiver:
    """Plays what was handed over at once. It adds no delay, so it cannot wait for a late packet either.

    Frames missing between two packets are filled from redundancy, else concealed, less what was already made up for
    them. Old packets are dropped, and so is the oldest of more than ``capacity_frames``.
    """

    def __init__(self, stream_format: StreamFormat, settings: ReceiverSettings | None = None) -> None:
        self.format = stream_format
        self.settings = settings or ReceiverSettings()
        self.statistics = ReceiverStatistics()
        self._ladder = ConcealmentLadder(
            stream_format, self.statistics, self.settings.repeat_frames, self.settings.noise_frames
        )
        self._queue: deque[BufferedFrame | None] = deque()  # None: a frame to be made up
        self._unwrap = Unwrapper(TIMESTAMP_BITS)
        self._next: int | None = None  # frame after the last one queued or given up
        self._dry_frames = 0  # frames made up because nothing had come, so not yet known to be lost
        self._playing = False  # the last frame taken was one of codes, and not the stream's last
        self._ended = True
        self._pauses = True  # after what was handed over last, nothing or noise follows
        self.silent = True
        """Whether the last pull gave silence: before the first packet, and after an end."""

    @property
    def buffered_frames(self) -> int:
        """Frames that wait."""
        return len(self._queue)

    def receive(self, data: bytes, now_s: float = 0.0) -> None:
        """Take the next packet. Raises PacketError for bytes that are no packet of this stream."""
        packet = parse_packet(data)
        self.format.check_packet(packet)
        if packet.start:
            self._next, self._unwrap = None, Unwrapper(TIMESTAMP_BITS)
        begin = self._unwrap(packet.timestamp)
        if self._next is not None and begin < self._next - _LONGEST_GAP_FRAMES:
            self._next = None
        expected = begin if self._next is None else self._next
        if begin < expected:
            self.statistics.packets_discarded += 1
            self._unwrap(expected & 0xFFFFFFFF)
            return
        self.statistics.count_packet(packet, len(data), now_s)
        self._fill(packet, begin - expected)
        self._queue.extend(split_packet(packet))
        self._next = begin + packet.num_frames
        self._pauses = packet.end or packet.noise is not None
        while len(self._queue) > self.settings.capacity_frames:
            self._queue.popleft()
            self.statistics.skipped_frames += 1

    def lose(self, frames: int) -> None:
        """The next so many frames will not come: they are made up, and their place in the stream is past."""
        if self._next is not None:
            self._next += frames
        self._queue.extend([None] * frames)

    def pull(self, now_s: float, queued_s: float = 0.0) -> list[PlayoutInstruction]:
        """What to make next: the next frame, or something in its place. The times do not matter."""
        self.silent = self._ended and not self._queue
        if not self._queue:
            if not self._playing:
                return [self._ladder.rest()]
            self._dry_frames += 1
            return [self._ladder.conceal()]
        entry = self._queue.popleft()
        if entry is None:
            return [self._ladder.conceal()]
        self._ended = entry.end
        self._playing = not entry.end and entry.noise is None
        if entry.noise is None:
            return [self._ladder.play(entry)]
        self._ladder.pause(entry)
        return [self._ladder.rest()]

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
