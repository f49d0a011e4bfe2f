"""Ctrl-C that lets a command finish the current block, so that the output is valid."""

import signal
import threading
from types import FrameType
from typing import Self


def ending_signals() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM, and SIGHUP when the terminal is closed.

    Signals that are ignored at the start (`nohup`) stay ignored.
    """
    named = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # not on Windows
    return [signal.SIGINT, *(number for number in named if signal.getsignal(number) is signal.SIG_DFL)]


class Interrupt:
    """Within its `with` block the first Ctrl-C, SIGTERM or SIGHUP only sets `requested`; one more Ctrl-C interrupts
    at once.

    Outside the main thread, where no signal arrives, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in ending_signals()}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A closing terminal sends SIGHUP twice, once itself and once through the shell: not a second Ctrl-C.
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
