"""What a command may write: never its input, never a file of another kind, and what cannot be written is told first."""

import os
import shutil
from pathlib import Path

import pytest
from cli_kit import Run, noise

from streaming_encodec.cli.shared import calling
from streaming_encodec.corpus.sources.folder import find_sounds


@pytest.fixture
def only_copy(tmp_path: Path) -> Path:
    path = noise(tmp_path / "only_copy.wav", 4800)
    (tmp_path / "link.wav").symlink_to(path)
    (tmp_path / "hard.wav").hardlink_to(path)
    return path


@pytest.fixture
def nobody_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        pytest.fail("somebody was called, or a model loaded, before the file was looked at")

    for module in ("transcode", "encode"):
        monkeypatch.setattr(f"streaming_encodec.corpus.{module}.open_model", never)
    for module in ("listen", "talk", "demo", "export", "evaluate"):
        monkeypatch.setattr(f"streaming_encodec.cli.commands.{module}.load_model", never)
    monkeypatch.setattr(calling, "on_interrupt", never)


def commands(source: object, target: object) -> list[tuple[object, ...]]:
    """All commands that read one sound file and write another."""
    return [
        ("stream", source, target),
        ("demo", "--clip", source, "--record", target),
        ("talk", "room", "--clip", source, "--record", target),
    ]


@pytest.mark.usefixtures("nobody_is_called")
def test_the_input_is_never_written(run: Run, only_copy: Path, tmp_path: Path) -> None:
    before = only_copy.read_bytes()
    for name in (only_copy, tmp_path / "link.wav", tmp_path / "hard.wav", tmp_path / "nix" / ".." / "only_copy.wav"):
        for command in commands(only_copy, name):
            if "nix" in str(name):
                (tmp_path / "nix").mkdir(exist_ok=True)
            run(*command).fails_with("is the input")
    # Whatever an .ecdc is called, it is read; so its name may be that of the sound to write.
    run("decode", only_copy, only_copy).fails_with("is the input")
    assert only_copy.read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.usefixtures("nobody_is_called")
def test_files_of_another_kind_are_never_written(run: Run, only_copy: Path, tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("precious")
    for target in (only_copy, precious, tmp_path / "no_ending", tmp_path / "new.wav"):
        run("encode", tmp_path / "hard.wav", target).fails_with("use .ecdc")
    for target in (precious, tmp_path / "a.ecdc", tmp_path / "no_ending"):
        for command in (*commands(only_copy, target), ("decode", tmp_path / "a.ecdc", target), ("listen", target)):
            run(*command).fails_with("use .wav or .flac")
    assert precious.read_text() == "precious"


@pytest.mark.usefixtures("nobody_is_called")
def test_what_cannot_be_written_is_told_before_anything_else(run: Run, only_copy: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "out.wav"
    for command in (*commands(only_copy, missing), ("listen", missing), ("decode", tmp_path / "a.ecdc", missing)):
        run(*command).fails_with("does not exist; make it first")
    run("encode", only_copy, missing.with_suffix(".ecdc")).fails_with("does not exist; make it first")
    for command in (
        ("export", "voice-24khz", only_copy),
        ("evaluate", tmp_path, "--out", only_copy / "deeper"),
        ("corpus", tmp_path, only_copy),
        ("train", "--out", only_copy),
        ("train", "--build-data", "--data", only_copy),
    ):
        run(*command).fails_with("is no folder")


def test_folders_that_are_read_are_not_written(run: Run, mono_model: Path, tmp_path: Path) -> None:
    shutil.copytree(mono_model, tmp_path / "run" / "model")
    before = sorted(os.listdir(tmp_path / "run" / "model"))
    run("export", tmp_path / "run" / "model", tmp_path / "run" / "model").fails_with("is the input")
    run("train", "--start-model", tmp_path / "run" / "model", "--out", tmp_path / "run").fails_with("is the input")
    run("evaluate", tmp_path / "run", "--out", tmp_path / "run", "--save-audio").fails_with("is the input")
    assert sorted(os.listdir(tmp_path / "run" / "model")) == before


def test_corpus_makes_again_what_a_dying_machine_left(run: Run, mono_model: Path, tmp_path: Path) -> None:
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    for name in "abcd":
        noise(sounds / f"{name}.wav", 24_000)
    command = ("corpus", sounds, out, "-m", mono_model, "-j", 1, "--json")
    assert run(*command).json["files"] == 4
    whole = (out / "a.ecdc").read_bytes()
    (out / "a.ecdc").write_bytes(b"")
    (out / "b.ecdc").write_bytes(whole[:-1])
    (out / "c.ecdc").write_bytes(bytes(len(whole)))
    facts = run(*command).json
    assert (facts["files"], facts["already_there"]) == (3, 1)
    assert {(out / f"{name}.ecdc").read_bytes() for name in "abcd"} == {whole}


def test_corpus_never_writes_onto_a_recording(run: Run, mono_model: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "a.wav", 4800)
    before = source.read_bytes()
    (tmp_path / "a.ecdc").symlink_to(source)
    facts = run("corpus", tmp_path, tmp_path, "-m", mono_model, "-j", 1, "--json")
    assert facts.code == 1
    assert "is the input" in facts.err
    assert source.read_bytes() == before


def test_corpus_passes_over_the_notes_of_macos(run: Run, mono_model: Path, tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    noise(sounds / "a.wav", 4800)
    noise(sounds / "._sound.wav", 4800)  # a name of that kind, and sound all the same
    (sounds / "._a.wav").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100))
    result = run("corpus", sounds, tmp_path / "out", "-m", mono_model, "-j", 1, "--json")
    assert result.code == 0
    assert (result.json["files"], result.json["failed"]) == (2, {})
    assert result.json["skipped"] == [str(sounds / "._a.wav")]
    assert "._a.wav" in result.err
    assert len(find_sounds(sounds)[0]) == 2
