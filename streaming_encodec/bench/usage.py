"""Resources of a running program, from /proc: memory over time, and its share of a core."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

_PARTING = 4
"""Last readings that do not count: the program ends then."""


class Usage:
    """Reads a process and those that it started once a second, from now until `facts` is called."""

    def __init__(self, process: Popen[str], settle_s: float = 5.0) -> None:
        self._process = process.pid
        self._settle_s = settle_s
        self._looks: list[tuple[float, float, float, float]] = []  # (time, cpu seconds, MB, MB of its own)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            try:
                family = list(_family(self._process))
                sizes = [[int(pages) for pages in (folder / "statm").read_text().split()] for folder in family]
                busy_s = sum(_busy_s(task) for folder in family for task in (folder / "task").iterdir())
            except (FileNotFoundError, ProcessLookupError):
                return
            page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
            resident, shared = (page_mb * sum(size[i] for size in sizes) for i in (1, 2))
            self._looks.append((time.monotonic(), busy_s, resident, resident - shared))

    def facts(self) -> dict[str, Any]:
        """Resident memory in MB at the start, in the middle and at the end, and what of it is neither a file nor shared
        with other programs, as the segment is that a sound server maps into each; busy share of one core in between."""
        self._stop.set()
        self._thread.join()
        looks = [look for look in self._looks if look[0] - self._looks[0][0] >= self._settle_s]
        looks = looks[:-_PARTING]
        if len(looks) < 2:
            return {"memory_mb": [], "own_memory_mb": [], "cpu_share": 0.0}
        (begin, busy, *_), (end, busy_then, *_) = looks[0], looks[-1]
        memory, own = ([round(looks[i][k], 1) for i in (0, len(looks) // 2, len(looks) - 1)] for k in (2, 3))
        share = round((busy_then - busy) / (end - begin), 3)
        return {"memory_mb": memory, "own_memory_mb": own, "cpu_share": share}


def _family(process: int) -> Iterator[Path]:
    """The folders in /proc of a process and of all that it started, directly or not."""
    folder = Path(f"/proc/{process}")
    yield folder
    for task in (folder / "task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _busy_s(task: Path) -> float:
    """Seconds that a thread has run, to the nanosecond: the clock's ticks miss what is shorter than they."""
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has just ended
