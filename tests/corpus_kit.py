"""Small corpora, and ways to encode and to look at them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from streaming_encodec.corpus.encode import EncodedCorpus, encode_corpus, plan_corpus
from streaming_encodec.corpus.jobs import Done, Job, Worker, WorkerSettings

RATE = 24_000


def make_sounds(folder: Path, count: int, most_samples: int = 3000) -> Path:
    """So many short WAVs of noise, each of its own length."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        sound = 0.1 * rng.standard_normal(int(rng.integers(most_samples // 20, most_samples)))
        soundfile.write(folder / f"{number:05d}.wav", sound, RATE, "PCM_16")
    return folder


def wav_bytes(samples: int, seed: int = 0) -> bytes:
    """A WAV of noise."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(seed).standard_normal(samples), RATE, "PCM_16", format="WAV")
    return buffer.getvalue()


def make_tar(path: Path, files: dict[str, bytes | tarfile.TarInfo], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar with these members; a `TarInfo` is one without content."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def run_here(jobs: Iterable[Job], settings: WorkerSettings) -> Iterator[Done]:
    """The executor that most tests need: this process, the last job first."""
    worker = Worker(settings)
    for job in reversed(list(jobs)):
        yield worker.do(job)


def encode(source: Path, target: Path, model: Path | str, **options: Any) -> EncodedCorpus:
    """Plan and encode, here unless `execute` says otherwise."""
    running = {name: options.pop(name) for name in ("again", "retry", "execute", "progress") if name in options}
    return encode_corpus(plan_corpus(source, target, str(model), **options), **({"execute": run_here} | running))


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def lines(path: Path) -> list[dict[str, Any]]:
    """A `.jsonl`."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
