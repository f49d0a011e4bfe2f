"""A sample of what was written, read back: its codes against a second encoding, its sound against the source."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from streaming_encodec.audio.files.sound import rechunk
from streaming_encodec.corpus.codec import FRAMES_PER_STEP, make_decoder
from streaming_encodec.corpus.encoding import Encoding, Sounds
from streaming_encodec.corpus.formats.base import one_line
from streaming_encodec.corpus.jobs import Job, Worker, cut_into_jobs
from streaming_encodec.corpus.transcode import engine_of, open_model
from streaming_encodec.errors import FileFormatError, StreamingEncodecError
from streaming_encodec.wire.ecdc import EcdcBlock

if TYPE_CHECKING:
    from streaming_encodec.corpus.dataset import Dataset
    from streaming_encodec.corpus.encode import Plan
    from streaming_encodec.corpus.recordings import Recording
    from streaming_encodec.model.find import CodecModel
    from streaming_encodec.stepping.engine import Engine
    from streaming_encodec.types import Pcm


@dataclass(slots=True)
class Verified:
    """What `verify_corpus` found.

    Attributes:
        equal: recordings whose codes are those of a second encoding, and whose sound is as long as the source's.
        wrong: ids of all others, with what is wrong.
        snr_db: of the decoded sound against the source, lowest first.
    """

    equal: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    snr_db: list[float] = field(default_factory=list)


def verify_corpus(plan: Plan, sample: int, failed: set[str], rng: random.Random) -> Verified:
    """Read some recordings from the files that hold them, encode their sources again, and decode what was read.

    Args:
        plan: as for `encode_corpus`.
        sample: how many recordings, chosen by `rng` among those of the part.
        failed: ids that are not there, and why is known.

    Raises:
        CheckpointError, StreamError: as `encode_corpus`.
    """
    settings, result = plan.settings, Verified()
    model = open_model(settings.model)
    engine = engine_of(model, "auto" if settings.device != "cpu" else settings.engine)
    worker, sounds = Worker(settings), Sounds(model.config)
    for job in _sample(plan, sample, failed, rng):
        wanted = {recording.id: recording for recording in job.recordings}
        try:
            written = settings.format.read(settings.folder, job.number, set(wanted), settings.dataset)
        except (StreamingEncodecError, OSError) as error:
            result.wrong |= dict.fromkeys(wanted, one_line(error))
            continue
        unread: dict[str, str] = {}
        for recording, encoding in worker.encode(job, lambda bad, why: unread.update({bad.id: why})):  # noqa: B023
            problem = _compare(written.get(recording.id), encoding)
            if not problem:
                try:
                    snr_db = _decoded_snr_db(encoding, recording, sounds, model, engine, settings.dataset)
                    result.snr_db.append(snr_db)
                    result.equal += 1
                    continue
                except (StreamingEncodecError, OSError) as error:
                    problem = one_line(error)
            result.wrong[recording.id] = problem
        result.wrong |= {name: f"cannot be read any more: {why}" for name, why in unread.items()}
    sounds.close()
    result.snr_db.sort()
    return result


def _sample(plan: Plan, sample: int, failed: set[str], rng: random.Random) -> Iterator[Job]:
    """Jobs with the chosen recordings alone. Two passes, and in memory nothing but the chosen."""
    number, count = plan.part
    size = plan.shard_size if plan.settings.format.by_shard else 1
    mine = sum(1 for _ in _good(plan, failed))
    chosen = set(rng.sample(range(mine), min(sample, mine)))
    ids = {recording.id for place, recording in enumerate(_good(plan, failed)) if place in chosen}
    for job in cut_into_jobs(plan.source, size):
        taken = tuple(recording for recording in job.recordings if recording.id in ids and not recording.problem)
        if taken and job.number % count == number:
            yield Job(job.number, taken)


def _good(plan: Plan, failed: set[str]) -> Iterator[Recording]:
    for _, job in plan.mine():
        yield from (each for each in job.recordings if not each.problem and each.id not in failed)


def _compare(written: Encoding | None, expected: Encoding) -> str:
    if written is None:
        return "is not in its file"
    if written.codes.shape != expected.codes.shape or not np.array_equal(written.codes, expected.codes):
        return "its codes are not those of its sound: the source has changed, or the file is damaged"
    if written.samples not in (expected.samples, -1):
        return f"says {written.samples} samples, the source has {expected.samples}"
    if (written.scales is None) != (expected.scales is None):
        return "its scales are missing"
    if written.scales is not None and not np.array_equal(written.scales, np.asarray(expected.scales)):
        return "its scales are not those of its sound"
    return ""


def _decoded_snr_db(
    encoding: Encoding,
    recording: Recording,
    sounds: Sounds,
    model: CodecModel,
    engine: Engine | None,
    dataset: Dataset,
) -> float:
    """Raises FileFormatError where the decoded sound is shorter than the source or not finite."""
    decoder = make_decoder(model, "exact", engine)

    def decoded() -> Iterator[Pcm]:
        for piece in _pieces(encoding, dataset):
            yield decoder.push(piece)
        yield decoder.flush()

    second = dataset.sample_rate
    signal = noise = 0.0
    sound = rechunk(decoded(), second)
    for block in rechunk(sounds.blocks(recording), second):
        other = next(sound, block[:, :0])[:, : block.shape[1]]
        if other.shape != block.shape or not np.isfinite(other).all():
            raise FileFormatError("what it decodes to is shorter than its sound, or no sound")
        signal += float(np.square(block, dtype=np.float64).sum())
        noise += float(np.square(block - other, dtype=np.float64).sum())
    return 10 * math.log10(signal / noise) if signal and noise else math.inf


def _pieces(encoding: Encoding, dataset: Dataset) -> Iterator[EcdcBlock]:
    codes, at = encoding.codes.astype(np.int64), 0
    if dataset.segment_samples is None:
        for at in range(0, codes.shape[1], FRAMES_PER_STEP):
            yield EcdcBlock(codes[:, at : at + FRAMES_PER_STEP], None)
        return
    for place, samples in enumerate(dataset.layout.segments(encoding.samples)):
        frames = dataset.layout.frames_of(samples)
        scale = None if encoding.scales is None else float(encoding.scales[place])
        yield EcdcBlock(codes[:, at : at + frames], scale)
        at += frames
