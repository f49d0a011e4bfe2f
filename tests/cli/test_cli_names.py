"""Names that are no text, streams that have few letters, names as long as can be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import Run, noise

PROGRAM = "from streaming_encodec.cli.app import main; main()"
LETTERS = "sängerin-→-日本-😀"


def program(
    *arguments: bytes | str | Path, encoding: str = "utf-8", folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The program with stdout and stderr of this encoding, as a redirected Windows has cp1252."""
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, env=environment, cwd=folder, timeout=120, check=False)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_every_letter_on_every_stdout(mono_model: Path, tmp_path: Path, encoding: str) -> None:
    source, target = noise(tmp_path / f"{LETTERS}.wav", 4800), tmp_path / f"{LETTERS}.ecdc"
    model = ("-m", mono_model)
    for command in (
        ("encode", source, target, *model, "--json"),
        ("stream", source, tmp_path / f"out {LETTERS}.wav", *model),
        ("info", target),
        ("info", source, "--json"),
        ("encode", "--help"),
    ):
        done = program(*command, encoding=encoding)
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode(encoding)
        assert said
        if "--json" in command:
            assert str(source) in json.loads(said).values()
    done = program("info", tmp_path / f"missing {LETTERS}", encoding=encoding)
    assert done.returncode == 1
    assert done.stderr.decode(encoding).startswith("error: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_names_that_are_no_text(mono_model: Path, tmp_path: Path, encoding: str) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    noise(sounds / "a.wav", 4800)
    name = b"caf\xe9.wav"
    os.rename(sounds / "a.wav", os.fsencode(sounds) + b"/" + name)
    model = ("-m", str(mono_model))
    for command in (
        (b"encode", name, b"\xe9.ecdc", *model, "--json"),
        (b"decode", b"\xe9.ecdc", b"\xea.flac", *model),
        (b"info", name, "--json"),
        (b"info", b"\xe9.ecdc"),
        (b"corpus", b".", b"\xec", *model, "-j", "1", "--json"),
    ):
        done = program(*command, encoding=encoding, folder=sounds)
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode(encoding)
        assert "--json" not in command or json.loads(said)
    assert {b"\xe9.ecdc", b"\xea.flac", b"\xec"} <= set(os.listdir(os.fsencode(sounds)))
    done = program(b"info", b"\xff.wav", encoding=encoding, folder=sounds)
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False)
    done = program(b"export", str(mono_model), b"\xed", encoding=encoding, folder=sounds)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="names are counted otherwise there")
def test_names_as_long_as_can_be(run: Run, mono_model: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "a.wav", 4800)
    for stem in ("a" * 250, "ä" * 125, "\U0001f600" * 62):
        for command, ending in (("encode", ".ecdc"), ("stream", ".wav")):
            target = tmp_path / (stem + ending)
            assert run(command, source, target, "-m", mono_model).code == 0
            assert target.stat().st_size
    run("encode", source, tmp_path / ("a" * 260 + ".ecdc"), "-m", mono_model).fails_with("name")
