"""What wakes the thread that computes when the microphone has what it waits for."""

from __future__ import annotations

import contextlib
import select
import socket


class Bell:
    """Rung by any thread, or by another process that inherits `number`; waited for by one thread."""

    def __init__(self) -> None:
        # Sockets, not pipes: all systems can wait for them.
        self._hear, self._ring = socket.socketpair()
        self._hear.setblocking(False)
        self._ring.setblocking(False)

    @property
    def number(self) -> int:
        """The descriptor on which a byte rings it."""
        return self._ring.fileno()

    def ring(self) -> None:
        """Wake who waits, or who waits next. Never waits itself."""
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._ring.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Whether it rang within so many seconds, or before and nobody has waited since."""
        rang, _, _ = select.select([self._hear], [], [], max(0.0, seconds))
        if rang:
            self._hear.recv(4096)
        return bool(rang)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give it up."""
        self._hear.close()
        self._ring.close()
