"""A corpus: models of both kinds, executors, resumption, parts, and all that may be in the way."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cli_kit import Run, noise, save_random
from corpus_kit import content, encode, lines, make_sounds, run_here
from disk_kit import small_disk

from streaming_encodec.corpus.formats.find import FORMATS
from streaming_encodec.corpus.formats.single import EcdcFiles
from streaming_encodec.corpus.jobs import Done, Job, WorkerSettings
from streaming_encodec.corpus.local import run_in_processes
from streaming_encodec.corpus.transcode import encode_file
from streaming_encodec.errors import ConfigError, FileFormatError, FolderError


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    noise(folder / "a.wav", 30_000, 48_000, 2)
    noise(folder / "deep" / "b.flac", 10_001, 24_000)
    noise(folder / "empty.wav", 0)
    (folder / "broken.wav").write_bytes(b"no sound")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("models") / "tiny-24khz", num_filters=2, hidden_size=8)


@pytest.mark.parametrize("kind", ["mono_model", "segment_model"])
def test_every_executor_and_encode_file_write_the_same(
    kind: str, request: pytest.FixtureRequest, sounds: Path, tmp_path: Path
) -> None:
    model = str(request.getfixturevalue(kind))
    seen: list[tuple[int, int]] = []
    processes = encode(
        sounds,
        tmp_path / "processes",
        model,
        execute=partial(run_in_processes, processes=2),
        progress=lambda now: seen.append((now.recordings, now.of_recordings)),
    )
    here = encode(sounds, tmp_path / "here", model)
    for done in (processes, here):
        assert done.recordings == 3
        assert [line["id"] for line in done.failed] == ["broken"]
        assert (done.seconds, done.already_there) == (pytest.approx(30_000 / 48_000 + 10_001 / 24_000, abs=1e-3), 0)
    assert (seen[0], seen[-1]) == ((0, 4), (4, 4))
    assert seen == sorted(seen)
    assert content(tmp_path / "processes") == content(tmp_path / "here")
    for name in ("a", "deep/b", "empty"):
        source = (sounds / name).with_suffix(".flac" if name == "deep/b" else ".wav")
        encode_file(source, tmp_path / "alone.ecdc", model)
        assert (tmp_path / "here" / f"{name}.ecdc").read_bytes() == (tmp_path / "alone.ecdc").read_bytes()


@pytest.mark.parametrize("output", ["wds", "parquet"])
@pytest.mark.parametrize("kind", ["mono_model", "segment_model"])
def test_shards_do_not_depend_on_who_writes_them(
    kind: str, output: str, request: pytest.FixtureRequest, sounds: Path, tmp_path: Path
) -> None:
    model = request.getfixturevalue(kind)
    processes = partial(run_in_processes, processes=2)
    encode(sounds, tmp_path / "processes", model, output=output, shard_size=2, execute=processes)
    encode(sounds, tmp_path / "here", model, output=output, shard_size=2)
    assert content(tmp_path / "processes") == content(tmp_path / "here")
    done = lines(tmp_path / "here" / "done.jsonl")
    assert [(line["shard"], line["recordings"], line["failed"]) for line in done] == [(0, 1, 1), (1, 2, 0)]
    (failed,) = lines(tmp_path / "here" / "failed.jsonl")
    assert (failed["shard"], failed["id"]) == (0, "broken")


def test_codes_do_not_depend_on_the_shards(tiny: Path, tmp_path: Path) -> None:
    sounds = make_sounds(tmp_path / "sounds", 12)
    plans = {"one": 1, "five": 5, "all": 100}
    for name, size in plans.items():
        encode(sounds, tmp_path / name, tiny, output="wds", shard_size=size)
    encode(sounds, tmp_path / "single", tiny, output="npy")
    from streaming_encodec.corpus.encode import plan_corpus

    found = {}
    for name, size in plans.items():
        plan = plan_corpus(sounds, tmp_path / name, str(tiny), output="wds", shard_size=size)
        found[name] = {
            recording.id: plan.settings.format.read(tmp_path / name, job.number, {recording.id}, plan.settings.dataset)[
                recording.id
            ].codes.tolist()
            for _, job in plan.mine()
            for recording in job.recordings
        }
    assert len(found["one"]) == 12
    assert found["one"] == found["five"] == found["all"]


def test_what_is_there_is_left_out_unless_it_is_cut_off(segment_model: Path, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encode(sounds, out, segment_model)
    whole = content(out)
    (out / "a.ecdc").write_bytes(whole["a.ecdc"][:-1])
    again = encode(sounds, out, segment_model)
    assert (again.recordings, again.already_there) == (1, 2)
    assert content(out) == whole
    assert encode(sounds, out, segment_model, again=True).recordings == 3
    assert content(out) == whole
    noise(sounds / "c.wav", 1000)
    assert encode(sounds, out, segment_model).recordings == 1


@pytest.mark.parametrize("output", FORMATS)
def test_a_run_that_was_stopped_anywhere_is_resumed_to_the_same_bytes(tiny: Path, tmp_path: Path, output: str) -> None:
    sounds = make_sounds(tmp_path / "sounds", 10)
    (sounds / "00004.wav").write_bytes(b"no sound")
    encode(sounds, tmp_path / "whole", tiny, output=output, shard_size=3)
    expected = content(tmp_path / "whole")

    def stop_after(count: int, jobs: Iterable[Job], settings: WorkerSettings) -> Iterator[Done]:
        for number, done in enumerate(run_here(jobs, settings)):
            if number == count:  # the job is done, and nobody was told
                raise KeyboardInterrupt
            yield done

    out = tmp_path / "out"
    for count in (0, 1, 1):
        with pytest.raises(KeyboardInterrupt):
            encode(sounds, out, tiny, output=output, shard_size=3, execute=partial(stop_after, count))
        for name in ("done.jsonl", "failed.jsonl"):  # as a machine that dies leaves them
            (out / name).write_bytes((out / name).read_bytes() + b'{"shard": 0, "fi')
        stem = "codes-000002." + {"wds": "tar", "parquet": "parquet"}.get(output, "")
        name = stem if output in ("wds", "parquet") else f"00001.{output}"
        (out / f".{name}.0123abcd.part").write_bytes(b"half")
    done = encode(sounds, out, tiny, output=output, shard_size=3)
    assert [line["id"] for line in done.failed] == ["00004"]
    assert content(out) == expected
    again = encode(sounds, out, tiny, output=output, shard_size=3)
    assert (again.recordings, len(again.failed)) == (0, 1)
    assert content(out) == expected


@pytest.mark.parametrize("output", FORMATS)
def test_parts_make_the_whole(tiny: Path, tmp_path: Path, output: str) -> None:
    sounds, whole, parts = make_sounds(tmp_path / "sounds", 11), tmp_path / "whole", tmp_path / "parts"
    encode(sounds, whole, tiny, output=output, shard_size=2)
    total = sum(encode(sounds, parts, tiny, output=output, shard_size=2, part=(n, 3)).recordings for n in range(3))
    assert total == 11
    expected, made = content(whole), content(parts)
    assert {name: data for name, data in made.items() if not name.endswith(".jsonl")} == {
        name: data for name, data in expected.items() if not name.endswith(".jsonl")
    }
    done = [line for number in range(3) for line in lines(parts / f"done-{number}-of-3.jsonl")]
    assert sorted(map(json.dumps, done)) == sorted(map(json.dumps, lines(whole / "done.jsonl")))
    assert encode(sounds, parts, tiny, output=output, shard_size=2).already_there == 11


def test_failed_recordings_of_a_shard_are_tried_again_when_asked(tiny: Path, tmp_path: Path) -> None:
    sounds, out = make_sounds(tmp_path / "sounds", 6), tmp_path / "out"
    kept = (sounds / "00003.wav").read_bytes()
    (sounds / "00003.wav").write_bytes(b"not yet there")
    encode(sounds, out, tiny, output="parquet", shard_size=2)
    (sounds / "00003.wav").write_bytes(kept)
    assert encode(sounds, out, tiny, output="parquet", shard_size=2).recordings == 0
    retried = encode(sounds, out, tiny, output="parquet", shard_size=2, retry=True)
    assert (retried.recordings, retried.failed) == (2, [])
    encode(sounds, tmp_path / "at once", tiny, output="parquet", shard_size=2)
    assert content(out) == content(tmp_path / "at once")


def test_a_folder_holds_codes_of_one_kind_and_one_list(tiny: Path, mono_model: Path, tmp_path: Path) -> None:
    sounds, out = make_sounds(tmp_path / "sounds", 3), tmp_path / "out"
    encode(sounds, out, tiny, output="wds", bandwidth=3.0)
    before = content(out)
    with pytest.raises(ConfigError, match=r"bandwidth_kbps is 3.0 there, 6.0 here"):
        encode(sounds, out, tiny, output="wds", bandwidth=6.0)
    with pytest.raises(ConfigError, match="model is 'tiny-24khz' there"):
        encode(sounds, out, mono_model, output="wds", bandwidth=3.0)
    with pytest.raises(ConfigError, match="format is 'wds' there"):
        encode(sounds, out, tiny, bandwidth=3.0)
    with pytest.raises(ConfigError, match="shard_size is 1000 there"):
        encode(sounds, out, tiny, output="wds", bandwidth=3.0, shard_size=5)
    (sounds / "00001.wav").unlink()
    with pytest.raises(ConfigError, match="another list of recordings"):
        encode(sounds, out, tiny, output="wds", bandwidth=3.0)
    assert content(out) == before


def test_two_runs_into_one_folder_are_refused(tiny: Path, tmp_path: Path) -> None:
    sounds, out = make_sounds(tmp_path / "sounds", 4), tmp_path / "out"

    def run_twice(part: tuple[int, int], jobs: Iterable[Job], settings: WorkerSettings) -> Iterator[Done]:
        with pytest.raises(FolderError, match="in use by another run"):
            encode(sounds, out, tiny, part=part)
        return run_here(jobs, settings)

    assert encode(sounds, out, tiny, execute=partial(run_twice, (0, 1)), part=(0, 1)).recordings == 4
    # A part, and the whole while a part is at work.
    for other in ((1, 2), (0, 1)):
        done = encode(sounds, out, tiny, execute=partial(run_twice, other), part=(1, 2), again=True)
        assert done.recordings == 2
    assert encode(sounds, out, tiny, part=(0, 2)).already_there == 2


def test_a_worker_that_is_killed_is_one_error(tiny: Path, tmp_path: Path) -> None:
    class Deadly(EcdcFiles):
        """Ends the process that unpickles it, as the system does when memory is short."""

        def __reduce__(self) -> tuple[object, tuple[int]]:
            return os._exit, (1,)

    sounds = make_sounds(tmp_path / "sounds", 3)
    with pytest.raises(FolderError, match="goes on where this stopped"):
        encode(sounds, tmp_path / "out", tiny, output=Deadly(), execute=run_in_processes)
    assert encode(sounds, tmp_path / "out", tiny).recordings == 3


@pytest.mark.parametrize("output", FORMATS)
def test_a_full_disk_ends_the_run_and_costs_nothing_that_is_there(tiny: Path, tmp_path: Path, output: str) -> None:
    sounds = make_sounds(tmp_path / "sounds", 30, 20_000)
    encode(sounds, tmp_path / "whole", tiny, output=output, shard_size=5, bandwidth=24.0)
    expected = content(tmp_path / "whole")
    with small_disk(tmp_path / "disk") as disk:
        out, errors = disk.folder / "out", list[str]()
        for pages in range(1, 60, 6):
            disk.leave(pages)
            try:
                encode(sounds, out, tiny, output=output, shard_size=5, bandwidth=24.0)
            except (FileFormatError, FolderError) as error:
                errors.append(str(error))
            whole = {name: data for name, data in disk.files().items() if not name.endswith(".jsonl")}
            for name, data in whole.items():
                assert data == expected[name.removeprefix("out/")], name
        assert len(errors) > 2
        assert all(os.strerror(errno.ENOSPC) in error for error in errors), errors
        disk.leave(4000)
        encode(sounds, out, tiny, output=output, shard_size=5, bandwidth=24.0)
        assert content(out) == expected


def test_a_format_of_another_kind_is_planned_asked_and_written(tiny: Path, tmp_path: Path) -> None:
    class Sizes(EcdcFiles):
        """Beside each file its size in words."""

        def write(self, folder: Path, *arguments: object) -> list[dict[str, object]]:
            written = super().write(folder, *arguments)  # type: ignore[arg-type]
            for line in written:
                (folder / line["file"]).with_suffix(".txt").write_text(str(line["bytes"]))
            return written

    encode(make_sounds(tmp_path / "sounds", 2), tmp_path / "out", tiny, output=Sizes())
    out = tmp_path / "out"
    assert (out / "00001.txt").read_text() == str((out / "00001.ecdc").stat().st_size)


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0", "1/", "/2", "0/1000001", "²/3"])
def test_a_part_that_is_none_is_refused(run: Run, tiny: Path, tmp_path: Path, text: str) -> None:
    sounds = make_sounds(tmp_path / "sounds", 1)
    run("corpus", sounds, tmp_path / "out", "-m", tiny, f"--shard={text}").fails_with("such as 0/16 and 15/16")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize("output", FORMATS)
def test_names_that_are_no_text_are_kept_apart_and_verified(run: Run, tiny: Path, tmp_path: Path, output: str) -> None:
    sounds = make_sounds(tmp_path / "sounds", 2)
    os.rename(sounds / "00000.wav", os.fsencode(sounds) + b"/caf\xe9.wav")
    os.rename(sounds / "00001.wav", os.fsencode(sounds) + b"/caf\xe8.wav")
    done = run("corpus", sounds, tmp_path / "out", "-m", tiny, "-f", output, "-j", 1, "--verify", 2, "--json")
    assert (done.code, done.json["verified"]) == (0, 2)
