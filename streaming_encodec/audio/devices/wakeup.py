"""Wakes the computing thread when the microphone has the samples that it waits for."""

from __future__ import annotations

import contextlib
import select
import socket


class Wakeup:
    """Any thread sets it, or another process that inherits `number`; one thread waits for it."""

    def __init__(self) -> None:
        # Sockets, not pipes: all systems can wait for them.
        self._read_end, self._write_end = socket.socketpair()
        self._read_end.setblocking(False)
        self._write_end.setblocking(False)

    @property
    def number(self) -> int:
        """The file descriptor: one byte written to it sets the wakeup."""
        return self._write_end.fileno()

    def set(self) -> None:
        """Wake the thread in `wait`, or make its next `wait` return at once. Does not block."""
        with contextlib.suppress(BlockingIOError):  # it is set already
            self._write_end.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, for at most this many seconds. True if it was set, also before the call; resets it."""
        was_set, _, _ = select.select([self._read_end], [], [], max(0.0, seconds))
        if was_set:
            self._read_end.recv(4096)
        return bool(was_set)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Release the sockets."""
        self._read_end.close()
        self._write_end.close()
