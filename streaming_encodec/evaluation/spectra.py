"""Modulation at the frame rate, and distance of log spectra in bands. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.metric import Better, Score, power_spectrum
from streaming_encodec.types import Pcm

Floats = npt.NDArray[np.float64]


class Band(NamedTuple):
    """A range of frequencies, Hz."""

    low_hz: float
    high_hz: float

    @property
    def title(self) -> str:
        return f"{self.low_hz / 1000:g}–{self.high_hz / 1000:g} kHz"

    @property
    def key(self) -> str:
        """For names: ``0.3_4khz``."""
        return f"{self.low_hz / 1000:g}_{self.high_hz / 1000:g}khz"


MODULATION_BANDS = (Band(300.0, 4000.0), Band(4000.0, 8000.0), Band(8000.0, 11_500.0))
MULTIPLES = (1, 2, 3, 4)
"""Of the frame rate: 75, 150, 225 and 300 Hz at 75 frames a second."""

LSD_BANDS = (Band(0.0, 4000.0), Band(4000.0, 8000.0))

_WINDOW_FRAMES = 15
"""Length of an analysis window: 0.2 s at 75 frames a second. Every multiple then falls on a bin of its own spectrum,
and a voice's pitch moves enough within it not to look like a line."""

_NEIGHBOUR_BINS = (3, 4, 5, 6)
"""Distances, on both sides, of the rates that a multiple is compared with: 15 to 30 Hz at 75 frames a second.
Nearer ones hold the window's own main lobe."""

_STEPS_PER_FRAME = 24
"""Samples of the envelope per frame: 1800 Hz at 75 frames a second, six times the highest multiple."""

_ACTIVE_DB = -40.0
"""Windows with an envelope further below the band's loudest one are pauses."""

_AUDIBLE_DB = -70.0
"""A band with its loudest window further below the clip's is silent."""


def envelope(samples: Pcm, sample_rate: int, band: Band) -> Floats:
    """[T] → [T]: magnitude of the analytic signal (Hilbert envelope) of what lies in ``band``."""
    size = 1 << max(1, len(samples) - 1).bit_length()
    spectrum = np.fft.fft(samples.astype(np.float64), size)
    hz = np.fft.fftfreq(size, 1 / sample_rate)
    inside = (hz >= band.low_hz) & (hz < band.high_hz)
    found: Floats = np.abs(np.fft.ifft(np.where(inside, 2 * spectrum, 0.0)))[: len(samples)]
    return found


