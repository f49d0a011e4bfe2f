"""What waits for a peer that reads too slowly: bounded in number and age, and the oldest voice is dropped first."""

from __future__ import annotations

from collections import deque

from streaming_encodec.transport.limits import MAX_VOICE_AGE_S


class Outbox:
    """Packets of each speaker in a queue of its own, and control messages, which go before all voice.

    A speaker's queue holds at most `max_frames` frames: putting more in drops that speaker's oldest packets,
    never another's. What has waited for longer than `MAX_VOICE_AGE_S` is dropped when its turn comes.
    Pure: bytes in, bytes out, and the time is handed in.
    """

    __slots__ = ("_controls", "_max_controls", "_max_frames", "_waiting", "dropped")

    def __init__(self, max_frames: int, max_controls: int = 64) -> None:
        self._max_frames = max_frames
        self._max_controls = max_controls
        self._controls: deque[bytes] = deque()
        # In the order in which speakers get their turn; frames waiting, and the packets with frames and time.
        self._waiting: dict[int, tuple[int, deque[tuple[int, float, bytes]]]] = {}
        self.dropped = 0
        """Packets dropped so far."""

    def __bool__(self) -> bool:
        return bool(self._controls or self._waiting)

    @property
    def frames(self) -> int:
        """Frames waiting, of all speakers."""
        return sum(frames for frames, _ in self._waiting.values())

    @property
    def packets(self) -> int:
        """Packets waiting, of all speakers."""
        return sum(len(packets) for _, packets in self._waiting.values())

    def put(self, sender: int, frames: int, data: bytes, now_s: float) -> None:
        """Queue a packet of so many frames."""
        waiting, packets = self._waiting.get(sender, (0, None))
        packets = deque() if packets is None else packets
        packets.append((frames, now_s, data))
        waiting += frames
        while waiting > self._max_frames and len(packets) > 1:
            waiting -= packets.popleft()[0]
            self.dropped += 1
        self._waiting[sender] = (waiting, packets)

    def put_control(self, data: bytes, *, spare: bool = False) -> bool:
        """Queue a control message; False where too many wait.

        One that is `spare` may be dropped then, and takes only half of the places; for any other the peer must go.
        """
        if len(self._controls) >= (self._max_controls // 2 if spare else self._max_controls):
            return False
        self._controls.append(data)
        return True

    def pop(self, now_s: float) -> bytes | None:
        """The next bytes to send: controls first, then a packet of each speaker in turn."""
        if self._controls:
            return self._controls.popleft()
        while self._waiting:
            sender = next(iter(self._waiting))
            waiting, packets = self._waiting.pop(sender)
            frames, since_s, data = packets.popleft()
            if packets:
                self._waiting[sender] = (waiting - frames, packets)  # at the end: the others come first now
            if now_s - since_s <= MAX_VOICE_AGE_S:
                return data
            self.dropped += 1
        return None
