"""The work on a corpus as jobs: what an executor, such as `local`, is given to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from streaming_encodec.corpus.batches import BatchEncoder
from streaming_encodec.corpus.dataset import Dataset
from streaming_encodec.corpus.encoding import Encoding, RecordingEncoder
from streaming_encodec.corpus.formats.base import Format, Line, one_line
from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.corpus.transcode import engine_of, open_model
from streaming_encodec.errors import StreamingEncodecError


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work: recordings that follow each other in the list. In a format of shards, one shard."""

    number: int
    recordings: tuple[Recording, ...]

    def to_json(self) -> str:
        """One line."""
        return json.dumps([self.number, [recording.to_json() for recording in self.recordings]])

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job of `to_json`."""
        number, recordings = json.loads(text)
        return cls(number, tuple(map(Recording.from_json, recordings)))


def cut_into_jobs(recordings: Iterable[Recording], size: int) -> Iterator[Job]:
    """Jobs of so many recordings; the last has fewer. A function of the list and the size alone."""
    left, number = iter(recordings), 0
    while taken := tuple(islice(left, size)):
        yield Job(number, taken)
        number += 1


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What every worker is made from, wherever it runs."""

    folder: Path
    """To write into; the same place on every machine."""
    model: str
    """A name that `open_model` takes, on every machine."""
    bandwidth: float
    engine: str
    format: Format
    dataset: Dataset
    device: str = "cpu"
    batch: int = 16


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a job."""

    number: int
    recordings: int
    """That went in."""
    lines: list[Line] = field(default_factory=list)
    failed: list[Line] = field(default_factory=list)
    """For `failed.jsonl`: recordings that could not be read, or not be written for themselves."""
    error: str = ""
    """Why the job could not be done at all, such as a full disk; it left nothing."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Done:
        """The result of `to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Going:
    """How far all workers of a run are, also within jobs that are not done: recordings, and seconds of sound."""

    recordings: int
    seconds: float


Executor: TypeAlias = Callable[[Iterable[Job], WorkerSettings], Iterator[Done | Going]]
"""Does jobs in any order and on any number of workers, and reports each one when it is done; if it can, also how far
they are. It asks for the next job only when a worker is about to need it."""


class Worker:
    """A model that is loaded once and does one job after the other, on one thread."""

    def __init__(self, settings: WorkerSettings, tell: Callable[[float], None] | None = None) -> None:
        """
        Args:
            tell: called after each recording with its seconds of sound.

        Raises:
            what `open_model`, `find_engine` and `BatchEncoder` raise.
        """
        self._settings, self._tell = settings, tell
        self._encoder: RecordingEncoder | BatchEncoder
        if settings.device != "cpu":
            self._encoder = BatchEncoder(
                settings.model, settings.bandwidth, settings.engine, settings.device, settings.batch
            )
            return
        model = open_model(settings.model)
        if torch := sys.modules.get("torch"):  # not every model needs it
            torch.set_num_threads(1)
        self._encoder = RecordingEncoder(model, settings.bandwidth, engine_of(model, settings.engine))

    def do(self, job: Job) -> Done:
        """Do a job. An error of its files is in the result, and never raised."""
        failed: list[Line] = []

        def fail(recording: Recording, message: str) -> None:
            failed.append(failed_line(job.number if settings.format.by_shard else None, recording, message))

        settings = self._settings
        try:
            encoded = self._counted(self.encode(job, fail))
            lines = settings.format.write(settings.folder, job.number, encoded, settings.dataset, fail)
        except (StreamingEncodecError, OSError) as error:
            return Done(job.number, len(job.recordings), error=one_line(error))
        order = {recording.id: place for place, recording in enumerate(job.recordings)}
        failed.sort(key=lambda line: order[line["id"]])
        if settings.format.by_shard:
            lines = [line | {"failed": len(failed)} for line in lines]
        return Done(job.number, len(job.recordings), lines, failed)

    def _counted(self, encoded: Iterable[tuple[Recording, Encoding]]) -> Iterator[tuple[Recording, Encoding]]:
        for recording, encoding in encoded:
            yield recording, encoding
            if self._tell is not None:
                self._tell(encoding.samples / self._settings.dataset.sample_rate)

    def encode(self, job: Job, fail: Callable[[Recording, str], None]) -> Iterator[tuple[Recording, Encoding]]:
        """The codes of a job's recordings, in their order. Those that cannot be read go to `fail`."""
        encoder = self._encoder
        if isinstance(encoder, BatchEncoder):
            yield from encoder.encode(job.recordings, fail)
            return
        try:
            for recording in job.recordings:
                try:
                    encoding = encoder.encode(recording)
                except (StreamingEncodecError, OSError) as error:
                    fail(recording, one_line(error))
                    continue
                yield recording, encoding
        finally:
            encoder.close()


def failed_line(number: int | None, recording: Recording, message: str) -> Line:
    """A line of `failed.jsonl`, with the shard where there is one."""
    line: Line = {} if number is None else {"shard": number}
    line |= {"id": recording.id, "audio": recording.name}
    if recording.start_s or recording.duration_s is not None:
        line |= {"start": recording.start_s, "duration": recording.duration_s}
    return line | {"error": message}
