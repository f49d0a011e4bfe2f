"""Segments for training, drawn so that step ``n`` of a seed always gets the same ones.

The draw depends on (seed, step) alone. There is no sampler state to save: a resumed run continues exactly.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import soundfile

from streaming_encodec.errors import FileFormatError
from streaming_encodec.training.augment import at_speed, augment
from streaming_encodec.training.config import AugmentConfig
from streaming_encodec.training.recipe import Clip, Split, read_manifest

Samples = npt.NDArray[np.float32]


class ClipStore:
    """Clips of a data set as float32, the recently used ones kept decoded up to a budget in megabytes."""

    def __init__(self, root: Path, sample_rate: int, cache_mb: int) -> None:
        self.root = root
        self.sample_rate = sample_rate
        self._budget = cache_mb * 2**20
        self._held = 0
        self._lock = Lock()  # the next batch is drawn while the loop validates
        self._cache: OrderedDict[str, npt.NDArray[np.int16]] = OrderedDict()

    def read(self, clip: Clip) -> Samples:
        """All samples ``[T]`` of a clip, in [-1, 1]. Raises :class:`FileFormatError`."""
        with self._lock:
            held = self._cache.get(clip.file)
            if held is None:
                held = self._decode(clip)
                self._cache[clip.file] = held
                self._held += held.nbytes
                while self._held > self._budget and len(self._cache) > 1:
                    self._held -= self._cache.popitem(last=False)[1].nbytes
            self._cache.move_to_end(clip.file)
        return held.astype(np.float32) / np.float32(32768)

    def _decode(self, clip: Clip) -> npt.NDArray[np.int16]:
        path = self.root / clip.file
        try:
            samples, rate = soundfile.read(path, dtype="int16")
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise FileFormatError(
                f"{path} of the manifest can't be read ({error}); build the data set again"
            ) from error
        if rate != self.sample_rate or samples.ndim != 1:
            raise FileFormatError(f"{path} is not mono at {self.sample_rate} Hz; build the data set again at that rate")
        return np.ascontiguousarray(samples)


class SegmentSource:
    """Draws batches of augmented segments."""

    def __init__(
        self,
        store: ClipStore,
        clips: Sequence[Clip],
        segment_samples: int,
        weights: Mapping[str, float],
        augmenting: AugmentConfig,
        seed: int,
    ) -> None:
        if not clips:
            raise FileFormatError("the data set has no clips of split 'train'; build it with at least one source")
        self._store = store
        self._clips = list(clips)
        self._length = segment_samples
        self._augmenting = augmenting
        self._seed = seed
        self._cumulative = _draw_weights(self._clips, weights)

    def batch(self, step: int, size: int) -> Samples:
        """Segments ``[size, T]`` of a step."""
        rng = np.random.default_rng([self._seed, step])
        return np.stack([self._segment(rng) for _ in range(size)])

    def _segment(self, rng: np.random.Generator) -> Samples:
        settings = self._augmenting
        speed = float(np.exp(rng.uniform(*np.log(settings.speed)))) if rng.random() < settings.speed_chance else 1.0
        for _ in range(4):  # a stretch of silence teaches little: most of the time, draw again
            segment = self._cut(rng, math.ceil(self._length * speed))
            if float(np.abs(segment).max()) > 0.01 or rng.random() < 0.1:
                break
        if len(segment) != self._length:
            segment = at_speed(segment, speed, self._length)
        return augment(segment, self._store.sample_rate, self._augmenting, rng)

    def _cut(self, rng: np.random.Generator, length: int) -> Samples:
        index = int(np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right"))
        samples = self._store.read(self._clips[min(index, len(self._clips) - 1)])
        spare = len(samples) - length
        if spare >= 0:
            start = int(rng.integers(0, spare + 1))
            return samples[start : start + length]
        before = int(rng.integers(0, -spare + 1))
        return np.pad(samples, (before, -spare - before))


def _draw_weights(clips: Sequence[Clip], weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Cumulative weights: inside a source by duration; a whole source by ``weights``, else by duration."""
    totals: dict[str, float] = {}
    for clip in clips:
        totals[clip.source] = totals.get(clip.source, 0.0) + clip.seconds
    unknown = set(weights) - set(totals)
    if unknown:
        raise FileFormatError(f"source_weights names {sorted(unknown)}, the data set has {sorted(totals)}")
    named = sum(totals[name] for name in weights)
    share = {name: weights[name] * named / (sum(weights.values()) * totals[name]) for name in weights}
    return np.cumsum([clip.seconds * share.get(clip.source, 1.0) for clip in clips])


def load_split(root: Path, split: Split) -> list[Clip]:
    """The clips of a split, in the manifest's order."""
    return [clip for clip in read_manifest(root / "manifest.jsonl") if clip.split == split]
