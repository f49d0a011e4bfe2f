"""A corpus: models of both kinds, executors and formats."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cli_kit import noise

from streaming_encodec.corpus.folder import encode_folder
from streaming_encodec.corpus.formats import EcdcFiles, Job
from streaming_encodec.corpus.jobs import Done, Worker, WorkerSettings
from streaming_encodec.corpus.transcode import encode_file
from streaming_encodec.errors import FolderError


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    noise(folder / "a.wav", 30_000, 48_000, 2)
    noise(folder / "deep" / "b.flac", 10_001, 24_000)
    noise(folder / "empty.wav", 0)
    (folder / "broken.wav").write_bytes(b"no sound")
    return folder


def run_here(jobs: Sequence[Job], settings: WorkerSettings) -> Iterator[Done]:
    """The executor that a test needs: this process, the last job first."""
    worker = Worker(settings)
    for job in reversed(jobs):
        yield worker.do(job)


@pytest.mark.parametrize("kind", ["mono_model", "segment_model"])
def test_every_executor_and_encode_file_write_the_same(
    kind: str, request: pytest.FixtureRequest, sounds: Path, tmp_path: Path
) -> None:
    model = str(request.getfixturevalue(kind))
    seen: list[tuple[int, int]] = []
    processes = encode_folder(sounds, tmp_path / "processes", model, progress=lambda *now: seen.append(now))
    here = encode_folder(sounds, tmp_path / "here", model, execute=run_here)
    for done in (processes, here):
        assert done.files == 3
        assert [path.name for path in done.failed] == ["broken.wav"]
        assert (done.seconds, done.already_there) == (pytest.approx(30_000 / 48_000 + 10_001 / 24_000, abs=1e-3), 0)
    assert seen == [(number, 4) for number in range(5)]
    for name in ("a", "deep/b", "empty"):
        written = (tmp_path / "processes" / name).with_suffix(".ecdc").read_bytes()
        assert (tmp_path / "here" / name).with_suffix(".ecdc").read_bytes() == written
        source = (sounds / name).with_suffix(".flac" if name == "deep/b" else ".wav")
        encode_file(source, tmp_path / "alone.ecdc", model)
        assert (tmp_path / "alone.ecdc").read_bytes() == written


def test_what_is_there_is_left_out_unless_it_is_cut_off(segment_model: Path, sounds: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", str(segment_model)
    encode_folder(sounds, out, model, execute=run_here)
    whole = (out / "a.ecdc").read_bytes()
    (out / "a.ecdc").write_bytes(whole[:-1])
    again = encode_folder(sounds, out, model, execute=run_here)
    assert (again.files, again.already_there) == (1, 2)
    assert (out / "a.ecdc").read_bytes() == whole
    assert encode_folder(sounds, out, model, execute=run_here, again=True).files == 3


def test_two_runs_into_one_folder_are_refused(mono_model: Path, sounds: Path, tmp_path: Path) -> None:
    def run_twice(jobs: Sequence[Job], settings: WorkerSettings) -> Iterator[Done]:
        with pytest.raises(FolderError, match="in use by another run"):
            encode_folder(sounds, tmp_path / "out", str(mono_model), execute=run_here)
        return run_here(jobs, settings)

    assert encode_folder(sounds, tmp_path / "out", str(mono_model), execute=run_twice).files == 3


def test_another_format_is_planned_asked_and_written(mono_model: Path, sounds: Path, tmp_path: Path) -> None:
    class Sizes(EcdcFiles):
        """Beside each file its size in words."""

        def write(self, job: Job, codec: object) -> tuple[float, int]:
            seconds, size = super().write(job, codec)  # type: ignore[arg-type]
            job.target.with_suffix(".txt").write_text(str(size))
            return seconds, size

    encode_folder(sounds, tmp_path / "out", str(mono_model), output=Sizes(), execute=run_here)
    assert (tmp_path / "out" / "a.txt").read_text() == str((tmp_path / "out" / "a.ecdc").stat().st_size)


def test_a_worker_that_is_killed_is_one_error(mono_model: Path, sounds: Path, tmp_path: Path) -> None:
    class Deadly(EcdcFiles):
        """Ends the process that unpickles it, as the system does when memory is short."""

        def __reduce__(self) -> tuple[object, tuple[int]]:
            return os._exit, (1,)

    with pytest.raises(FolderError, match="goes on where this stopped"):
        encode_folder(sounds, tmp_path / "out", str(mono_model), output=Deadly())
    assert encode_folder(sounds, tmp_path / "out", str(mono_model), execute=run_here).files == 3
