"""Statistics of durations in constant memory."""

import math


class TimeHistogram:
    """Durations counted in bins of 1 % width, so that a percentile is accurate to 1 % for any number of them.

    Durations are in milliseconds; below 1 µs and above 1000 s they go into the outermost bins. The maximum
    is exact.
    """

    _LEAST_MS = 1e-3
    _MOST_MS = 1e6
    _GROWTH = 1.01

    def __init__(self) -> None:
        self._counts = [0] * (self._bin(self._MOST_MS) + 1)
        self.count = 0
        self.total_ms = 0.0
        self.max_ms = 0.0

    def add(self, ms: float, times: int = 1) -> None:
        """Count a duration `times` times."""
        self._counts[self._bin(min(ms, self._MOST_MS))] += times
        self.count += times
        self.total_ms += ms * times
        self.max_ms = max(self.max_ms, ms)

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` of all do not exceed; 0 when there are none."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for number, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(self._LEAST_MS * self._GROWTH**number, self.max_ms)
        return 0.0

    def _bin(self, ms: float) -> int:
        if ms <= self._LEAST_MS:
            return 0
        return math.ceil(math.log(ms / self._LEAST_MS) / math.log(self._GROWTH))
