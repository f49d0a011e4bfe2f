"""What all metrics share: what one is, the value that it gives, and the spectra that several look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.types import Pcm

Better = Literal["higher", "lower"]

WIDEBAND = 16_000
"""Sample rate, in Hz, of PESQ-WB, ViSQOL's speech mode, Whisper and the speaker network."""


@dataclass(frozen=True)
class Score:
    """A value and its weight in the mean over clips: 1, or the number of words for a word error rate."""

    value: float
    weight: float = 1.0


class Metric(Protocol):
    """Compares; returns ``None`` if the clip can't be scored (it holds no speech); such clips are counted.

    An output that is silent, or no longer speech, gets the worst value: it must not vanish from the mean.
    """

    name: str
    title: str
    family: str
    better: Better
    absolute: bool
    """Whether the metric is defined for the original itself, as the word error rate is and a distance is not."""

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        """``degraded`` [T] has the clip's rate and length."""
        ...


def resample(samples: Pcm, source_rate: int, target_rate: int) -> Pcm:
    """[T] → [T · target / source]."""
    if source_rate == target_rate:
        return samples
    out: Pcm = soxr.resample(samples, source_rate, target_rate, quality="HQ")
    return out


def power_spectrum(samples: Pcm, window: int, hop: int) -> npt.NDArray[np.float64]:
    """[T] → [frames, window / 2 + 1], Hann windows centred at multiples of ``hop``, zeros beyond the ends."""
    padded = np.pad(samples.astype(np.float64), window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum: npt.NDArray[np.float64] = np.abs(np.fft.rfft(frames * shape, axis=-1)) ** 2
    return spectrum


def mel_filters(sample_rate: int, window: int, bands: int) -> npt.NDArray[np.float64]:
    """Triangles of equal area on the mel scale of Slaney's Auditory Toolbox, [bands, window / 2 + 1]."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(sample_rate / 2), bands + 2))
    hz = np.fft.rfftfreq(window, 1 / sample_rate)
    rising = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    filters: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters


# Slaney's scale: linear, 15 mel per kHz, up to 1 kHz; above it 27 mel for each factor of 6.4.
_LINEAR_HZ, _MEL_PER_HZ = 1000.0, 0.015
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    if hz < _LINEAR_HZ:
        return hz * _MEL_PER_HZ
    return float(_LINEAR_HZ * _MEL_PER_HZ + np.log(hz / _LINEAR_HZ) / _LOG_STEP)


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    corner = _LINEAR_HZ * _MEL_PER_HZ
    hz: npt.NDArray[np.float64] = np.where(
        mel < corner, mel / _MEL_PER_HZ, _LINEAR_HZ * np.exp(_LOG_STEP * (mel - corner))
    )
    return hz
