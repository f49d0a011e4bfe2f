"""The work on a corpus as jobs: what an executor, such as `local`, is given to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from streaming_encodec.corpus.formats import Codec, Format, Job
from streaming_encodec.corpus.transcode import engine_of, open_model
from streaming_encodec.errors import StreamingEncodecError
from streaming_encodec.model.checkpoints.named import short_name


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker is made from, wherever it runs."""

    model: str
    """A name that `open_model` takes, on every machine."""
    bandwidth: float
    engine: str
    format: Format


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a job: a file, or an error message."""

    job: Job
    seconds: float = 0.0
    size_bytes: int = 0
    error: str = ""


Executor: TypeAlias = Callable[[Sequence[Job], WorkerSettings], Iterator[Done]]
"""Does jobs in any order and on any number of workers, and tells of each as it is done."""


class Worker:
    """A model that is loaded once and does one job after the other, on one thread."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Raises what `open_model` and `find_engine` raise."""
        model = open_model(settings.model)
        if torch := sys.modules.get("torch"):  # not every model needs it
            torch.set_num_threads(1)
        engine = engine_of(model, settings.engine) or settings.engine
        self._format = settings.format
        self._codec = Codec(model, short_name(settings.model), settings.bandwidth, engine)

    def do(self, job: Job) -> Done:
        """Do a job. An error of its files is in the result, and never raised."""
        try:
            seconds, size_bytes = self._format.write(job, self._codec)
        except (StreamingEncodecError, OSError) as error:
            return Done(job, error=" ".join(str(error).split()))
        return Done(job, seconds, size_bytes)
