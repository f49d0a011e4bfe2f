"""Augmentation of training segments: what a microphone, a room and a telephone do to a voice.

The codec must reproduce its input, so the augmented segment is both input and target.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from streaming_encodec.training.config import AugmentConfig
from streaming_encodec.types import Pcm


def augment(
    samples: Pcm, sample_rate: int, config: AugmentConfig, rng: np.random.Generator, scene: Pcm | None = None
) -> Pcm:
    """``samples`` [T] → [T]: perhaps reverb, a ``scene`` [T] behind it, a microphone, a band limit, noise.

    Gain and polarity are always drawn; the result is within ±1.
    """
    x = samples
    if rng.random() < config.reverb_chance:
        x = add_reverb(x, rng.uniform(*config.reverb_seconds), sample_rate, rng)
    if scene is not None:
        x = mix(x, scene, rng.uniform(*config.scene_snr_db))
    if rng.random() < config.microphone_chance:
        x = microphone(x, config.microphone_db, sample_rate, rng)
    if rng.random() < config.band_limit_chance:
        x = band_limit(x, rng.uniform(*config.band_limit_hz), sample_rate)
    if rng.random() < config.noise_chance:
        x = add_noise(x, rng.uniform(*config.noise_snr_db), rng)
    gain = 10.0 ** (rng.uniform(*config.gain_db) / 20.0) * (1.0 if rng.random() < 0.5 else -1.0)
    peak = abs(gain) * float(np.abs(x).max())
    return np.asarray(x * (gain if peak <= 1.0 else gain / peak), dtype=np.float32)


def at_speed(samples: Pcm, speed: float, length: int) -> Pcm:
    """``samples`` resampled to ``speed`` times as fast, pitch included: exactly ``length`` of them."""
    played = soxr.resample(samples, speed, 1.0, quality="MQ")[:length]
    return np.asarray(np.pad(played, (0, length - len(played))), dtype=np.float32)


def add_noise(samples: Pcm, snr_db: float, rng: np.random.Generator) -> Pcm:
    """Stationary noise of a random colour between white (slope 0) and brown (slope -1 in amplitude)."""
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    slope = rng.uniform(0.0, 1.0)
    spectrum *= np.maximum(1.0, np.arange(len(spectrum))) ** -slope
    return mix(samples, np.fft.irfft(spectrum, len(samples)), snr_db)


def mix(samples: Pcm, noise: npt.NDArray[np.floating], snr_db: float) -> Pcm:
    """``samples`` [T] with ``noise`` [T] at a level of ``snr_db`` below it."""
    level = float(np.sqrt(np.mean(samples**2)) + 1e-4) / 10.0 ** (snr_db / 20.0)
    scaled = noise * (level / (np.sqrt(np.mean(noise**2)) + 1e-12))
    return np.asarray(samples + scaled, dtype=np.float32)


def microphone(samples: Pcm, most_db: float, sample_rate: int, rng: np.random.Generator) -> Pcm:
    """A smooth frequency response within ± ``most_db``, drawn at eight frequencies from 60 Hz up."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1.0 / sample_rate)
    knots = np.geomspace(60.0, sample_rate / 2, 8)
    gain_db = np.interp(np.log(np.maximum(frequency, 1.0)), np.log(knots), rng.uniform(-most_db, most_db, 8))
    return np.fft.irfft(spectrum * 10.0 ** (gain_db / 20.0), len(samples)).astype(np.float32)


def band_limit(samples: Pcm, cutoff_hz: float, sample_rate: int) -> Pcm:
    """A steep low-pass, as a narrow channel or an old recording has it; raised-cosine edge of 10 %."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1.0 / sample_rate)
    edge = np.clip((1.1 * cutoff_hz - frequency) / (0.1 * cutoff_hz), 0.0, 1.0)
    limited = np.fft.irfft(spectrum * np.sin(0.5 * np.pi * edge) ** 2, len(samples))
    return np.asarray(limited, dtype=np.float32)


def add_reverb(samples: Pcm, seconds: float, sample_rate: int, rng: np.random.Generator) -> Pcm:
    """A room: the direct sound and a tail of noise that falls by 60 dB in ``seconds``."""
    length = int(seconds * sample_rate)
    tail = rng.standard_normal(length) * 10.0 ** (-3.0 * np.arange(length) / max(1, length))
    tail *= rng.uniform(0.1, 0.5) / (np.sqrt(np.sum(tail**2)) + 1e-12)
    tail[0] = 1.0
    size = len(samples) + length
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]
    return wet.astype(np.float32)
