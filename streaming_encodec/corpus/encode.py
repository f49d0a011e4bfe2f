"""A list of recordings to a folder of codes: what is there is kept, what is missing is made, the rest is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from streaming_encodec.audio.files.folder_lock import FolderLock
from streaming_encodec.audio.files.targets import check_folder
from streaming_encodec.corpus.batches import BatchEncoder
from streaming_encodec.corpus.catalog import Catalog, take_stock
from streaming_encodec.corpus.dataset import DATASET_NAME, Dataset
from streaming_encodec.corpus.formats.base import Format, Line, with_fields
from streaming_encodec.corpus.formats.find import find_format
from streaming_encodec.corpus.jobs import Executor, Going, Job, WorkerSettings, cut_into_jobs
from streaming_encodec.corpus.journal import Journal, part_suffix
from streaming_encodec.corpus.local import run_in_processes
from streaming_encodec.corpus.sources.base import Source
from streaming_encodec.corpus.sources.find import find_source
from streaming_encodec.corpus.transcode import choose_bandwidth, engine_of, open_model
from streaming_encodec.errors import ConfigError, FileFormatError
from streaming_encodec.model.checkpoints.named import short_name
from streaming_encodec.model.find import fingerprint

if TYPE_CHECKING:
    from streaming_encodec.model.config import EncodecConfig

SHARD_SIZE = 1000
_GROUP = 256
"""Recordings that a device gets at once, in a format without shards."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        recordings, of_recordings: gone through by this run, and all that it has to do.
        seconds, of_seconds: of sound, the latter None if the list does not say how long its recordings are.
    """

    recordings: int
    of_recordings: int
    seconds: float
    of_seconds: float | None


@dataclass(slots=True)
class EncodedCorpus:
    """What a run did.

    Attributes:
        arithmetic: what computed the codes; None for the layers themselves.
        already_there: recordings that a run before this one encoded.
        skipped: AppleDouble files, which hold no sound.
        recordings, seconds, size_bytes: written by this run.
        failed: the lines of `failed.jsonl`, of earlier runs too where a shard is done.
    """

    arithmetic: str | None
    skipped: list[Path]
    already_there: int = 0
    recordings: int = 0
    seconds: float = 0.0
    size_bytes: int = 0
    failed: list[Line] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is known of a corpus before its first code: made once, used to encode and to verify."""

    source: Source
    catalog: Catalog
    shard_size: int
    part: tuple[int, int]
    settings: WorkerSettings

    def mine(self) -> Iterator[tuple[str, Job]]:
        """Keys and jobs of this part: a shard's number, or a recording's id with the recording alone."""
        number, count = self.part
        if self.settings.format.by_shard:
            for job in cut_into_jobs(self.source, self.shard_size):
                if job.number % count == number:
                    yield str(job.number), job
            return
        for job in cut_into_jobs(self.source, 1):
            if job.number % count == number:
                yield job.recordings[0].id, job


