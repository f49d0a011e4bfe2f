"""Files in place of a sound card: the same pace and interface, no hardware."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from streaming_encodec.audio.devices.card import Margin
from streaming_encodec.audio.devices.side import CardCounts
from streaming_encodec.audio.devices.wakeup import Wakeup
from streaming_encodec.types import Pcm

_BLOCK_S = 0.012
"""A good card's."""
_MOST_S = 0.4
"""Sound that waits longer is left out: this program stood still."""


class FileCard:
    """Gives ``sound`` [1, n] as a microphone and keeps what it is given as a loudspeaker, at the pace of the clock.

    ``tail_s``: silence after the sound, for what is still on its way.
    """

    def __init__(
        self,
        sound: Pcm,
        sample_rate: int,
        *,
        tail_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._sound = np.concatenate([sound, np.zeros((1, round(tail_s * sample_rate)), np.float32)], axis=1)
        self._rate, self._clock = sample_rate, clock
        self._wakeup = Wakeup()
        self._sleep = sleep or self._wakeup.wait
        self.counts = CardCounts()
        self._margin = Margin()
        self._began: float | None = None
        self._taken = 0
        self._given = 0
        self._heard: list[Pcm] = []

    @property
    def done(self) -> bool:
        """Whether the sound and the tail have passed."""
        return self._position() >= int(self._sound.shape[1])

    @property
    def heard(self) -> Pcm:
        """What the loudspeaker played, [1, n], from the beginning of the sound on."""
        return np.concatenate([np.zeros((1, 0), np.float32), *self._heard], axis=1)

    def read(self) -> Pcm:
        """The samples of the time that has passed; the last `_MOST_S` of them, as from a card's buffer."""
        due = min(self._position(), self._sound.shape[1])
        past = due - self._taken - round(_MOST_S * self._rate)
        if past > 0:
            self.counts.overruns += 1
            self.counts.skipped_samples += past
            self._taken += past
        out = self._sound[:, self._taken : due]
        self._taken = max(self._taken, due)
        return out

    def write(self, pcm: Pcm, *, usual: bool = True) -> None:
        """Keep [1, n]."""
        self._heard.append(pcm)
        self._given += pcm.shape[1]

    @property
    def queued_s(self) -> float | None:
        """Seconds given and not yet played; where too little was given, silence is played and an underrun counted."""
        missing = self._position() - self._given
        if missing > 0:
            self.counts.underruns += self._given > 0
            self.write(np.zeros((1, missing), np.float32))
        return (self._given - self._position()) / self._rate

    @property
    def ahead_s(self) -> float | None:
        """The same: a file takes samples one by one."""
        return self.queued_s

    @property
    def target_s(self) -> float:
        """A block, and a margin that grows with underruns."""
        return _BLOCK_S + self._margin.seconds

    @property
    def input_latency_ms(self) -> float:
        """None: a file has no converter."""
        return 0.0

    @property
    def output_latency_ms(self) -> float:
        """None."""
        return 0.0

    def has(self, samples: int) -> bool:
        """Whether the next `read` gives at least so many."""
        return min(self._position(), int(self._sound.shape[1])) - self._taken >= samples

    def wait(self, seconds: float, samples: int = 1) -> None:
        """Sleep until so many can be read, until `wake`, or for so long."""
        lacking = self._taken + samples + 1 - self._position()
        self._sleep(min(seconds, max(0.0, lacking / self._rate)))

    def wake(self) -> None:
        """Wake the thread in `wait`, or make its next `wait` return at once. Thread-safe."""
        self._wakeup.set()

    def maintain(self) -> None:
        """Adapt the margin to underruns."""
        self._margin.update(self._clock(), self.counts.underruns)

    def _position(self) -> int:
        now = self._clock()
        if self._began is None:
            self._began = now
        return int((now - self._began) * self._rate)
