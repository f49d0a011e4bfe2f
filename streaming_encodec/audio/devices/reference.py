"""The far end of echo cancellation: what the speaker played, in step with what the microphone recorded.

Two devices call back at their own times and run by their own clocks. Each callback says how many samples have passed
and when; PortAudio's time stamps add how far they are from the air. From both it follows which sample of the speaker
was in the air when one of the microphone was taken, and how fast that relation moves: the drift. The reference is
resampled by it, so that a filter that knows the room stays true.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import numpy as np

from streaming_encodec.audio.devices.port import Port
from streaming_encodec.audio.low_delay import LowDelayResampler, fractional_filters
from streaming_encodec.types import Pcm

_LEAD_S = 0.020
"""The reference goes ahead of the echo by so much where it can: time stamps may be wrong by as much."""
_SPARE_S = 0.005
"""So much of the speaker's sound should be at hand beyond what is asked for."""
_SETTLE_S = 0.4
"""Until the first relation is taken, from the median of what was seen."""
_LOOK_S = 0.25
_MOST_LOOKS = 120
_LEAST_LOOKS = 6
_LEAST_DRIFT = 4e-6
_SURE = 3.0
"""A drift below the one, or below so many standard errors, is none: devices of one card have none, and a filter that
has learned a room suffers from a reference that sways."""
_JUMP_S, _JUMP_LOOKS = 0.008, 6
"""A relation that is off by so much in so many looks is measured again: one device has lost samples."""
_OFF_S, _PULL_S, _MOST_PULL = 0.0015, 60.0, 15e-6
_PHASES, _HALF, _CUTOFF = 512, 16, 0.95
_PIECE, _MOST_MOVE = 640, 0.1
"""Samples that are read at once at most, and by how much of a sample the position within one may move meanwhile: at
100 ppm by 0.06."""
_KEPT_S = 1.0


