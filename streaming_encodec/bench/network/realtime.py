"""Priority for what is measured, and a watch over the machine: what is to be seen is the network."""

from __future__ import annotations

import os
import threading
import time

FORWARDER_PRIORITY, _WATCH_PRIORITY, CALL_PRIORITY = 5, 4, 3
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
    """A thread that sleeps in short turns and notes how late it wakes; the call's programs do not hold it up.

    longest_ms: by how much the longest turn was too long so far: the machine stood still, or did something else. It
    belongs into a process whose other threads never wait for the processor, as they would hold this one up.
    """

    def __init__(self) -> None:
        self.longest_ms = 0.0

    def start(self, seconds: float) -> None:
        """Watch for so long, or until the process ends."""
        threading.Thread(target=self._run, args=(seconds,), name="stall watch", daemon=True).start()

    def _run(self, seconds: float) -> None:
        prefer(_WATCH_PRIORITY)
        end_s = time.monotonic() + seconds
        while (begin_s := time.monotonic()) < end_s:
            time.sleep(_TURN_S)
            self.longest_ms = max(self.longest_ms, 1000 * (time.monotonic() - begin_s - _TURN_S))
