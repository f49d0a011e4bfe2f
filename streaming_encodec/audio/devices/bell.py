"""Wakes the computing thread when the microphone has the samples that it waits for."""

from __future__ import annotations

import contextlib
import select
import socket


class Bell:
    """Any thread rings it, or another process that inherits `number`; one thread waits for it."""

    def __init__(self) -> None:
        # Sockets, not pipes: all systems can wait for them.
        self._hear, self._ring = socket.socketpair()
        self._hear.setblocking(False)
        self._ring.setblocking(False)

    @property
    def number(self) -> int:
        """The file descriptor: one byte written to it rings the bell."""
        return self._ring.fileno()

    def ring(self) -> None:
        """Wake the thread in `wait`, or make its next `wait` return at once. Does not block."""
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._ring.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Wait until it rings, for at most this many seconds. True if it rang, also if that was before the call."""
        rang, _, _ = select.select([self._hear], [], [], max(0.0, seconds))
        if rang:
            self._hear.recv(4096)
        return bool(rang)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Release the sockets."""
        self._hear.close()
        self._ring.close()
