"""Decodes audio files of many kinds to mono float32 at one rate, for the data recipe.

The package's own files are 24 kHz and go through ``audio/``; a data set also meets 8-bit telephony, G.722 and
stereo music, which is why training has a reader of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.audio.files.writer import AudioWriter
from streaming_encodec.extras import needs_extra
from streaming_encodec.types import Pcm

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".g722"})


def read_audio(path: Path, sample_rate: int) -> Pcm:
    """Mono samples ``[T]`` in [-1, 1] at ``sample_rate``; channels averaged. Raises `FileFormatError`."""
    if path.suffix.lower() == ".g722":
        samples, rate = _read_g722(path), 16000
    else:
        with AudioReader(path, channels=1) as reader:  # complete, or an error
            samples = np.concatenate([np.zeros((1, 0), np.float32), *reader], axis=1)[0]
            rate = reader.info.sample_rate
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(np.clip(samples, -1.0, 1.0), dtype=np.float32)


def bandwidth_hz(samples: Pcm, sample_rate: int) -> int:
    """Bandwidth of the sound ``[T]``: the highest frequency within 50 dB of the peak of its mean power spectrum."""
    size = 1024
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (0, size)), size)[:: size // 2]
    power = (np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2).mean(axis=0)
    heard = np.flatnonzero(power >= power.max() * 1e-5)
    return round(float(heard[-1]) * sample_rate / size)


def write_flac(path: Path, samples: Pcm, sample_rate: int) -> None:
    """Write mono 16-bit FLAC, complete or not at all. Raises `FileFormatError`."""
    with AudioWriter(path, sample_rate) as file:
        file.write(samples[None])


def _read_g722(path: Path) -> Pcm:
    """Raw G.722 (no header, 64 kbps, 16 kHz)."""
    with needs_extra(f"reading {path} (G.722)", "PyAV", "train"):
        import av
    with av.open(str(path), format="g722") as container:
        blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    samples = np.concatenate([np.zeros(0, dtype=np.int16), *blocks])
    return np.asarray(samples / 32768, dtype=np.float32)
