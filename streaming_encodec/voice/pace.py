"""When blocks of a file are due to be sent, and what is left out after the program stood still. Time is handed in.

A machine that was suspended, overloaded or stopped does not catch up: late speech is of no use to listeners, and a
burst of it looks like an attack to the relay.
"""

from __future__ import annotations

LATE_S = 0.4
"""A block that is further behind is past: no listener's buffer holds more."""


class FilePace:
    """Says which blocks of a file are sent, and when. `sample_rate` is that of its samples."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._begin_s: float | None = None
        self._position_samples = 0
        self._skipping = False
        self.skipped_samples = 0
        """Samples that were left out so far."""
        self.stalls = 0
        """Times that this began."""

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next block is due, negative if it is late. The first is due at the first call."""
        if self._begin_s is None:
            self._begin_s = now_s
        return self._begin_s + self._position_samples / self._rate - now_s

    def source_waited(self, waited_s: float, now_s: float) -> None:
        """The file is a pipe and gave nothing for so long: its next block is due now, not then."""
        late_s = -self.wait_s(now_s)
        if self._begin_s is not None and late_s > 0:
            self._begin_s += min(waited_s, late_s)

    def is_past(self, samples: int, now_s: float) -> bool:
        """Whether the next block, of so many samples, is to be left out; then ask for the one after it.

        Once a block is too late, all are left out up to the one that is due now.
        """
        late_s = -self.wait_s(now_s)
        self._position_samples += samples
        if not self._skipping and late_s > LATE_S:
            self._skipping = True
            self.stalls += 1
        elif self._skipping and late_s < samples / self._rate:
            self._skipping = False
        if self._skipping:
            self.skipped_samples += samples
        return self._skipping
