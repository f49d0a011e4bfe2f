"""Priority for what is measured, and a watch over the machine: what is to be seen is the network."""

from __future__ import annotations

import os
import threading
import time

FORWARDER_PRIORITY, CALL_PRIORITY = 5, 3
_TURN_S = 0.005


def prefer(priority: int, process: int = 0) -> bool:
    """Run all threads of a process (0: the calling thread) before everything ordinary; whether the system lets us."""
    try:
        for thread in [0] if process == 0 else map(int, os.listdir(f"/proc/{process}/task")):
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    return True


class StallWatch:
    """From its start on a thread of the priority of the call's programs sleeps in short turns, and notes how late it
    wakes.

    longest_ms: by how much the longest turn was too long so far: the machine stood still, or did something else. It
    belongs into a process whose other threads never wait for the processor, as they would hold this one up.
    """

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._thread = threading.Thread(target=self._run, name="stall watch", daemon=True)

    def start(self) -> None:
        """Watch until the process ends."""
        self._thread.start()

    def _run(self) -> None:
        prefer(CALL_PRIORITY)
        while True:
            begin_s = time.monotonic()
            time.sleep(_TURN_S)
            self.longest_ms = max(self.longest_ms, 1000 * (time.monotonic() - begin_s - _TURN_S))
