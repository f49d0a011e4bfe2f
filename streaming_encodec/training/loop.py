"""The training loop: draws, steps, logs, validates, saves; and resumes after an interruption."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.errors import ConfigError
from streaming_encodec.training import state
from streaming_encodec.training.config import TrainConfig
from streaming_encodec.training.curves import CsvLog, plot_curves
from streaming_encodec.training.dataset import ClipStore, Sampling, SegmentSource, load_split
from streaming_encodec.training.step import CodecTrainer, torch_device
from streaming_encodec.training.validation import pick_clips, validate
from streaming_encodec.types import Pcm

Row = dict[str, float]

PANELS = (
    ("waveform", "shaped", "mel"),
    ("loudness", "envelope", "similarity"),
    ("commitment", "grad_norm"),
    ("perplexity_1", "perplexity_mean"),
    ("discriminator", "adversarial", "feature"),
)
WATCHED = tuple(name for panel in PANELS for name in panel)


_LEVELS_STEP = 1_000_000_000
"""Draws at steps that no run reaches: for the levels of random weights, and the ones after it for k-means."""


class TrainingRun:
    """A run in its folder: ``config.json``, ``state.safetensors``, CSV logs, ``samples/``, ``model/``."""

    def __init__(self, config: TrainConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self._device = torch_device(config.device)
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self._state_path = self.out / "state.safetensors"
        store = ClipStore(Path(config.data), config.model.sampling_rate, config.cache_mb)
        clips = load_split(store.root, "train")
        sampling = Sampling(config.speaker_seconds, config.wideband_factor, config.source_weights)
        self._source = SegmentSource(store, clips, config.segment_samples, sampling, config.augment, config.seed)
        self._store = store
        self._drawing = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._drawn: dict[int, Future[Pcm]] = {}
        self._validation = pick_clips(load_split(store.root, "valid"), config.validation_clips)
        resumes = self._state_path.exists()
        # The state holds all weights: a resumed run doesn't need its start model.
        start = config
        if resumes:
            start = dataclasses.replace(
                config, start_model=None, quantizer=dataclasses.replace(config.quantizer, keep=False)
            )
        self.trainer = CodecTrainer(start, self._batch(_LEVELS_STEP))
        self.step = 0
        self.elapsed_s = 0.0
        self._codebooks_at = 0.0  # progress when they began
        if resumes:
            self._resume()
        write_text(self.out / "config.json", config.to_json())
        most = config.model.num_quantizers
        self._counts = [count for count in (2, 4, 8, 16, 32) if count <= most] or [most]
        scores = [f"{name}_{count}" for count in self._counts for name in ("pesq", "stoi", "mel")]
        self._log = CsvLog(self.out / "log.csv", ("step", "elapsed_s", "learning_rate", *WATCHED), self.step)
        self._scores = CsvLog(self.out / "validation.csv", ("step", "elapsed_s", *scores), self.step)

    def progress(self) -> float:
        """How much of the budget is used, 0 to 1: by clock where ``minutes`` is given, else by steps."""
        if self.config.minutes is not None:
            return min(1.0, self.elapsed_s / (60.0 * self.config.minutes))
        return min(1.0, self.step / self.config.steps)

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to 2 % of the peak over each phase: without codebooks, and with them.

        So the encoder has settled before the codebooks are computed from its latents.
        """
        settings, progress = self.config.quantizer, self.progress()
        peak = self.config.learning_rate * min(1.0, (self.step + 1) / self.config.warmup_steps)
        if self.trainer.quantised:
            peak *= settings.learning_rate_share
            share = (progress - self._codebooks_at) / max(1e-9, 1.0 - self._codebooks_at)
        elif settings.start_step is None:
            share = progress / max(1e-9, settings.start_share)
        else:  # a step that the budget may not reach
            share = max(progress, self.step / max(1, settings.start_step))
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, share))))
        return peak * (0.02 + 0.98 * cosine)

    @property
    def validation_clips(self) -> int:
        """Number of held-out clips for validation."""
        return len(self._validation)

    def run(self, until_step: int | None = None, stop_requested: Callable[[], bool] = lambda: False) -> Iterator[Row]:
        """Train to the end of the budget, to ``until_step`` or until asked to stop; yield each step's row.

        The state is always saved at the end, so the next run can resume from it.
        """
        torch.set_num_threads(self.config.threads)
        budget = self.config.steps if self.config.minutes is None else sys.maxsize
        stop = budget if until_step is None else until_step
        averages: Row = {}
        while self.step < stop and self.progress() < 1.0 and not stop_requested():
            before = self._clock()
            if not self.trainer.quantised and self._time_for_codebooks():
                self._start_quantizer()
            rate = self.learning_rate()
            row = self.trainer.step(self.step, self._batch(self.step), rate)
            self.step += 1
            self.elapsed_s += self._clock() - before
            for name, value in row.items():
                averages[name] = averages.get(name, value) * 0.95 + value * 0.05
            row |= {"step": float(self.step), "elapsed_s": self.elapsed_s, "learning_rate": rate}
            if self.step % self.config.log_every == 0:
                self._log.write(averages | {key: row[key] for key in ("step", "elapsed_s", "learning_rate")})
            if self.step % self.config.validate_every == 0:
                self.validate()
            if self.step % self.config.save_every == 0:
                self.save()
            yield row
        self.save()

    def validate(self) -> Row:
        """Score the held-out clips, log it, write samples, redraw the curves."""
        if not self._validation or not self.trainer.quantised:
            return {}
        folder = self.out / "samples" / f"{self.step:07d}"
        self.trainer.model.eval()
        scores = validate(self.trainer.model, self._store, self._validation, self._counts, folder)
        self.trainer.model.train()
        self._scores.write({"step": float(self.step), "elapsed_s": self.elapsed_s, **scores})
        plot_curves(self.out / "log.csv", self.out / "curves.png", PANELS)
        return scores

    def save(self) -> None:
        """Write the state to resume from, and the model folder."""
        values = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "quantised": self.trainer.quantised,
            "codebooks_at": self._codebooks_at,
            "balancer": self.trainer.balancer.state(),
        }
        state.save_state(self._state_path, self.trainer.state(), values)
        self.trainer.model.save_pretrained(self.out / "model")

    def _resume(self) -> None:
        held = TrainConfig.from_json(self.out / "config.json")
        if held.model != self.config.model:
            raise ConfigError(f"{self.out} holds a run of another architecture: give its own config, or another folder")
        tensors, values = state.load_state(self._state_path)
        self.trainer.load_state(tensors)
        self.trainer.balancer.load_state(values["balancer"])
        self.trainer.quantised = bool(values.get("quantised", False))
        self._codebooks_at = float(values.get("codebooks_at", 0.0))
        self.step, self.elapsed_s = int(values["step"]), float(values["elapsed_s"])

    def _batch(self, step: int) -> Tensor:
        """The batch of a step; the next one is drawn meanwhile, as the draw depends on the step's number alone."""
        drawn = self._drawn.pop(step, None) or self._draw(step)
        self._drawn = {step + 1: self._draw(step + 1)}
        return torch.from_numpy(drawn.result())[:, None].to(self._device)

    def _draw(self, step: int) -> Future[Pcm]:
        return self._drawing.submit(self._source.batch, step, self.config.batch_size)

    def _time_for_codebooks(self) -> bool:
        settings = self.config.quantizer
        if settings.start_step is not None:
            return self.step >= settings.start_step
        return self.progress() >= settings.start_share

    def _start_quantizer(self) -> None:
        self._codebooks_at = self.progress()
        first = _LEVELS_STEP + 1
        self.trainer.start_quantizer([self._batch(first + i) for i in range(self.config.quantizer.kmeans_batches)])