def plan_corpus(
    source: Path,
    target: Path,
    model: str,
    *,
    bandwidth: float | None = None,
    engine: str = "auto",
    output: str | Format = "ecdc",
    shard_size: int = SHARD_SIZE,
    part: tuple[int, int] = (0, 1),
    device: str = "cpu",
    batch: int = 16,
) -> Plan:
    """Look at everything that a run needs, and write nothing.

    Args:
        source: a folder of sound files or of tars, a tar, or a list of recordings (`sources/`).
        target: the folder to write, made where it is missing.
        model: a name that `open_model` takes; models of every kind.
        bandwidth: kbps, one of the model's; None is the one nearest to 6.
        engine: what computes; of no effect on a model of segments.
        output: a format, or its name.
        shard_size: recordings of a shard, in a format that has shards.
        part: I of N: the shards I, I + N, … (recordings, in a format without shards).
        device: `cpu`, or a device of torch; then `batch` streams are computed at once.

    Raises:
        ConfigError: no such source, no recording in it, two of one id, a list that cannot be understood.
        BandwidthError, StreamError, CheckpointError, MissingExtraError: as `encode_file`.
        FileFormatError: the source cannot be read, or the target not written.
    """
    check_folder(target)
    if not shard_size >= 1:
        raise ConfigError(f"a shard has at least one recording, not {shard_size}")
    recordings = find_source(source)
    writer = find_format(output) if isinstance(output, str) else output
    catalog = take_stock(recordings)
    # Errors that concern every file are raised once, here, and a model from the hub is downloaded once.
    opened = open_model(model)
    kbps = choose_bandwidth(opened.config, bandwidth)
    if device == "cpu":
        computing = engine_of(opened, engine)
        arithmetic = computing.arithmetic if computing else None
    else:
        arithmetic = BatchEncoder(model, kbps, engine, device, batch).arithmetic
    dataset = _dataset(opened.config, short_name(model), fingerprint(opened), kbps, arithmetic, writer.name)
    dataset |= {} if device == "cpu" else {"device": device.partition(":")[0], "batch": batch}
    if writer.by_shard:
        dataset |= {
            "recordings": catalog.recordings,
            "sha256": catalog.sha256,
            "shard_size": shard_size,
            "shards": -(-catalog.recordings // shard_size),
            "columns": catalog.columns,
        }
    settings = WorkerSettings(target, model, kbps, engine, writer, Dataset(**dataset), device, batch)
    return Plan(recordings, catalog, shard_size, part, settings)


def encode_corpus(
    plan: Plan,
    *,
    again: bool = False,
    retry: bool = False,
    execute: Executor = run_in_processes,
    progress: Callable[[Progress], None] | None = None,
) -> EncodedCorpus:
    """Encode what is not there. One run at a time may write a part of a folder.

    A run that was interrupted is resumed. A recording that cannot be read costs its line in `failed.jsonl`; a full disk
    ends the run, and all that was complete stays.

    Args:
        again: make everything again.
        retry: make those shards again of which some recordings failed. Without shards these are always tried again.
        execute: where the work is done.
        progress: called once at the beginning, then about each second or after each job.

    Raises:
        ConfigError: the folder holds codes of another kind, or of other recordings.
        FileFormatError, FolderError: the target cannot be written, or another run writes into it.
    """
    settings, target = plan.settings, plan.settings.folder
    suffix = part_suffix(plan.part)
    with ExitStack() as stack:
        lock = f".streaming-encodec{suffix}.lock"
        stack.enter_context(FolderLock(target, lock))
        for other in () if suffix else sorted(target.glob(".streaming-encodec-*-of-*.lock")):
            with FolderLock(target, other.name):
                pass
        settings.dataset.describe(target)
        journal = stack.enter_context(Journal(target, plan.part, settings.format.by_shard))
        have = _what_is_there(plan, journal, again, retry)
        result = EncodedCorpus(settings.dataset.arithmetic, plan.catalog.skipped)
        result.arithmetic = None if result.arithmetic == "layers" else result.arithmetic
        todo = have.missing
        result.already_there = have.recordings - todo
        gone, state = 0, Progress(0, todo, 0.0, _share(plan.catalog, todo))
        if progress is not None:
            progress(state)
        if todo or not have.is_tidy:
            journal.begin(have.keys)
        results = execute(_jobs(plan, have.keys), settings) if todo else iter(())
        with closing(cast(Any, results)) if hasattr(results, "close") else ExitStack():
            for done in results:
                if isinstance(done, Going):
                    most = min(max(state.recordings, done.recordings), todo)
                    state = Progress(most, todo, max(state.seconds, done.seconds), state.of_seconds)
                    if progress is not None:
                        progress(state)
                    continue
                if done.error:
                    raise FileFormatError(done.error)
                journal.add(done.lines, done.failed)
                samples = sum(line["samples"] for line in done.lines)
                result.recordings += done.recordings - len(done.failed)
                result.seconds += samples / settings.dataset.sample_rate
                result.size_bytes += sum(line["bytes"] for line in done.lines)
                gone += done.recordings
                most = max(state.recordings, gone)
                state = Progress(most, todo, max(state.seconds, result.seconds), state.of_seconds)
                if progress is not None:
                    progress(state)
        if todo or not have.is_tidy:
            journal.finish(dict.fromkeys(key for key, _ in plan.mine()))
        result.failed = [line for lines in journal.failed.values() for line in lines]
    return result


@dataclass(slots=True)
class _There:
    """What is there of a part: the recordings' `keys`, and how many are missing. `is_tidy`: by the journal."""

    keys: set[str] = field(default_factory=set)
    recordings: int = 0
    missing: int = 0
    is_tidy: bool = True


def _what_is_there(plan: Plan, journal: Journal, again: bool, retry: bool) -> _There:
    settings, there = plan.settings, _There()
    folder, writer, dataset = settings.folder, settings.format, settings.dataset
    stale = _leftovers(plan)
    order = list(journal.done)
    seen: list[str] = []
    for key, job in plan.mine():
        there.recordings += len(job.recordings)
        for name in writer.files_of(key):
            for part in stale.pop(folder / name, ()):
                part.unlink(missing_ok=True)
        line = None if again or (job.recordings[0].problem and not writer.by_shard) else journal.done.get(key)
        found = None if again else _found(writer, folder, key, dataset, line, job)
        if found is not None and retry and found.get("failed"):
            found = None
        if found is None:
            there.missing += len(job.recordings)
            continue
        there.is_tidy &= found == journal.done.get(key)
        journal.done[key] = found
        there.keys.add(key)
        seen.append(key)
    there.is_tidy &= journal.failed.keys() <= there.keys and (plan.part[1] > 1 or order == seen)
    return there


def _found(writer: Format, folder: Path, key: str, dataset: Dataset, line: Line | None, job: Job) -> Line | None:
    recording = job.recordings[0]
    if writer.by_shard:
        return writer.found(folder, key, dataset, line)
    if recording.problem:
        return None
    found = writer.found(folder, key, dataset, line)
    return None if found is None else with_fields(found, recording)


def _jobs(plan: Plan, have: set[str]) -> Iterator[Job]:
    missing = (job for key, job in plan.mine() if key not in have)
    if plan.settings.format.by_shard or plan.settings.device == "cpu":
        return missing
    return cut_into_jobs((recording for job in missing for recording in job.recordings), _GROUP)


def _leftovers(plan: Plan) -> dict[Path, list[Path]]:
    """Temporary files of runs that were killed, by the file that each would have become."""
    folder, found = plan.settings.folder, dict[Path, list[Path]]()
    for part in folder.glob(".*.part") if plan.settings.format.by_shard else folder.rglob(".*.part"):
        found.setdefault(part.with_name(part.name[1:].rsplit(".", 2)[0]), []).append(part)
    suffix = part_suffix(plan.part)
    own = [f"done{suffix}.jsonl", f"failed{suffix}.jsonl", *([] if suffix else [DATASET_NAME])]
    for name in own:
        for part in found.pop(folder / name, ()):
            part.unlink(missing_ok=True)
    return found


def _share(catalog: Catalog, recordings: int) -> float | None:
    """About how many seconds so many of all recordings have."""
    return None if catalog.seconds is None else catalog.seconds * recordings / catalog.recordings


def _dataset(
    config: EncodecConfig, name: str, digest: str, kbps: float, arithmetic: str | None, output: str
) -> dict[str, Any]:
    return {
        "format": output,
        "model": name,
        "fingerprint": digest,
        "sample_rate": config.sampling_rate,
        "channels": config.audio_channels,
        "hop_length": config.hop_length,
        "codebooks": config.num_codebooks_for(kbps),
        "codebook_size": config.codebook_size,
        "model_codebooks": config.num_quantizers,
        "bandwidth_kbps": kbps,
        "start": "exact" if config.streams_by_sample else "segments",
        "segment_samples": config.chunk_length,
        "stride_samples": config.chunk_stride,
        "normalize": config.normalize,
        "arithmetic": arithmetic or "layers",
    }
