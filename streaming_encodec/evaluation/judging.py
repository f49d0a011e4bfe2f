"""Applies the metrics in this process or in worker processes, since ViSQOL and Whisper take seconds a clip."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from streaming_encodec.errors import ConfigError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.metric import Metric, Score
from streaming_encodec.evaluation.metrics import MetricOptions, MetricSet, make_metrics
from streaming_encodec.types import Pcm

Scores = dict[str, Score | None]


class Judge(Protocol):
    """Gives each clip's scores by metric, in the clips' order."""

    def __call__(self, sounds: Sequence[Pcm], names: Sequence[str]) -> Iterator[Scores]:
        """``sounds``: the decoded clips; ``names``: the metrics to apply."""
        ...


class SerialJudge:
    """One clip after the other, in this process."""

    def __init__(self, clips: Sequence[Clip], metrics: MetricSet) -> None:
        self._clips = clips
        self._metrics = metrics.metrics

    def __call__(self, sounds: Sequence[Pcm], names: Sequence[str]) -> Iterator[Scores]:
        for clip, sound in zip(self._clips, sounds, strict=True):
            yield _judge(self._metrics, clip, sound, names)


class PoolJudge:
    """Clips go to worker processes, each with its own metrics; a context manager.

    Scores equal those of :class:`SerialJudge`. Workers make the metrics by family, so only those that
    ``make_metrics`` knows can be used.

    Raises:
        ConfigError: fewer than two workers.
    """

    def __init__(self, clips: Sequence[Clip], metrics: MetricSet, workers: int) -> None:
        if workers < 2:
            raise ConfigError(f"a pool needs two workers or more, not {workers}; one is SerialJudge's work")
        # A forked process would inherit torch's locks.
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(tuple(clips), metrics.families, metrics.options),
        )

    def __call__(self, sounds: Sequence[Pcm], names: Sequence[str]) -> Iterator[Scores]:
        work = [self._pool.submit(_work, place, sound, tuple(names)) for place, sound in enumerate(sounds)]
        for future in work:
            yield future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Worker:
    """A worker's metrics and clips between calls: a pool's workers can only keep them in a module variable."""

    clips: tuple[Clip, ...] = ()
    metrics: tuple[Metric, ...] = ()


def _start_worker(clips: tuple[Clip, ...], families: tuple[str, ...], options: MetricOptions) -> None:
    import torch

    torch.set_num_threads(1)
    _Worker.clips = clips
    _Worker.metrics = make_metrics(families, options).metrics


def _work(place: int, sound: Pcm, names: tuple[str, ...]) -> Scores:
    return _judge(_Worker.metrics, _Worker.clips[place], sound, names)


def _judge(metrics: Sequence[Metric], clip: Clip, sound: Pcm, names: Sequence[str]) -> Scores:
    return {metric.name: metric(clip, sound) for metric in metrics if metric.name in names}
