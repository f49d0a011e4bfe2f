"""What the live loop talks into and listens to, and the figures that a line gives of itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from streaming_encodec.audio.low_delay import Pcm
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.statistics import ReceiverStatistics

IP_BYTES = 40
"""IPv4 and TCP headers without options, per packet."""
WEBSOCKET_BYTES = 6
"""A client's frame header with its mask, per packet."""


TOGETHER_FRAMES = 2
"""So many frames are made at once, and go through the decoder in one step, if nothing can change them any more."""
LIVE_DELAY = DelaySettings(minimum_frames=0.5, initial_frames=1, trial_buckets=4, bins_per_frame=8, spare_frames=0)
LIVE_PLAYOUT = ReceiverSettings(
    delay=LIVE_DELAY, shorten_above_frames=0.125, stretch_below_frames=0.25, together_frames=TOGETHER_FRAMES
)
"""Playout next to a sound card. The microphone's blocks spread arrivals by less than a frame; steps of a whole frame
would make two of that. When a frame is due the next one is usually here: both go through the decoder at once."""


@dataclass(frozen=True, slots=True)
class LineFigures:
    """Totals since the line was opened, and the present."""

    packets_sent: int = 0
    bytes_sent: int = 0
    """Packets as they are, header included."""
    payload_bits: int = 0
    """Codes alone."""
    network_ms: float = 0.0
    """A packet's way from one end to the other, lately; see the line for what it knows of that."""
    buffer_ms: float = 0.0
    """How long frames lately stayed in the jitter buffer."""
    target_ms: float = 0.0
    concealed_share: float = 0.0
    packets_lost: int = 0
    skipped_frames: int = 0
    """Left out undecoded because they lay too far back: on a machine too slow, or after a long stall."""
    speakers: int = 0
    connected: bool = True

    @property
    def wire_bits(self) -> int:
        """With WebSocket, TCP and IP headers."""
        return 8 * (self.bytes_sent + self.packets_sent * (IP_BYTES + WEBSOCKET_BYTES))


class Line(Protocol):
    """One end of a conversation. `send` and `read` are called by one thread."""

    @property
    def packet_samples(self) -> int:
        """Samples of a packet's frames, at the model's rate: so much is said at once."""
        ...

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        ...

    @property
    def sample_rate(self) -> int:
        """The model's, in Hz."""
        ...

    def send(self, pcm: Pcm) -> None:
        """Say [1, n]. Never waits for the network. Raises CallError when the call is over."""
        ...

    def on_arrival(self, call: Callable[[], None]) -> None:
        """Have this called whenever a packet has come, in whatever thread that notices."""
        ...

    @property
    def queued_samples(self) -> int:
        """Samples of everybody made and not yet read."""
        ...

    def is_certain(self, count: int, now: float) -> bool:
        """Whether all that `read` takes is here. Then it may be asked before ``now``: no packet could fill a gap."""
        ...

    def read(self, count: int, now: float) -> Pcm:
        """The next ``count`` samples [1, count] of everybody; ``now`` is when they are needed.

        Raises CallError when the call is over, as `send`: while the microphone is away nobody calls that.
        """
        ...

    def figures(self) -> LineFigures:
        """How it goes."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class BufferMeter:
    """Mean stay in the jitter buffer over the last so many looks, from totals that only grow."""

    def __init__(self, looks: int = 20) -> None:
        self._past: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=looks)

    def look(self, statistics: Iterable[ReceiverStatistics]) -> float:
        """Milliseconds, 0 while nothing was played."""
        every = list(statistics)
        delay = sum(s.jitter_buffer_delay for s in every)
        emitted = sum(s.jitter_buffer_emitted_count for s in every)
        if emitted < self._past[-1][1]:
            self._past.clear()  # a speaker has left and took his totals along
            self._past.append((delay, emitted))
        before_delay, before = self._past[0]
        if emitted > self._past[-1][1]:
            self._past.append((delay, emitted))
        return 1000 * (delay - before_delay) / (emitted - before) if emitted > before else 0.0


class SpeakerTotals:
    """What the speakers' losses come to, those of speakers who have left included."""

    def __init__(self) -> None:
        self._present: dict[int, ReceiverStatistics] = {}
        self._left = ReceiverStatistics()

    def look(self, statistics: Iterable[ReceiverStatistics]) -> ReceiverStatistics:
        """The totals of who is there and who was: samples played and concealed, packets lost, frames skipped."""
        # By object, not by number: a relay begun anew gives the same numbers to others.
        present = {id(each): each for each in statistics}
        for key in self._present.keys() - present.keys():
            _add(self._left, self._present[key])
        self._present = present
        totals = replace(self._left)
        for each in present.values():
            _add(totals, each)
        return totals


def _add(totals: ReceiverStatistics, more: ReceiverStatistics) -> None:
    totals.total_samples_received += more.total_samples_received
    totals.concealed_samples += more.concealed_samples
    totals.packets_lost += more.packets_lost
    totals.skipped_frames += more.skipped_frames
