"""Frames that wait to be played: order, duplicates, redundancy, numbers that wrap, streams that restart."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from streaming_encodec.types import IntArray
from streaming_encodec.wire.header import SEQUENCE_BITS, TIMESTAMP_BITS, Unwrapper
from streaming_encodec.wire.packet import Packet

_REMEMBERED_PACKETS = 512
_REPLAY_CONFIRMATIONS = 25
_FRAMES_A_NUMBER = 64
_LONGEST_STALL_FRAMES = 24_000
"""How far timestamps may be ahead where a stream continues after a gap: so many frames for each sequence number, or the
most frames of two minutes, for a sender that stood still. A new stream begins at random numbers, so one new stream in
eight thousand is taken for the old one."""
_RESTART_FRAMES = 25
"""A start that lies further back than this many frames is a new stream, not an old packet that arrives late."""


@dataclass(frozen=True, slots=True)
class BufferedFrame:
    """One frame that waits: codes ``[K, 1]``, or the noise levels that a pause begins with."""

    codes: IntArray | None
    noise: tuple[int, ...] | None = None
    reset: bool = False
    end: bool = False
    redundant: bool = False


@dataclass(frozen=True, slots=True)
class Insertion:
    """What became of a packet. timestamp: unwrapped; None if the packet is not accepted yet."""

    timestamp: int | None
    duplicate: bool = False
    late: bool = False
    restarted: bool = False
    repaired: int | None = None
    """First frame that redundancy brought late, for a packet that was lost."""
    after_outage: bool = False
    """The stream continues after a gap longer than the buffer."""
    recalled: int = 0
    """Packets before this one that were not accepted, and are now."""


class FrameBuffer:
    """Frames by their unwrapped timestamps, at most ``capacity`` of them from ``floor`` on.

    A packet far from all others (a flipped bit, a new stream) is accepted once a second one confirms it, as RFC 3550
    A.1 does with sequence numbers.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.floor = 0
        """Frames below this are too late."""
        self.lost = 0
        """Packets missing by sequence number, since the start."""
        self.holes = 0
        """Runs of packets that were missing when a later one came."""
        self.missing_frames = 0
        """Frames of these runs, a run's at most the buffer's capacity."""
        self._frames: dict[int, BufferedFrame] = {}
        self._doubtful: Packet | None = None
        self._confirmations = 0
        self._expected = 0
        self._received = 0
        self._forget_numbers()

    def _forget_numbers(self) -> None:
        self._sequence = Unwrapper(SEQUENCE_BITS)
        self._timestamp = Unwrapper(TIMESTAMP_BITS)
        self._seen: OrderedDict[int, tuple[int, bool]] = OrderedDict()  # (timestamp after it, is noise)
        self._first_sequence: int | None = None
        self._highest_sequence = 0
        self._highest = 0

    def __len__(self) -> int:
        return len(self._frames)

    def first(self) -> int | None:
        """The earliest frame that waits."""
        return min(self._frames) if self._frames else None

    def peek(self, frame: int) -> BufferedFrame | None:
        """The frame with this number, if it is here; it stays."""
        return self._frames.get(frame)

    def take(self, frame: int) -> BufferedFrame | None:
        """The frame with this number, if it is here; this frame and all before it are then too late."""
        found = self._frames.pop(frame, None)
        self.drop_before(frame + 1)
        return found

    def drop_before(self, frame: int) -> int:
        """Frames below ``frame`` are too late from now on. Returns how many were dropped here."""
        if frame <= self.floor:
            return 0
        late = [f for f in self._frames if f < frame]
        for f in late:
            del self._frames[f]
        self.floor = frame
        return len(late)

    def insert(self, packet: Packet) -> Insertion:
        """Put a packet's frames in their places."""
        if self._first_sequence is None:
            self._begin(packet)
            return self._place(packet, restarted=False)
        timestamp = self._timestamp.peek(packet.timestamp)
        sequence = self._sequence.peek(packet.sequence)
        if sequence in self._seen:
            if self._seen[sequence][0] == timestamp + packet.num_frames:
                return Insertion(timestamp, duplicate=True)
            # The number is known and the content is not: a sender that restarted, or damage.
            return self._doubt(packet)
        restarts = packet.start and timestamp < self._highest - _RESTART_FRAMES
        jump = max(abs(timestamp - self._highest), abs(sequence - self._highest_sequence))
        if restarts or jump > self.capacity:
            return self._doubt(packet)
        self._doubtful, self._confirmations = None, 0
        return self._place(packet, restarted=False)

    def _begin(self, packet: Packet) -> None:
        self._first_sequence = self._highest_sequence = self._sequence(packet.sequence)
        self._highest = self._timestamp(packet.timestamp)
        # Reordered packets from just before the first are accepted until playout has passed them.
        self.floor = self._highest - self.capacity // 2

    def _restart(self, packets: list[Packet]) -> Insertion:
        self._expected = self._expected_so_far()
        self._frames.clear()
        self._doubtful, self._confirmations = None, 0
        self._forget_numbers()
        self._begin(packets[0])
        results = [self._place(packet, restarted=True) for packet in packets]
        return replace(results[0], recalled=len(packets) - 1)

    def _goes_on(self, packet: Packet) -> bool:
        """Whether a packet that leaps ahead belongs to the running stream, after an outage: both numbers must fit.

        Then the missing packets are lost, as RFC 3550 A.3 counts them; a new stream has lost nothing.
        """
        numbers = self._sequence.peek(packet.sequence) - self._highest_sequence
        frames = self._timestamp.peek(packet.timestamp) - self._highest
        return 0 < numbers <= frames <= max(_FRAMES_A_NUMBER * numbers, _LONGEST_STALL_FRAMES)

    def _doubt(self, packet: Packet) -> Insertion:
        """Accept a new place in the stream once enough packets in a row agree on it.

        Two are enough where the stream continues after an outage, leaps ahead or has the start flag. A leap back
        without the flag may be a replay of old packets: it takes `_REPLAY_CONFIRMATIONS`, with no packet of the
        running stream between them.
        """
        other, self._doubtful = self._doubtful, packet
        if other is None:
            return Insertion(None, late=True)
        ahead = (packet.sequence - other.sequence) & 0xFFFF
        if not (0 < ahead <= 8 and 0 < (packet.timestamp - other.timestamp) & 0xFFFFFFFF <= self.capacity):
            self._confirmations = 0
            return Insertion(None, late=True)
        self._confirmations += 1
        if self._goes_on(other):
            self._doubtful, self._confirmations = None, 0
            self._place(other, restarted=False)
            return replace(self._place(packet, restarted=False), after_outage=True, recalled=1)
        leap_ahead = self._timestamp.peek(packet.timestamp) > self._highest
        if other.start or leap_ahead or self._confirmations >= _REPLAY_CONFIRMATIONS:
            return self._restart([other, packet])
        return Insertion(None, late=True)

    def _place(self, packet: Packet, *, restarted: bool) -> Insertion:
        timestamp, sequence = self._timestamp(packet.timestamp), self._sequence(packet.sequence)
        # The unwrappers follow the newest packet, or one old packet would pull the line back.
        if sequence < self._highest_sequence:
            self._sequence(self._highest_sequence & 0xFFFF)
        if timestamp < self._highest:
            self._timestamp(self._highest & 0xFFFFFFFF)
        after = timestamp + packet.num_frames
        repaired = self._repair(packet, timestamp, sequence)
        self._seen[sequence] = (after, packet.noise is not None)
        if len(self._seen) > _REMEMBERED_PACKETS:
            self._seen.popitem(last=False)
        self._received += 1
        if sequence > self._highest_sequence + 1:
            missing = (sequence - self._highest_sequence - 1) * packet.num_frames
            self.holes, self.missing_frames = self.holes + 1, self.missing_frames + min(missing, self.capacity)
        self._highest_sequence = max(self._highest_sequence, sequence)
        if self._first_sequence is not None:
            self._first_sequence = min(self._first_sequence, sequence)
        self._highest = max(self._highest, after - 1)
        self.lost = max(0, self._expected_so_far() - self._received)
        self.drop_before(self._highest + 1 - self.capacity)
        frames = split_packet(packet)
        for i, frame in enumerate(frames):
            if timestamp + i >= self.floor:
                self._frames[timestamp + i] = frame  # the real frame takes the place of a redundant one
        return Insertion(timestamp, late=after <= self.floor, restarted=restarted, repaired=repaired)

    def _expected_so_far(self) -> int:
        if self._first_sequence is None:
            return self._expected
        return self._expected + self._highest_sequence - self._first_sequence + 1

    def _repair(self, packet: Packet, timestamp: int, sequence: int) -> int | None:
        """Fill the gap of packets lost just before this one from its redundancy, and no other gap.

        A sender goes on encoding while it sends nothing (DTX), so redundancy after a silence holds frames that must not
        be played; the sequence numbers tell the two apart. Returns the first frame that redundancy covers, even if it
        is too late by now.
        """
        if packet.redundancy is None or sequence - 1 in self._seen:
            return None
        before = max((s for s in self._seen if s < sequence), default=None)
        if before is None:
            return None
        after_it, was_noise = self._seen[before]
        begin = max(after_it, timestamp - packet.redundancy.shape[1])
        if was_noise:
            begin = max(begin, timestamp - (sequence - before - 1) * packet.num_frames)
        for frame in range(max(begin, self.floor), timestamp):
            if frame not in self._frames:
                column = frame - timestamp + packet.redundancy.shape[1]
                codes = packet.redundancy[:, column : column + 1]  # [R, 1]
                self._frames[frame] = BufferedFrame(codes, redundant=True)
        return begin if begin < timestamp else None


def split_packet(packet: Packet) -> list[BufferedFrame]:
    """The packet's frames one by one; a noise packet is one."""
    if packet.codes is None:
        return [BufferedFrame(None, noise=packet.noise, reset=packet.start, end=packet.end)]
    count = packet.codes.shape[1]
    frames = [BufferedFrame(packet.codes[:, i : i + 1]) for i in range(count)]
    if packet.start:
        frames[0] = replace(frames[0], reset=True)
    if packet.end:
        frames[-1] = replace(frames[-1], end=True)
    return frames