def modulation_db(samples: Pcm, sample_rate: int, frame_rate_hz: float, band: Band) -> tuple[float, ...] | None:
    """The envelope's power at each of `MULTIPLES` of the frame rate above that at neighbouring rates, dB.

    The envelope is cut into windows of 15 frames that overlap by half. Each is divided by its mean, so that loud and
    quiet ones count alike; pauses are left out. Their power spectra are averaged.
    Speech, clean or from a codec without frame patterns, has −3 to 1 dB. None where the band is silent or too short.
    """
    window = _WINDOW_FRAMES * _STEPS_PER_FRAME
    loudness = _steps(envelope(samples, sample_rate, band), sample_rate, frame_rate_hz)
    overall = _steps(envelope(samples, sample_rate, Band(0.0, sample_rate / 2)), sample_rate, frame_rate_hz)
    if len(loudness) < window:
        return None
    cuts, whole = (np.lib.stride_tricks.sliding_window_view(e, window)[:: window // 2] for e in (loudness, overall))
    means = cuts.mean(axis=1)
    if means.max() <= max(whole.mean(axis=1).max() * 10 ** (_AUDIBLE_DB / 20), 1e-9):
        return None
    active = means > means.max() * 10 ** (_ACTIVE_DB / 20)
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    relative = cuts[active] / means[active, None] - 1.0
    power = (np.abs(np.fft.rfft(relative * shape, axis=1)) ** 2).mean(axis=0)  # bins of a 15th of the frame rate
    bins = [multiple * _WINDOW_FRAMES for multiple in MULTIPLES]
    around = [[line + side * far for side in (-1, 1) for far in _NEIGHBOUR_BINS] for line in bins]
    return tuple(
        float(10 * np.log10((power[line] + 1e-20) / (power[near].mean() + 1e-20)))
        for line, near in zip(bins, around, strict=True)
    )


def _steps(values: Floats, sample_rate: int, frame_rate_hz: float) -> Floats:
    """[T] → means of equal stretches, 24 to a frame; stretches that aren't whole samples are cut to the nearest."""
    edges = (
        np.arange(0, len(values) * frame_rate_hz * _STEPS_PER_FRAME / sample_rate) / frame_rate_hz / _STEPS_PER_FRAME
    )
    places = np.round(edges * sample_rate).astype(np.int64)
    places = places[places < len(values)]
    if len(places) < 2:
        return np.zeros(0)
    sums = np.add.reduceat(values, places)[:-1]
    means: Floats = sums / np.diff(places)
    return means


class Modulation:
    """`modulation_db` of one band at one multiple of the frame rate; ``spectra`` is shared by all of one sound."""

    better: Better = "lower"
    absolute = True
    family = "modulation"

    def __init__(self, spectra: ModulationSpectra, band: int, multiple: int) -> None:
        self._spectra = spectra
        self._places = band, MULTIPLES.index(multiple)
        self.band = MODULATION_BANDS[band]
        self.rate_hz = multiple * spectra.frame_rate_hz
        self.name = f"modulation_{self.band.key}_x{multiple}"
        self.title = f"modulation {self.band.title} {self.rate_hz:g} Hz"

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        band, multiple = self._places
        found = self._spectra(degraded, clip.sample_rate)[band]
        return None if found is None else Score(found[multiple])


class ModulationSpectra:
    """The modulation in all bands of the last sound, which twelve metrics read."""

    def __init__(self, frame_rate_hz: float) -> None:
        self.frame_rate_hz = frame_rate_hz
        self._sound: Pcm | None = None
        self._found: tuple[tuple[float, ...] | None, ...] = ()

    def __call__(self, samples: Pcm, sample_rate: int) -> tuple[tuple[float, ...] | None, ...]:
        """[T] → for each of `MODULATION_BANDS` the decibels at `MULTIPLES`."""
        if samples is not self._sound:
            self._sound = samples
            self._found = tuple(
                modulation_db(samples, sample_rate, self.frame_rate_hz, band) for band in MODULATION_BANDS
            )
        return self._found


def modulation_metrics(frame_rate_hz: float) -> Sequence[Modulation]:
    """One metric for each band and multiple of the frame rate."""
    spectra = ModulationSpectra(frame_rate_hz)
    return [Modulation(spectra, band, m) for band in range(len(MODULATION_BANDS)) for m in MULTIPLES]


class LogSpectralDistance:
    """Root mean square difference of log spectra over a band's bins, dB, mean over frames in which the clip sounds.

    Windows of 21 ms, a quarter apart. Both spectra get a floor 70 dB below the clip's loudest bin; frames 40 dB below
    the loudest one are pauses. Unlike a log-mel distance it sees single harmonics.
    """

    better: Better = "lower"
    absolute = False
    family = "lsd"
    window_s, floor_db, active_db = 0.0213, -70.0, -40.0

    def __init__(self, band: Band) -> None:
        self._band = band
        self.name = f"lsd_{band.key}"
        self.title = f"LSD {band.title}"

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        window = 2 * round(self.window_s * clip.sample_rate / 2)
        reference, signal = (power_spectrum(sound, window, window // 4) for sound in (clip.samples, degraded))
        floor = reference.max() * 10 ** (self.floor_db / 10)
        if floor == 0.0:
            return None
        energy = reference.sum(axis=1)
        active = energy > energy.max() * 10 ** (self.active_db / 10)
        hz = np.fft.rfftfreq(window, 1 / clip.sample_rate)
        inside = (hz >= self._band.low_hz) & (hz < self._band.high_hz)
        difference = 10 * np.log10((reference + floor) / (signal + floor))[active][:, inside]
        return Score(float(np.sqrt((difference**2).mean(axis=1)).mean()))
