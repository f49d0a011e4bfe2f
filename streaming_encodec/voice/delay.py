"""How long to hold packets back: the delay target of the jitter buffer.

Each packet's delay is taken relative to the fastest packet of the last two seconds, so that neither the clocks' offset
nor their drift matters. The largest delay of each half second goes into a histogram that forgets, of one-frame bins or
finer ones; the target is one of its quantiles, and a little more. The scheme is in outline that of WebRTC's NetEq
(`delay_manager.cc`, `relative_arrival_delay_tracker.cc`), with half-second maxima in place of single packets: a late
packet is heard whether 20 or 200 of its neighbours were on time. A frame that redundancy brought counts as late as it
came, and at once: redundancy helps only if playout waits for it, and the next hole may come before half a second ends.

A lone stall (a second on TCP, say) does not count: else the listener would have more delay for as long as the histogram
remembers it. A second one within 30 s does, and the target then covers both until 30 s pass without another. In a stall
some packets come late and the last of them in time; where its last packets are all late a queue grows on the way, and
the target covers that at once, until a second after it has grown last. While it drains the last packet says how much is
left. While a queue stands, less time is left to wait for stalls: both add up.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import accumulate

from streaming_encodec.errors import StreamError

_REMEMBERED_INTERVALS = 30
"""Reports go out about once a second."""
_RECENT_S, _RECENT_PACKETS = 0.15, 4
"""A queue is the least delay of so long, and of no fewer packets: jitter seldom makes as many late. Longer would be
late itself: where a line carries half of what is sent, 400 ms of voice make 200 ms of queue."""
_MORE_S = 0.05
"""A queue that is longer by so much is news."""
_LATELY_BUCKETS, _SUPPOSED_BUCKETS = 30, 2
"""The share of half seconds with holes is that of so many, at first of those that there were and so many without."""
_SOME, _MANY, _LONGER = 0.47, 0.55, 1.45
"""Between these shares of half seconds with holes redundancy is waited for ever longer, up to so many times. One end's
bursts for 10 % of the time make 0.37, both ends' 0.6."""
_GROWN_S = 0.04
"""Where the last packets of half a second are later by more than this than the fastest of two, a queue grows."""
_DRAINED_S = 0.025
"""A queue drains where the last packet of half a second is earlier than its first one by more than this."""

_ON_TIME = 0.05
"""Frames that a packet may be later than a bin's edge."""


@dataclass(frozen=True, slots=True)
class DelaySettings:
    """Settings of the target, in frames unless said otherwise.

    quantile: share of half seconds that pass without a frame that comes too late.
    repair_frames: the longest that playout waits for redundancy; holes that are longer are concealed in part. More
        delay for every word costs more than the few frames that it saves. Where half of the half seconds have holes it
        saves more: then up to 1.45 times as long.
    free_queue_frames: a queue on the way takes from the maximum what it has beyond so much.
    trial_buckets: half seconds before the target may fall below initial_frames: a call's first second is its roughest.
    bins_per_frame: bins of the histogram for each frame of delay.
    spare_frames: what the target is above the quantile. Delay may fall below its target by
        `ReceiverSettings.stretch_below_frames` before playout stretches.
    """

    minimum_frames: float = 2
    maximum_frames: int = 30
    free_queue_frames: int = 10
    initial_frames: float = 3
    quantile: float = 0.99
    repair_frames: float = 12
    window_s: float = 2.0
    bucket_s: float = 0.5
    memory_buckets: int = 50
    peak_memory_s: float = 30.0
    trial_buckets: int = 1
    bins_per_frame: int = 4
    spare_frames: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.minimum_frames <= self.initial_frames <= self.maximum_frames <= 500:
            raise StreamError("delays in frames: 0 < minimum <= initial <= maximum <= 500")
        if min(self.window_s, self.bucket_s, self.peak_memory_s) <= 0 or self.memory_buckets < 2:
            raise StreamError("the windows of the delay target are positive, its memory at least 2 buckets")
        if not (1 <= self.bins_per_frame <= 16 and 0 <= self.spare_frames <= 10):
            raise StreamError("the delay target has 1 to 16 bins a frame, and 0 to 10 frames to spare")
        if not 0 < self.quantile < 1:
            raise StreamError(f"the quantile of the delay target lies between 0 and 1, not at {self.quantile:g}")


