"""A client's WebSocket connection that takes a packet at once, without waking a task for it."""

from __future__ import annotations

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State


class SeatConnection(ClientConnection):
    """`offer` writes a packet if the transport has room; the rest is as ever."""

    _full = False

    def pause_writing(self) -> None:
        """The transport is full."""
        super().pause_writing()
        self._full = True

    def resume_writing(self) -> None:
        """The transport has room again."""
        super().resume_writing()
        self._full = False

    def offer(self, packet: bytes) -> bool:
        """Write a packet now; False where there is no room, or the connection is going down."""
        if self._full or self.protocol.state is not State.OPEN or self.transport.is_closing():
            return False
        self.transport.write(Frame(Opcode.BINARY, packet).serialize(mask=True))
        return True
