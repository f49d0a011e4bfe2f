"""What one connection may send, whatever it is: bytes, and WebSocket frames that cost work but carry no message."""

from __future__ import annotations

from websockets.frames import Frame, Opcode

from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.transport.limits import FIRST_BYTES, Bucket

_MESSAGES = (Opcode.TEXT, Opcode.BINARY)


class Intake:
    """The budget of a connection, before its seat and after. Pure: the time is handed in.

    Before the seat there is little to say: an HTTP request and a hello. So `FIRST_BYTES` is all it may send, and every
    frame counts. From `seated` on the bytes of a fast stream are allowed, and whole messages count as what they are
    (`RoomTable`). Pings, pongs and fragments count always: each costs as much work as a packet.
    """

    def __init__(self, limits: RelayLimits, now_s: float) -> None:
        self._limits = limits
        self._bytes = Bucket(FIRST_BYTES / limits.hello_s, FIRST_BYTES, now_s)
        self._frames = Bucket(limits.upkeep_frames_per_s, 2 * limits.upkeep_frames_per_s, now_s)
        self._seated = False

    def seated(self, now_s: float) -> None:
        """The client has a seat."""
        self._seated = True
        self._bytes = Bucket(self._limits.bytes_per_s, 8 * self._limits.bytes_per_s, now_s)

    def data(self, size: int, now_s: float) -> bool:
        """Count bytes; False where there were too many."""
        return self._bytes.take(size, now_s)

    def frame(self, frame: Frame, now_s: float) -> bool:
        """Count a frame; False where there were too many."""
        if self._seated and frame.fin and frame.opcode in _MESSAGES:
            return True
        return self._frames.take(1, now_s)