class DelayEstimator:
    """Learns from arrivals what playout follows. All times are in frames.

    base: arrival less timestamp of the fastest recent packet; 0 before any packet. It is that of a packet as long as
    they are at present: a longer one leaves later after its first frame.
    target_frames: how long after the fastest packet's moment a frame is to be played.
    """

    def __init__(self, frame_seconds: float, settings: DelaySettings) -> None:
        self.settings = settings
        self._rate = 1 / frame_seconds
        self._window = settings.window_s / frame_seconds
        self._bucket = settings.bucket_s / frame_seconds
        self._peak_memory = settings.peak_memory_s / frame_seconds
        self._fastest: deque[tuple[float, float]] = deque()  # (arrival, offset of the packet's end), offsets rising
        self._recent: deque[float] = deque(maxlen=_RECENT_PACKETS)  # their offsets
        self._lengths = (1, 1)  # of the last two packets of speech: the last one before a pause may be short
        self._weights = [0.0] * (settings.maximum_frames * settings.bins_per_frame + 1)
        self._buckets = 0
        self._bucket_ends = math.nan
        self._begin_bucket()
        self._leasts: deque[float] = deque(maxlen=math.ceil(settings.peak_memory_s / settings.bucket_s))  # offsets
        self._unlearned: float | None = None  # height of the last bucket
        self._drained = self._refilled = -math.inf  # when a queue did so last
        self._holed = 0.0  # share of buckets in which redundancy filled a hole
        self._lately = _SUPPOSED_BUCKETS  # of so many
        self._repairs: deque[float] = deque(maxlen=2)  # of the last buckets, in frames
        self._growths: deque[float] = deque(maxlen=2)  # heights of the last buckets
        self._peaks: deque[tuple[float, float]] = deque()  # (since, height)
        self._learned = float(settings.initial_frames)
        self.target_frames = float(settings.initial_frames)
        self.base = 0.0

    def restart(self) -> None:
        """A new stream begins, with other timestamps. What was learned about the network stays."""
        self._fastest.clear()
        self.base = 0.0
        self._recent.clear()
        self._unlearned = None
        self._leasts.clear()
        self._growths.clear()
        self._repairs.clear()
        self._bucket_ends = math.nan
        self._begin_bucket()

    def _begin_bucket(self) -> None:
        self._bucket_max, self._bucket_repair = 0.0, 0.0
        self._bucket_least, self._bucket_most = math.inf, -math.inf
        self._bucket_sides = (math.nan, math.nan)  # offsets of its first and last packet

    def on_packet(self, timestamp: int, clock_frames: float, frames: int = 1, *, noise: bool = False) -> float:
        """A packet with so many frames from ``timestamp`` on arrived. Returns its relative delay, in frames."""
        offset = clock_frames - timestamp - frames
        if not noise:
            self._lengths = (self._lengths[1], frames)
        while self._fastest and self._fastest[-1][1] >= offset:
            self._fastest.pop()
        self._fastest.append((clock_frames, offset))
        while self._fastest[0][0] < clock_frames - self._window:
            self._fastest.popleft()
        self.base = self._fastest[0][1] + max(self._lengths)
        self._recent.append(offset)
        delay = offset - self._fastest[0][1]
        self._bucket_max = max(self._bucket_max, delay)
        first, _ = self._bucket_sides
        self._bucket_sides = (offset if math.isnan(first) else first, offset)
        self._bucket_least, self._bucket_most = min(self._bucket_least, offset), max(self._bucket_most, offset)
        if math.isnan(self._bucket_ends):
            self._bucket_ends = clock_frames + self._bucket
        elif clock_frames >= self._bucket_ends:
            self._close_bucket(clock_frames)
            self._bucket_ends = clock_frames + self._bucket
            self._begin_bucket()
        elif not self._buckets:
            self._guess()
        return delay

    def on_repair(self, timestamp: int, clock_frames: float) -> None:
        """Redundancy brought the frame ``timestamp``, and those after it up to the packet that came.

        Such a delay is no stall, however long.
        """
        self._bucket_repair = max(self._bucket_repair, clock_frames - timestamp - self.base)
        self._raise_target(self._wait_for(self._bucket_repair))

    def _wait_for(self, repair: float) -> float:
        """How long playout waits for what redundancy brings, in frames; 0 if it brought nothing."""
        if not repair:
            return 0.0
        often = min(max((self._holed - _SOME) / (_MANY - _SOME), 0.0), 1.0)
        most = (1 + often * (_LONGER - 1)) * self.settings.repair_frames
        return min(repair, most) + self.settings.spare_frames

    def _raise_target(self, wanted: float) -> None:
        """Until the half second ends, and all that is known decides."""
        self.target_frames = max(self.target_frames, min(wanted, self.settings.maximum_frames))

    def _close_bucket(self, clock_frames: float) -> None:
        height, settings = self._bucket_max, self.settings
        self._leasts.append(self._bucket_least)
        while self._peaks and self._peaks[0][0] < clock_frames - self._peak_memory:
            self._peaks.popleft()
        is_high = self._is_high(height)
        grows = min(self._recent) - self._fastest[0][1] > _GROWN_S * self._rate or (is_high and any(self._growths))
        first, last = self._bucket_sides
        falls = last < first - _DRAINED_S * self._rate
        if grows and falls and clock_frames - self._refilled > self._peak_memory:
            # The queue drains: what comes next is no later than the last packet.
            self._growths.clear()
            self._growths.append(last - self._fastest[0][1])
            self._drained = clock_frames
        else:
            self._growths.append(height if grows else 0.0)
            if grows and not falls and clock_frames - self._drained < self._peak_memory:
                self._refilled = clock_frames  # a download's: it falls by a third, and grows again
        is_lately = self._peaks and clock_frames - self._peaks[-1][0] < 3 * self._bucket
        if grows and is_lately:
            self._peaks.pop()  # so it has begun
        elif is_high and not grows and is_lately:
            # One stall can end one half second and fill the next with what it held back.
            since, before = self._peaks.pop()
            self._peaks.append((since, max(height, before)))
        elif is_high and not grows:
            self._peaks.append((clock_frames, height))
        self._lately = min(self._lately + 1, _LATELY_BUCKETS)
        self._holed += ((self._bucket_repair > 0.0) - self._holed) / self._lately
        repair = self._wait_for(self._bucket_repair)
        self._repairs.append(repair)
        # A queue is known half a second after it began to grow: what came before is learned when none grew after it.
        if not grows and self._unlearned is not None:
            self._learn(self._unlearned)
        self._unlearned = None if grows or is_high else max(height, repair - settings.spare_frames)
        if self._unlearned is not None and not self._buckets:
            self._learn(self._unlearned)  # better than nothing
            self._unlearned = None
        stalls = max((h for _, h in self._peaks), default=0.0) if len(self._peaks) >= 2 else 0.0
        held = max(stalls, *self._growths)
        wanted = max(self._learned, math.ceil(held) + 1 if held else 0.0, *self._repairs)
        queue = self._fastest[0][1] - min(self._leasts)
        most = settings.maximum_frames - max(0.0, queue - settings.free_queue_frames)
        self.target_frames = max(min(wanted, most), settings.minimum_frames)

    def _is_high(self, height: float) -> bool:
        """A stall is told from jitter by its size: twice the target and 80 ms more at 75 frames a second."""
        return height > 2 * self._learned and height > self._learned + 6

    def _guess(self) -> None:
        """Until a half second has taught something the target covers all that came. Who sends several packets at once,
        as the microphone's blocks come, is so known from the first block on."""
        height, settings = self._bucket_most - self._fastest[0][1], self.settings
        if not self._is_high(height):
            self._raise_target(self._bins(height) / settings.bins_per_frame + settings.spare_frames)

    def _bins(self, height: float) -> int:
        return math.ceil((height - _ON_TIME) * self.settings.bins_per_frame)

    def _learn(self, height: float) -> None:
        settings = self.settings
        self._buckets += 1
        keep = 1 - 1 / min(self._buckets, settings.memory_buckets)
        self._weights = [weight * keep for weight in self._weights]
        self._weights[min(max(self._bins(height), 0), len(self._weights) - 1)] += 1 - keep
        below = list(accumulate(self._weights))
        enough = settings.quantile * below[-1] - 1e-9
        bins = next(bins for bins, sum_ in enumerate(below) if sum_ >= enough)
        self._learned = bins / settings.bins_per_frame + settings.spare_frames
        if self._buckets < settings.trial_buckets:
            self._learned = max(self._learned, settings.initial_frames)


