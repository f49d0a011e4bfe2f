"""Echo cancellation: what the loudspeaker plays comes back through the microphone, and the others hear themselves."""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import numpy as np

from streaming_encodec.live.linear_echo import LinearCanceller
from streaming_encodec.live.residual_echo import ResidualEchoSuppressor
from streaming_encodec.types import Pcm

_METERED_S = 5.0
_MOSTLY_ECHO = 0.5
_AUDIBLE = 10 ** (-70 / 10)


class EchoCanceller(Protocol):
    """Takes the echo out of a microphone's sound.

    frame_samples: calls are made with multiples of it. delay_samples: of the output against the microphone.
    """

    @property
    def frame_samples(self) -> int: ...

    @property
    def delay_samples(self) -> int: ...

    @property
    def reduction_db(self) -> float | None:
        """Echo return loss enhancement (ERLE) lately: by how much the echo was reduced; None while there was none."""
        ...

    def process(self, near: Pcm, far: Pcm) -> Pcm:
        """Microphone and what was played, ahead of its echo by 0 to 100 ms, both [n]; returns [n], without echo."""
        ...

    def reset(self) -> None:
        """Another device, another room."""
        ...


class KalmanEchoCanceller:
    """A long linear filter, then a suppressor for what it leaves, in the codec's own frames, so nothing waits for a
    frame of another length.

    Args:
        frame_samples: the codec's hop.
        sample_rate: in Hz, 16000 to 48000 make sense.
    """

    def __init__(self, frame_samples: int, sample_rate: int) -> None:
        self._linear = LinearCanceller(frame_samples, sample_rate)
        self._residual = ResidualEchoSuppressor(frame_samples, sample_rate)
        self.frame_samples, self.delay_samples = frame_samples, self._residual.delay_samples
        self._powers: deque[tuple[float, float]] = deque(maxlen=round(_METERED_S * sample_rate / frame_samples))

    @property
    def reduction_db(self) -> float | None:
        """Over the frames of the last five seconds that were mostly echo."""
        if not self._powers:
            return None
        near, left = (sum(powers) for powers in zip(*self._powers, strict=True))
        return 10 * math.log10(near / (left + 1e-12))

    def process(self, near: Pcm, far: Pcm) -> Pcm:
        """See `EchoCanceller`."""
        out = np.empty_like(near)
        for at in range(0, len(near), self.frame_samples):
            part = slice(at, at + self.frame_samples)
            out[part] = self._process_frame(near[part], far[part])
        return out

    def _process_frame(self, near: Pcm, far: Pcm) -> Pcm:
        linear = self._linear.process(near, far)
        out = self._residual.process(linear)
        heard, echo = float(near @ near), float(linear.echo @ linear.echo)
        if heard > _AUDIBLE * len(near) and _MOSTLY_ECHO * heard < echo < heard / _MOSTLY_ECHO:
            self._powers.append((heard, float(out @ out)))
        return out

    def reset(self) -> None:
        """Forget the room."""
        self._linear.reset()
        self._residual.reset()
        self._powers.clear()
