"""What one connection may send: bytes, and WebSocket frames that cost work but carry no message."""

from __future__ import annotations

from websockets.frames import Frame, Opcode

from streaming_encodec.transport.limits import FIRST_BYTES, Bucket, ServerLimits

_MESSAGES = (Opcode.TEXT, Opcode.BINARY)


class Intake:
    """The budget of a connection, before it is admitted and after. Pure: the time is handed in.

    Before that there is little to send: an HTTP request and a hello. So `FIRST_BYTES` is the limit, and every
    frame counts. From `admitted` on the bytes of a fast stream are allowed, and whole messages count as what they are
    (`RoomTable`). Pings, pongs and fragments count always: each costs as much work as a packet.
    """

    def __init__(self, limits: ServerLimits, now_s: float) -> None:
        self._limits = limits
        self._bytes = Bucket(FIRST_BYTES / limits.hello_s, FIRST_BYTES, now_s)
        self._frames = Bucket(limits.upkeep_frames_per_s, 2 * limits.upkeep_frames_per_s, now_s)
        self._admitted = False

    def admitted(self, now_s: float) -> None:
        """The client is a participant."""
        self._admitted = True
        self._bytes = Bucket(self._limits.bytes_per_s, 8 * self._limits.bytes_per_s, now_s)

    def data(self, size: int, now_s: float) -> bool:
        """Count bytes; False where there were too many."""
        return self._bytes.take(size, now_s)

    def frame(self, frame: Frame, now_s: float) -> bool:
        """Count a frame; False where there were too many."""
        if self._admitted and frame.fin and frame.opcode in _MESSAGES:
            return True
        return self._frames.take(1, now_s)
