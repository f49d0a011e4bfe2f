"""Segments for training: step ``n`` of a seed always gets the same ones.

The draw depends on (seed, step) alone. There is no sampler state to save: a resumed run continues exactly.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

from streaming_encodec.errors import FileFormatError
from streaming_encodec.training.augment import at_speed, augment
from streaming_encodec.training.config import AugmentConfig
from streaming_encodec.training.listing import Split
from streaming_encodec.training.recipe import Clip, read_manifest
from streaming_encodec.types import Pcm

WIDEBAND_HZ = 8500
"""A recording with sound above this was not made at 16 kHz."""


class ClipStore:
    """Clips of a data set as float32, the recently used ones kept decoded up to a budget in megabytes."""

    def __init__(self, root: Path, sample_rate: int, cache_mb: int) -> None:
        self.root = root
        self.sample_rate = sample_rate
        self._budget = cache_mb * 2**20
        self._held = 0
        self._lock = Lock()  # the next batch is drawn while the loop validates
        self._cache: OrderedDict[str, npt.NDArray[np.int16]] = OrderedDict()

    def read(self, clip: Clip) -> Pcm:
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
            with path.open("rb") as file:  # libsndfile does not accept names that are not UTF-8
                samples, rate = soundfile.read(file, dtype="int16")
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            raise FileFormatError(
                f"{path} of the manifest can't be read ({error}); build the data set again"
            ) from error
        if rate != self.sample_rate or samples.ndim != 1:
            raise FileFormatError(f"{path} is not mono at {self.sample_rate} Hz; build the data set again at that rate")
        return np.ascontiguousarray(samples)


class Sampling(NamedTuple):
    """How often a clip is drawn: see :class:`TrainConfig`'s fields of the same names."""

    speaker_seconds: float = 30.0
    wideband_factor: float = 3.0
    source_weights: Mapping[str, float] = MappingProxyType({})


class SegmentSource:
    """Draws batches of augmented segments."""

    def __init__(
        self,
        store: ClipStore,
        clips: Sequence[Clip],
        segment_samples: int,
        sampling: Sampling,
        augmenting: AugmentConfig,
        seed: int,
    ) -> None:
        speech = [clip for clip in clips if clip.content != "noise"]
        if not speech:
            raise FileFormatError("the data set has no clips of split 'train'; build it with at least one source")
        if unknown := set(sampling.source_weights) - (known := {clip.source for clip in speech}):
            raise FileFormatError(f"source_weights names {sorted(unknown)}, the data set has {sorted(known)}")
        self._store = store
        self._length = segment_samples
        self._augmenting = augmenting
        self._seed = seed
        self._speech = _Draw(speech, sampling)
        scenes = [clip for clip in clips if clip.content == "noise"]
        self._scenes = _Draw(scenes, Sampling()) if scenes else None

    def batch(self, step: int, size: int) -> Pcm:
        """Segments ``[size, T]`` of a step."""
        rng = np.random.default_rng([self._seed, step])
        return np.stack([self._segment(rng) for _ in range(size)])

    def _segment(self, rng: np.random.Generator) -> Pcm:
        settings = self._augmenting
        speed = float(np.exp(rng.uniform(*np.log(settings.speed)))) if rng.random() < settings.speed_chance else 1.0
        for _ in range(4):  # silence is of little use: most of the time, draw again
            segment = self._cut(self._speech, rng, math.ceil(self._length * speed))
            if float(np.abs(segment).max()) > 0.01 or rng.random() < 0.1:
                break
        if len(segment) != self._length:
            segment = at_speed(segment, speed, self._length)
        scene = None
        if self._scenes is not None and rng.random() < settings.scene_chance:
            scene = self._cut(self._scenes, rng, self._length)
        return augment(segment, self._store.sample_rate, self._augmenting, rng, scene)

    def _cut(self, draw: _Draw, rng: np.random.Generator, length: int) -> Pcm:
        samples = self._store.read(draw.one(rng))
        spare = len(samples) - length
        if spare >= 0:
            start = int(rng.integers(0, spare + 1))
            return samples[start : start + length]
        before = int(rng.integers(0, -spare + 1))
        return np.pad(samples, (before, -spare - before))


class _Draw:
    """Draws one clip at a time, by weights that are even over speakers."""

    def __init__(self, clips: Sequence[Clip], sampling: Sampling) -> None:
        self._clips = list(clips)
        self._cumulative = np.cumsum(draw_weights(self._clips, sampling))

    def one(self, rng: np.random.Generator) -> Clip:
        index = int(np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right"))
        return self._clips[min(index, len(self._clips) - 1)]


def draw_weights(clips: Sequence[Clip], sampling: Sampling) -> list[float]:
    """A weight for each clip: its share of its speaker's weight, by duration."""
    seconds: dict[tuple[str, str], float] = {}
    for clip in clips:
        seconds[clip.source, clip.speaker] = seconds.get((clip.source, clip.speaker), 0.0) + clip.seconds
    weights = []
    for clip in clips:
        total = seconds[clip.source, clip.speaker]
        wide = sampling.wideband_factor if (clip.bandwidth_hz or 0) > WIDEBAND_HZ else 1.0
        factor = wide * sampling.source_weights.get(clip.source, 1.0)
        weights.append(factor * clip.seconds / total * min(total, sampling.speaker_seconds))
    return weights


def load_split(root: Path, split: Split) -> list[Clip]:
    """The clips of a split, in the manifest's order."""
    return [clip for clip in read_manifest(root / "manifest.jsonl") if clip.split == split]
