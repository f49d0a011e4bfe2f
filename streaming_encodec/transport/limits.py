"""What a connection may take of a machine, and how much voice may wait on it; each limit has its reason beside it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields

from streaming_encodec.errors import ConfigError
from streaming_encodec.wire.fields import MAX_CONTROL_BYTES

MAX_VOICE_AGE_S = 0.4
"""Voice that has waited for longer is dropped: no jitter buffer can use it (its largest target is 30 frames)."""

MAX_KERNEL_AGE_S = 0.3
"""While the kernel holds older voice than this (and a round trip), nothing more is written: what waits outside can
still be dropped."""

MAX_MESSAGE_BYTES = MAX_CONTROL_BYTES
"""Longest message the relay reads: a hello with its token. Packets have their own, tighter limit (913)."""

WRITE_LIMIT_BYTES = 1024
"""Beyond so many unsent bytes a listener's packets wait in its queue, where the oldest can be dropped."""

UNSENT_LIMIT_BYTES = 4096
"""The same for the kernel's buffer (TCP_NOTSENT_LOWAT). It does not hold for small writes, which the kernel adds to its
last packet; there the age counts, see `MAX_KERNEL_AGE_S`."""

MOST_UNSENT_BYTES = 32_768
"""Beyond so many a connection is cut off. Only answers to pings come near: the WebSocket layer writes them at once."""

READ_BYTES = 256
"""Read from a connection at a time: what one turn of the event loop may spend on it. 42 pings fit, or two packets."""

FIRST_BYTES = 20_480
"""All that a connection may send before it is admitted: an HTTP request with its headers, and a hello."""

RECEIVE_BYTES = 65_536
"""The kernel's buffer for what a client sent and the relay has not read. Left alone it grows to megabytes."""

BACKLOG = 512
"""Connections that the kernel holds until they are accepted. The relay accepts one in each turn of its event loop."""

UNANSWERED_CONNECTIONS = 64
"""Beyond the caps on connections so many more get an HTTP answer; from there on they are just cut off."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of a server's connections, whatever the transport.

    Raises ConfigError for one that is not positive.
    """

    max_connections: int = 1000
    max_connections_per_address: int = 32
    """A household or an office behind one address."""
    hello_s: float = 5.0
    """The handshake takes no longer, and then the hello."""
    heartbeat_s: float = 5.0
    stall_s: float = 5.0
    """A listener that reads nothing for so long is disconnected."""
    queue_frames: int = 20
    """Frames of each speaker that wait for a slow listener: 267 ms."""
    upkeep_frames_per_s: float = 16.0
    """WebSocket frames that carry no whole message: pings, pongs, fragments. Twice as many at once."""
    bytes_per_s: float = 131_072.0
    """Bytes that a participant may send, eight times as many at once: above what the limits on messages allow a
    stream of 75 frames a second."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigError(
                    f"the limit {field.name} must be positive, not {getattr(self, field.name)}", setting=field.name
                )


OUTAGE_S = 1.0
"""A pause of this length or more counts as an outage. It is longer than the pauses between the packets of a call."""


class Bucket:
    """Allows `rate_per_s` on average and `burst` at once. Starts full.

    forgiven: how much more than `burst` may come at once after a pause of `OUTAGE_S` or more: as much as the rate
    allows in that pause, at most this. It stands for what a network, or a receiver that did not run, held back. What
    is not used of it is gone after as much time as the pause took. So the average rate is never exceeded.
    """

    __slots__ = ("_burst", "_forgiven", "_level", "_rate", "_then")

    def __init__(self, rate_per_s: float, burst: float, now_s: float, *, forgiven: float = 0.0) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._forgiven = forgiven
        self._level = burst
        self._then = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Take so much, or nothing and answer False where there is less."""
        self._level = self._at(now_s)
        self._then = now_s
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def is_full(self, now_s: float) -> bool:
        """Whether it is as full as at the start."""
        return self._at(now_s) >= self._burst

    def _at(self, now_s: float) -> float:
        pause_s = max(0.0, now_s - self._then)
        more = self._rate * pause_s
        if pause_s >= OUTAGE_S:
            return min(self._burst + min(self._forgiven, more), self._level + more)
        if self._level > self._burst:
            return max(self._burst, self._level - more)
        return min(self._burst, self._level + more)


class Outbox:
    """What waits for a peer that reads too slowly: packets of each speaker in a queue of its own, and control messages,
    which go before all voice.

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