class QueueMeter:
    """What a queue on the way adds to the one-way delay: its least of late above the least of the last half minute.

    Jitter makes some packets late; a standing queue makes all of them late. Clocks need not agree. One that is fast by
    100 ppm counts as 3 ms of queue in the half minute that is remembered.
    """

    def __init__(self, frame_seconds: float) -> None:
        self._recent, self._more = _RECENT_S / frame_seconds, _MORE_S / frame_seconds
        self._recently: deque[tuple[float, float]] = deque()  # (arrival, offset), offsets rising
        self._arrivals: deque[float] = deque(maxlen=_RECENT_PACKETS)
        self._past: deque[float] = deque(maxlen=_REMEMBERED_INTERVALS)  # the least offset of each interval, in frames
        self._least = math.inf
        self._closed = 0.0

    def restart(self) -> None:
        """Timestamps start again."""
        self._recently.clear()
        self._arrivals.clear()
        self._past.clear()
        self._least, self._closed = math.inf, 0.0

    def on_packet(self, timestamp: int, clock_frames: float) -> None:
        """A packet that ends before the frame ``timestamp`` arrived."""
        offset = clock_frames - timestamp
        self._least = min(self._least, offset)
        while self._recently and self._recently[-1][1] >= offset:
            self._recently.pop()
        self._recently.append((clock_frames, offset))
        self._arrivals.append(clock_frames)
        while self._recently[0][0] < min(clock_frames - self._recent, self._arrivals[0]):
            self._recently.popleft()

    @property
    def frames(self) -> float:
        """The queue at present, in frames; where no packet came lately, what was last known."""
        return self._recently[0][1] - min((self._least, *self._past)) if self._recently else 0.0

    @property
    def has_grown(self) -> bool:
        """Whether it is much longer than when the last interval ended."""
        # The first packet after a stall stands alone here, until those that were held up with it are in.
        return len(self._recently) > 1 and self.frames > self._closed + self._more

    def close(self) -> float:
        """The queue in frames; the next interval begins."""
        self._closed = self.frames
        if self._least < math.inf:
            self._past.append(self._least)
            self._least = math.inf
        return self._closed
