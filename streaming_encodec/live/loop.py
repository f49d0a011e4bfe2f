"""The loop of a live end: microphone to line a packet at a time, line to speaker a frame or two at a time.

It runs in one thread that is not the sound card's. Time is handed in, so tests run hours of it in seconds.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from streaming_encodec.audio.devices.side import CardCounts
from streaming_encodec.audio.low_delay import Pcm
from streaming_encodec.live.howl import HowlGuard
from streaming_encodec.live.line import TOGETHER_FRAMES, Line, LineFigures
from streaming_encodec.live.meters import Delays, LevelMeter, percentile

_LONGEST_REST_S = 0.030
_SHORTEST_REST_S = 0.0002
_SWITCH_S = 0.001
"""How soon the sound card's callback gets its turn while this thread computes; Python's default is 5 ms."""
_MAINTAIN_S = 0.1
_PATIENCE_S = 0.006
"""A frame that is due and not here is waited for so long, less the time that a frame takes: what the card's margin
allows. Then it is made up."""
_FIRST_SLOWEST_S = 0.006
_SLOWEST_FORGETS = 0.995
_LATE_S = 0.25
"""A loop that stood still for longer (a laptop asleep) does not catch up, it goes on from now."""
_RECENT = 256


class Card(Protocol):
    """What the loop needs of a `SoundCard` (or of files that play its part)."""

    @property
    def counts(self) -> CardCounts:
        """What went wrong so far."""
        ...

    def read(self) -> Pcm:
        """New samples of the microphone [1, n]."""
        ...

    def write(self, pcm: Pcm, *, usual: bool = True) -> None:
        """Samples [1, n] for the speaker; ``usual``: of a length that is to be expected again."""
        ...

    @property
    def ahead_s(self) -> float | None:
        """How long until the speaker takes what it is given now; None without one."""
        ...

    @property
    def target_s(self) -> float:
        """What `ahead_s` should not fall below."""
        ...

    @property
    def input_latency_ms(self) -> float:
        """From the air to `read`."""
        ...

    @property
    def output_latency_ms(self) -> float:
        """From the ring to the air."""
        ...

    def has(self, samples: int) -> bool:
        """Whether the microphone has so many."""
        ...

    def wait(self, seconds: float, samples: int) -> None:
        """Sleep until the microphone has so many, somebody calls `wake`, or for so long."""
        ...

    def wake(self) -> None:
        """End the sleep of who waits, or of who waits next. Any thread may."""
        ...

    def maintain(self) -> None:
        """Upkeep."""
        ...


class LiveLoop:
    """Joins a card and a line.

    Args:
        guard: silences howls; None for headphones and files.
        on_heard: gets every block that goes to the speaker, for recording.
        clock: seconds.
    """

    def __init__(
        self,
        card: Card,
        line: Line,
        *,
        guard: HowlGuard | None = None,
        on_heard: Callable[[Pcm], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.card, self.line, self.guard = card, line, guard
        self.muted = False
        self.input_level, self.output_level = LevelMeter(line.sample_rate), LevelMeter(line.sample_rate)
        self._on_heard, self._clock = on_heard, clock
        self._frame_s = line.frame_samples / line.sample_rate
        self._encode_ms: deque[float] = deque(maxlen=_RECENT)
        self._decode_ms: deque[float] = deque(maxlen=_RECENT)
        self._wait_ms: deque[float] = deque(maxlen=_RECENT)
        self._unsaid: Pcm = np.zeros((1, 0), np.float32)  # the beginning of the next packet
        self._maintained = -_MAINTAIN_S
        # Time that frames lately took to be made; forgets slowly. A speaker's first takes several times the usual.
        self._slowest_s = _FIRST_SLOWEST_S
        self._due: float | None = None  # when the next frame is due while there is no speaker

    def step(self) -> None:
        """One turn: make what is to be heard, which is urgent, and say what was heard."""
        now = self._clock()
        if now - self._maintained >= _MAINTAIN_S:
            self._maintained = now
            self.card.maintain()
        self._listen()
        self._speak()

    def run(self, stop: Callable[[], bool], every_turn: Callable[[], None] | None = None) -> None:
        """Turn until `stop` says so. Raises what the line raises when the call is over."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self.line.on_arrival(self.card.wake)
        self.card.read()  # what was said before the call began would be heard late
        try:
            while not stop():
                self.step()
                if every_turn is not None:
                    every_turn()
                self.card.wait(*self._rest())
        finally:
            sys.setswitchinterval(before)

    # -- figures --------------------------------------------------------------------------------------------

    def frame_ms(self) -> tuple[float, float]:
        """Encoding and decoding of one frame, the 95th percentile lately; together they must fit a frame."""
        frames = self.line.packet_samples / self.line.frame_samples
        return percentile(self._encode_ms, 95) / frames, percentile(self._decode_ms, 95)

    @property
    def deadline_ms(self) -> float:
        """Length of a frame."""
        return 1000 * self._frame_s

    def delays(self, figures: LineFigures | None = None) -> Delays:
        """Mouth to ear, by part, at this moment; ``figures`` are the line's, if they are at hand."""
        figures = figures or self.line.figures()
        return Delays(
            microphone_ms=self.card.input_latency_ms,
            packet_ms=1000 * self.line.packet_samples / self.line.sample_rate,
            encode_ms=percentile(self._encode_ms, 50),
            network_ms=figures.network_ms,
            buffer_ms=figures.buffer_ms,
            decode_ms=percentile(self._decode_ms, 50),
            speaker_ms=max(0.0, percentile(self._wait_ms, 50)) + self.card.output_latency_ms,
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _rest(self) -> tuple[float, int]:
        """How long to sleep, and how many samples of the microphone end it earlier.

        Until the next frame is due, or if it is and is not here, until it can be waited for no longer. A packet that
        arrives or can be said ends the sleep.
        """
        ahead = self.card.ahead_s
        if ahead is None:
            return _LONGEST_REST_S, self._missing
        rest_s = ahead - self.card.target_s
        if rest_s <= 0:
            rest_s += self._patience_s
        return min(max(rest_s, _SHORTEST_REST_S), _LONGEST_REST_S), self._missing

    @property
    def _patience_s(self) -> float:
        return max(0.0, _PATIENCE_S - self._slowest_s)

    @property
    def _missing(self) -> int:
        """Samples of the microphone that the next packet still wants."""
        return self.line.packet_samples - int(self._unsaid.shape[1])

    def _speak(self) -> None:
        # Nothing can be sent of less than a packet, and each call costs something.
        if not self.card.has(self._missing):
            return
        pcm = self.card.read()
        self.input_level.add(pcm)
        if self.muted:
            pcm = np.zeros_like(pcm)  # the stream goes on, so that the other end's buffer keeps its place
        pcm = np.concatenate([self._unsaid, pcm], axis=1)
        packets = pcm.shape[1] // self.line.packet_samples
        whole = packets * self.line.packet_samples
        self._unsaid = pcm[:, whole:]
        begin = self._clock()
        self.line.send(pcm[:, :whole])
        self._encode_ms.append(1000 * (self._clock() - begin) / packets)

    def _listen(self) -> None:
        ahead = self.card.ahead_s
        if ahead is None:
            self._listen_without_speaker()
            return
        self._due = None
        target = self.card.target_s
        # The moment at which exactly the target was left, or will be: it moves with the card's clock, not with this
        # thread's luck, and so the jitter buffer also sees the two cards' drift.
        while frames := self._frames_to_make(due := self._clock() + ahead - target):
            self._make(due, frames)
            self._wait_ms.append(1000 * target - self._decode_ms[-1])
            now_ahead = self.card.ahead_s
            if now_ahead is None or now_ahead <= ahead - self._frame_s:
                break  # the speaker went away, or takes more than can be made: the next turn will see
            ahead = now_ahead

    def _frames_to_make(self, due: float) -> int:
        """Two that no packet to come can change, up to their own length before they are due; one that is due.

        So a packet's frames are made when it arrives, and neither the network nor this machine can delay them any more.
        """
        wait_s = due - self._clock()
        if wait_s >= TOGETHER_FRAMES * self._frame_s:
            return 0
        if self.line.is_certain(TOGETHER_FRAMES * self.line.frame_samples, due):
            return TOGETHER_FRAMES
        if wait_s > 0:
            return 0
        is_last = wait_s <= -self._patience_s
        return 1 if is_last or self.line.is_certain(self.line.frame_samples, due) else 0

    def _listen_without_speaker(self) -> None:
        """The call goes on while the speaker is away; what is said then is lost."""
        now = self._clock()
        if self._due is None or now - self._due > _LATE_S:
            self._due = now
        while self._due <= now:
            self._make(self._due, 1)
            self._due += self._frame_s

    def _make(self, due: float, frames: int) -> None:
        begin = self._clock()
        pcm = self.line.read(frames * self.line.frame_samples, due)
        # Where time was bent there is more than whole frames. To keep it would mean to want the next frame so much
        # before it is played.
        if more := self.line.queued_samples:
            pcm = np.concatenate((pcm, self.line.read(more, due)), axis=1)
        took = self._clock() - begin
        self._slowest_s = max(took, self._slowest_s * _SLOWEST_FORGETS)
        self._decode_ms.append(1000 * took / frames)
        if self.guard is not None:
            pcm = self.guard.process(pcm)
        self.output_level.add(pcm)
        if self._on_heard is not None:
            self._on_heard(pcm)
        whole = frames * self.line.frame_samples
        self.card.write(pcm[:, :whole])
        if more:
            self.card.write(pcm[:, whole:], usual=False)
