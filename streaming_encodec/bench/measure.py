"""How long things take: live steps, pools, long files. One thread, warmed up, all cases of a run in turns.

A machine's speed varies from minute to minute, so cases that are compared are measured in rounds: each for a moment,
then all again. Ratios are comparable; absolute figures are of that machine and that minute.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.streaming.pool import StreamPool
from streaming_encodec.types import Floats

Clock = Callable[[], float]  # seconds


class Case(Protocol):
    """Something that is measured step by step."""

    audio_ms: float
    """Sound that one step stands for."""

    def step(self) -> Sequence[Callable[[], object]]:
        """The parts of the next step, each to be timed by itself, in this order."""
        ...


@dataclass
class Timing:
    """Durations of a case's steps in milliseconds, a list for each part."""

    audio_ms: float
    parts: list[list[float]] = field(default_factory=list)

    @property
    def steps_ms(self) -> NDArray[np.float64]:
        """Each step, all its parts together."""
        steps: NDArray[np.float64] = np.sum(np.array(self.parts), axis=0)
        return steps

    def summary(self) -> dict[str, float | int | list[float]]:
        """What tables and JSON show. ``rtf`` is the median step over the sound in it."""
        steps = self.steps_ms
        return {
            "steps": len(steps),
            "audio_ms": round(self.audio_ms, 3),
            "p50_ms": _rounded(np.percentile(steps, 50)),
            "p99_ms": _rounded(np.percentile(steps, 99)),
            "max_ms": _rounded(steps.max()),
            "parts_p50_ms": [_rounded(np.percentile(part, 50)) for part in self.parts],
            "rtf": _rounded(np.percentile(steps, 50) / self.audio_ms),
            "rtf_mean": _rounded(steps.mean() / self.audio_ms),
            "missed_deadlines": int((steps > self.audio_ms).sum()),
        }


def measure(cases: Sequence[Case], clock: Clock, rounds: int, seconds: float) -> list[Timing]:
    """Run each case for ``seconds`` in each of ``rounds`` rounds, after one more that is forgotten."""
    timings = [Timing(case.audio_ms) for case in cases]
    with alone():
        for turn in range(rounds + 1):
            for case, timing in zip(cases, timings, strict=True):
                parts = _burst(case, clock, seconds)
                if turn == 1:
                    timing.parts = parts
                elif turn:
                    timing.parts = [a + b for a, b in zip(timing.parts, parts, strict=True)]
    return timings


def _burst(case: Case, clock: Clock, seconds: float) -> list[list[float]]:
    parts: list[list[float]] = []
    end = clock() + seconds
    for _ in range(3):  # the caches are full of the case before
        if clock() < end:
            for run in case.step():
                run()
    end = clock() + seconds
    while not parts or clock() < end:
        for i, run in enumerate(case.step()):
            if i == len(parts):
                parts.append([])
            begin = clock()
            run()
            parts[i].append((clock() - begin) * 1000)
    return parts


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One thread on one core, denormals as zero, no garbage collection; and back as it was."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if cores is not None:
        os.sched_setaffinity(0, {max(cores)})  # the first core takes most interrupts
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if cores is not None:
            os.sched_setaffinity(0, cores)
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


_EVICTED_BYTES = 96 << 20
"""Read before a step, they leave nothing of the one before in any cache that one core has."""


class LiveCase:
    """One stream both ways: samples to codes to samples, ``frames`` frames a step.

    ``cold``: other memory is read before each step, as by the rest of a call between two frames.
    """

    def __init__(self, model: EncodecModel, engine: Engine, kbps: float, frames: int, cold: bool = False) -> None:
        config = model.config
        self._encoder = StreamingEncoder(model, kbps, engine=engine, frames_per_step=frames)
        self._decoder = StreamingDecoder(model, engine=engine, frames_per_step=frames)
        self._pcm = noise(config.audio_channels, frames * config.hop_length)
        self._codes: Any = None
        self._other_memory = np.ones(_EVICTED_BYTES // 8) if cold else None
        self.audio_ms = frames * config.frame_ms
        self._encoder.warm_up()
        self._decoder.warm_up(self._encoder.num_codebooks)

    def step(self) -> Sequence[Callable[[], object]]:
        """Encode, decode."""
        if self._other_memory is not None:
            self._other_memory.sum()
        return self._encode, self._decode

    def _encode(self) -> None:
        self._codes = self._encoder.push(self._pcm)

    def _decode(self) -> None:
        self._decoder.push(self._codes)


class PoolCase:
    """As many streams both ways in two pools, a frame of each a tick."""

    def __init__(self, model: EncodecModel, engine: Engine, kbps: float, streams: int) -> None:
        config = model.config
        self._encoders = StreamPool(model, streams, "encoder", kbps, engine=engine)
        self._decoders = StreamPool(model, streams, "decoder", engine=engine)
        self._pcm = [noise(config.audio_channels, config.hop_length, seed) for seed in range(streams)]
        for _ in range(streams):
            self._encoders.open()
            self._decoders.open()
        self._codes: dict[int, Any] = {}
        self.audio_ms = config.frame_ms

    def step(self) -> Sequence[Callable[[], object]]:
        """Encode all, decode all."""
        return self._encode, self._decode

    def _encode(self) -> None:
        for slot, pcm in enumerate(self._pcm):
            self._encoders.push(slot, pcm)
        self._codes = self._encoders.tick()

    def _decode(self) -> None:
        for slot, codes in self._codes.items():
            self._decoders.push(slot, codes)
        self._decoders.tick()


class OfflineCase:
    """A long file both ways in blocks of ``frames`` frames, the exact start included."""

    def __init__(self, model: EncodecModel, engine: Engine, kbps: float, seconds: float, frames: int) -> None:
        config = model.config
        self._pcm = noise(config.audio_channels, int(seconds * config.sampling_rate))
        self._encoder = StreamingEncoder(model, kbps, "exact", engine=engine, frames_per_step=frames)
        self._decoder = StreamingDecoder(model, "exact", engine=engine, frames_per_step=frames)
        self._codes: Any = None
        self.audio_ms = seconds * 1000

    def step(self) -> Sequence[Callable[[], object]]:
        """Encode the file, decode it."""
        return self._encode, self._decode

    def _encode(self) -> None:
        pieces = [self._encoder.push(self._pcm), self._encoder.flush()]
        self._codes = np.concatenate(pieces, axis=-1)

    def _decode(self) -> None:
        self._decoder.push(self._codes)
        self._decoder.flush()


def noise(channels: int, length: int, seed: int = 0) -> Floats:
    """Samples [channels, length] as loud as speech."""
    return np.random.default_rng(seed).normal(0, 0.1, (channels, length)).astype(np.float32)


def _rounded(value: Any) -> float:
    return float(f"{float(value):.4g}")