class Reference:
    """What was played, as mono at ``sample_rate``, read in step with the microphone.

    Made between two reads of the microphone; from then on each read is followed by one of this.
    """

    def __init__(self, microphone: Port, speaker: Port, sample_rate: int) -> None:
        self._microphone, self._speaker, self._rate = microphone, speaker, sample_rate
        speaker.played.clear()
        self._near_from, self._far_from = microphone.ring.read, speaker.played.written
        speaker.remember(True)
        self._resampler = LowDelayResampler(speaker.rate, sample_rate)
        self._filters = fractional_filters(_PHASES, _HALF, _CUTOFF)
        self._fade = np.arange(_PIECE, dtype=np.float32) / _PIECE
        self._far: Pcm = np.zeros(0, np.float32)  # from number `_far_at` on
        self._far_at = self._near = 0  # `_near`: samples of the microphone whose reference was read
        self._position: float | None = None  # of the next sample to be read, in samples of the speaker
        self._shift_s = 0.0  # what was taken, against what was seen
        self._seen: list[float] = []
        self._spare: list[float] = []
        self._looks: deque[tuple[float, float]] = deque(maxlen=_MOST_LOOKS)
        self._off = 0
        self.drift = 0.0
        """How much faster the speaker's clock runs than the microphone's, as far as that is known; 1e-6 is 1 ppm."""
        self.realigned = 0
        """How often the relation was measured again."""

    @property
    def lead_s(self) -> float:
        """How much earlier than the time stamps say the reference is taken."""
        return self._shift_s

    def close(self) -> None:
        """No longer remember what is played."""
        self._speaker.remember(False)

    def read(self, count: int) -> Pcm:
        """What was in the air, but for the lead, while the microphone took its last ``count`` samples; [count].

        Silence until the relation of the two is known.
        """
        self._take_played()
        self._look(count)
        out = np.zeros(count, np.float32) if self._position is None or not count else self._cut(count, self._position)
        self._near += count
        self._forget()
        return out

    def _take_played(self) -> None:
        block = self._speaker.played.read_all()
        if len(block):
            mono = block[:, :1] if block.shape[1] == 1 else block.mean(axis=1, keepdims=True, dtype=np.float32)
            self._far = np.concatenate([self._far, self._resampler.push(np.ascontiguousarray(mono.T))[0]])

    @property
    def _far_end(self) -> int:
        return self._far_at + len(self._far)

    # -- which sample belongs to which -----------------------------------------------------------------------

    def _relation_s(self) -> float:
        """The speaker's sample that is in the air at some time less the microphone's of that time, in seconds."""
        far, near = self._speaker.moment(), self._microphone.moment()
        # The time in the air of the sample after the last block: it comes a block after the block's beginning.
        far_s = far.called_at + far.latency_s + self._speaker.block_s
        near_s = near.called_at - near.latency_s + self._microphone.block_s
        far_at_s = (far.samples - self._far_from) / self._speaker.rate
        near_at_s = (near.samples - self._near_from) / self._microphone.rate
        return far_at_s - near_at_s - (far_s - near_s)

    def _look(self, count: int) -> None:
        self._seen.append(self._relation_s())
        now_s = self._near / self._rate
        if self._position is None:
            self._spare.append((self._far_end - self._near - count) / self._rate)
            if now_s >= _SETTLE_S and self._speaker.calls > 1:
                self._align(now_s)
        elif now_s - self._looks[-1][0] >= _LOOK_S:
            self._looks.append((now_s, median(self._seen)))
            self._seen = []
            self._judge(self._position, count)

    def _align(self, now_s: float) -> None:
        """Take the relation that was seen, and the lead, as far as what is played comes early enough."""
        relation_s = median(self._seen)
        taken_s = min(relation_s + _LEAD_S, min(self._spare) - _SPARE_S)
        self._shift_s = taken_s - relation_s
        self._position = float(self._near + round(taken_s * self._rate))
        self._looks.clear()
        self._looks.append((now_s, relation_s))
        self._seen, self._spare, self._off, self.drift = [], [], 0, 0.0

    def _judge(self, position: float, count: int) -> None:
        """Follow the drift; find a jump."""
        last_s, relation_s = self._looks[-1]
        error_s = relation_s + self._shift_s - (position - self._near) / self._rate
        self._off = self._off + 1 if abs(error_s) > _JUMP_S else 0
        if self._off >= _JUMP_LOOKS:
            self.realigned += 1
            self._position = None
            self._spare = [(self._far_end - self._near - count) / self._rate]
            self._seen = [relation_s]
            self._align(last_s)
        elif len(self._looks) >= _LEAST_LOOKS:
            slope, doubt = _line(self._looks)
            self.drift = slope if abs(slope) > max(_LEAST_DRIFT, _SURE * doubt) else 0.0
            if abs(error_s) > _OFF_S:
                self.drift += max(-_MOST_PULL, min(_MOST_PULL, error_s / _PULL_S))

    # -- reading ---------------------------------------------------------------------------------------------

    def _cut(self, count: int, position: float) -> Pcm:
        lacking = math.ceil(position + count * (1 + self.drift)) + _HALF + 2 - self._far_end
        if lacking > 0:  # the speaker's callbacks come later than at first
            position -= lacking + round(_SPARE_S * self._rate)
            self._shift_s -= lacking / self._rate + _SPARE_S
            self.realigned += 1
        self._position = position + (1 + self.drift) * count
        if self.drift == 0.0 and position == int(position):
            return self._sound(round(position), count)
        step, piece = 1 + self.drift, _PIECE
        if abs(self.drift) * piece > _MOST_MOVE:
            piece = max(1, math.floor(_MOST_MOVE / abs(self.drift)))
        parts = [self._between(position + step * at, min(piece, count - at)) for at in range(0, count, piece)]
        return np.concatenate(parts)

    def _between(self, position: float, count: int) -> Pcm:
        """``count`` samples from a position between two samples on.

        The position within a sample hardly moves meanwhile, so the filter fades from that of the first to that of the
        last: two convolutions cost far less than a filter for each sample.
        """
        whole = math.floor(position)
        first = position - whole
        last = first + self.drift * count
        if last < 0:
            whole, first, last = whole - 1, first + 1, last + 1
        sound = self._sound(whole - _HALF + 1, count + 2 * _HALF)
        begin, end = (np.correlate(sound, self._filter(place), "valid") for place in (first, last))
        end -= begin
        end *= self._fade[:count] * np.float32(_PIECE / count)
        end += begin
        return end

    def _filter(self, place: float) -> Pcm:
        """For a place from 0 to below 2, [2 · half + 1]."""
        later, phase = divmod(round(place * _PHASES), _PHASES)
        taps = np.zeros(2 * _HALF + 1, np.float32)
        taps[later : later + 2 * _HALF] = self._filters[phase]
        return taps

    def _sound(self, first: int, count: int) -> Pcm:
        """Samples from this number on; silence before those that are kept."""
        begin = first - self._far_at
        if begin >= 0:
            return self._far[begin : begin + count]
        return np.concatenate([np.zeros(-begin, np.float32), self._far])[:count]

    def _forget(self) -> None:
        kept = self._far_end - round(_KEPT_S * self._rate)
        if self._position is not None:
            kept = max(kept, math.floor(self._position) - 2 * _HALF)
        drop = max(0, kept - self._far_at)
        self._far, self._far_at = self._far[drop:], self._far_at + drop


def _line(points: deque[tuple[float, float]]) -> tuple[float, float]:
    """Slope of the line through (time, value), and its standard error."""
    time, value = np.array(points).T
    time = time - time.mean()
    spread = float(time @ time)
    slope = float(time @ value) / spread
    rest = value - value.mean() - slope * time
    return slope, math.sqrt(float(rest @ rest) / (len(points) - 2) / spread)
