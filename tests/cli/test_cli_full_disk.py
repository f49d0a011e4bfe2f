"""Every command that writes, on a disk that fills up: a whole result, or exit code 1 and all as it was before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from cli_kit import Run, save_random
from disk_kit import PAGE_BYTES, SmallDisk, disk
from ecdc_kit import read_ecdc_header
from safetensors.numpy import load_file
from sound_kit import encoded, sound

from streaming_encodec.engines.onnx.codec import OrtEncoder
from streaming_encodec.model.encodec import EncodecModel

__all__ = ["disk"]

SIZES = 20
SAMPLES = 60_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_random(tmp_path / "tiny-24khz", num_filters=2, hidden_size=8)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.wav").write_bytes(encoded(sound(SAMPLES, 1, number), "WAV", "PCM_16"))
    return folder


def is_sound(path: Path) -> bool:
    return len(soundfile.read(path)[0]) == SAMPLES


def is_ecdc(path: Path) -> bool:
    return read_ecdc_header(path).samples == SAMPLES and path.stat().st_size > 1000


def is_export(path: Path) -> bool:
    return OrtEncoder(path, None).push(sound(640)[:, 0]).shape[1] == 2


def is_corpus(path: Path) -> bool:
    return len(list(path.glob("*.ecdc"))) == 6 and all(map(is_ecdc, path.glob("*.ecdc")))


Command = Callable[[Path, Path, Path], tuple[object, ...]]
COMMANDS: dict[str, tuple[str, Command, Callable[[Path], bool]]] = {
    "stream to WAV": ("a.wav", lambda out, s, m: ("stream", s / "0.wav", out, "-m", m), is_sound),
    "stream to FLAC": ("a.flac", lambda out, s, m: ("stream", s / "0.wav", out, "-m", m), is_sound),
    "stream to MP3": ("a.mp3", lambda out, s, m: ("stream", s / "0.wav", out, "-m", m), is_sound),
    "encode": ("a.ecdc", lambda out, s, m: ("encode", s / "0.wav", out, "-m", m, "-b", 12), is_ecdc),
    "decode": ("a.ogg", lambda out, s, m: ("decode", s / "a.ecdc", out, "-m", m), is_sound),
    "export": ("codec", lambda out, s, m: ("export", m, out), is_export),
    "corpus": ("corpus", lambda out, s, m: ("corpus", s, out, "-m", m, "-j", 1, "--again"), is_corpus),
    "token": ("key", lambda out, s, m: ("token", "room", "--new-key", out), lambda p: len(p.read_text()) > 60),
}


def told_and_untouched(
    disk: SmallDisk, path: Path, attempt: Callable[[], str | None], is_whole: Callable[[Path], bool], each: bool
) -> None:
    """Try at so many sizes around what the whole needs. `attempt` gives the error, or None where it succeeded."""
    assert attempt() is None
    files = [path] if path.is_file() else list(path.iterdir())
    pages = sum(-(-file.stat().st_size // PAGE_BYTES) for file in files)
    before = disk.files()
    begin = max(0, pages - SIZES // 2)
    succeeded = 0
    for free in range(begin, begin + SIZES):
        disk.leave(free)
        error = attempt()
        if error is None:
            succeeded += 1
            assert is_whole(path), free
            continue
        assert "No space left on device" in error, error
        left = disk.files()
        if each:  # each file of a corpus is written for itself: the new ones are as whole as the old
            assert left.keys() == before.keys()
            assert is_whole(path)
        else:
            assert left == before, (free, left.keys())
    assert succeeded, "there was never room"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gives_all_or_nothing(run: Run, disk: SmallDisk, model: Path, sounds: Path, name: str) -> None:
    target, command, is_whole = COMMANDS[name]
    path = disk.folder / target
    assert run("encode", sounds / "0.wav", sounds / "a.ecdc", "-m", model).code == 0

    def attempt() -> str | None:
        if name == "token":
            path.unlink(missing_ok=True)
        result = run(*command(path, sounds, model))
        return None if result.code == 0 else result.err

    if name == "token":
        disk.leave(0)
        assert "No space left" in (attempt() or "")
        assert disk.files() == {}
        return
    told_and_untouched(disk, path, attempt, is_whole, each=name == "corpus")


@pytest.mark.slow
def test_a_saved_model_is_all_or_nothing(disk: SmallDisk, model: Path) -> None:
    path = disk.folder / "model"
    loaded = EncodecModel.from_pretrained(model)

    def attempt() -> str | None:
        try:
            loaded.save_pretrained(path)
        except Exception as error:
            return str(error)
        return None

    told_and_untouched(disk, path, attempt, lambda p: bool(load_file(p / "model.safetensors")), each=False)
